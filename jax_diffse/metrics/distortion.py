"""Distances between two waveforms, vectorised over frames: SDR, SI-SDR and its parts, segmental SNR, LSD, LLR and WSS.

Signals are float64 `[N]`; clean and degraded have one length. Frames are those of P. C. Loizou, 'Speech Enhancement:
Theory and Practice' (2nd edition, 2013), chapter 11: 30 ms, Hann window, 75 % overlap.
"""

import numpy as np

LPC_ORDER = {8000: 10, 16000: 16}  # by sample rate in Hz
LARGEST_RATIO = 1e20  # beyond 200 dB, the rest is rounding
LSD_RANGE = 1e-5  # of power: 50 dB below the clean speech's maximum
KEPT = 0.95  # LLR and WSS are means over this share of the frames, those with the lowest values

# Critical bands after Klatt (1982), as in S. R. Quackenbush, T. P. Barnwell and M. A. Clements, 'Objective Measures of
# Speech Quality' (1988), and in Hansen and Pellom (1998): centre and width of each, in Hz.
BAND_CENTRES = np.array([
    50.0, 120.0, 190.0, 260.0, 330.0, 400.0, 470.0, 540.0, 617.372, 703.378, 798.717, 904.128, 1020.38,
    1148.30, 1288.72, 1442.54, 1610.70, 1794.16, 1993.93, 2211.08, 2446.71, 2701.97, 2978.04, 3276.17, 3597.63])
BAND_WIDTHS = np.array([
    70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 77.3724, 86.0056, 95.3398, 105.411, 116.256, 127.914,
    140.423, 153.823, 168.154, 183.457, 199.776, 217.153, 235.631, 255.255, 276.072, 298.126, 321.465, 346.136])


class UndefinedError(Exception):
    """The metric is undefined for these signals; the message has the reason."""


def frames(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """Cuts `[N]` into windowed frames `[T, W]` of 30 ms with a hop of a quarter; an incomplete last frame is dropped.

    Raises:
      UndefinedError: there are fewer than two frames.
    """
    width = round(0.03 * sample_rate)
    hop = width // 4
    if len(signal) < width + hop:
        raise UndefinedError(f'{len(signal)} samples are fewer than two frames of {width}')
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1, width + 1) / (width + 1))
    return np.lib.stride_tricks.sliding_window_view(signal, width)[::hop] * window


def mean_of_lowest(values: np.ndarray) -> float:
    """The mean of the lowest 95 % of `[T]`; NaN counts as highest, so a few undefined frames do not matter."""
    return float(np.mean(np.sort(values)[:round(KEPT * len(values))]))


