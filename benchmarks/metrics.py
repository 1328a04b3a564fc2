"""Measures files per second for each metric, and for all metrics in a pool of processes."""

import os
import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.figures import Figure, figure
from jax_diffse.metrics import DEFAULT, Pool, score

SAMPLE_RATE, SECONDS = 16_000, 3


def run(files: int) -> Iterator[Figure]:
    """Yields figures over pairs of 3 s: each metric and all (which share work) in one process; all in a new pool."""
    pairs, workers = generated(files), os.cpu_count()
    settings = {'files': files, 'seconds': SECONDS}
    score(*pairs[0], SAMPLE_RATE)  # makes the late imports

    def each(names):
        return [score(*pair, SAMPLE_RATE, names) for pair in pairs]

    for name in DEFAULT:
        yield figure(name, 'files per second', 'one process', files / took(lambda name=name: each((name,))), '1/s',
                     1, settings)
    yield figure('all', 'files per second', 'one process', files / took(lambda: each(DEFAULT)), '1/s', 1, settings)
    seconds = took(lambda: pooled(pairs, workers))
    yield figure('all', 'files per second', 'pool', files / seconds, '1/s', 1, settings | {'workers': workers})


def pooled(pairs, workers: int) -> list:
    """Computes all scores in a new pool."""
    with Pool(workers) as pool:
        return list(pool.score_all(pairs, SAMPLE_RATE))


def took(function: Callable) -> float:
    """The seconds that one call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def generated(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Makes pairs of noise in syllables and the same with noise added."""
    rng = np.random.default_rng(0)
    time_axis = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    clean = [0.1 * rng.standard_normal(len(time_axis)) * np.maximum(np.sin(8 * np.pi * time_axis + k), 0.01)
             for k in range(count)]
    return [(x, x + 0.02 * rng.standard_normal(len(x))) for x in clean]
