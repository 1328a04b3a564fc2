"""The training batches on their devices, one ahead."""

import concurrent.futures
from collections.abc import Callable, Iterator

from jax_diffse.systems.base import Batch
from jax_diffse.training.speed import Speed


class Batches:
    """The batches of a training, placed on the devices; the next one can be fetched early.

    All is done in the calling thread: `place` may run a program on all devices, and all processes must start their
    programs in the same order.

    Args:
      batches: this process's share, on the host.
      place: puts a batch on the devices.
      speed: measures the time that the next batch is waited for.
    """

    def __init__(self, batches: Iterator, place: Callable[[dict], Batch], speed: Speed):
        self._batches, self._place, self._speed = batches, place, speed
        self._ahead: concurrent.futures.Future | None = None

    def prefetch(self) -> None:
        """Fetches and places the next batch. What goes wrong is raised where the batch is asked for."""
        if self._ahead is None:
            self._ahead = concurrent.futures.Future()
            try:
                self._ahead.set_result(self._fetch())
            except Exception as error:  # an interrupt is raised at once
                self._ahead.set_exception(error)

    def peek(self) -> Batch:
        """The next batch, which `take` will return, too."""
        self.prefetch()
        return self._ahead.result()

    def take(self) -> Batch:
        """The next batch."""
        batch, self._ahead = self.peek(), None
        return batch

    def _fetch(self) -> Batch:
        with self._speed.waiting():
            batch = next(self._batches)
        return self._place(batch)