def sdr(clean: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Signal-to-distortion ratio in dB; any difference to the clean signal, including its level, is distortion.

    J. Le Roux, S. Wisdom, H. Erdogan and J. R. Hershey, 'SDR - half-baked or well done?', ICASSP 2019, call it SNR.
    """
    distortion = degraded - clean
    return float(10 * np.log10(np.dot(clean, clean) / np.dot(distortion, distortion)))


def si_sdr(clean: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Scale-invariant signal-to-distortion ratio in dB; the means of the signals are not removed.

    J. Le Roux, S. Wisdom, H. Erdogan and J. R. Hershey, 'SDR - half-baked or well done?', ICASSP 2019.
    """
    target = np.dot(degraded, clean) / np.dot(clean, clean) * clean
    distortion = degraded - target
    return float(10 * np.log10(np.dot(target, target) / np.dot(distortion, distortion)))


def si_sir(clean: np.ndarray, degraded: np.ndarray, noise: np.ndarray) -> float:
    """Scale-invariant signal-to-interference ratio in dB: the speech in the output against the noise left in it.

    Le Roux et al. (ICASSP 2019). With s the clean speech, n the noise and x the output, the target is the projection of
    x on s, the interference that of x - target on the span of s and n; the rest is artefacts. All are orthogonal:
    10^(-SI-SDR/10) = 10^(-SI-SIR/10) + 10^(-SI-SAR/10).

    Args:
      clean, degraded: `[N]`.
      noise: `[N]`, the noisy signal minus the clean one.

    Raises:
      UndefinedError: the noise is silent or proportional to the speech, or no noise is left (beyond 200 dB).
    """
    target, interference, _ = _parts(clean, degraded, noise)
    return _ratio(target, interference, 'no noise is left')


def si_sar(clean: np.ndarray, degraded: np.ndarray, noise: np.ndarray) -> float:
    """Scale-invariant signal-to-artefacts ratio in dB: the speech in the output against what is neither.

    See `si_sir`.

    Raises:
      UndefinedError: the noise is silent or proportional to the speech, or there are no artefacts (beyond 200 dB), as
        in the noisy signal itself.
    """
    target, _, artefacts = _parts(clean, degraded, noise)
    return _ratio(target, artefacts, 'no artefacts: the signal is a sum of clean speech and noise')


def _parts(clean, degraded, noise) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The target, interference and artefacts in an output, each `[N]`."""
    target = np.dot(degraded, clean) / np.dot(clean, clean) * clean
    other = noise - np.dot(noise, clean) / np.dot(clean, clean) * clean  # the span's direction orthogonal to speech
    if not np.dot(other, other) * LARGEST_RATIO > np.dot(noise, noise):
        raise UndefinedError('the noise is silent or proportional to the clean speech')
    interference = np.dot(degraded - target, other) / np.dot(other, other) * other
    return target, interference, degraded - target - interference


def _ratio(target, rest, nothing: str) -> float:
    if np.dot(rest, rest) * LARGEST_RATIO < np.dot(target, target):
        raise UndefinedError(nothing)
    return float(10 * np.log10(np.dot(target, target) / np.dot(rest, rest)))


def lsd(clean: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Log-spectral distance in dB: the mean over frames of the RMS over bins of the difference of power spectra in dB.

    With X and Y the spectra of `frames` t at the bins k = 0 ... K, up to half the sample rate, without zero padding:

        LSD = mean_t sqrt(mean_k (L(X)[t, k] - L(Y)[t, k])^2),  L(X) = 10 log10 max(|X|^2, floor),
        floor = 10^(-50/10) max_{t,k} |X[t, k]|^2, X of the clean speech.

    A. H. Gray and J. D. Markel, 'Distance measures for speech processing', IEEE TASSP 1976, for the distance of two
    spectra; I. Cohen and S. Gannot, 'Spectral enhancement methods', in Springer Handbook of Speech Processing (2008),
    for the floor, without which digital silence in one signal would decide.

    Raises:
      UndefinedError: there are fewer than two frames.
    """
    power, other = (np.abs(np.fft.rfft(frames(signal, sample_rate))) ** 2 for signal in (clean, degraded))
    floor = LSD_RANGE * np.max(power)
    difference = 10 * np.log10(np.maximum(power, floor) / np.maximum(other, floor))
    return float(np.mean(np.sqrt(np.mean(difference ** 2, axis=-1))))


def ssnr(clean: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Segmental signal-to-noise ratio in dB: the mean over all frames except the last, each clipped to [-10, 35].

    Hansen and Pellom, 'An effective quality evaluation protocol for speech enhancement algorithms', ICSLP 1998.

    Raises:
      UndefinedError: there are fewer than two frames.
    """
    tiny = np.finfo(np.float64).eps
    signal = np.sum(frames(clean, sample_rate) ** 2, axis=-1)
    noise = np.sum(frames(clean - degraded, sample_rate) ** 2, axis=-1)
    ratios = 10 * np.log10(signal / (noise + tiny) + tiny)
    return float(np.mean(np.clip(ratios, -10.0, 35.0)[:-1]))


def lpc(windowed: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Linear prediction of frames `[T, W]` with the autocorrelation method.

    Runs the Levinson-Durbin recursion on all frames at once. A frame of zeros gives NaN.

    Returns:
      The prediction error filters `[T, order + 1]`, first entry 1, and the autocorrelation at the lags 0 to `order`, of
      the same shape. Both are rounded to float32, as in the implementations behind published scores.
    """
    width = windowed.shape[-1]
    lags = np.stack([np.sum(windowed[:, :width - lag] * windowed[:, lag:], axis=-1) for lag in range(order + 1)], -1)
    filters = np.zeros_like(lags)
    filters[:, 0] = 1.0
    error = lags[:, 0]
    for step in range(1, order + 1):
        predicted = np.sum(filters[:, 1:step] * lags[:, step - 1:0:-1], axis=-1)
        reflection = -(lags[:, step] + predicted) / error
        filters[:, 1:step + 1] += reflection[:, None] * filters[:, step - 1::-1]
        error = (1.0 - reflection ** 2) * error
    return filters.astype(np.float32), lags.astype(np.float32)


def _prediction_error(filters: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """`a^T R a` for filters a `[T, P]` and the Toeplitz matrices R of lags `[T, P]`.

    Computes R a first, in float32, with contiguous R. If speech has almost no energy at high frequencies, the result is
    a small difference of large numbers, and reference scores contain the rounding of BLAS; other orders of evaluation
    differ by up to 0.02.
    """
    taps = np.arange(lags.shape[-1])
    matrices = np.take(lags, np.abs(taps[:, None] - taps), axis=-1)
    products = matrices @ filters[:, :, None]
    return (filters[:, None, :] @ products)[:, 0, 0].astype(np.float64)


def llr(clean: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Log-likelihood ratio (Loizou, chapter 11), not clipped: the mean over the lowest 95 % of all frames but the last.

    Linear prediction is undefined for frames of digital silence in either signal; they count as the highest.

    Raises:
      UndefinedError: there are fewer than two frames, or linear prediction is undefined for more than 5 % of them.
    """
    order = LPC_ORDER[sample_rate]
    with np.errstate(divide='ignore', invalid='ignore'):
        clean_filters, clean_lags = lpc(frames(clean, sample_rate)[:-1], order)
        filters, _ = lpc(frames(degraded, sample_rate)[:-1], order)
        ratios = np.log(_prediction_error(filters, clean_lags) / _prediction_error(clean_filters, clean_lags))
    value = mean_of_lowest(ratios)
    if np.isnan(value):
        undefined = np.count_nonzero(np.isnan(ratios))
        raise UndefinedError(f'{undefined} of {len(ratios)} frames have no linear prediction, as in digital silence')
    return value


def nearest_peaks(slopes: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Returns for every band the energy of the spectral peak that it belongs to.

    As in the implementation that accompanies Loizou's book, a rising band takes the energy one band before its peak.

    Args:
      slopes: `[T, K - 1]`, differences of neighbouring bands of `energies`.
      energies: `[T, K]` in dB.

    Returns:
      `[T, K - 1]` in dB.
    """
    bands = np.arange(slopes.shape[-1])
    rising = slopes > 0
    fall_after = np.where(rising, len(bands), bands)[:, ::-1]
    fall_after = np.minimum.accumulate(fall_after, axis=-1)[:, ::-1]
    rise_before = np.maximum.accumulate(np.where(rising, bands, -1), axis=-1)
    return np.take_along_axis(energies, np.where(rising, fall_after - 1, rise_before + 1), axis=-1)


def _band_filters(sample_rate: int, bins: int) -> np.ndarray:
    """Gaussian critical-band filters `[bins, 25]` for power; values below -30 dB are zero."""
    per_hz = bins / (sample_rate / 2)
    offsets = (np.arange(bins)[:, None] - np.floor(BAND_CENTRES * per_hz)) / (BAND_WIDTHS * per_hz)
    filters = np.exp(-11.0 * offsets ** 2) * BAND_WIDTHS[0] / BAND_WIDTHS
    return np.where(filters > np.exp(-30.0 / (2 * 2.303)), filters, 0.0)


def _slopes_and_weights(signal: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    windowed = frames(signal, sample_rate)[:-1]
    size = 2 ** int(np.ceil(np.log2(2 * windowed.shape[-1])))
    power = np.abs(np.fft.rfft(windowed, size)[:, :-1]) ** 2
    energies = 10 * np.log10(np.maximum(power @ _band_filters(sample_rate, size // 2), 1e-10))
    slopes = np.diff(energies, axis=-1)
    lower = energies[:, :-1]
    to_maximum = 20.0 / (20.0 + energies.max(axis=-1, keepdims=True) - lower)
    to_peak = 1.0 / (1.0 + nearest_peaks(slopes, energies) - lower)
    return slopes, to_maximum * to_peak


def wss(clean: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Weighted spectral slope distance over 25 critical bands: mean over the lowest 95 % of all frames but the last.

    D. H. Klatt, 'Prediction of perceived phonetic distance from critical-band spectra', ICASSP 1982; Loizou, ch. 11.

    Raises:
      UndefinedError: there are fewer than two frames.
    """
    clean_slopes, clean_weights = _slopes_and_weights(clean, sample_rate)
    slopes, weights = _slopes_and_weights(degraded, sample_rate)
    weights = 0.5 * (clean_weights + weights)
    return mean_of_lowest(np.sum(weights * (clean_slopes - slopes) ** 2, axis=-1) / np.sum(weights, axis=-1))
