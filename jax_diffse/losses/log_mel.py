"""LMS: the multi-scale log-mel distance of spectra, per example and unreduced.

Source: "DCCRN with various loss functions", Journal of the Acoustical Society of Korea 40(2), 2021, and its released
code.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.spectral import mask_frames

SCALES = (16, 32, 64)  # mel bands
N_FFT = 512  # samples; spectra are divided by it
EPS = 1e-7


def mel_filters(num_bands: int, num_bins: int = 257, sample_rate: int = 16_000) -> np.ndarray:
    """Triangular filters between points equally spaced in mel, `[num_bands, num_bins]` float64, peak 1.

    mel(f) = 1127.01048 ln(1 + f / 700) (HTK), from 0 Hz to half the sample rate; the edges are the points' frequencies
    rounded down to a bin. A filter narrower than a bin is empty or a single bin, as in the released code.
    """
    nyquist = sample_rate / 2  # Hz
    mel = np.linspace(0, 1127.01048 * np.log1p(nyquist / 700), num_bands + 2)
    edges = np.floor(num_bins * (700 * np.expm1(mel / 1127.01048)) / nyquist)
    edges[-1] = num_bins  # exactly; rounding errors may leave it just below, and a bin too low
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.arange(num_bins)
    rising = (bins - left) / np.maximum(centre - left, 1)
    falling = (right - bins) / np.maximum(right - centre, 1)
    return np.where((left <= bins) & (bins < centre), rising, np.where((centre <= bins) & (bins < right), falling, 0.0))


def magnitude_for_log(spec: jax.Array) -> jax.Array:
    """`sqrt(re^2 + im^2 + 1e-7)` of `[..., 2]`: the magnitude for LMS, smooth at zero."""
    return jnp.sqrt(spec[..., 0]**2 + spec[..., 1]**2 + EPS)  # a third of the time of a sum over the last axis


def log_mel(spectra: jax.Array, num_bands: int) -> jax.Array:
    """ln(mel spectrum / 512 + 1e-7) of magnitudes or powers `[B, T, F]` -> `[B, T, num_bands]`."""
    filters = jnp.asarray(mel_filters(num_bands, spectra.shape[-1]).T / N_FFT, jnp.float32)
    return jnp.log(jnp.matmul(spectra, filters, precision='highest') + EPS)  # matrix units would round


def _scrambled(spectra: jax.Array) -> jax.Array:
    """`[B, T, F]` with the memory of `[B, F, T]` read as rows of F: a row is a stretch of time of one bin or a few."""
    return jnp.swapaxes(spectra, 1, 2).reshape(spectra.shape)


def log_mel_rmse(estimate: jax.Array, target: jax.Array, num_frames: jax.Array | None = None, *, power: bool = False,
                 released: bool = False) -> jax.Array:
    """Root-mean-square distance of log-mel spectra: mean over 16, 32 and 64 bands and over frames.

    Args:
      estimate: magnitudes of a 512-point transform at 16 kHz, `[B, T, 257]`.
      target: likewise.
      num_frames: `[B]` real frames; later ones are ignored. Default: all.
      power: compare power instead of magnitude spectra.
      released: filter along time as the released code does by mistake: it reads the memory of `[257, T]` as rows of
        257. All frames count.

    Returns:
      `[B]`.
    """
    if released:
        estimate, target, num_frames = _scrambled(estimate), _scrambled(target), None
    pair = [mask_frames(x, num_frames) ** (2 if power else 1) for x in (estimate, target)]
    distance = 0.0
    for num_bands in SCALES:
        error = log_mel(pair[0], num_bands) - log_mel(pair[1], num_bands)
        distance += jnp.sqrt(jnp.mean(error**2, axis=-1) + EPS) / len(SCALES)  # [B, T]
    frames = estimate.shape[1] if num_frames is None else jnp.maximum(num_frames, 1)
    return jnp.sum(mask_frames(distance, num_frames), axis=1) / frames
