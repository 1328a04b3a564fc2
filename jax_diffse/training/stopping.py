"""Why a run ends before its last step: SIGTERM and the time limit, agreed on by all processes."""

import os
import signal
import time

import jax
from jax.experimental import multihost_utils

AGAIN = 'the same command continues'
_asked = 0  # how often this process asked the others, which must be equal in all of them


class Stop:
    """Notes SIGTERM, which schedulers send before they end a job, while it is entered.

    With several processes, JAX notes it, whichever of them it reaches, and has all stop at the same question; the time
    limit is then a SIGTERM to oneself.

    Args:
      minutes: the time limit; 0: none.
    """

    def __init__(self, minutes: float = 0.0):
        self.at_once = False  # SIGTERM has come: there may be no time for a validation
        self._signalled = self._sent = False
        self._minutes = minutes
        self._deadline = time.monotonic() + 60 * (minutes or float('inf'))

    def __enter__(self) -> 'Stop':
        self._previous = None
        if jax.process_count() == 1:
            try:
                self._previous = signal.signal(signal.SIGTERM, self._note)
            except ValueError:  # not in the main thread: signals are somebody else's
                pass
        return self

    def __exit__(self, *_) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, signum, frame) -> None:
        self._signalled = True

    def due(self) -> str:
        """Why the run should end after this step, or ''."""
        late = time.monotonic() > self._deadline
        if jax.process_count() > 1 and late and not self._sent:
            self._sent = True
            os.kill(os.getpid(), signal.SIGTERM)
        if self.asked():
            return f'asked to stop{" or out of time" * (jax.process_count() > 1)}; {AGAIN}'
        if late and jax.process_count() == 1:
            return f'the {self._minutes:g} minutes are over; {AGAIN}'
        return ''

    def asked(self) -> bool:
        """Whether SIGTERM has come; all processes must ask equally often."""
        global _asked
        if jax.process_count() > 1:
            _asked += 1
            self.at_once |= multihost_utils.reached_preemption_sync_point(_asked)
        else:
            self.at_once = self._signalled
        return self.at_once
