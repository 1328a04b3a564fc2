"""Least-squares adversarial losses, against Mao et al. (ICCV 2017)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.losses import adversarial


def test_values_by_hand():
    real, fake = jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([[0.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(adversarial.discriminator(real, fake), [0.5 * (0.5 + 2.0), 0.0])
    np.testing.assert_allclose(adversarial.generator(fake), [0.5 * 1.0, 0.5])
    np.testing.assert_allclose(adversarial.accuracy(real, fake), [0.5, 1.0])


def test_the_best_discriminator_is_the_share_of_real_data():
    """Their equation 12 with a = 0 and b = 1: D*(x) = p_data(x) / (p_data(x) + p_generated(x))."""
    data, generated = jnp.array([0.5, 0.3, 0.2]), jnp.array([0.1, 0.3, 0.6])

    def expected_loss(d):
        """Of every outcome, weighted by its probability."""
        of_real, of_fake = adversarial.discriminator(d[:, None], jnp.zeros((3, 1))), adversarial.discriminator(
            jnp.ones((3, 1)), d[:, None])
        return jnp.sum(data * of_real + generated * of_fake)

    d = jnp.zeros(3)
    for _ in range(200):
        d = d - 0.5 * jax.grad(expected_loss)(d)
    np.testing.assert_allclose(d, data / (data + generated), atol=1e-5)


def test_a_generator_that_fools_is_done():
    assert adversarial.generator(jnp.ones((1, 4))) == pytest.approx(0.0)
    assert float(jax.grad(lambda d: adversarial.generator(d)[0])(jnp.zeros((1, 4)))[0, 0]) == pytest.approx(-0.25)
