"""Diffiner with a compact prior of 46 210 parameters, from Stefano-Previti/Diffusion_Based_Generative_Refiner."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jax_diffse.diffusion import ddpm, ddrm, notebook
from jax_diffse.diffusion.schedule import Schedule, guided
from jax_diffse.networks.compact_unet import CompactUNet, CompactUNetConfig
from jax_diffse.spectral import istft, mask_frames, stft
from jax_diffse.systems.diffiner import Diffiner

SEGMENT = 16_384  # samples that the released code refines at a time
FRAMES = 65  # of a segment


@dataclasses.dataclass(frozen=True)
class CompactDiffiner(Diffiner):
    """Diffiner with a compact U-Net.

    By default it is trained and sampled as `Diffiner` is. `released` normalises and samples as the notebook does:
    training spectrograms have zero mean and unit variance, refined ones are raw; segments of 16 384 samples are padded
    to a block, and `notebook.sample` refines them.
    """

    network: CompactUNetConfig = CompactUNetConfig()
    schedule: str = 'cosine'
    training_steps: int = 50
    scale: float = 1.5  # 1 / the rms of the components of clean speech, 0.67 over four corpora
    sampler: str = 'diffiner'
    # Both are 0.8 in the notebook, whose eta_a is the share of the observation's direction: sqrt(1 - 0.6^2).
    diffiner: ddrm.Diffiner = ddrm.Diffiner(eta_a=0.6, eta_b=0.8)
    respacing: str = 'ddim50'  # all steps; fewer leave out the noisiest level, whose alpha_bar is 1e-7

    def __post_init__(self):
        super().__post_init__()
        if self.released and self.block_frames < FRAMES:
            raise ValueError(f'block_frames: expected at least {FRAMES}, the frames of a released segment, got '
                             f'{self.block_frames}')

    @property
    def default_steps(self) -> int:
        return len(self._levels(None)) - notebook.SKIPPED * self.released

    def check_steps(self, steps):
        _ = self._levels(steps + notebook.SKIPPED * self.released)

    @property
    def training(self) -> Schedule:
        return guided(self.schedule, self.training_steps, largest=0.9999)

    @property
    def unet(self) -> CompactUNet:
        return CompactUNet(self.network)

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        if not self.released:
            return super()._stages(variables, noisy, num_samples, key, gain, steps, processed)
        (batch, length), count = noisy.shape, -(-noisy.shape[1] // SEGMENT)
        padding = ((0, 0), (0, count * SEGMENT - length))
        segments = [jnp.pad(x, padding).reshape(batch * count, SEGMENT) for x in (noisy, processed)]
        keys = jax.vmap(lambda k: jax.vmap(jax.random.fold_in, (None, 0))(k, jnp.arange(count)))(key).reshape(-1)
        levels = self._levels(None if steps is None else steps + notebook.SKIPPED)
        # One by one: the released attention mixes the examples of a batch.
        refined = jax.lax.map(lambda row: self._refine_segment(variables, levels, *row), (*segments, keys))
        return {'refined': mask_frames(refined.reshape(batch, -1)[:, :length], num_samples)}

    def _refine_segment(self, variables, levels, noisy, processed, key):
        """Refines waveforms `[SEGMENT]` as the notebook does -> `[SEGMENT]`."""
        spec, estimate = (self.scale * stft(x[None], self.front_end.n_fft, self.front_end.hop)[:, :, 1:]
                          for x in (noisy, processed))
        padding = ((0, 0), (0, self.block_frames - FRAMES), (0, 0), (0, 0))
        spec, estimate = (jnp.pad(x, padding) for x in (spec, estimate))
        sigma_hat = ddrm.noise_map(spec, estimate, self.sigma_hat, self.floor, self.ceiling or float('inf'))
        draw = ddpm.frame_draws(key[None], spec.shape[1:])
        x = draw(jnp.int32(len(levels)), ddrm.START)
        refined = notebook.sample(self._network(variables), x, levels, ddrm.Observation(estimate, sigma_hat),
                                  self.diffiner, draw) / self.scale
        return istft(jnp.pad(refined, ((0, 0), (0, 0), (1, 0), (0, 0))), self.front_end.hop)[0, :SEGMENT]

    def _crop(self, spec):
        spec = super()._crop(spec)
        if not self.released:
            return spec
        mean, std = (f(spec, axis=(1, 2), keepdims=True) for f in (jnp.mean, functools.partial(jnp.std, ddof=1)))
        return (spec - mean) / jnp.maximum(std, 1e-8)
