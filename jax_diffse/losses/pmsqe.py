"""PMSQE, the perceptual metric for speech quality evaluation as a loss, at 16 kHz; per example and unreduced.

Source: Martin-Donas et al., "A Deep Learning Loss Function Based on the Perceptual Evaluation of the Speech Quality",
IEEE Signal Processing Letters 25(11), 2018. Steps and tables are those of PESQ, ITU-T Recommendation P.862 and its
reference implementation: level, frequency and gain equalisation on the Bark scale, loudness, disturbance.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.losses.released import three_seconds
from jax_diffse.spectral import hann, mask_frames

SAMPLE_RATE = 16_000  # Hz; the tables are for this rate only
WINDOW, HOP, BINS = 512, 256, 257

# ITU-T P.862, tables for 16 kHz: 49 bands on a modified Bark scale.
_BINS_PER_BAND = (
    1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 3, 4, 5, 4, 5, 6, 6, 7,
    8, 9, 9, 12, 12, 15, 16, 18, 21, 25, 20)
_BAND_GAINS = (
    100, 100, 100, 100, 100, 100, 100, 100, 50, 100, 100, 100, 99.9999, 100, 53.0471, 110, 117.992, 65, 68.7601,
    69.9999, 71.4288, 75, 76.8434, 80.9688, 88.6461, 63.8644, 68.1553, 72.5478, 75.5848, 58.3792, 80.9508, 64.1357,
    54.3848, 73.8219, 64.4371, 59.1765, 65.5213, 61.3998, 58.144, 57.0045, 64.1263, 54.311, 61.115, 55.0778, 56.8493,
    55.6289, 53.1371, 54.9858, 79.547)
# Power at the threshold of hearing, and width in Bark, of each band.
THRESHOLD = np.array([
    5.128615e+07, 2454710, 70794.59, 4897.789, 1174.898, 389.0452, 104.7129, 45.70882, 17.7828, 9.772372, 4.897789,
    3.090296, 1.905461, 1.258925, 0.977237, 0.724436, 0.562341, 0.457088, 0.389045, 0.331131, 0.295121, 0.269153,
    0.25704, 0.251189, 0.251189, 0.251189, 0.251189, 0.263027, 0.288403, 0.30903, 0.338844, 0.371535, 0.398107,
    0.436516, 0.467735, 0.489779, 0.501187, 0.501187, 0.512861, 0.524807, 0.524807, 0.524807, 0.512861, 0.47863,
    0.42658, 0.371535, 0.363078, 0.416869, 0.537032])
BAND_WIDTH = np.array([
    0.157344, 0.317994, 0.322441, 0.326934, 0.331474, 0.336061, 0.340697, 0.345381, 0.350114, 0.354897, 0.359729,
    0.364611, 0.369544, 0.374529, 0.379565, 0.384653, 0.389794, 0.394989, 0.400236, 0.405538, 0.410894, 0.416306,
    0.421773, 0.427297, 0.432877, 0.438514, 0.444209, 0.449962, 0.455774, 0.461645, 0.467577, 0.473569, 0.479621,
    0.485736, 0.491912, 0.498151, 0.504454, 0.510819, 0.517250, 0.523745, 0.530308, 0.536934, 0.543629, 0.550390,
    0.557220, 0.564119, 0.571085, 0.578125, 0.585232])
_POWER_SCALE, _LOUDNESS_SCALE = 6.910853e-6, 1.866055e-1  # P.862's S_p and S_l

_LEVEL = 1e7  # P.862's calibrated power of the telephone band
_MIN_LEVEL = 1e-12  # about -90 dBFS, the resolution of 16 bits; bounds the amplification of quieter signals
_SYMMETRIC, _ASYMMETRIC = 0.1, 0.0309  # weights of the two disturbances in the score
_MAX_DISTURBANCE = 45.0


def bark_matrix() -> np.ndarray:
    """`[257, 49]`: P.862's sums of neighbouring bins into bands, with each band's gain; the last bin is ignored."""
    band_of_bin = np.repeat(np.arange(len(_BINS_PER_BAND)), _BINS_PER_BAND)
    matrix = np.zeros((BINS, len(_BINS_PER_BAND)))
    matrix[np.arange(BINS - 1), band_of_bin] = np.asarray(_BAND_GAINS)[band_of_bin]
    return matrix


def zwicker_exponents() -> np.ndarray:
    """`[49]`: exponents of loudness, 0.23 with P.862's increase below 4 Bark."""
    centre = np.cumsum(BAND_WIDTH) - BAND_WIDTH / 2  # Bark
    return 0.23 * np.clip(6 / (centre + 2), 1, 2)**0.15


