"""Denoising diffusion implicit models (Song, Meng & Ermon, ICLR 2021)."""

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.diffusion.ddpm import STEP, Denoise, Draw
from jax_diffse.diffusion.scan import over_levels
from jax_diffse.diffusion.schedule import Schedule


def sample(denoise: Denoise, x: jax.Array, schedule: Schedule, draw: Draw, *, eta: float = 0.0,
           clip: float | None = None, trajectory: bool = False):
    """Samples in one `lax.scan`, deterministically with eta 0, with the noise of ancestral sampling with eta 1.

    Args:
      denoise: estimates the noise; called once per level.
      x: `[B, ...]`, standard normal.
      schedule: S levels.
      draw: noise, for eta above 0; see `ddpm.draws`.
      eta: share of the ancestral sampler's standard deviation (eq. 16).
      clip: bound of the estimates of x_0; the noise then follows from the clipped estimate.
      trajectory: also return what every step computed.

    Returns:
      x_0 `[B, ...]`; with `trajectory` a tuple of it, the samples after each step and the estimates of x_0, both
      `[S, B, ...]` in the order of sampling.

    Raises:
      ValueError: eta is not between 0 and 1.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f'eta must be between 0 and 1, got {eta:g}')

    def step(x, level):
        eps = denoise(x, jnp.full(x.shape[0], level['t']))
        x_0 = (x - level['std'] * eps) / level['mean']
        if clip is not None:
            x_0 = jnp.clip(x_0, -clip, clip)
            eps = (x - level['mean'] * x_0) / level['std']
        new = level['below'] * x_0 + level['direction'] * eps  # eq. 12
        if eta:
            new = new + level['sigma'] * draw(level['index'], STEP)
        return new, (new, x_0)

    return over_levels(step, x, _coefficients(schedule, eta), trajectory)


def _coefficients(schedule: Schedule, eta: float) -> dict[str, np.ndarray]:
    """Numbers of each level, `[S]`."""
    below, sigma = schedule.alpha_bar_previous, eta * schedule.sigma
    return {'t': schedule.t, 'mean': np.sqrt(schedule.alpha_bar), 'std': np.sqrt(1 - schedule.alpha_bar),
            'below': np.sqrt(below), 'direction': np.sqrt(np.maximum(1 - below - sigma**2, 0.0)), 'sigma': sigma}
