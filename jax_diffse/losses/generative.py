"""Objectives of score models, bridges and flows, per example and unreduced: each returns `[B]`.

Spectrograms are `[B, T, F, 2]`, and absolute values are those of complex numbers. Sums are over the first `num_frames`
`[B]` frames of each example (default: all) and over frequencies.

Source: Richter et al., "Investigating Training Objectives for Generative Speech Enhancement", ICASSP 2025; Lee et al.,
"FlowSE: Flow Matching-based Speech Enhancement", ICASSP 2025; their released code where the papers give no factor.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jax_diffse.losses.pesq_loss import pesq_loss
from jax_diffse.losses.regression import complex_mse
from jax_diffse.losses.waveform import l1
from jax_diffse.spectral import magnitude, mask_frames

WEIGHTINGS = ('1', 'sigma^2', 'edm')  # of the denoiser


def score_matching(score: jax.Array, noise: jax.Array, sigma: jax.Array,
                   num_frames: jax.Array | None = None) -> jax.Array:
    """0.5 sum |sigma score + z|^2: denoising score matching, weighted by sigma^2.

    Args:
      score: of x_t.
      noise: z, the complex standard normal noise in x_t.
      sigma: `[B]`, its standard deviation.
      num_frames: see above.
    """
    return _half_power(_wide(sigma) * score + noise, num_frames)


def denoiser(score: jax.Array, x: jax.Array, mean: jax.Array, sigma: jax.Array,
             num_frames: jax.Array | None = None) -> jax.Array:
    """0.5 sum |D - mean|^2, where D = sigma^2 score + x_t; to be multiplied by `denoiser_weight`.

    Args:
      score: of x_t.
      x: x_t.
      mean: of x_t, given x_0 and y; the target, as in the authors' code.
      sigma: `[B]`, the standard deviation of x_t.
      num_frames: see above.
    """
    return _half_power(_wide(sigma)**2 * score + x - mean, num_frames)


def denoiser_weight(sigma: jax.Array, weighting: str = '1', sigma_data: float = 0.1) -> jax.Array:
    """The weight `[B]` of `denoiser`: 1, sigma^2, or ('edm') (sigma^2 + s^2) / (sigma s)^2 with s = `sigma_data`.

    Raises:
      ValueError: an unknown weighting.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f'loss_weighting must be one of {WEIGHTINGS}, got {weighting!r}')
    if weighting == 'edm':
        return (sigma**2 + sigma_data**2) / (sigma * sigma_data)**2
    return sigma**2 if weighting == 'sigma^2' else jnp.ones_like(sigma)


def flow_matching(velocity: jax.Array, target: jax.Array, num_frames: jax.Array | None = None) -> jax.Array:
    """0.5 sum |v - dx/dt|^2: conditional flow matching."""
    return _half_power(velocity - target, num_frames)


def flow_matching_mae(velocity: jax.Array, target: jax.Array, num_frames: jax.Array | None = None) -> jax.Array:
    """0.5 sum |v - dx/dt|: conditional flow matching with absolute errors."""
    return 0.5 * jnp.sum(magnitude(mask_frames(velocity - target, num_frames)), axis=(1, 2))


@dataclasses.dataclass(frozen=True)
class DataPrediction:
    """0.5 mean |x_hat - x_0|^2 + l1_weight 0.5 mean |wave_hat - wave| + pesq_weight PESQ loss.

    Raises:
      ValueError: a negative weight.
    """

    l1_weight: float = 1e-3
    pesq_weight: float = 0.0  # the authors' command has 5e-4
    released: bool = False  # as the authors' code, which divides the L1 term by the length twice in batches of one

    def __post_init__(self):
        for name in ('l1_weight', 'pesq_weight'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name}: expected 0 or more, got {getattr(self, name):g}')

    def terms(self, spectra: tuple[jax.Array, jax.Array], waves: tuple[jax.Array, jax.Array],
              num_frames: jax.Array | None = None, num_samples: jax.Array | None = None) -> dict[str, jax.Array]:
        """The terms and their weighted sum 'loss', each `[B]`.

        Args:
          spectra: estimate and clean speech `[B, T, F, 2]`.
          waves: both as waveforms `[B, N]`; at 16 kHz if `pesq_weight` is not 0.
          num_frames: `[B]` real frames; default: all.
          num_samples: `[B]` real samples; default: all.
        """
        terms = {'spectral': complex_mse(*spectra, num_frames), 'l1': 0.5 * l1(*waves, num_samples)}
        if self.released and len(waves[0]) == 1:
            terms['l1'] = terms['l1'] / (waves[0].shape[1] if num_samples is None else jnp.maximum(num_samples, 1))
        loss = terms['spectral'] + self.l1_weight * terms['l1']
        if self.pesq_weight:
            terms['pesq'] = pesq_loss(*waves, num_samples)
            loss = loss + self.pesq_weight * terms['pesq']
        return terms | {'loss': loss}


def denoiser_of_batch(losses: jax.Array, weights: jax.Array, real: jax.Array, axis_name: str | None) -> jax.Array:
    """'edm'-weighted `denoiser` of the authors' code: every example meets every weight.

    Its mean over the batch is mean(weights) sum(losses), larger by the size of the batch than meant.

    Args:
      losses: `[B]`, of `denoiser`.
      weights: `[B]`.
      real: `[B]`, false for examples that do not count.
      axis_name: mapped axis that the batch is spread over, if any.

    Returns:
      `[B]`.
    """
    total = jnp.sum(jnp.where(real, weights, 0.0))
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    return losses * total


def _wide(sigma):
    return sigma[:, None, None, None]


def _half_power(error, num_frames):
    return 0.5 * jnp.sum(mask_frames(error, num_frames)**2, axis=(1, 2, 3))
