"""A pool of processes that score signals.

Why not `concurrent.futures.ProcessPoolExecutor`: its processes run the caller's main module again, so they would import
JAX, and the death of one ends all pending work. Each worker here is a plain Python process, fed by a thread.
"""

import collections
import concurrent.futures
import contextlib
import os
import pathlib
import pickle
import queue
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

import jax_diffse
from jax_diffse import interrupts
from jax_diffse.errors import UserError
from jax_diffse.metrics import dnsmos
from jax_diffse.metrics.catalogue import DEFAULT
from jax_diffse.metrics.scores import Scores, check, score

_PACKAGE_ROOT = str(pathlib.Path(jax_diffse.__file__).parents[1])
_ONE_THREAD = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), '1')


def check_workers(workers: int | None) -> None:
    """Checks a number of scoring processes; None is one per CPU.

    Raises:
      UserError: it is negative.
    """
    if workers is not None and workers < 0:
        raise UserError(f'workers is {workers}, expected 0 (score in this process) or more')


class Pool:
    """Worker processes that score signals; a context manager, which ends them on exit.

    Args:
      workers: number of processes; default: one per CPU; 0: score in this process.

    Raises:
      UserError: `workers` is negative.
    """

    def __init__(self, workers: int | None = None):
        check_workers(workers)
        count = (os.cpu_count() or 1) if workers is None else workers
        self._workers = [_Worker() for _ in range(count)]
        self._idle, self._ends = queue.SimpleQueue(), contextlib.ExitStack()
        for worker in self._workers:
            self._idle.put(worker)

    def __enter__(self):
        self._ends.enter_context(interrupts.on_leave(self._kill))
        for worker in self._workers:
            self._ends.callback(worker.stop)
        return self

    def __exit__(self, *_):
        self._ends.close()

    def _kill(self):
        for worker in self._workers:
            worker.kill()

    @property
    def size(self) -> int:
        """The number of processes."""
        return len(self._workers)

    def score_all(self, jobs: Iterable[tuple[np.ndarray, ...]], sample_rate: int,
                  names: Sequence[str] = DEFAULT) -> Iterator[Scores]:
        """Scores many pairs, a few at a time.

        Args:
          jobs: pairs (clean `[N]`, degraded `[N]`), or triples with noisy `[N]`, for metrics that need the noise; at
            most `2 * workers + 1` are consumed ahead of the results.
          sample_rate: 8000 or 16000 Hz.
          names: of `COMPARING`.

        Returns:
          An iterator over `Scores` in the order of the jobs. If a worker dies, its pair is NaN with that reason.

        Raises:
          UserError: an unknown metric, or a sample rate at which metrics are not defined.
        """
        check(sample_rate, names)
        # NumPy arrays, as unpickling JAX arrays would import JAX in the worker
        return self._run(_score, (tuple(map(np.asarray, signals)) for signals in jobs), sample_rate, tuple(names))

    def rate_all(self, waveforms: Iterable[np.ndarray], sample_rate: int,
                 names: Sequence[str] = dnsmos.DEFAULT) -> Iterator[Scores]:
        """Scores many signals without a reference, like `score_all`.

        Args:
          waveforms: `[N]` each.
          sample_rate: Hz.
          names: of `dnsmos.METRICS`.
        """
        return self._run(dnsmos.score, map(np.asarray, waveforms), sample_rate, tuple(names))

    def _run(self, function, jobs, sample_rate, names):
        """`function(signals, sample_rate, names)` for each job, in order."""
        if not self._workers:
            return (function(signals, sample_rate, names) for signals in jobs)
        return self._pooled(function, jobs, sample_rate, names)

    def _pooled(self, function, jobs, sample_rate, names):
        def run(signals):
            worker = self._idle.get()
            try:
                return worker.run(function, (signals, sample_rate, names), names)
            finally:
                self._idle.put(worker)

        threads = concurrent.futures.ThreadPoolExecutor(len(self._workers))
        pending = collections.deque()
        try:
            for signals in jobs:
                pending.append(threads.submit(run, signals))
                if len(pending) > 2 * len(self._workers):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


class _Worker:
    """A process that scores one job at a time; it starts on first use, and again if it died."""

    def __init__(self):
        self._process = None

    def run(self, function: Callable[..., Scores], arguments: tuple, names: Sequence[str]) -> Scores:
        """The scores `names` by a function of a module, which the process imports."""
        try:
            process = self._process = self._process or _start()
            process.stdin.write(pickle.dumps((function, arguments), protocol=5))
            process.stdin.flush()
            return pickle.load(process.stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            return Scores.undefined(names, f'the scoring process died on this file (exit status {self.stop()})')

    def kill(self):
        """Kills the process, if there is one."""
        if self._process is not None:
            self._process.kill()

    def stop(self):
        """Ends the process, if there is one, and returns its exit status."""
        if self._process is None:
            return None
        with contextlib.suppress(BrokenPipeError):  # the process is dead
            self._process.stdin.close()  # a live process exits
        self._process.stdout.close()
        status, self._process = self._process.wait(), None
        return status


def _score(signals, sample_rate, names):
    clean, degraded, *noisy = signals
    return score(clean, degraded, sample_rate, names, *noisy)


def _start():
    search_path = os.pathsep.join(filter(None, (_PACKAGE_ROOT, os.environ.get('PYTHONPATH'))))
    command = f'from {__name__} import serve; serve()'
    # A separate process group, so that only the parent gets interrupts from the terminal.
    return subprocess.Popen([sys.executable, '-P', '-c', command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            env={**os.environ, **_ONE_THREAD, 'PYTHONPATH': search_path}, process_group=0)


def serve() -> None:
    """Runs a worker: reads pickled functions and arguments from stdin and writes pickled `Scores` to stdout."""
    jobs, results = sys.stdin.buffer, os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)  # prints go to stderr, not into the results
    while True:
        try:
            function, arguments = pickle.load(jobs)
        except EOFError:
            return
        try:
            pickle.dump(function(*arguments), results)
            results.flush()
        except BrokenPipeError:  # the parent is gone
            os._exit(1)  # a normal exit would flush `results` again and print an error
