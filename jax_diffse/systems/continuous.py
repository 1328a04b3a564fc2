"""What SGMSE+, the Schroedinger bridge and FlowSE share: NCSN++ on compressed spectrograms, at continuous times."""

import abc
import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from jax_diffse.diffusion import ddpm, step_sampling
from jax_diffse.diffusion.ddpm import Draw
from jax_diffse.diffusion.preconditioning import Network
from jax_diffse.diffusion.processes import complex_noise, random_times
from jax_diffse.networks.ncsnpp import BACKBONES, Ncsnpp, NcsnppConfig
from jax_diffse.spectral import FrontEnd, mask_frames, pad_frames
from jax_diffse.systems.base import LossOutput, Sampling

GROUP = 'ncsnpp'
PADDINGS = ('zeros', 'reflection')
CONDITIONS = ('noisy', 'preceding')
VALIDATION_GRID = 8  # times at which a network is validated, one per utterance


class Rule(Protocol):
    """How a system samples."""

    @property
    def evaluations(self) -> int:
        """Network evaluations of an enhancement."""


@dataclasses.dataclass(frozen=True)
class Continuous(Sampling):
    """A network that is trained and asked at continuous times, between clean speech at 0 and noisy speech at 1.

    The system works at a peak of 1 of its input. That is noisy speech or, as in StoRM (Lemercier et al., IEEE/ACM TASLP
    31, 2023), the output of a preceding enhancer; it is then trained on pairs of clean speech and such output. Numbers
    of frames are padded to a multiple that the network can halve; what it makes of the padding is part of the last
    samples, as in the released code.

    The defaults are those of SGMSE+ at 16 kHz.
    """

    network: NcsnppConfig = BACKBONES['ncsnpp']
    sample_rate: int = 16_000  # Hz
    n_fft: int = 510  # samples of the window and the transform
    hop: int = 128  # samples
    sqrt_hann: bool = False  # the window is the square root of Hann's
    compression: str = 'power'  # of magnitudes: 'power', 'log1x', 'none'
    exponent: float = 0.5  # of the compression 'power'
    factor: float = 0.15  # of compressed spectrograms
    padding: str = 'zeros'  # of frames; or 'reflection'
    condition: str = 'noisy'  # speech; or 'preceding': another enhancer's output in its place, also in training
    steps: int = 30  # default number of sampling steps
    t_eps: float = 0.03  # the smallest time of training

    level = 'peak'

    def __post_init__(self):
        for name, known in (('padding', PADDINGS), ('condition', CONDITIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
        bins, multiple = self.front_end.num_bins, self.network.multiple
        if bins % multiple:
            raise ValueError(f'n_fft: expected a number of bins, n_fft / 2 + 1, that is a multiple of {multiple}, as '
                             f'the network halves them, got n_fft {self.n_fft} with {bins} bins')
        if not 0 < self.t_eps < self._last_time:
            raise ValueError(f't_eps: expected a time above 0 and below {self._last_time:g}, got {self.t_eps:g}')
        _ = self._rule(None)

    @property
    def front_end(self) -> FrontEnd:
        return FrontEnd(self.sample_rate, self.n_fft, self.hop, self.compression, unit_rms=False, unit_peak=True,
                        exponent=self.exponent, factor=self.factor, sqrt_hann=self.sqrt_hann, whole_hops=False)

    @property
    def follows(self) -> bool:
        return self.condition == 'preceding'

    @property
    def default_steps(self) -> int:
        return self.steps

    def check_steps(self, steps):
        _ = self._rule(steps)

    def evaluations(self, steps):
        return self._rule(steps).evaluations

    @property
    def losses(self):
        return {GROUP: self._loss}

    @property
    @abc.abstractmethod
    def _last_time(self) -> float:
        """The largest time of training."""

    @abc.abstractmethod
    def _rule(self, steps: int | None) -> Rule:
        """The rule of sampling with so many steps; None: the system's own number.

        Raises:
          ValueError: the sampler does not take it.
        """

    @abc.abstractmethod
    def _sample(self, network: Network, noisy: jax.Array, num_frames: jax.Array, draw: Draw,
                steps: int | None) -> jax.Array:
        """Clean speech `[B, T, F, 2]` from padded noisy speech of `num_frames` `[B]`."""

    @abc.abstractmethod
    def terms(self, variables, batch, t, noise, axis_name: str | None = None) -> dict[str, jax.Array]:
        """The terms of the loss, and their sum 'loss', `[B]` each.

        Args:
          variables: as made by `init`.
          batch: of the data pipeline.
          t: `[B]` times.
          noise: z, complex standard normal `[B, T, F, 2]`, of the shape of `pair(batch)`.
          axis_name: mapped axis that the batch is spread over, if any.
        """

    def init(self, key):
        spec = jax.ShapeDtypeStruct((1, self.network.multiple, self.front_end.num_bins, 2), jnp.float32)
        drawn = Ncsnpp(self.network).lazy_init(key, spec, spec, jax.ShapeDtypeStruct((1,), jnp.float32))
        return {'params': {GROUP: drawn['params']}, 'batch_stats': {}}

    def apply(self, variables, num_frames) -> Network:
        """The network as a function of x_t, y and t: a score, an estimate of clean speech or a velocity."""
        own = {'params': variables['params'][GROUP]}
        # Released networks that divide by the time are trained with this sign.
        sign = 1.0 if self.network.division == 'none' else -1.0

        def network(x, noisy, t):
            return mask_frames(sign * Ncsnpp(self.network).apply(own, x, noisy, t, num_frames), num_frames)

        return network

    def padded_frames(self, num_samples):
        """The number of frames of waveforms of `num_samples` (int or array), with padding."""
        multiple = self.network.multiple
        return -(-self.front_end.num_frames(num_samples) // multiple) * multiple

    # ---------------------------------------------------------------------------------------------------- enhancement

    def gain(self, noisy, num_samples):
        return self.front_end.gain(noisy, num_samples)

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        """The one stage 'enhanced'."""
        if self.follows:  # at its own level, as in training
            noisy, gain = processed, self.gain(processed, num_samples)
        gain, length = gain[:, None], noisy.shape[1]
        spec = self.front_end.analyze(noisy * gain, num_samples)
        spec = pad_frames(spec, self.front_end.num_frames(num_samples), self.network.multiple,
                          self.padding == 'reflection')
        frames, draw = self.padded_frames(num_samples), ddpm.frame_draws(key, spec.shape[1:])
        x = self._sample(self.apply(variables, frames), spec, frames, draw, steps)
        return {'enhanced': self.front_end.synthesize(x, num_samples, length, frames) / gain}

    # --------------------------------------------------------------------------------------------------------- losses

    def _loss(self, variables, batch, key, train=True) -> LossOutput:
        """`terms` at one time per example: random in training, else from a fixed grid."""
        keys = jax.vmap(jax.random.split)(key)
        if train:
            uniform = jax.vmap(jax.random.uniform)(keys[:, 0])
        else:
            uniform = step_sampling.grid(batch['index'], 2 * VALIDATION_GRID, VALIDATION_GRID) / (2 * VALIDATION_GRID)
        t = random_times(uniform.astype(jnp.float32), self.t_eps, self._last_time)
        draw = ddpm.frame_draws(keys[:, 1], self.pair(batch)[0].shape[1:])
        terms = self.terms(variables, batch, t, complex_noise(draw(jnp.int32(0), ddpm.START)),
                           'data' if train else None)
        real = (batch['num_samples'] > 0).astype(jnp.float32)
        return LossOutput(terms.pop('loss'), real, variables['batch_stats'], terms)

    def pair(self, batch) -> tuple[jax.Array, jax.Array]:
        """Clean and noisy speech of a batch, with frames of zeros behind each example up to the multiple."""
        frames = self.front_end.num_frames(batch['num_samples'])
        clean, noisy = (pad_frames(batch[name], frames, self.network.multiple) for name in ('clean_spec', 'noisy_spec'))
        return clean, noisy
