"""Diffiner and Diffiner+ (Sawata et al., "Diffiner: A Versatile Diffusion-based Generative Refiner for Speech
Enhancement", Interspeech 2023): a diffusion prior on clean speech that refines the output of any enhancer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse import blocks
from jax_diffse.diffusion import ddim, ddpm, ddrm
from jax_diffse.diffusion.schedule import Schedule, guided, spaced
from jax_diffse.diffusion.step_sampling import SecondMoment, grid
from jax_diffse.networks.guided_unet import GuidedUNet, UNetConfig
from jax_diffse.spectral import FrontEnd, istft, mask_frames, stft
from jax_diffse.systems.base import LossOutput, Refiner, Sampling

CHOICES = {'sampler': ('diffiner', 'diffiner+'), 'sigma_hat': ddrm.SIGMA_HATS, 'schedule': ('linear', 'cosine'),
           'step_sampling': ('uniform', 'loss_second_moment')}
VALIDATION_GRID = 8  # steps t at which the prior is validated, one per utterance
OVERLAP = 32  # frames that two blocks share


@dataclasses.dataclass(frozen=True)
class Diffiner(Sampling, Refiner):
    """An unconditional DDPM on complex spectrograms of clean speech, and the samplers that refine with it.

    The network works on blocks of `block_frames` frames without the DC bin. Shorter spectrograms are zero-padded to a
    block; the sampler observes the padding as exact silence. Longer ones are sampled as a whole, and the network's
    estimates of overlapping blocks are cross-faded.
    """

    network: UNetConfig = UNetConfig()
    schedule: str = 'linear'  # of training; or 'cosine'
    training_steps: int = 4000  # of the diffusion
    step_sampling: str = 'uniform'  # how training draws its steps t; or 'loss_second_moment'
    scale: float = 1.0  # factor of spectrograms; it shifts the schedule
    block_frames: int = 256
    sampler: str = 'diffiner+'  # or 'diffiner'
    diffiner: ddrm.Diffiner = ddrm.Diffiner()  # etas of the two samplers
    diffiner_plus: ddrm.DiffinerPlus = ddrm.DiffinerPlus()
    respacing: str = 'ddim200'  # sampling steps, see `schedule.spaced`; a caller's number replaces them
    sigma_hat: str = 'modulus'  # of noisy - processed, as each component's noise; 'component': / sqrt(2)
    floor: float = 0.0  # smallest sigma_hat, in units of the spectrogram; the paper's: sqrt(1e-5)
    ceiling: float = 0.0  # largest sigma_hat; the paper's: sqrt(97); 0: none
    observed_below: float = 0.0  # Hz; higher bins are drawn from the prior alone; 0: all bins are observed
    released: bool = False  # as the released script: no DC, no zero-padding of the last frame

    def __post_init__(self):
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
        multiple = self.network.multiple
        if self.block_frames < 2 * OVERLAP or self.block_frames % multiple or (self.front_end.num_bins - 1) % multiple:
            raise ValueError(f'block_frames: expected a multiple of {multiple}, as the network halves them, and at '
                             f'least {2 * OVERLAP}, got {self.block_frames}')
        if self.sampler == 'diffiner' and self.observed_below:
            raise ValueError("observed_below needs the sampler 'diffiner+'")
        if self.scale <= 0:
            raise ValueError(f'scale: expected a positive number, got {self.scale:g}')
        for name in ('floor', 'ceiling', 'observed_below'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name}: expected 0 or more, got {getattr(self, name):g}')
        _ = self._levels(None)

    @property
    def front_end(self) -> FrontEnd:
        return FrontEnd(n_fft=512, hop=256, compression='none', unit_rms=False)

    @property
    def sample_rate(self) -> int:
        return self.front_end.sample_rate

    @property
    def default_steps(self) -> int:
        return len(self._levels(None))

    @property
    def sampler_section(self) -> str:
        return 'diffiner' if self.sampler == 'diffiner' else 'diffiner_plus'

    def check_steps(self, steps):
        _ = self._levels(steps)

    @property
    def losses(self):
        return {'prior': self._prior_loss}

    @property
    def training(self) -> Schedule:
        """The schedule of training."""
        return guided(self.schedule, self.training_steps)

    @property
    def _rule(self) -> ddrm.Rule:
        return getattr(self, self.sampler_section)

    def _levels(self, steps: int | None) -> Schedule:
        """The schedule of sampling; a number of steps is spaced as `respacing` is."""
        if steps is None:
            return spaced(self.training, self.respacing)
        return spaced(self.training, f'ddim{steps}' if self.respacing.startswith('ddim') else str(steps))

    def init(self, key):
        spec = jax.ShapeDtypeStruct((1, self.network.multiple, self.front_end.num_bins - 1, 2), jnp.float32)
        drawn = self.unet.lazy_init(key, spec, jax.ShapeDtypeStruct((1,), jnp.float32))
        seen = {} if self.step_sampling == 'uniform' else {'prior': self._step_sampler.start()}
        return {'params': {'prior': drawn['params']}, 'batch_stats': seen}

    @property
    def unet(self) -> GuidedUNet:
        return GuidedUNet(self.network)

    @property
    def _step_sampler(self) -> SecondMoment:
        return SecondMoment(self.training_steps)

    # ---------------------------------------------------------------------------------------------------- enhancement

    def gain(self, noisy, num_samples):
        return self.front_end.gain(noisy, num_samples)

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        """The one stage 'refined'."""
        del gain  # the prior was trained on speech at its own level
        spec, estimate = (self.analyze(x, num_samples) for x in (noisy, processed))
        frames = self.front_end.num_frames(num_samples)
        refined = self._refine(variables, spec[:, :, 1:], estimate[:, :, 1:], frames, key, steps)
        lowest = jnp.zeros_like(estimate[:, :, :1]) if self.released else estimate[:, :, :1]
        return {'refined': self.synthesize(jnp.concatenate([lowest, refined], axis=2), num_samples, noisy.shape[1])}

    def _refine(self, variables, noisy, processed, frames, key, steps):
        """Spectrograms without DC, `[B, T, F, 2]`."""
        levels, total = self._levels(steps), noisy.shape[1]
        length = blocks.padded(total, self.block_frames, OVERLAP)
        noisy, processed = (jnp.pad(x, ((0, 0), (0, length - total), (0, 0), (0, 0))) for x in (noisy, processed))
        sigma_hat = ddrm.noise_map(noisy, processed, self.sigma_hat, self.floor, self.ceiling or float('inf'))
        mask = None
        if self.observed_below:
            mask = jnp.asarray(self._frequencies >= self.observed_below)[None, None, :, None]
            sigma_hat = jnp.where(mask, jnp.inf, sigma_hat)
        draw = ddpm.frame_draws(key, noisy.shape[1:])
        x = draw(jnp.int32(len(levels)), ddrm.START)
        observation = ddrm.Observation(noisy, sigma_hat, mask)
        return ddrm.sample(self._denoise(variables, frames), x, levels, observation, self._rule, draw)[:, :total]

    @property
    def _frequencies(self) -> np.ndarray:
        """Frequencies of the bins without DC, Hz."""
        return np.arange(1, self.front_end.num_bins) * self.sample_rate / self.front_end.n_fft

    def _denoise(self, variables, frames):
        return blocks.blockwise(self._network(variables), frames, self.block_frames, OVERLAP)

    def _network(self, variables):
        return lambda x, t: self.unet.apply({'params': variables['params']['prior']}, x, t)

    def analyze(self, x, num_samples):
        if not self.released:
            return self.scale * self.front_end.analyze(x, num_samples)
        n_fft, hop = self.front_end.n_fft, self.front_end.hop
        x = jnp.pad(x, ((0, 0), (0, self.front_end.extended(x.shape[1]) - x.shape[1])))
        return self.scale * stft(x, n_fft, hop, jnp.maximum(num_samples, n_fft))

    def synthesize(self, spec, num_samples, length):
        spec = spec / self.scale
        if not self.released:
            return self.front_end.synthesize(spec, num_samples, length)
        y = istft(spec, self.front_end.hop)[:, :length]
        return mask_frames(jnp.pad(y, ((0, 0), (0, length - y.shape[1]))), num_samples)

    def generate(self, variables, key, num_samples: int, *, steps: int | None = None, eta: float = 0.0) -> jax.Array:
        """Draws from the prior alone, by DDIM: waveforms `[B, num_samples]`, `key` `[B]`.

        Args:
          steps: network evaluations; default: those of refinement.
          eta: see `ddim.sample`.
        """
        lengths = jnp.full(len(key), num_samples)
        frames, levels = self.front_end.num_frames(num_samples), self._levels(steps)
        length = blocks.padded(frames, self.block_frames, OVERLAP)
        draw = ddpm.frame_draws(key, (length, self.front_end.num_bins - 1, 2))
        denoise = self._denoise(variables, jnp.full(len(key), frames))
        x = ddim.sample(denoise, draw(jnp.int32(len(levels)), ddrm.START), levels, draw, eta=eta)[:, :frames]
        return self.synthesize(jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0))), lengths, num_samples)

    # --------------------------------------------------------------------------------------------------------- losses

    def _prior_loss(self, variables, batch, key, train=True) -> LossOutput:
        """`prior_loss` at one step per example: random in training, else from a fixed grid."""
        keys = jax.vmap(lambda k: jax.random.split(k, 3))(key)
        seen, weight = variables['batch_stats'].get('prior'), jnp.ones(len(key))
        if not train:
            t = grid(batch['index'], self.training_steps, VALIDATION_GRID)
        elif seen is None:
            t = jax.vmap(lambda k: jax.random.randint(k, (), 0, self.training_steps))(keys[:, 0])
        else:
            t, weight = self._step_sampler.draw(seen, keys[:, 0])
        clean = self._crop(batch['clean_spec'])
        noise = jax.vmap(lambda k: jax.random.normal(k, clean.shape[1:]))(keys[:, 1])
        loss = self.prior_loss(variables, clean, t, noise, keys[:, 2] if train else None)
        batch_stats = variables['batch_stats']
        if train and seen is not None:
            everyone = jax.lax.all_gather((t, jax.lax.stop_gradient(loss)), 'data', tiled=True)
            batch_stats = {**batch_stats, 'prior': self._step_sampler.update(seen, *everyone)}
        real = (batch['num_samples'] > 0).astype(jnp.float32)
        return LossOutput(weight * loss, real, batch_stats, {} if seen is None else {'mse': loss})

    def _crop(self, spec):
        """The first block of spectrograms `[B, T, F, 2]`, without DC, zero-padded where they end."""
        multiple = self.network.multiple
        frames = min(max(spec.shape[1] // multiple, 1) * multiple, self.block_frames)
        spec = jnp.pad(spec, ((0, 0), (0, max(0, frames - spec.shape[1])), (0, 0), (0, 0)))
        return self.scale * spec[:, :frames, 1:]

    def prior_loss(self, variables, clean, t, noise, keys=None) -> jax.Array:
        """Mean squared error `[B]` of the estimate of `noise` in `clean` `[B, T, F, 2]` at the steps `t` `[B]`.

        `keys` `[B]` draw dropout.
        """
        x_t = ddpm.diffuse(clean, noise, jnp.asarray(self.training.alpha_bar, jnp.float32)[t])
        eps = self.unet.apply({'params': variables['params']['prior']}, x_t, t, keys)
        return jnp.mean((eps - noise)**2, axis=(1, 2, 3))
