"""Measures the time, memory and operations of compiled programs, and draws variables for them."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.figures import Figure, figure
from jax_diffse.systems.base import System, Variables, shapes

ENOUGH = 20.0  # seconds, after which a slow function is not repeated


def timed(function: Callable[[], Any], repeats: int) -> tuple[float, int]:
    """Times `function()`, which returns arrays, after one call that is not counted -> median seconds, repeats."""
    jax.block_until_ready(function())
    times = []
    while not times or len(times) < repeats and sum(times) < ENOUGH:
        started = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - started)
    return statistics.median(times), len(times)


def program(subject: str, what: str, function, args: tuple, repeats: int, settings: dict) -> Iterator[Figure]:
    """Compiles a jitted function for `args` and measures it; its run time is the last figure."""
    started = time.perf_counter()
    compiled = function.lower(*args).compile()
    yield figure(subject, 'compilation', what, time.perf_counter() - started, 's', 1, settings)
    memory = compiled.memory_analysis()
    for quantity, size in (('temporaries', memory.temp_size_in_bytes), ('arguments', memory.argument_size_in_bytes),
                           ('outputs', memory.output_size_in_bytes)):
        yield figure(subject, quantity, what, size, 'B', 1, settings)
    operations = (compiled.cost_analysis() or {}).get('flops')
    if operations is not None:
        yield figure(subject, 'operations', what, operations, 'FLOP', 1, settings)
    seconds, count = timed(lambda: compiled(*args), repeats)
    yield figure(subject, 'time', what, seconds, 's', count, settings)


def peaks(subject: str, settings: dict) -> Iterator[Figure]:
    """Yields the peak memory of the process so far, and that of the accelerator if JAX reports it."""
    unit = 1 if sys.platform == 'darwin' else 1024
    resident = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield figure(subject, 'peak memory', 'process', resident, 'B', 1, settings)
    device = (jax.local_devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
    if device is not None:
        yield figure(subject, 'peak memory', 'accelerator', device, 'B', 1, settings)


def drawn(system: System) -> Variables:
    """Draws the variables of a system with NumPy, because `init` takes ten times as long."""
    def draw(path, leaf):
        if path[-1].key in ('var', 'scale'):  # of normalisation
            return np.ones(leaf.shape, leaf.dtype)
        return (0.05 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    rng = np.random.default_rng(0)
    return jax.device_put(jax.tree_util.tree_map_with_path(draw, shapes(system)))
