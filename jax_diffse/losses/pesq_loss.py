"""A differentiable PESQ as a loss between waveforms at 16 kHz, per example and unreduced.

PESQ is ITU-T Recommendation P.862; its steps as a loss are those of Martin-Donas et al., "A Deep Learning Loss Function
Based on the Perceptual Evaluation of the Speech Quality", IEEE Signal Processing Letters 25(11), 2018. In contrast to
`pmsqe`, levels are equalised by band-pass filtered waveforms, the receiving handset's filter is applied, gains are
smoothed in time, the reference's spectrum is the one that is equalised, and disturbances are averaged as in P.862.
Details and numbers follow version 0.1.2 of torch-pesq, with which the Schroedinger bridge and SGMSE+ were trained.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.losses.pmsqe import BAND_WIDTH, HOP, THRESHOLD, WINDOW, audible_power, bark_spectrum, loudness
from jax_diffse.spectral import hann, mask_frames

SAMPLE_RATE = 16_000  # Hz

_BAND = (325, 3250)  # Hz, of the level
_LEVEL = 1e7  # power in that band after the equalisation of levels
_LEVEL_PADDING, _LEVEL_SCALE = 5120, 1.04684  # samples; P = sum / (N + padding) / scale
_TAPER = 15  # samples at both ends
# A biquad in place of the receiving handset.
_HANDSET = (2.740826, -5.4816519, 2.740826), (1.0, -1.9444777, 0.94597794)
_DECAY = 1024  # samples after which impulse responses of both filters are below 1e-12 of their energy

_SILENCE = 1e-20  # smallest disturbance
_MIN_PEAK, _MIN_POWER = 1e-5, 1e-12  # below the resolution of 16 bits; keep gradients of silent signals finite
_WINDOW_FRAMES, _WINDOW_HOP = 20, 10  # frames of the inner mean of disturbances
_SYMMETRIC, _ASYMMETRIC, _MAX_DISTURBANCE = 0.1, 0.0309, 45.0


@functools.cache
def _band_pass() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Numerator and denominator of a Butterworth filter of order 5, rounded to float32 as the reference does."""
    from scipy import signal  # slow to import

    return tuple(tuple(np.float32(x).tolist()) for x in signal.butter(5, _BAND, btype='bandpass', fs=SAMPLE_RATE))


