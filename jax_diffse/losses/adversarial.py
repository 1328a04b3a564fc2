"""Least-squares adversarial losses (Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, eq. 9).

Per example and unreduced: judgements `[B, P]` of P patches -> `[B]`.
"""

import jax
import jax.numpy as jnp


def discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
    """1/2 mean (D(x) - 1)^2 + 1/2 mean D(G)^2."""
    return 0.5 * (jnp.mean((real - 1)**2, axis=1) + jnp.mean(fake**2, axis=1))


def generator(fake: jax.Array) -> jax.Array:
    """1/2 mean (D(G) - 1)^2."""
    return 0.5 * jnp.mean((fake - 1)**2, axis=1)


def accuracy(real: jax.Array, fake: jax.Array) -> jax.Array:
    """The share of patches on the right side of 1/2."""
    return 0.5 * (jnp.mean((real > 0.5).astype(jnp.float32), axis=1)
                  + jnp.mean((fake < 0.5).astype(jnp.float32), axis=1))
