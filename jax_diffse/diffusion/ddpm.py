"""Denoising diffusion (Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020) with guidance.

Samplers work on arrays of any shape `[B, ...]`. `denoise(x, t) -> eps_hat` is the network as a function of its noisy
input `[B, ...]` and step `[B]` alone; it is called exactly once per level of the schedule.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.diffusion.scan import over_levels
from jax_diffse.diffusion.schedule import Schedule

Denoise = Callable[[jax.Array, jax.Array], jax.Array]
Draw = Callable[[jax.Array, int], jax.Array]  # (level, which of its draws) -> standard normal [B, ...]

STEP, GUIDANCE, START = range(3)  # the draws of a level

VARIANCES = ('posterior', 'beta')
GUIDANCES = ('none', 'released', 'x0', 'gradient')


@dataclasses.dataclass(frozen=True)
class Guidance:
    """How samples are pulled towards a condition c, except at the last step.

    - 'none'.
    - 'released': x_{s-1} <- (1 - w) x_{s-1} + w c_s, as in the authors' code (w = 0.5). The condition is diffused to
      level s although the sample is at s - 1 already, so the level that the network gets is not the true one.
    - 'x0': the estimate of x_0 becomes (1 - w) x_0 + w c before the posterior step: the same interpolation with one
      common noise, so the sample stays at its level.
    - 'gradient': x_{s-1} <- (1 - k) x_{s-1} + k c_{s-1}, k = 2 w sigma_s^2: a step along the gradient of
      -|x - c|^2 (the paper's form; Tai et al., AAAI 2023). The paper gives no value for w, its zeta; k is at most 1.
    """

    mode: str = 'none'
    weight: float = 0.5  # w

    def __post_init__(self):
        if self.mode not in GUIDANCES:
            raise ValueError(f'guidance must be one of {GUIDANCES}, got {self.mode!r}')
        if self.weight < 0 or self.mode in ('released', 'x0') and self.weight > 1:
            raise ValueError('guidance_weight: expected 0 to 1 for released and x0, 0 or more for gradient, got '
                             f'{self.weight:g}')

    def check(self, schedule: Schedule) -> None:
        """Raises a ValueError if 'gradient' would step beyond the condition."""
        largest = 2 * self.weight * np.max(schedule.sigma)**2
        if self.mode == 'gradient' and largest > 1:
            raise ValueError(f'guidance_weight: {self.weight:g} is too large for gradient guidance: 2 w sigma^2 '
                             f'reaches {largest:.2f} with {len(schedule)} steps, expected at most 1')


@dataclasses.dataclass(frozen=True)
class Ancestral:
    """How a reverse step is made.

    Attributes:
      guidance: how samples are pulled towards the condition.
      variance: 'posterior', or 'beta', the other extreme (Ho et al., section 3.2); 0 at the last step.
      clip: bound of the estimates of x_0.

    Raises:
      ValueError: an unknown variance.
    """

    guidance: Guidance = Guidance()
    variance: str = 'posterior'
    clip: float | None = None

    def __post_init__(self):
        if self.variance not in VARIANCES:
            raise ValueError(f'variance must be one of {VARIANCES}, got {self.variance!r}')


def diffuse(x: jax.Array, noise: jax.Array, alpha_bar: jax.Array) -> jax.Array:
    """sqrt(alpha_bar) x + sqrt(1 - alpha_bar) noise (Ho et al., eq. 4); `alpha_bar` is a scalar or `[B]`."""
    alpha_bar = jnp.reshape(alpha_bar, (-1,) + (1,) * (x.ndim - 1))
    return jnp.sqrt(alpha_bar) * x + jnp.sqrt(1 - alpha_bar) * noise


def draws(keys: jax.Array, shape: tuple[int, ...]) -> Draw:
    """Standard normal draws of `shape` per example, `keys` `[B]`: each depends on its own key alone."""

    def draw(level, which):
        def one(key):
            return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, level), which), shape)

        return jax.vmap(one)(keys)

    return draw


def frame_draws(keys: jax.Array, shape: tuple[int, ...]) -> Draw:
    """Like `draws`, for shapes `[T, ...]`: every frame has its own key, so more frames do not change the others."""

    def draw(level, which):
        def one(key):
            key = jax.random.fold_in(jax.random.fold_in(key, level), which)
            of_frames = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(shape[0]))
            return jax.vmap(lambda key: jax.random.normal(key, shape[1:]))(of_frames)

        return jax.vmap(one)(keys)

    return draw


def start(condition: jax.Array, schedule: Schedule, draw: Draw, *, from_condition: bool = True) -> jax.Array:
    """Where sampling starts: the condition diffused to the noisiest level (released code), or N(0, I) (paper)."""
    noise = draw(jnp.int32(len(schedule) - 1), START)
    return diffuse(condition, noise, jnp.float32(schedule.alpha_bar[-1])) if from_condition else noise


def sample(denoise: Denoise, x: jax.Array, schedule: Schedule, draw: Draw, *, rule: Ancestral = Ancestral(),
           condition: jax.Array | None = None, trajectory: bool = False):
    """Ancestral sampling (Ho et al., algorithm 2) in one `lax.scan`.

    Args:
      denoise: estimates the noise.
      x: `[B, ...]` at the noisiest level.
      schedule: S levels; `denoise` is called S times.
      draw: noise; see `draws`.
      rule: of the steps.
      condition: `[B, ...]`, what guidance pulls to.
      trajectory: also return what every step computed.

    Returns:
      x_0 `[B, ...]`; with `trajectory` a tuple of it, the samples after each step and the network's outputs, both
      `[S, B, ...]` in the order of sampling.

    Raises:
      ValueError: the guidance does not fit the schedule, or lacks a condition.
    """
    guidance, clip = rule.guidance, rule.clip
    guidance.check(schedule)
    if guidance.mode != 'none' and condition is None:
        raise ValueError(f'{guidance.mode} guidance needs a condition')

    def step(x, level):
        s = level['index']
        eps = denoise(x, jnp.full(x.shape[0], level['t']))
        new = (x - level['eps'] * eps) * level['scale']
        x_0 = (x - level['std'] * eps) / level['mean']
        if clip is not None:
            bounded = jnp.clip(x_0, -clip, clip)
            new, x_0 = new + level['x_0'] * (bounded - x_0), bounded
        if guidance.mode == 'x0':
            new = new + level['pull'] * level['x_0'] * (condition - x_0)
        new = new + level['sigma'] * draw(s, STEP)
        if guidance.mode in ('released', 'gradient'):
            aim = diffuse(condition, draw(s, GUIDANCE), level['aim'])
            new = new + level['pull'] * (aim - new)
        return new, (new, eps)

    return over_levels(step, x, _coefficients(schedule, rule), trajectory)


def _coefficients(schedule: Schedule, rule: Ancestral) -> dict[str, np.ndarray]:
    """Numbers of each level, `[S]`."""
    alpha_bar, previous, guidance = schedule.alpha_bar, schedule.alpha_bar_previous, rule.guidance
    pull = guidance.weight * (2 * schedule.sigma**2 if guidance.mode == 'gradient' else np.ones(len(schedule)))
    return {
        't': schedule.t,
        'eps': schedule.beta / np.sqrt(1 - alpha_bar),
        'scale': 1 / np.sqrt(schedule.alpha),
        'sigma': (schedule.sigma if rule.variance == 'posterior' else
                  np.sqrt(schedule.beta) * (np.arange(len(schedule)) > 0)),
        'mean': np.sqrt(alpha_bar),
        'std': np.sqrt(1 - alpha_bar),
        'x_0': np.sqrt(previous) * schedule.beta / (1 - alpha_bar),  # weight of x_0 in the posterior mean (eq. 7)
        'aim': alpha_bar if guidance.mode == 'released' else previous,
        'pull': np.where(np.arange(len(schedule)) > 0, pull, 0.0),
    }