def _filter(x: jax.Array, coefficients) -> jax.Array:
    """A recursive filter over `[B, N]`, from rest; by its frequency response, without a loop over samples."""
    numerator, denominator = coefficients
    size = -(-(x.shape[1] + _DECAY) // 4096) * 4096  # impulse responses do not wrap around; fast transforms
    delay = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    response = np.polyval(numerator[::-1], delay) / np.polyval(denominator[::-1], delay)
    spectrum = jnp.fft.rfft(x, n=size) * jnp.asarray(response, jnp.complex64)[None]
    return jnp.fft.irfft(spectrum, n=size)[:, :x.shape[1]]


def equalize_level(x: jax.Array, num_samples: jax.Array) -> jax.Array:
    """Scales waveforms `[B, N]` to the calibrated power of the telephone band; `num_samples` `[B]`."""
    filtered = mask_frames(_filter(x, _band_pass()), num_samples)
    power = jnp.sum(filtered**2, axis=1) / (num_samples + _LEVEL_PADDING) / _LEVEL_SCALE
    return x * jnp.sqrt(_LEVEL / jnp.maximum(power, _MIN_POWER))[:, None]


def handset(x: jax.Array, num_samples: jax.Array) -> jax.Array:
    """Fades both ends in and out over 15 samples and applies the handset's filter to `[B, N]`."""
    place = jnp.arange(x.shape[1])[None]
    to_end = jnp.minimum(place + 1, num_samples[:, None] - place)
    faded = x * jnp.clip(to_end / (_TAPER + 1), 0.0, 1.0)
    return mask_frames(_filter(faded, _HANDSET), num_samples)


def num_spectra(num_samples: jax.Array) -> jax.Array:
    """Frames of waveforms of `num_samples`, which are extended by zeros: `num_samples % 256` of them."""
    return jnp.maximum((num_samples + num_samples % HOP - WINDOW) // HOP + 1, 1)


def power_spectrum(x: jax.Array) -> jax.Array:
    """Power spectra `[B, T, 257]` of `[B, N]`, extended by zeros: a Hann window of 512 samples every 256.

    The constant component is left out.
    """
    count = max((x.shape[1] + HOP - 1 - WINDOW) // HOP + 1, 1)
    x = jnp.pad(x, ((0, 0), (0, max(0, (count + 1) * HOP - x.shape[1]))))[:, :(count + 1) * HOP]
    halves = x.reshape(x.shape[0], count + 1, HOP)
    frames = jnp.concatenate([halves[:, :-1], halves[:, 1:]], axis=-1)
    spec = jnp.fft.rfft(frames * jnp.asarray(hann(WINDOW), jnp.float32)[None, None])
    return (spec.real**2 + spec.imag**2).at[..., 0].set(0.0)


def equalize_frequency(reference: jax.Array, estimate: jax.Array, num_frames: jax.Array) -> jax.Array:
    """Scales each band of the reference `[B, T, 49]` to the estimate's mean over active frames, within 20 dB."""
    active = (audible_power(reference, 100) >= 1e7)[..., None]
    audible = 100 * jnp.asarray(THRESHOLD, jnp.float32)[None, None]
    means = [jnp.sum(jnp.where(active & (x > audible), x, 0.0), axis=1, keepdims=True) / num_frames[:, None, None]
             for x in (estimate, reference)]
    return reference * jnp.clip((means[0] + 1000) / (means[1] + 1000), 0.01, 100)


def equalize_gain(estimate: jax.Array, reference: jax.Array) -> jax.Array:
    """Scales each frame of the estimate to the reference's audible power, with a gain that is smoothed in time."""
    gain = (audible_power(reference) + 5000) / (audible_power(estimate) + 5000)
    smooth = jnp.concatenate([gain[:, :1], 0.8 * gain[:, 1:] + 0.2 * gain[:, :-1]], axis=1)
    return estimate * jnp.clip(smooth, 3e-4, 5)[..., None]


def _norm(x: jax.Array, power: int) -> jax.Array:
    """The norm over Bark bands but the lowest, weighted by their widths: `[B, T, 49]` -> `[B, T]`."""
    widths = BAND_WIDTH[1:]
    weighted = jnp.abs(x[..., 1:]) * jnp.asarray(widths, jnp.float32)[None, None]
    return np.float32(np.sum(widths)**(1 - 1 / power)) * _root(jnp.sum(weighted**power, axis=-1), power)


def _root(x: jax.Array, power: int) -> jax.Array:
    """The root of x >= 0, with gradient 0 at 0."""
    if power == 1:
        return x
    zero = x == 0
    return jnp.where(zero, 0.0, jnp.where(zero, 1.0, x)**(1 / power))


def frame_disturbance(estimate: jax.Array, reference: jax.Array) -> jax.Array:
    """Equalised Bark spectra `[B, T, 49]` -> symmetric and asymmetric disturbance `[B, T, 2]`."""
    heard, meant = loudness(estimate), loudness(reference)
    difference = heard - meant
    audible = jnp.maximum(jnp.abs(difference) - 0.25 * jnp.minimum(heard, meant), 0.0)
    added = ((estimate + 50) / (reference + 50))**1.2  # additions disturb more than omissions
    added = jnp.where(added < 3, 0.0, jnp.minimum(added, 12.0))
    both = jnp.stack([_norm(audible, 2), _norm(added * audible, 1)], axis=-1)
    weight = ((audible_power(reference) + 1e5) / 1e7)**0.04
    return jnp.minimum(jnp.maximum(both, _SILENCE) / weight[..., None], _MAX_DISTURBANCE)


def mean_over_time(disturbance: jax.Array, num_frames: jax.Array) -> jax.Array:
    """The means of P.862, `[B, T, 2]` -> `[B, 2]`: a 6-norm over windows of 20 frames, the RMS over these.

    Fewer frames are one window.
    """
    disturbance = mask_frames(disturbance, num_frames)
    total = max((disturbance.shape[1] - _WINDOW_FRAMES) // _WINDOW_HOP + 1, 1)
    missing = max(0, (total + 1) * _WINDOW_HOP - disturbance.shape[1])
    disturbance = jnp.pad(disturbance, ((0, 0), (0, missing), (0, 0)))[:, :(total + 1) * _WINDOW_HOP]
    # Powers of small numbers would vanish in float32.
    scale = jax.lax.stop_gradient(jnp.maximum(jnp.max(disturbance, axis=1, keepdims=True), _SILENCE))
    sixth = jnp.sum(((disturbance / scale)**6).reshape(-1, total + 1, _WINDOW_HOP, 2), axis=2)
    size = jnp.minimum(num_frames, _WINDOW_FRAMES)[:, None, None]
    windows = _root((sixth[:, :-1] + sixth[:, 1:]) / size, 6)
    count = jnp.maximum((num_frames - _WINDOW_FRAMES) // _WINDOW_HOP + 1, 1)
    mean = jnp.sum(mask_frames(windows, count)**2, axis=1) / count[:, None]
    return scale[:, 0] * _root(mean, 2)


def pesq_loss(estimate: jax.Array, reference: jax.Array, num_samples: jax.Array | None = None) -> jax.Array:
    """The disturbance of the estimate, 0 (equal) to about 6: the larger, the worse.

    Args:
      estimate: `[B, N]` at 16 kHz.
      reference: clean speech `[B, N]`; the loss is not symmetric.
      num_samples: `[B]` real samples; later ones are ignored. Default: all.

    Returns:
      `[B]`.
    """
    if num_samples is None:
        num_samples = jnp.full(len(estimate), estimate.shape[1])
    pair = [mask_frames(x, num_samples) for x in (estimate, reference)]
    peak = jnp.maximum(jnp.maximum(*(jnp.max(jnp.abs(x), axis=1) for x in pair)), _MIN_PEAK)[:, None]
    num_frames = num_spectra(num_samples)
    estimate, reference = (bark_spectrum(mask_frames(power_spectrum(handset(equalize_level(
        x / peak, num_samples), num_samples)), num_frames)) for x in pair)
    reference = equalize_frequency(reference, estimate, num_frames)
    estimate = equalize_gain(estimate, reference)
    means = mean_over_time(frame_disturbance(estimate, reference), num_frames)
    return _SYMMETRIC * means[:, 0] + _ASYMMETRIC * means[:, 1]
