"""Regression losses on spectrograms, per example and unreduced: each returns `[B]`, the mean over real entries.

A batch's loss weighted by real frames is then the mean over all real entries of the batch, as in the released code.
"""

import jax
import jax.numpy as jnp

from jax_diffse.spectral import magnitude, mask_frames


def _mean(error: jax.Array, num_frames: jax.Array | None) -> jax.Array:
    """Mean of `[B, T, ...]` over the real frames of each example -> `[B]`."""
    total = jnp.sum(mask_frames(error, num_frames), axis=tuple(range(1, error.ndim)))
    frames = error.shape[1] if num_frames is None else jnp.maximum(num_frames, 1)
    return total / (frames * (error[0].size // error.shape[1]))


def complex_mse(estimate: jax.Array, target: jax.Array, num_frames: jax.Array | None = None) -> jax.Array:
    """Mean squared error of real and imaginary parts; `[B, T, F, 2]` -> `[B]`."""
    return _mean((estimate - target)**2, num_frames)


def magnitude_mse(estimate: jax.Array, target: jax.Array, num_frames: jax.Array | None = None) -> jax.Array:
    """Mean squared error of magnitudes; `[B, T, F, 2]` -> `[B]`."""
    return _mean((magnitude(estimate) - magnitude(target))**2, num_frames)


def ri_mag(estimate: jax.Array, target: jax.Array, num_frames: jax.Array | None = None) -> jax.Array:
    """RI + Mag loss of DR-DiffuSE (Tai et al., AAAI 2023; weights 0.5 and 0.5); `[B, T, F, 2]` -> `[B]`."""
    return 0.5 * (complex_mse(estimate, target, num_frames) + magnitude_mse(estimate, target, num_frames))


def mae(estimate: jax.Array, target: jax.Array, num_frames: jax.Array | None = None) -> jax.Array:
    """Mean absolute error; `[B, T, ...]` -> `[B]`."""
    return _mean(jnp.abs(estimate - target), num_frames)


def huber(estimate: jax.Array, target: jax.Array, num_frames: jax.Array | None = None, delta: float = 1.0) -> jax.Array:
    """Huber's loss (1964): half the squared error, linear beyond `delta`; `[B, T, ...]` -> `[B]`."""
    error = jnp.abs(estimate - target)
    within = jnp.minimum(error, delta)
    return _mean(within * (error - 0.5 * within), num_frames)
