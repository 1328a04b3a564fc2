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
FRAMES = 65  # of such a segment


@dataclasses.dataclass(frozen=True)
class CompactDiffiner(Diffiner):
    """A compact U-Net in the place of Diffiner's; a `System`.

    The default is trained and sampled as `Diffiner` is. With `released` it is normalised and sampled as in the
    notebook: spectrograms of its training have zero mean and unit variance, those it refines are raw; segments of
    16 384 samples are padded to a block, and `notebook.sample` refines them.
    """

    network: CompactUNetConfig = CompactUNetConfig()
    schedule: str = 'cosine'
    training_steps: int = 50
    scale: float = 1.5  # 1 / the rms of the components of clean speech, 0.67 over four corpora
    sampler: str = 'diffiner'
    # The notebook's shares of 0.8, by the paper's meaning of eta_a: there it is that of the observation's direction.
    diffiner: ddrm.Diffiner = ddrm.Diffiner(eta_a=0.6, eta_b=0.8)
    respacing: str = 'ddim50'  # all steps; fewer of them leave out the highest level, whose alpha_bar is 1e-7

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
        """Waveforms `[SEGMENT]`, as the notebook refines them -> `[SEGMENT]`."""
        spec, estimate = (self.scale * stft(x[None], self.front_end.n_fft, self.front_end.hop)[:, :, 1:]
                          for x in (noisy, processed))
        padding = ((0, 0), (0, self.block_frames - FRAMES), (0, 0), (0, 0))
        spec, estimate = (jnp.pad(x, padding) for x in (spec, estimate))
        sigma_hat = ddrm.noise_map(spec, estimate, self.sigma_hat, self.floor, self.ceiling or float('inf'))
        draw = ddpm.frame_draws(key[None], spec.shape[1:])
        x = draw(jnp.int32(len(levels)), ddrm.START)
        refined = notebook.sample(self._network(variables), x, levels, estimate, sigma_hat, self.diffiner.eta_a,
                                  self.diffiner.eta_b, draw) / self.scale
        return istft(jnp.pad(refined, ((0, 0), (0, 0), (1, 0), (0, 0))), self.front_end.hop)[0, :SEGMENT]

    def _crop(self, spec):
        spec = super()._crop(spec)
        if not self.released:
            return spec
        mean, std = (f(spec, axis=(1, 2), keepdims=True) for f in (jnp.mean, functools.partial(jnp.std, ddof=1)))
        return (spec - mean) / jnp.maximum(std, 1e-8)
