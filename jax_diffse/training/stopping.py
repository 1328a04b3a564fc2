"""Stops a run early, at SIGTERM or the time limit, at the same step in all processes."""

import os
import signal
import time

import jax
from jax.experimental import multihost_utils

RESUME = 'rerun the command to resume'
_sync_points = 0  # passed by this process so far; must be equal in all processes


class Stop:
    """A context manager that handles SIGTERM, which schedulers send before they end a job, and the time limit.

    With several processes, JAX handles SIGTERM to any of them and stops all at the same sync point. At the time limit,
    a process then sends SIGTERM to itself.

    Args:
      minutes: the time limit; 0: no limit.
    """

    def __init__(self, minutes: float = 0.0):
        self.immediate = False  # after SIGTERM, as there may be no time for a validation
        self._signalled = self._sent = False
        self._minutes = minutes
        self._deadline = time.monotonic() + 60 * (minutes or float('inf'))

    def __enter__(self) -> 'Stop':
        self._previous = None
        if jax.process_count() == 1:
            try:
                self._previous = signal.signal(signal.SIGTERM, self._note)
            except ValueError:  # signals can only be handled in the main thread
                pass
        return self

    def __exit__(self, *_) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, signum, frame) -> None:
        self._signalled = True

    def reason(self) -> str:
        """The reason to end the run after this step, or ''."""
        late = time.monotonic() > self._deadline
        if jax.process_count() > 1 and late and not self._sent:
            self._sent = True
            os.kill(os.getpid(), signal.SIGTERM)
        if self.requested():
            return f'asked to stop{" or out of time" * (jax.process_count() > 1)}; {RESUME}'
        if late and jax.process_count() == 1:
            return f'the time limit of {self._minutes:g} minutes is over; {RESUME}'
        return ''

    def requested(self) -> bool:
        """Whether SIGTERM has come; all processes must call this equally often."""
        global _sync_points
        if jax.process_count() > 1:
            _sync_points += 1
            self.immediate |= multihost_utils.reached_preemption_sync_point(_sync_points)
        else:
            self.immediate = self._signalled
        return self.immediate
