"""Scores that model listeners: PESQ, STOI, ESTOI and the composite ratings CSIG, CBAK and COVL.

Signals are float64 `[N]`; clean and degraded have one length.
"""

import warnings

import numpy as np

from jax_diffse.metrics.distortion import UndefinedError

# PESQ's code has room for 50 utterances and does not check this: with more it returns wrong scores or crashes. Read
# speech has about one utterance in three seconds. A mean over segments would be another metric under PESQ's name.
PESQ_SECONDS = 50.0
# PESQ scales the louder signal to 16 bits and rates the other one as perfect if it is below half a unit there.
PESQ_RANGE = 2.0 ** 16


def _pesq(clean, degraded, sample_rate, mode):
    import pesq  # compiled, only needed here

    if len(clean) > PESQ_SECONDS * sample_rate:
        raise UndefinedError(f'PESQ is limited to {PESQ_SECONDS:.0f} s, got {len(clean) / sample_rate:.1f} s; cut the '
                             'recordings')
    quieter, louder = sorted((np.max(np.abs(clean)), np.max(np.abs(degraded))))
    if quieter * PESQ_RANGE < louder:
        raise UndefinedError('PESQ: one of the signals is silent compared with the other')
    try:
        return float(pesq.pesq(sample_rate, clean, degraded, mode))
    except (pesq.PesqError, ValueError) as error:
        message = error.args[0] if error.args else type(error).__name__
        message = message.decode() if isinstance(message, bytes) else message
        raise UndefinedError(f'PESQ: {message}') from error


def pesq_wb(clean: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2), MOS-LQO from 1.04 to 4.64; 16 kHz only.

    Raises:
      UndefinedError: another sample rate; PESQ finds no utterance; or the signals are shorter than 1/4 s or longer
        than 50 s.
    """
    if sample_rate != 16000:
        raise UndefinedError(f'wide-band PESQ needs 16000 Hz, not {sample_rate}')
    return _pesq(clean, degraded, sample_rate, 'wb')


def pesq_nb(clean: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Narrow-band PESQ (ITU-T P.862, mapped to MOS-LQO after P.862.1), 1.02 to 4.55.

    Raises:
      UndefinedError: PESQ finds no utterance, or the signals are shorter than 1/4 s or longer than 50 s.
    """
    return _pesq(clean, degraded, sample_rate, 'nb')


def _stoi(clean, degraded, sample_rate, extended):
    import pystoi  # imports SciPy's signal package, slow

    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='Not enough STFT frames')  # pystoi returns 1e-5 instead
        try:
            return float(pystoi.stoi(clean, degraded, sample_rate, extended=extended))
        except (RuntimeWarning, np.exceptions.AxisError) as error:  # AxisError: no frame at all
            raise UndefinedError('STOI needs 30 frames (0.4 s) of speech that is not silent') from error


def stoi(clean: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Short-time objective intelligibility (Taal et al., IEEE TASLP 2011), up to 1.

    Raises:
      UndefinedError: less than 0.4 s of speech remains without silent frames.
    """
    return _stoi(clean, degraded, sample_rate, extended=False)


def estoi(clean: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Extended STOI (Jensen and Taal, IEEE TASLP 2016), up to 1.

    Raises:
      UndefinedError: less than 0.4 s of speech remains without silent frames.
    """
    return _stoi(clean, degraded, sample_rate, extended=True)


def _rating(value: float) -> float:
    return float(np.clip(value, 1.0, 5.0))


def csig(pesq_wb: float, llr: float, wss: float) -> float:
    """Predicted rating of signal distortion, 1 to 5 (Hu and Loizou, IEEE TASLP 2008, with wide-band PESQ)."""
    return _rating(3.093 - 1.029 * llr + 0.603 * pesq_wb - 0.009 * wss)


def cbak(pesq_wb: float, wss: float, ssnr: float) -> float:
    """Predicted rating of background intrusiveness, 1 to 5 (Hu and Loizou 2008, with wide-band PESQ)."""
    return _rating(1.634 + 0.478 * pesq_wb - 0.007 * wss + 0.063 * ssnr)


def covl(pesq_wb: float, llr: float, wss: float) -> float:
    """Predicted rating of overall quality, 1 to 5 (Hu and Loizou 2008, with wide-band PESQ)."""
    return _rating(1.594 + 0.805 * pesq_wb - 0.512 * llr - 0.007 * wss)
