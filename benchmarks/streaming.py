"""Measures the real-time factor of streaming with the full-size DCCRN on one core.

The figures are medians over hops, of wall-clock time and of processor time, which are equal if nothing else runs. A hop
that takes longer than its duration (a factor above 1) makes a gap in a live stream, unless there is a buffer.
"""

import pathlib
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.figures import Figure, figure
from jax_diffse import launch


def run(seconds: float) -> Iterator[Figure]:
    """Yields figures over `seconds` of noise in one channel."""
    launch.use_one_core()  # before JAX is imported

    from benchmarks.measure import drawn
    from jax_diffse.inference.streaming import StreamingEnhancer
    from jax_diffse.runs import Run
    from jax_diffse.systems.dccrn import Dccrn

    system = Dccrn()
    stream = StreamingEnhancer(Run(system, drawn(system), None, 0, '', pathlib.Path('drawn')))
    duration = stream.hop / stream.sample_rate
    factors = hop_seconds(stream, max(1, round(seconds / duration))) / duration
    (wall, busy), late = np.median(factors, axis=0), np.quantile(factors[:, 0], 0.99)
    settings = {'seconds': seconds, 'channels': 1, 'cores': launch.cores()}
    yield figure('dccrn', 'compilation', 'hop', stream.compile_seconds, 's', 1, settings)
    for what, value in (('median', wall), ('median of processor time', busy), ('99 of 100 hops below', late)):
        yield figure('dccrn', 'real-time factor', what, value, 's/s', len(factors), settings)


def hop_seconds(stream, num_hops: int) -> np.ndarray:
    """Seconds that each hop of noise takes `[num_hops, 2]`: wall-clock and processor time."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((num_hops, stream.hop, stream.num_channels))
    times = []
    for block in noise.astype(np.float32):
        started = time.perf_counter(), time.process_time()
        stream(block)
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    return np.array(times)
