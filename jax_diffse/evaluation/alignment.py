"""The offset between two recordings of the same speech, by cross-correlation, and their common part."""

from typing import NamedTuple

import numpy as np

REACH = 1.0  # seconds; larger offsets are not found
CLEAR = 0.3  # the smallest correlation at which an offset counts as found; that of speech in noise at -10 dB
_BLOCK = 2**20  # samples of the reference that are transformed at once


class Aligned(NamedTuple):
    """Two signals from the same start, cut to the shorter one."""

    reference: np.ndarray  # [n]
    signal: np.ndarray  # [n]


def offset(reference: np.ndarray, signal: np.ndarray, reach: int) -> int | None:
    """Estimates by how many samples a signal is late.

    The offset maximises the magnitude of the cross-correlation, so a signal of the opposite sign is found too.

    Args:
      reference: `[N]`.
      signal: `[M]`, the same speech, degraded or enhanced.
      reach: the largest offset to look for, in samples.

    Returns:
      The offset, negative if the signal is early; None if a signal is silent or not finite, or if the correlation
      coefficient at the best offset is below `CLEAR`.
    """
    from scipy.signal import correlate  # slow to import

    energy = float(np.dot(reference, reference)) * float(np.dot(signal, signal))
    if not 0 < energy < np.inf:
        return None
    products = np.zeros(2 * reach + 1)
    padded = np.pad(signal, (reach, reach + max(0, len(reference) - len(signal))))
    for start in range(0, len(reference), _BLOCK):
        block = reference[start:start + _BLOCK]
        products += correlate(padded[start:start + len(block) + 2 * reach], block, 'valid', 'fft')
    best = int(np.argmax(np.abs(products)))
    return best - reach if abs(products[best]) >= CLEAR * energy**0.5 else None


def aligned(reference: np.ndarray, signal: np.ndarray, late: int = 0) -> Aligned:
    """Cuts the start of the later one of two signals, and the end of the longer one.

    Args:
      reference: `[N]`.
      signal: `[M]`.
      late: by how many samples the signal is late; negative: early.
    """
    reference, signal = reference[max(-late, 0):], signal[max(late, 0):]
    count = min(len(reference), len(signal))
    return Aligned(reference[:count], signal[:count])
