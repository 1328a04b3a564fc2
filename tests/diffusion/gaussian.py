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


def marginal(process, t, noisy: float, mean: float, variance: float):
    """Mean and variance of x_t where x_0 is complex normal with that mean of each part and total variance."""
    of_clean, of_noisy = process.weights(t)
    return of_clean * mean + of_noisy * noisy, of_clean**2 * variance + process.std(t)**2


def score(process, noisy: float, mean: float, variance: float):
    """The exact score of such states: the network that score matching aims at."""
    def at(x, t):
        centre, spread = marginal(process, t[0], noisy, mean, variance)
        return (centre - x) / spread

    return at


def estimate(process, noisy: float, mean: float, variance: float):
    """E[x_0 | x_t]: the network that data prediction aims at."""
    def at(x, t):
        centre, spread = marginal(process, t[0], noisy, mean, variance)
        gain = process.weights(t[0])[0] * variance / jnp.maximum(spread, 1e-30)  # spread 0: x is the centre
        return mean + gain * (x - centre)

    return at


def velocity(path, noisy: float, mean: float, variance: float):
    """E[dx/dt | x_t]: the network that flow matching aims at."""
    def at(x, t):
        centre, spread = marginal(path, t[0], noisy, mean, variance)
        together = path.std(t[0]) * (path.sigma_max - path.sigma_min) - (1 - t[0]) * variance
        return noisy - mean + together / spread * (x - centre)

    return at
