"""The times at which samplers ask the network: float64 NumPy arrays, computed on the host."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class TimeGrid:
    """Equidistant times from `t_max` down to `t_eps`, as of SGMSE+ and FlowSE; the last step leads from there to 0.

    A single step leads from `t_max` to 0.

    Raises:
      ValueError: no step, or not 0 < t_eps < t_max <= 1.
    """

    num_steps: int = 30
    t_eps: float = 0.03
    t_max: float = 1.0

    def __post_init__(self):
        check_steps(self.num_steps)
        if not 0 < self.t_eps < self.t_max <= 1:
            raise ValueError(f'expected 0 < t_eps < t_max <= 1, got t_eps={self.t_eps:g}, t_max={self.t_max:g}')

    @property
    def times(self) -> np.ndarray:
        """`[num_steps]`, decreasing."""
        return np.linspace(self.t_max, self.t_eps, self.num_steps)

    @property
    def steps(self) -> np.ndarray:
        """The distance of each time to the next one, `[num_steps]`."""
        return self.times - np.append(self.times[1:], 0.0)


def check_steps(num_steps: int) -> None:
    """Raises a ValueError if there is no step."""
    if num_steps < 1:
        raise ValueError(f'expected one or more sampling steps, got {num_steps}')