def level_weights() -> np.ndarray:
    """`[257]`: the band of 350 to 3250 Hz whose mean power is P.862's level, corrected for window and transform."""
    weights = np.zeros(BINS)
    weights[11:105] = 1
    weights[11], weights[104] = 0.4, 0.5
    return weights * 2 * (WINDOW + 2) / WINDOW**2  # a square-root Hann window halves the power


def _row(table: np.ndarray) -> jax.Array:
    """A table over bands or bins, to be multiplied with `[B, T, ...]`."""
    return jnp.asarray(table, jnp.float32)[None, None]


def transform(frames: jax.Array) -> jax.Array:
    """Spectra `[B, T, 257]`, complex, of frames `[B, T, 512]`: square-root Hann window, asteroid's scaling (STFTFB).

    Each is 1/16 of the usual sum, which makes the analysis a tight frame; the real bins at both ends are smaller by
    the square root of 2.
    """
    window = np.sqrt(hann(WINDOW)) / (0.5 * np.sqrt(WINDOW**2 / HOP))
    ends = np.where(np.isin(np.arange(BINS), (0, BINS - 1)), np.sqrt(0.5), 1.0)
    return jnp.fft.rfft(frames * _row(window)) * _row(ends)


def power_spectrum(x: jax.Array) -> jax.Array:
    """Power spectra of waveforms at 16 kHz, `[B, N]` -> `[B, T, 257]`, T = (N - 512) // 256 + 1.

    Square-root Hann window of 512 samples every 256, in the scaling of asteroid's STFTFB. There is no padding, except
    that shorter waveforms are extended to one window.
    """
    x = jnp.pad(x, ((0, 0), (0, max(0, WINDOW - x.shape[1]))))
    halves = x[:, :x.shape[1] // HOP * HOP].reshape(x.shape[0], -1, HOP)
    frames = jnp.concatenate([halves[:, :-1], halves[:, 1:]], axis=-1)
    spec = transform(frames)
    return spec.real**2 + spec.imag**2


def num_spectra(num_samples: jax.Array) -> jax.Array:
    """Frames of `power_spectrum` that lie within `num_samples` (at least one), `[B]`."""
    return jnp.maximum((num_samples - WINDOW) // HOP + 1, 1)


def _mean_over_frames(x: jax.Array, num_frames: jax.Array | None) -> jax.Array:
    """`[B, T]` -> `[B]`, over real frames."""
    frames = x.shape[1] if num_frames is None else jnp.maximum(num_frames, 1)
    return jnp.sum(mask_frames(x, num_frames), axis=1) / frames


def equalize_level(power: jax.Array, num_frames: jax.Array | None = None) -> jax.Array:
    """Step 1: scales each example's power spectra `[B, T, 257]` to the calibrated level; padding becomes zero."""
    power = mask_frames(power, num_frames)
    level = _mean_over_frames(jnp.mean(power * _row(level_weights()), axis=-1), num_frames)
    return power * (_LEVEL / jnp.maximum(level, _MIN_LEVEL))[:, None, None]


def bark_spectrum(power: jax.Array) -> jax.Array:
    """Step 2: `[B, T, 257]` -> powers in Bark bands `[B, T, 49]`."""
    matrix = jnp.asarray(_POWER_SCALE * bark_matrix(), jnp.float32)
    return jnp.matmul(power, matrix, precision='highest')  # matrix units would round


def audible_power(bark: jax.Array, factor: float = 1.0) -> jax.Array:
    """Power of the bands above `factor` times the threshold of hearing, `[B, T, 49]` -> `[B, T]`."""
    return jnp.sum(jnp.where(bark > factor * _row(THRESHOLD), bark, 0.0), axis=-1)


def equalize_frequency(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """Step 3: scales each band of the estimate to the target's mean over active frames, within 20 dB."""
    active = audible_power(target, 100) >= 1e7
    taken = active[..., None] & (target >= 100 * _row(THRESHOLD))
    estimated, aimed = (jnp.sum(jnp.where(taken, x, 0.0), axis=1, keepdims=True) for x in (estimate, target))
    return estimate * jnp.clip((aimed + 1000) / (estimated + 1000), 0.01, 100)


def equalize_gain(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """Step 4: scales each frame of the estimate to the target's audible power, within bounds."""
    gain = (audible_power(target) + 5000) / (audible_power(estimate) + 5000)
    return estimate * jnp.clip(gain, 3e-4, 5)[..., None]


def loudness(bark: jax.Array) -> jax.Array:
    """Step 5: Zwicker's law, `[B, T, 49]` powers -> loudness densities, zero below the threshold of hearing."""
    threshold, exponent = _row(THRESHOLD), zwicker_exponents()
    scale = _row(_LOUDNESS_SCALE * (THRESHOLD / 0.5)**exponent)
    return jnp.where(bark < threshold, 0.0, scale * ((0.5 + 0.5 * bark / threshold)**_row(exponent) - 1))


def frame_disturbance(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """Steps 6 and 7: equalised Bark spectra `[B, T, 49]` -> symmetric and asymmetric disturbance `[B, T, 2]`."""
    heard, meant = loudness(estimate), loudness(target)
    disturbance = jnp.maximum(jnp.abs(heard - meant) - 0.25 * jnp.minimum(heard, meant), 1e-8) * _row(BAND_WIDTH)
    added = ((estimate + 50) / (target + 50))**1.2  # additions disturb more than omissions
    added = jnp.where(added < 3, 0.0, jnp.minimum(added, 12.0))
    symmetric = jnp.sqrt(jnp.sum(disturbance**2 + 1e-8, axis=-1)) * np.sqrt(np.sum(BAND_WIDTH))
    asymmetric = jnp.sum(added * disturbance, axis=-1)
    weight = ((audible_power(target) + 1e5) / 1e7)**0.04
    return jnp.minimum(jnp.stack([symmetric, asymmetric], axis=-1) / weight[..., None], _MAX_DISTURBANCE)


def compare(estimate: jax.Array, target: jax.Array, num_frames: jax.Array | None = None) -> jax.Array:
    """Steps 3 to 8: Bark spectra `[B, T, 49]` at equal level, zero where padded -> PMSQE `[B]`."""
    estimate = equalize_gain(equalize_frequency(estimate, target), target)
    disturbance = frame_disturbance(estimate, target)
    score = _SYMMETRIC * disturbance[..., 0] + _ASYMMETRIC * disturbance[..., 1]
    return _mean_over_frames(score, num_frames)


def pmsqe(estimate: jax.Array, target: jax.Array, num_frames: jax.Array | None = None) -> jax.Array:
    """PMSQE of power spectra, about 0 (equal) to 4: the estimate's disturbance where the target is the reference.

    Args:
      estimate: power spectra `[B, T, 257]` as of `power_spectrum`.
      target: likewise; the loss is not symmetric.
      num_frames: `[B]` real frames; later ones are ignored. Default: all.

    Returns:
      `[B]`.
    """
    estimate, target = (bark_spectrum(equalize_level(x, num_frames)) for x in (estimate, target))
    return compare(estimate, target, num_frames)


def pmsqe_of_waveforms(estimate: jax.Array, target: jax.Array, num_samples: jax.Array | None = None) -> jax.Array:
    """PMSQE of waveforms at 16 kHz as a whole, `[B, N]` -> `[B]`; `num_samples` `[B]`: real lengths."""
    estimate, target = (power_spectrum(mask_frames(x, num_samples)) for x in (estimate, target))
    return pmsqe(estimate, target, None if num_samples is None else num_spectra(num_samples))


def pairwise_released(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """`[B, 3, 3]`: each second of the estimate against each of the target, waveforms cut or extended to 3 s.

    Magnitudes take the place of powers, as in the released code.
    """
    def bark(x):
        spectra = jnp.sqrt(power_spectrum(three_seconds(x).reshape(-1, SAMPLE_RATE)) + 1e-8)
        bark = bark_spectrum(equalize_level(spectra))
        return bark.reshape(-1, 3, *bark.shape[1:])

    estimate = jnp.repeat(bark(estimate), 3, axis=1)  # pieces 0, 0, 0, 1, 1, 1, ...
    target = jnp.tile(bark(target), (1, 3, 1, 1))  # pieces 0, 1, 2, 0, 1, 2, ...
    shape = (-1, *target.shape[2:])
    return compare(estimate.reshape(shape), target.reshape(shape)).reshape(-1, 3, 3)


def pmsqe_released(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """PMSQE as the released code of DCCRN computes it: waveforms `[B, N]` -> `[B]`.

    The three seconds of a clip are treated like sources to be separated: the result is the smallest mean over the 6
    ways to pair them.
    """
    pairs = pairwise_released(estimate, target)
    means = [sum(pairs[:, i, j] for j, i in enumerate(order)) / 3 for order in itertools.permutations(range(3))]
    return jnp.min(jnp.stack(means), axis=0)
