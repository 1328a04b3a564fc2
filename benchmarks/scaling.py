"""Measures the training step of a small DCCRN over batch sizes, lengths and numbers of devices."""

from collections.abc import Iterator

import jax

from benchmarks.figures import Figure, figure
from benchmarks.measure import drawn, program
from benchmarks.systems import noise, training
from jax_diffse.systems.dccrn import Dccrn
from jax_diffse.training.parallel import Parallel, wait_for_each_step

CHANNELS, UNITS = (16, 32, 64), 64  # shallow, because compilation takes most of the time
PER_DEVICE = 2  # examples


def run(axis: str, points: list[int], dtype: str, repeats: int) -> Iterator[Figure]:
    """Yields figures at each point of an axis: 'batch', 'seconds', or 'devices' with a batch that grows with them.

    Raises:
      RuntimeError: there are fewer devices.
    """
    wait_for_each_step()
    if axis == 'devices' and max(points) > len(jax.devices()):
        raise RuntimeError(f'{max(points)} devices are needed, there are {len(jax.devices())}')
    system = Dccrn(channels=CHANNELS, lstm_units=UNITS, dtype=dtype)
    variables = drawn(system)
    for point in points:
        sizes = {'batch': 1, 'seconds': 1, 'devices': 1, axis: point}
        if axis == 'devices':
            sizes['batch'] = PER_DEVICE * point
        parallel = Parallel(devices=jax.devices()[:sizes['devices']])
        step = training(system, variables, noise(system, sizes['batch'], sizes['seconds']), parallel)
        settings = {'channels': CHANNELS, 'dtype': dtype, **sizes}
        for item in program(axis, str(point), *step, repeats, settings):
            yield item
        rate = sizes['batch'] / item['value']
        yield figure(axis, 'examples per second', str(point), rate, '1/s', item['repeats'], settings)
