"""Quality scores without a reference signal: DNSMOS P.835 and P.808, by Microsoft's package speechmos, which we call.

C. K. A. Reddy, V. Gopal and R. Cutler, 'DNSMOS P.835: A non-intrusive perceptual objective speech quality metric to
evaluate noise suppressors', ICASSP 2022; the same, 'DNSMOS: ...', ICASSP 2021, for P.808.

This module imports neither JAX nor, before the first score, the optional packages.
"""

import functools
import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jax_diffse import audio
from jax_diffse.errors import UserError
from jax_diffse.metrics import numba_cache
from jax_diffse.metrics.catalogue import METRICS as KNOWN
from jax_diffse.metrics.scores import Scores

MODEL = 'dnsmos'
METRICS = {name: metric.model for name, metric in KNOWN.items() if metric.model == MODEL}  # -> model
DEFAULT = tuple(name for name in METRICS if KNOWN[name].default)
KEYS = {'dnsmos_sig': 'sig_mos', 'dnsmos_bak': 'bak_mos', 'dnsmos_ovrl': 'ovrl_mos', 'dnsmos_p808': 'p808_mos'}
PACKAGES = ('speechmos', 'onnxruntime', 'requests')  # speechmos imports the others without declaring them
SAMPLE_RATE = 16000  # Hz
SHORTEST = 0.25  # seconds; the networks hear 9.01 s, which speechmos fills by repeating the signal


def is_available(model: str = MODEL) -> bool:
    """Whether the packages are installed."""
    return all(importlib.util.find_spec(name) for name in PACKAGES)


def how_to_get(model: str = MODEL) -> str:
    """How to get the packages, in one line."""
    return f"{model} needs the package speechmos: pip install 'jax_diffse[dnsmos]'"


def score(waveform: np.ndarray, sample_rate: int, names: Sequence[str] = DEFAULT) -> Scores:
    """Scores a signal without a reference: the means over windows of 9.01 s, 1 s apart, on one thread.

    Args:
      waveform: `[N]`, clipped to [-1, 1] as in a file of 16 bits; below 9.01 s, speechmos repeats it.
      sample_rate: 16000 Hz, or a higher rate, which is resampled to 16000 Hz.
      names: of `METRICS`.

    Returns:
      The given metrics in the given order. They are NaN with a reason if the signal is shorter than 0.25 s, silent or
      not finite, at a lower sample rate, or if the packages are missing.

    Raises:
      UserError: an unknown metric.
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UserError(f'metric {unknown[0]!r} does not exist, expected some of: {", ".join(METRICS)}')
    reason = _unusable(waveform, sample_rate) or ('' if is_available() else how_to_get())
    if reason:
        return Scores.undefined(names, reason)
    try:
        signal = audio.resample(np.asarray(waveform, np.float32), sample_rate, SAMPLE_RATE)
        found = _model()(np.clip(signal, -1.0, 1.0), SAMPLE_RATE, False)
    except Exception as error:  # a damaged installation must not end the evaluation
        return Scores.undefined(names, f'{type(error).__name__}: {error}'.splitlines()[0])
    return Scores({name: float(found[KEYS[name]]) for name in names}, {})


def _unusable(waveform, sample_rate) -> str:
    """The reason why a signal cannot be scored, or an empty string."""
    if sample_rate < SAMPLE_RATE:
        return f'DNSMOS needs {SAMPLE_RATE} Hz or more, not {sample_rate}'
    if np.ndim(waveform) != 1:
        return f'the signal must have the shape [N], got {list(np.shape(waveform))}'
    if len(waveform) < SHORTEST * sample_rate:
        return f'{len(waveform) / sample_rate:.2f} s are too short for DNSMOS, which needs {SHORTEST} s'
    if not np.all(np.isfinite(waveform)):
        return 'the signal has NaN or infinite samples'
    return '' if np.any(waveform) else 'the signal is all zero'


@functools.cache
def _model() -> Any:
    """The networks of speechmos, loaded once per process: (signal `[N]`, rate, personalised) -> means by name."""
    os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')  # versions from 1.29 on would report to Microsoft
    numba_cache.ensure()
    import onnxruntime
    from speechmos import dnsmos

    options = onnxruntime.SessionOptions()  # speechmos's own sessions take all cores, of which each worker has one
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    folder = pathlib.Path(os.path.dirname(dnsmos.__file__)) / 'dnsmos_models'

    class Model(dnsmos.DNSMOS):
        def __init__(self):
            self.onnx_sess, self.p808_onnx_sess = (
                onnxruntime.InferenceSession(folder / name, options, providers=['CPUExecutionProvider'])
                for name in ('sig_bak_ovr.onnx', 'model_v8.onnx'))

    return Model()
