"""Traces some steps of a training with JAX's profiler."""

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterator

import jax

from jax_diffse import files
from jax_diffse.errors import UserError


@dataclasses.dataclass(frozen=True)
class Window:
    """The steps that are traced: `count` from `first` on."""

    first: int
    count: int

    @classmethod
    def of(cls, text: str) -> 'Window':
        """Parses FIRST:COUNT.

        Raises:
          UserError: it is not two whole numbers from 1 on.
        """
        if not re.fullmatch(r'[1-9][0-9]{0,17}:[1-9][0-9]{0,17}', text, re.ASCII):
            raise UserError(f'--profile={text}: expected FIRST:COUNT, two whole numbers from 1 on, as in 100:5 for the '
                            'steps 100 to 104')
        return cls(*map(int, text.split(':')))

    @property
    def last(self) -> int:
        return self.first + self.count - 1

    def check(self, steps: int, done: int = 0) -> None:
        """Checks that a training takes these steps: one of `steps` steps, of which `done` are.

        Raises:
          UserError: it does not.
        """
        if not done < self.first <= self.last <= steps:
            after = f'resumes after step {done} and ' if done else ''
            raise UserError(f'--profile={self.first}:{self.count}: the training {after}ends at step {steps}, expected '
                            f'steps from {done + 1} to {steps}')


class Profiler:
    """Traces the steps of a window; a context manager. If the training fails within it, no trace is written.

    Args:
      window: the steps, or None.
      workdir: of the run; traces go where TensorBoard looks for them, `WORKDIR/tensorboard/plugins/profile`.
      tell: shows a line to the user.
    """

    def __init__(self, window: Window | None, workdir: pathlib.Path, tell: Callable[[str], None]):
        self._window, self._board, self._tell = window, workdir / 'tensorboard', tell
        self._trace = contextlib.ExitStack()
        self._last = 0  # step of an open trace

    def __enter__(self) -> 'Profiler':
        return self

    def __exit__(self, *error) -> None:
        self._trace.__exit__(*error)

    def begin(self, number: int) -> None:
        """Starts the trace before the first step of the window; call it before each step."""
        if self._window and self._window.first <= number <= self._window.last:
            if number == self._window.first:
                self._trace.enter_context(_traced(self._board))
            self._last = number

    def ends_with(self, number: int) -> bool:
        """Whether the trace is to be finished once the devices have the results of this step."""
        return self._window is not None and number == self._window.last

    def finish(self) -> None:
        """Writes the trace, if one is open, and says where it is."""
        if not self._last:
            return
        steps, self._last = f'the trace of steps {self._window.first} to {self._last}', 0
        try:
            self._trace.close()
        except (OSError, RuntimeError) as error:  # the training is worth more than its trace
            self._tell(f'{self._board}: {steps} cannot be written ({" ".join(str(error).split())})')
        else:
            self._tell(f'{self._board}: has {steps}; to see it: pip install xprof tensorboard, then tensorboard '
                       f'--logdir {self._board}')


@contextlib.contextmanager
def _traced(board: pathlib.Path) -> Iterator[None]:
    """Traces what is done in this context, and then moves the whole trace to `board/plugins/profile`."""
    beside = None if files.is_address(board) else board
    with files.temporary_folder(beside) as folder:
        with jax.profiler.trace(folder):
            yield
        target = board / 'plugins' / 'profile'
        target.mkdir(parents=True, exist_ok=True)
        for session in (folder / 'plugins' / 'profile').iterdir():
            if beside:
                os.replace(session, target / session.name)
            else:
                for file in session.iterdir():
                    files.upload(file, target / session.name / file.name)
