"""The loop over levels: its order, its numbers, and the trajectory."""

import jax.numpy as jnp
import numpy as np

from jax_diffse.diffusion.scan import over_levels


def test_steps_run_from_the_noisiest_level_down():
    def step(x, level):
        new = 10 * x + level['value']
        return new, (x, level['index'])

    coefficients = {'value': np.array([1.0, 2.0, 3.0])}
    x, before, index = over_levels(step, jnp.zeros(1), coefficients, trajectory=True)
    np.testing.assert_array_equal(x, [321])
    np.testing.assert_array_equal(before, [[0], [3], [32]])
    np.testing.assert_array_equal(index, [2, 1, 0])
    np.testing.assert_array_equal(over_levels(step, jnp.zeros(1), coefficients, trajectory=False), [321])
