"""Resamples signals on the host."""

import numpy as np
import soxr


def num_resampled(num_samples: int, from_rate: int, to_rate: int) -> int:
    """The number of samples after resampling; their span covers every input sample."""
    return -(-num_samples * to_rate // from_rate)


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resamples `[N]` or `[N, C]` along time with soxr (high quality) -> float32, `ceil(N to / from)` samples."""
    if from_rate == to_rate:
        return samples
    length = num_resampled(len(samples), from_rate, to_rate)
    found = soxr.resample(np.asarray(samples, np.float32), from_rate, to_rate, quality='HQ')[:length]
    return np.pad(found, [(0, length - len(found)), *[(0, 0)] * (found.ndim - 1)])
