"""Posterior sampling with a diffusion prior: DDRM (Kawar et al., NeurIPS 2022) as Diffiner uses it to refine enhancers.

Sawata et al., "Diffiner: A Versatile Diffusion-based Generative Refiner for Speech Enhancement", Interspeech 2023,
algorithm 1 and the released code. The observation y is the noisy spectrogram. Its noise has, bin by bin, the standard
deviation sigma_hat, the distance between the noisy spectrogram and what a preceding enhancer made of it. In variance-
exploding terms, sample / sqrt(alpha_bar), a step from one level to the next, of standard deviation sigma, draws

    far from the data, sigma > sigma_hat:  (1 - eta_b) x_0 + eta_b y + sqrt(sigma^2 - eta_b^2 sigma_hat^2) z
    elsewhere:                             by the rule (`Diffiner`, `DiffinerPlus`),

x_0 being the prior's estimate. Below the last level sigma is 0, and the result is x_0 itself.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.diffusion.ddpm import Denoise, Draw
from jax_diffse.diffusion.scan import over_levels
from jax_diffse.diffusion.schedule import Schedule

FAR, NEAR, MASKED, START = range(4)  # the draws of a level
SAFE = 1e-5  # added to sigma_hat where it divides, in the spectrogram's units (released code)
SIGMA_HATS = ('modulus', 'component')


def noise_map(noisy: jax.Array, processed: jax.Array, kind: str = 'modulus', floor: float = 0.0,
              ceiling: float = float('inf')) -> jax.Array:
    """sigma_hat `[..., 1]`, from spectrograms `[..., 2]`.

    Args:
      noisy: the observation.
      processed: the preceding enhancer's estimate of the clean spectrogram.
      kind: 'modulus' |noisy - processed|, which the released code takes for the standard deviation of each of the two
        components; 'component': that modulus / sqrt(2), their standard deviation if it is that of a complex normal.
      floor: smallest value; the paper's is sqrt(1e-5).
      ceiling: largest value; the paper's is sqrt(97).

    Raises:
      ValueError: an unknown kind.
    """
    if kind not in SIGMA_HATS:
        raise ValueError(f'kind must be one of {SIGMA_HATS}, got {kind!r}')
    modulus = jnp.sqrt(jnp.sum((noisy - processed)**2, axis=-1, keepdims=True))
    return jnp.clip(modulus / np.sqrt(2).astype(np.float32) if kind == 'component' else modulus, floor, ceiling)


@dataclasses.dataclass(frozen=True)
class Diffiner:
    """Near the data: x_0 + sqrt(1 - eta_a^2) sigma (y - x_0) / sigma_hat + eta_a sigma z.

    eta_a is the share of fresh noise, as in DDRM and in the released code (in the paper's algorithm 1, that of the
    observation's direction); eta_b that of the observation.
    """

    eta_a: float = 0.9
    eta_b: float = 0.9

    def __post_init__(self):
        _check_shares(self, ('eta_a', 'eta_b'))

    def near(self, x_0, eps, pull, sigma, near, draw):
        del eps, near
        return x_0 + np.sqrt(1 - self.eta_a**2) * sigma * pull + self.eta_a * sigma * draw(NEAR)


@dataclasses.dataclass(frozen=True)
class DiffinerPlus:
    """Near the data: x_0 + eta_a sigma eps + eta_c sigma (y - x_0) / sigma_hat + (what is left of sigma) z.

    With eta_c = 0 that is DDIM (Song et al., 2021). The two directions are not orthogonal: c, the cosine between them
    over all near bins of an example, leaves sigma^2 (1 - eta_a^2 - eta_c^2 - 2 eta_a eta_c c) for fresh noise. In the
    bins of a mask the prior is not guided: x_0 + eta_d sigma eps + sqrt(1 - eta_d^2) sigma z.

    The defaults are the documented ones; the released script runs with eta_b = eta_a = 0.4.
    """

    eta_a: float = 0.4
    eta_b: float = 0.6
    eta_c: float = 0.0
    eta_d: float = 0.6
    released: bool = False  # c over the whole batch and offset by 1e-5; masked bins with sqrt(1 - eta_d) z

    def __post_init__(self):
        _check_shares(self, ('eta_a', 'eta_b', 'eta_c', 'eta_d'))
        if self.eta_a + self.eta_c > 1:
            raise ValueError(f'eta_a + eta_c must not exceed 1, or where both directions agree no noise is left to '
                             f'draw, got {self.eta_a:g} + {self.eta_c:g}')

    def near(self, x_0, eps, pull, sigma, near, draw):
        left = 1 - self.eta_a**2 - self.eta_c**2
        if self.eta_c:
            left -= 2 * self.eta_a * self.eta_c * self._cosine(sigma * eps, sigma * pull, near)
        drift = self.eta_a * eps + self.eta_c * pull
        return x_0 + sigma * drift + sigma * jnp.sqrt(jnp.maximum(left, 0.0)) * draw(NEAR)

    def masked(self, x_0, eps, sigma, draw):
        left = 1 - self.eta_d if self.released else 1 - self.eta_d**2
        return x_0 + self.eta_d * sigma * eps + np.sqrt(left) * sigma * draw(MASKED)

    def _cosine(self, a, b, near):
        offset = SAFE if self.released else 0.0
        a, b = (jnp.where(near, x, 0.0) + offset for x in (a, b))
        axes = tuple(range(0 if self.released else 1, a.ndim))
        dot, *squares = (jnp.sum(product, axis=axes, keepdims=True) for product in (a * b, a * a, b * b))
        return dot / jnp.maximum(jnp.sqrt(squares[0] * squares[1]), 1e-30)


Rule = Diffiner | DiffinerPlus


class Observation(NamedTuple):
    """What is known of the clean spectrogram."""

    y: jax.Array  # [B, ...]
    sigma_hat: jax.Array  # standard deviation of the noise in y, like y or broadcastable
    mask: jax.Array | None = None  # boolean, see `DiffinerPlus`; unobserved bins also have an infinite sigma_hat


def _check_shares(rule, names) -> None:
    for name in names:
        if not 0 <= getattr(rule, name) <= 1:
            raise ValueError(f'{name} must be between 0 and 1, got {getattr(rule, name):g}')


def sample(denoise: Denoise, x: jax.Array, schedule: Schedule, observation: Observation, rule: Rule, draw: Draw, *,
           trajectory: bool = False):
    """Draws from the prior, given the observation, in one `lax.scan`.

    Args:
      denoise: estimates the noise; called once per level.
      x: `[B, ...]`, standard normal.
      schedule: S levels.
      observation: what is known.
      rule: of the step where the noise in y exceeds the noise of the level.
      draw: noise, one of the draws above per level.
      trajectory: also return what every step computed.

    Returns:
      x_0 `[B, ...]`; with `trajectory` a tuple of it, the samples before each step and the estimates of x_0, both
      `[S, B, ...]` in the order of sampling.

    Raises:
      ValueError: a mask with a rule that does not take one.
    """
    if observation.mask is not None and not isinstance(rule, DiffinerPlus):
        raise ValueError('a mask needs the rule DiffinerPlus')

    def step(x, level):
        eps = denoise(x, jnp.full(x.shape[0], level['t']))
        x_0 = (x - level['std'] * eps) / level['mean']
        new = _step(x_0, eps, level['sigma'], observation, rule, lambda which: draw(level['index'], which))
        return level['below'] * new, (x, x_0)

    return over_levels(step, x, _coefficients(schedule), trajectory)


def _step(x_0, eps, sigma, observation, rule, draw):
    """From the estimates at one level to the sample at the next, both in variance-exploding terms."""
    y, sigma_hat, mask = observation
    near = sigma <= sigma_hat
    left = sigma**2 - (rule.eta_b * jnp.minimum(sigma_hat, sigma))**2  # the minimum matters to near bins alone
    far = (1 - rule.eta_b) * x_0 + rule.eta_b * y + jnp.sqrt(left) * draw(FAR)
    pull = (y - x_0) / (sigma_hat + SAFE)
    closer = rule.near(x_0, eps, pull, sigma, near, draw)
    if mask is not None:
        closer = jnp.where(mask, rule.masked(x_0, eps, sigma, draw), closer)
    return jnp.where(near, closer, far)


def _coefficients(schedule: Schedule) -> dict[str, np.ndarray]:
    """Numbers of each level, `[S]`."""
    below = schedule.alpha_bar_previous
    return {'t': schedule.t, 'mean': np.sqrt(schedule.alpha_bar), 'std': np.sqrt(1 - schedule.alpha_bar),
            'below': np.sqrt(below), 'sigma': np.sqrt((1 - below) / below)}
