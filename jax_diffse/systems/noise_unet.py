"""The spectrogram U-Net with a noise model (vbelz/Speech-enhancement, which the repository of DiffGMM describes)."""

import dataclasses

import jax
import jax.numpy as jnp

from jax_diffse import blocks
from jax_diffse.losses.regression import huber, mae
from jax_diffse.networks.noise_unet import NoiseUNet, NoiseUNetConfig
from jax_diffse.spectral import FrontEnd, istft, mask_frames
from jax_diffse.systems.base import LossOutput, System

GROUP = 'unet'
RANGE_DB = 80.0  # levels lie between the reference and this far below it
AMIN = 1e-5  # smallest magnitude of a released level
RELEASED_GAIN = 10.0  # of the released output
# Mean and scale of the network's input and output, dB; the released statistics of 20 000 windows.
INPUT_DB, OUTPUT_DB = (-46.0, 50.0), (6.0, 82.0)


@dataclasses.dataclass(frozen=True)
class NoiseUnet(System):
    """Predicts, from the level of the noisy speech in dB, how far it lies above clean speech (the noise model).

    The noise model is subtracted and the noisy phase kept. The network sees windows of `frames` frames, about a second,
    relative to the largest magnitude of the noisy window. Windows overlap, and their results are cross-faded.

    `released` reproduces the released code: the level of clean speech is relative to its own maximum, windows do not
    overlap and are reflected at their ends, an incomplete last window is dropped, a constant replaces the level of each
    window, and the inverse transform has one point less, so that the output is half a sample early.
    """

    sample_rate: int = 8000  # Hz
    n_fft: int = 255  # samples
    hop: int = 63  # samples
    frames: int = 128  # of a window
    overlap: int = 64  # frames that neighbouring windows share in enhancement
    network: NoiseUNetConfig = NoiseUNetConfig()
    amplify: bool = False  # whether the noise model may be negative; no bin exceeds the window's largest one
    released: bool = False

    def __post_init__(self):
        bins, divisor = self.front_end.num_bins, self.network.divisor
        if bins % divisor or self.frames % divisor or self.frames < 1:
            raise ValueError(f'expected bins and frames that are multiples of {divisor}, as network.widths has '
                             f'{len(self.network.widths)} levels, got {bins} bins (n_fft // 2 + 1) and {self.frames} '
                             'frames')
        if not 0 <= self.overlap <= self.frames // 2:
            raise ValueError(f'overlap: expected 0 to {self.frames // 2} frames (half a window), got {self.overlap}')

    @property
    def front_end(self) -> FrontEnd:
        return FrontEnd(self.sample_rate, self.n_fft, self.hop, compression='none', unit_rms=False)

    @property
    def window(self) -> int:
        """Samples of a window."""
        return self.frames * self.hop

    @property
    def losses(self):
        return {GROUP: self._loss}

    def init(self, key):
        level = jax.ShapeDtypeStruct((1, self.frames, self.front_end.num_bins, 1), jnp.float32)
        return {'params': {GROUP: NoiseUNet(self.network).lazy_init(key, level)['params']}, 'batch_stats': {}}

    def gain(self, noisy, num_samples):
        return jnp.ones(len(noisy))

    # ---------------------------------------------------------------------------------------------------- enhancement

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        """The one stage 'enhanced'."""
        enhance = self._enhance_released if self.released else self._enhance
        return {'enhanced': enhance(variables, noisy, num_samples)}

    def _enhance(self, variables, noisy, num_samples):
        spec, frames = self.front_end.analyze(noisy, num_samples), self.front_end.num_frames(num_samples)
        padding = blocks.padded(spec.shape[1], self.frames, self.overlap) - spec.shape[1]
        subtract = blocks.blockwise(lambda rows: self._subtract(variables, rows), frames, self.frames, self.overlap)
        estimate = subtract(jnp.pad(spec, ((0, 0), (0, padding), (0, 0), (0, 0))))[:, :spec.shape[1]]
        return self.front_end.synthesize(estimate, num_samples, noisy.shape[1])

    def _subtract(self, variables, spec):
        """Windows of the noisy spectrogram `[R, frames, F, 2]` -> the estimates of clean speech."""
        power = jnp.sum(spec**2, axis=-1)
        reference = _largest(power)
        noise_model = self.noise_model(variables, relative_level(power, reference))
        gain = 10 ** (-(noise_model if self.amplify else jnp.maximum(noise_model, 0.0)) / 20)
        ceiling = jnp.sqrt(reference / jnp.where(power == 0, 1.0, power))
        return spec * jnp.minimum(gain, ceiling)[..., None]

    def noise_model(self, variables, level, keys=None):
        """Level of the noisy speech `[R, frames, F]`, dB -> noise model, dB; `keys` `[R]` draw the dropout."""
        mean, scale = INPUT_DB
        out = NoiseUNet(self.network).apply({'params': variables['params'][GROUP]}, ((level - mean) / scale)[..., None],
                                            keys)
        return OUTPUT_DB[0] + OUTPUT_DB[1] * out[..., 0]

    def _enhance_released(self, variables, noisy, num_samples):
        size, length = self.window, noisy.shape[1]
        padded = jnp.pad(noisy, ((0, 0), (0, blocks.padded(length, size, 0) - length)))
        subtract = blocks.blockwise(lambda rows: self._subtract_released(variables, rows), num_samples, size, 0)
        return mask_frames(subtract(padded)[:, :length], num_samples // size * size)

    def _subtract_released(self, variables, noisy):
        """Windows of noisy speech `[R, window]` -> the released estimates of clean speech."""
        spec = self.front_end.analyze(noisy, jnp.full(len(noisy), self.window))
        level = own_level(jnp.sum(spec**2, axis=-1))
        return RELEASED_GAIN * self.synthesize_released(level - self.noise_model(variables, level), spec)

    def synthesize_released(self, level, spec):
        """The waveform `[R, window]` of a level `[R, frames, F]` in dB with the phase of `spec`, before the gain."""
        power = jnp.sum(spec**2, axis=-1, keepdims=True)
        phase = jnp.where(power == 0, jnp.array([1.0, 0.0]), spec / jnp.sqrt(jnp.where(power == 0, 1.0, power)))
        return istft(10 ** (level / 20)[..., None] * phase, self.hop, last_hop=True)

    # --------------------------------------------------------------------------------------------------------- losses

    def levels(self, clean, noisy):
        """The levels of clean and noisy windows `[R, frames, F, 2]`, dB."""
        powers = [jnp.sum(spec**2, axis=-1) for spec in (clean, noisy)]
        if self.released:
            return [own_level(power) for power in powers]
        return [relative_level(power, _largest(powers[1])) for power in powers]

    def _loss(self, variables, batch, key, train=True) -> LossOutput:
        """Huber loss of the scaled noise model in windows that do not overlap."""
        real, (batch_size, frames) = self.front_end.num_frames(batch['num_samples']), batch['noisy_spec'].shape[:2]
        count = -(-frames // self.frames)
        padding = ((0, 0), (0, count * self.frames - frames), (0, 0), (0, 0))
        clean, noisy = self.levels(*(jnp.pad(batch[name], padding).reshape(-1, self.frames, *batch[name].shape[2:])
                                     for name in ('clean_spec', 'noisy_spec')))
        keys = jax.vmap(lambda k: jax.random.split(k, count))(key).reshape(-1) if train else None
        estimate, target = (x.reshape(batch_size, count * self.frames, -1) / OUTPUT_DB[1] for x in (
            self.noise_model(variables, noisy, keys), noisy - clean))
        weight = jnp.where(batch['num_samples'] > 0, real, 0).astype(jnp.float32)
        return LossOutput(huber(estimate, target, real), weight, variables['batch_stats'],
                          {'error_db': OUTPUT_DB[1] * mae(estimate, target, real)})


def _largest(power):
    return jnp.max(power, axis=(1, 2), keepdims=True)


def relative_level(power: jax.Array, reference: jax.Array) -> jax.Array:
    """Powers `[R, T, F]` -> dB relative to `reference` `[R, 1, 1]`, -80 or more; -80 where the reference is 0."""
    ratio = power / jnp.where(reference == 0, 1.0, reference)
    return 10 * jnp.log10(jnp.maximum(ratio, 10 ** (-RANGE_DB / 10)))


def own_level(power: jax.Array) -> jax.Array:
    """Powers `[R, T, F]` -> dB relative to their own maximum, -80 to 0 (librosa's `amplitude_to_db(ref=max)`)."""
    level = 10 * jnp.log10(jnp.maximum(power, AMIN**2)) - 10 * jnp.log10(jnp.maximum(_largest(power), AMIN**2))
    return jnp.maximum(level, jnp.max(level, axis=(1, 2), keepdims=True) - RANGE_DB)
