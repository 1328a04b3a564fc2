"""Statistics that normalisation layers share."""

import jax.numpy as jnp
import numpy as np

from jax_diffse.networks import layers


def test_frame_means_are_over_real_frames():
    x = np.random.default_rng(0).standard_normal((2, 5, 3, 4)).astype(np.float32)
    x[1, 2:] = np.nan
    (mean,), count = layers.frame_means([jnp.asarray(x)], jnp.array([5, 2]), None)
    np.testing.assert_allclose(mean, np.concatenate([x[0], x[1, :2]]).reshape(-1, 4).mean(0), rtol=1e-5)
    assert count == 7 * 3
