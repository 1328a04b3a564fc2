"""Reverberation: convolution with room impulse responses (RIRs), aligned by their direct path."""

import numpy as np

FADE_MS = 5.0  # length of the fade at the end of the early part


def align(rir: np.ndarray) -> tuple[np.ndarray, int]:
    """Scales a RIR `[L]`, which is not silent, so that its direct path, its sample of the largest magnitude, is 1.

    Returns:
      The RIR `[L]` and the sample of its direct path.
    """
    direct = int(np.abs(rir).argmax())
    return rir / rir[direct], direct


def early_part(rir: np.ndarray, direct: int, sample_rate: int, early_ms: float) -> np.ndarray:
    """Returns `rir` `[L]` up to `early_ms` behind its direct path, and a fade of `FADE_MS`, a half cosine, to zero."""
    end = direct + early_ms * sample_rate / 1000
    place = (np.arange(len(rir)) - end) / (FADE_MS * sample_rate / 1000)  # in the fade: from 0 to 1
    return rir * (0.5 + 0.5 * np.cos(np.pi * np.clip(place, 0, 1))).astype(rir.dtype)


def reverberate(samples: np.ndarray, rir: np.ndarray, direct: int) -> np.ndarray:
    """Convolves samples `[N]` with a RIR `[L]` -> `[N]`, in time with the direct path of the RIR.

    What comes before the first sample is taken to be silent.
    """
    from scipy import signal  # slow to import

    return signal.oaconvolve(samples, rir)[direct:direct + len(samples)]
