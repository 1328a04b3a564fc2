"""Samplers of Gaussian targets, whose samples are Gaussian: their mean and variance without Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.diffusion.schedule import Schedule


def denoiser(schedule: Schedule, mean: float, variance: float):
    """E[eps | x_t] where x_0 has that mean and variance; the levels are recognised by their step."""
    scale, std = np.sqrt(schedule.alpha_bar), np.sqrt(1 - schedule.alpha_bar)
    gain = std / (schedule.alpha_bar * variance + std**2)

    def denoise(x, t):
        s = jnp.argmin(jnp.abs(jnp.asarray(schedule.t, jnp.float32) - t[0]))
        return jnp.asarray(gain, jnp.float32)[s] * (x - jnp.asarray(scale * mean, jnp.float32)[s])

    return denoise


def moments(visit, num_levels: int, per_level: int, shape: tuple[int, ...] = ()):
    """Mean and variance of what a sampler with an affine denoiser visits, exactly: both `[V, *shape]`.

    Samples are affine in all noise. Example 0 has none and is the mean; every other has one draw of 1, and its distance
    from example 0, squared, is what this draw adds to the variance. Numbers of a sample (`shape`) must not mix.

    Args:
      visit: `draw -> [V, B, *shape]`, run as one program; `draw(level, which)` is `[B, *shape]`.
      num_levels: of the schedule.
      per_level: draws of a level.
    """
    size = 1 + per_level * num_levels

    def draw(level, which):
        one = jax.nn.one_hot(1 + per_level * level + which, size)
        return jnp.broadcast_to(one.reshape(-1, *(1,) * len(shape)), (size, *shape))

    x = np.asarray(jax.jit(lambda: visit(draw))(), np.float64)
    return x[:, 0], np.sum((x[:, 1:] - x[:, :1])**2, axis=1)
