"""The figures of the benchmarks. It imports nothing, because streaming chooses a core before JAX is imported."""

from typing import Any

Figure = dict[str, Any]


class LeftOut(Exception):
    """A part cannot be measured on this machine, which is not a failure; the message is the reason."""


def figure(subject: str, quantity: str, what: str, value: float, unit: str, repeats: int,
           settings: dict[str, Any]) -> Figure:
    """Makes a figure, as it is stored in `benchmarks.json`.

    Args:
      subject: what was measured, the row of a table: a system, a metric.
      quantity: the table: 'time', 'compilation'.
      what: the column: 'training step'.
      value: the median.
      unit: 's', 's/s' (a real-time factor), '1/s', 'B', 'FLOP' or '1'.
      repeats: the number of measurements.
      settings: all settings of the measurement; figures with different settings are not compared.
    """
    return {'subject': subject, 'quantity': quantity, 'what': what, 'value': float(value), 'unit': unit,
            'repeats': repeats, 'settings': settings}
