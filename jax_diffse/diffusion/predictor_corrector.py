"""The predictor-corrector sampler of SGMSE+: reverse diffusion with annealed Langevin dynamics.

Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021, algorithms
1, 3 and 5; Richter et al., "Speech Enhancement and Dereverberation with Diffusion-Based Generative Models", IEEE/ACM
TASLP 31, 2023.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.diffusion.ddpm import START, STEP, Draw
from jax_diffse.diffusion.processes import Sde, complex_noise, per_example
from jax_diffse.diffusion.scan import Model, over_levels
from jax_diffse.diffusion.time_grid import TimeGrid
from jax_diffse.spectral import mask_frames

CORRECTORS = ('ald', 'langevin', 'none')


@dataclasses.dataclass(frozen=True)
class PredictorCorrector:
    """Each step corrects the state at its time t, then predicts the state at the next time.

    A correction is x + e score + sqrt(2 e) z, with

    - 'ald': e = 2 (snr std(t))^2.
    - 'langevin': e = 2 (snr |z| / |score|)^2, norms of each example.
    - 'none': no correction.

    Raises:
      ValueError: an unknown corrector, a negative snr, or no corrector steps.
    """

    grid: TimeGrid = TimeGrid()
    corrector: str = 'ald'
    corrector_steps: int = 1  # per time, except with 'none'
    snr: float = 0.5
    released: bool = False  # 'langevin' as in the authors' code: norms are averaged over the batch

    def __post_init__(self):
        if self.corrector not in CORRECTORS:
            raise ValueError(f'corrector must be one of {CORRECTORS}, got {self.corrector!r}')
        if self.snr < 0:
            raise ValueError(f'snr: expected 0 or more, got {self.snr:g}')
        if self.corrector_steps < 1:
            raise ValueError(f"corrector_steps: expected 1 or more (or the corrector 'none'), got "
                             f'{self.corrector_steps}')

    @property
    def corrections(self) -> int:
        """Corrections per time."""
        return 0 if self.corrector == 'none' else self.corrector_steps

    @property
    def evaluations(self) -> int:
        """Network evaluations of a run."""
        return self.grid.num_steps * (self.corrections + 1)


def sample(score: Model, noisy: jax.Array, process: Sde, rule: PredictorCorrector, draw: Draw, *,
           num_frames: jax.Array | None = None, trajectory: bool = False):
    """Samples from y + std(t_max) z on, in one `lax.scan` with one evaluation of the network per iteration.

    Args:
      score: gradient of the log density of x_t; called once per iteration.
      noisy: y, `[B, T, F, 2]`.
      process: whose reverse is sampled.
      rule: of the steps.
      draw: standard normal noise, one draw per correction or prediction and one for the start.
      num_frames: `[B]` frames whose norms 'langevin' takes; default: all.
      trajectory: also return what every correction and prediction computed.

    Returns:
      x `[B, T, F, 2]`, the mean of the last prediction; with `trajectory` a tuple of it, the states before each
      correction or prediction and the means after it, both `[S, B, T, F, 2]`, S evaluations, in the order of sampling.
    """
    def step(x, level):
        gradient = score(x, jnp.full(x.shape[0], level['t']))
        z = complex_noise(draw(level['index'], STEP))
        size, noise = level['size'], level['noise']
        if rule.corrector == 'langevin':
            langevin = 2 * (rule.snr * _norm_ratio(z, gradient, num_frames, rule.released))**2
            size = per_example(jnp.where(level['correct'] > 0, langevin, size), x)
            noise = per_example(jnp.where(level['correct'] > 0, jnp.sqrt(2 * langevin), noise), x)
        mean = x + level['away'] * (x - noisy) + size * gradient
        return mean + noise * z, (x, mean)

    levels = _coefficients(process, rule)
    start = process.std(np.float64(rule.grid.t_max)).astype(np.float32)
    x = noisy + start * complex_noise(draw(jnp.int32(rule.evaluations), START))
    return over_levels(step, x, levels, trajectory)


def _norm_ratio(noise, score, num_frames, released):
    """|z| / |score| of each example, `[B]`; 0 where the score is."""
    norms = [jnp.sqrt(jnp.sum(mask_frames(x, num_frames)**2, axis=(1, 2, 3))) for x in (noise, score)]
    if released:
        norms = [jnp.broadcast_to(jnp.mean(norm), norm.shape) for norm in norms]
    return jnp.where(norms[1] > 0, norms[0] / jnp.where(norms[1] > 0, norms[1], 1.0), 0.0)


def _coefficients(process: Sde, rule: PredictorCorrector) -> dict[str, np.ndarray]:
    """Numbers of each correction and prediction, `[S]`: x + away (x - y) + size score + noise z."""
    t, h = rule.grid.times, rule.grid.steps
    e = 2 * (rule.snr * process.std(t))**2
    squared = process.diffusion(t)**2 * h  # G^2
    noise = np.sqrt(squared) * (np.arange(len(t)) < len(t) - 1)  # the last mean is the result

    def ordered(correction, prediction):
        """A number of each time's corrections and prediction, `[S]`, the last of sampling first."""
        return np.concatenate([np.tile(correction, (rule.corrections, 1)), prediction[None]]).T.ravel()[::-1]

    return {'t': ordered(t, t), 'away': ordered(0 * t, process.pull(t) * h), 'size': ordered(e, squared),
            'noise': ordered(np.sqrt(2 * e), noise), 'correct': ordered(t > 0, 0 * t)}
