"""Measures how fast a training is, and how far it uses its devices."""

import contextlib
import time
from collections.abc import Iterator

import jax

from jax_diffse import flops

GB = 1e9


class Speed:
    """Measures the steps of a training, without compilation, validations and saving.

    Args:
      batch_size: over all devices.
      devices: of all processes.
    """

    def __init__(self, batch_size: int, devices: list[jax.Device]):
        self._batch_size, self._devices = batch_size, devices
        self._peak, self._flops = flops.PEAKS.get(devices[0].device_kind), 0.0
        self._seconds, self._waited, self._steps = 0.0, 0.0, 0
        self._started: float | None = None  # None: stopped

    def learn(self, step, state, batch) -> None:
        """Counts the operations of a mapped step, if the peak of the devices is known; tracing it takes seconds."""
        if self._peak:
            self._flops = flops.count(jax.make_jaxpr(step)(state, batch))

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self) -> None:
        self._seconds += time.perf_counter() - self._started
        self._started = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Does not count the time in this context."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time in this context as waiting for data, unless the clock is stopped."""
        entered = time.perf_counter()
        yield
        if self._started is not None:
            self._waited += time.perf_counter() - entered

    def count(self) -> None:
        """Counts one step."""
        self._steps += 1

    def scalars(self) -> dict[str, float]:
        """The means over the steps since the last call, and the memory of this process's fullest device.

        The values that the devices do not tell, and the utilisation of devices whose peak is unknown, are left out.
        """
        self.stop()
        seconds, steps = max(self._seconds, 1e-9), max(self._steps, 1)
        rate = self._batch_size * self._steps / seconds
        values = {'examples_per_second': rate, 'examples_per_second_per_device': rate / len(self._devices),
                  'seconds_per_step': seconds / steps, 'data_wait_seconds_per_step': self._waited / steps}
        if self._flops:
            values['utilisation'] = self._flops * self._steps / seconds / self._peak
        self._seconds, self._waited, self._steps = 0.0, 0.0, 0
        self.start()
        return values | _memory(self._devices)


def _memory(devices: list[jax.Device]) -> dict[str, float]:
    """Memory of this process's fullest device in GB: now, and the most since the process started."""
    stats = [device.memory_stats() or {} for device in devices if device.process_index == jax.process_index()]
    return {name: max(each[key] for each in stats) / GB
            for name, key in (('device_memory_gb', 'bytes_in_use'), ('device_peak_memory_gb', 'peak_bytes_in_use'))
            if all(key in each for each in stats)}
