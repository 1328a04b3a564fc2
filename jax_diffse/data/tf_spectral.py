"""The analysis functions of `jax_diffse.spectral` in TensorFlow, for the data pipeline.

Each function is the twin of the function with the same name there. Waveforms here are `[..., N]` without padding, so
each of them ends at N.
"""

import numpy as np

from jax_diffse.data.tf import tf
from jax_diffse.spectral import POWERS, FrontEnd, hann


def stft(x: tf.Tensor, n_fft: int, hop: int, sqrt_hann: bool = False) -> tf.Tensor:
    """Centred short-time Fourier transform with a periodic Hann window and reflect padding, not normalised.

    `[..., N]`, N > n_fft / 2 -> `[..., T, n_fft // 2 + 1, 2]` float32, T and `sqrt_hann` as in `spectral.stft`.
    """
    window = np.sqrt(hann(n_fft)) if sqrt_hann else hann(n_fft)
    pad = n_fft // 2
    x = tf.concat([tf.reverse(x[..., 1:pad + 1], [-1]), x, tf.reverse(x[..., -pad - 1:-1], [-1])], axis=-1)
    frames = tf.signal.frame(x, n_fft, hop)
    return _pairs(tf.signal.rfft(frames * tf.constant(window, tf.float32)))


def conv_stft(x: tf.Tensor, window: int, hop: int, n_fft: int) -> tf.Tensor:
    """Transform of zero-padded frames, the window in the first of n_fft points: `[..., N]` -> `[..., T, F, 2]`."""
    zeros = tf.zeros(tf.concat([tf.shape(x)[:-1], [window - hop]], 0))
    frames = tf.signal.frame(tf.concat([zeros, x, zeros], axis=-1), window, hop)
    return _pairs(tf.signal.rfft(frames * tf.constant(hann(window), tf.float32), [n_fft]))


def compress(spec: tf.Tensor, kind: str, exponent: float = 0.5) -> tf.Tensor:
    """Compresses magnitudes and keeps phases, `[..., 2]` -> `[..., 2]`; `kind`, `exponent`: see `spectral.compress`."""
    if kind == 'none':
        return spec
    real, imag = tf.unstack(spec, axis=-1)
    power = real**2 + imag**2
    safe = tf.where(power == 0, tf.ones_like(power), power)
    if kind == 'log1x':
        gain = tf.math.log1p(tf.sqrt(power)) * tf.math.rsqrt(safe)
    else:
        gain = tf.exp((POWERS.get(kind, exponent) - 1) / 2 * tf.math.log(safe))  # twice as fast as tf.pow
    return _pairs(tf.complex(real * gain, imag * gain))


def rms_gain(x: tf.Tensor) -> tf.Tensor:
    """`sqrt(N / sum(x^2))` of `[..., N]` -> `[...]`; 1 for digital silence."""
    energy = tf.reduce_sum(x**2, axis=-1)
    silent = energy == 0
    safe = tf.where(silent, tf.ones_like(energy), energy)
    return tf.where(silent, tf.ones_like(energy), tf.sqrt(tf.cast(tf.shape(x)[-1], tf.float32) / safe))


def gain(front_end: FrontEnd, noisy: tf.Tensor) -> tf.Tensor:
    """The gain of the front end's level, `[..., N]` -> `[...]`; 1 for digital silence."""
    if front_end.unit_peak:
        peak = tf.reduce_max(tf.abs(noisy), axis=-1)
        return 1 / tf.where(peak < np.finfo(np.float32).tiny, tf.ones_like(peak), peak)
    return rms_gain(noisy) if front_end.unit_rms else tf.ones(tf.shape(noisy)[:-1])


def num_frames(front_end: FrontEnd, num_samples: tf.Tensor) -> tf.Tensor:
    """The number of frames of a waveform of `num_samples`."""
    return _extended(front_end, num_samples) // front_end.hop + front_end.extra_frames


def analyze(front_end: FrontEnd, x: tf.Tensor) -> tf.Tensor:
    """Transforms waveforms `[..., N]` to compressed spectrograms `[..., front_end.num_frames(N), F, 2]`."""
    num_samples = tf.shape(x)[-1]
    silence = tf.zeros(tf.concat([tf.shape(x)[:-1], [_extended(front_end, num_samples) - num_samples]], 0))
    x = tf.concat([x, silence], axis=-1)
    if front_end.window is None:
        spec = stft(x, front_end.n_fft, front_end.hop, front_end.sqrt_hann)
    else:
        spec = conv_stft(x, front_end.window, front_end.hop, front_end.n_fft)
    return front_end.factor * compress(spec, front_end.compression, front_end.exponent)


def _extended(front_end, num_samples):
    whole = -(-num_samples // front_end.hop) * front_end.hop if front_end.whole_hops else num_samples
    return tf.maximum(whole, front_end.shortest)


def _pairs(spec):
    """Complex `[...]` -> real and imaginary parts `[..., 2]`; reuses the bytes, while tf.stack copies slowly."""
    return tf.bitcast(spec, tf.float32)
