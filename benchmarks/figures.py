"""What a part of the benchmarks yields; imports nothing, as streaming chooses a core before JAX is imported."""

from typing import Any

Figure = dict[str, Any]


class LeftOut(Exception):
    """A part cannot be measured on this machine, which is no failure: the reason."""


def figure(subject: str, quantity: str, what: str, value: float, unit: str, repeats: int,
           settings: dict[str, Any]) -> Figure:
    """A measurement as it stands in `benchmarks.json`.

    Args:
      subject: what was measured, a row of a table: a system, a metric.
      quantity: the table: 'time', 'compilation'.
      what: its column: 'training step'.
      value: the median.
      unit: 's', 's/s' (a real-time factor), '1/s', 'B', 'FLOP' or '1'.
      repeats: what the median is over.
      settings: all that it was measured under; figures of different settings are not compared.
    """
    return {'subject': subject, 'quantity': quantity, 'what': what, 'value': float(value), 'unit': unit,
            'repeats': repeats, 'settings': settings}
