"""Small folders of noise: their waveforms, and their SNR."""

import numpy as np
import soundfile

RATE = 16_000


def wave(seed, seconds=0.5, level=0.1):
    return level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def write(path, samples, rate=RATE, subtype=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def wave_snr(clean, noisy):
    """SNR in dB from its definition."""
    noise = noisy.astype(np.float64) - clean
    return 10 * np.log10(np.sum(clean.astype(np.float64)**2) / np.sum(noise**2))
