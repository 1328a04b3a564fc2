"""All metrics of one pair of signals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jax_diffse.errors import UserError
from jax_diffse.metrics import distortion
from jax_diffse.metrics.catalogue import COMPARING, DEFAULT, METRICS

SAMPLE_RATES = (8000, 16000)  # Hz


class Scores(NamedTuple):
    """The metrics of one pair: name -> value, and name -> reason for every NaN."""

    values: dict[str, float]
    reasons: dict[str, str]

    @classmethod
    def undefined(cls, names: Sequence[str], reason: str) -> 'Scores':
        """Returns NaN for all `names`, with one reason."""
        return cls(dict.fromkeys(names, float('nan')), dict.fromkeys(names, reason))


def check(sample_rate: int, names: Sequence[str]) -> None:
    """Checks a sample rate and names of metrics.

    Raises:
      UserError: an unknown metric, or a sample rate at which metrics are not defined.
    """
    unknown = [name for name in names if name not in COMPARING]
    if unknown:
        raise UserError(f'metric {unknown[0]!r} does not exist, expected some of: {", ".join(COMPARING)}')
    if sample_rate not in SAMPLE_RATES:
        raise UserError(f'metrics are defined at 8000 and 16000 Hz, not at {sample_rate}: resample the signals first')


def score(clean: np.ndarray, degraded: np.ndarray, sample_rate: int, names: Sequence[str] = DEFAULT,
          noisy: np.ndarray | None = None) -> Scores:
    """Scores a degraded or enhanced signal against the clean one.

    Args:
      clean: `[N]`, the reference.
      degraded: `[N]`, aligned with `clean`.
      sample_rate: 8000 or 16000 Hz.
      names: of `COMPARING`.
      noisy: `[N]`, the clean signal with noise, for metrics that need the noise.

    Returns:
      `Scores` with the given names in the given order. A metric that is undefined for these signals is NaN with a
      reason; it does not raise.

    Raises:
      UserError: an unknown metric, or a sample rate at which metrics are not defined.
    """
    check(sample_rate, names)
    clean, degraded = np.asarray(clean, np.float64), np.asarray(degraded, np.float64)
    reason = _unusable({'clean': clean, 'degraded': degraded})
    if reason:
        return Scores.undefined(names, reason)
    signals = _Signals(clean, degraded, sample_rate, None if noisy is None else np.asarray(noisy, np.float64))
    done = Scores({}, {})
    for name in names:
        _measure(name, signals, done)
    return Scores({name: done.values[name] for name in names},
                  {name: done.reasons[name] for name in names if name in done.reasons})


def _unusable(signals):
    """The reason why named signals cannot be scored, or None."""
    shapes = {label: list(signal.shape) for label, signal in signals.items()}
    if signals['clean'].ndim != 1 or len({signal.shape for signal in signals.values()}) > 1:
        found = ' and '.join(f'{label} {shape}' for label, shape in shapes.items())
        return f'the signals must have one shape [N], got {found}'
    for label, signal in signals.items():
        if not np.all(np.isfinite(signal)):
            return f'the {label} signal has NaN or infinite samples'
        if not np.any(signal):
            return f'the {label} signal is all zero'
    return None


class _Signals(NamedTuple):
    clean: np.ndarray
    degraded: np.ndarray
    sample_rate: int
    noisy: np.ndarray | None

    def arguments(self, needs_noise: bool) -> tuple:
        """The arguments of a metric.

        Raises:
          UndefinedError: it needs the noise, and there is no noisy signal or it is unusable.
        """
        if not needs_noise:
            return self[:3]
        reason = ('needs the noisy signal' if self.noisy is None else
                  _unusable({'clean': self.clean, 'noisy': self.noisy}))
        if reason:
            raise distortion.UndefinedError(reason)
        return self.clean, self.degraded, self.noisy - self.clean


def _measure(name, signals, done):
    """Adds a metric, and those that it is computed from, to `done`; each is computed once."""
    if name in done.values:
        return
    metric = METRICS[name]
    for part in metric.of:
        _measure(part, signals, done)
    missing = [part for part in metric.of if part in done.reasons]
    if missing:
        value, reason = np.nan, f'needs {missing[0]}: {done.reasons[missing[0]]}'
    else:
        value, reason = _attempt(metric.function, lambda: [done.values[part] for part in metric.of]
                                 or signals.arguments(metric.needs_noise))
    done.values[name] = value
    if np.isnan(value):
        done.reasons[name] = reason


def _attempt(function, arguments):
    try:
        with np.errstate(all='ignore'):  # the result is checked below
            value = function(*arguments())
    except distortion.UndefinedError as error:
        return float('nan'), str(error)
    except Exception as error:  # a failure on one file must not end the evaluation
        return float('nan'), f'{type(error).__name__}: {error}'
    return (value, '') if np.isfinite(value) else (float('nan'), f'the value is {value}')
