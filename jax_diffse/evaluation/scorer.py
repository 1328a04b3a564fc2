"""Scores given signals, except for results in the cache.

With n processes, each reads all signals, scores every n-th one and takes the results of the others from the cache.
"""

import concurrent.futures
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax

from jax_diffse import runs
from jax_diffse.evaluation import sources
from jax_diffse.evaluation.cache import Record, ResultCache
from jax_diffse.evaluation.progress import track
from jax_diffse.evaluation.results import NO_FILE
from jax_diffse.evaluation.signals import THREADS, Signal
from jax_diffse.metrics import METRICS, Pool, Scores, scoring
from jax_diffse.metrics.scoring import CLEAN

BATCH = 32  # signals that are scored together, at least
PER_WORKER = 4  # signals of a batch, at least
ROWS = 8  # of a file, before the first one is read
ROW = 'signal'  # of records


class Scored(NamedTuple):
    """The scores of a signal, and how it lies beside its clean speech."""

    scores: Scores
    offset: int  # samples by which it is late
    excess: int  # samples by which it is longer


class Scorer:
    """Scores signals in one set of metrics.

    Args:
      sample_rate: Hz.
      metrics: names that `scoring.check` accepts.
      cache: folder of earlier results. A signal is known by its samples and those of its clean speech.
      pool: for metrics that compare with clean speech.
    """

    def __init__(self, sample_rate: int, metrics: Sequence[str], cache: str | os.PathLike, pool: Pool):
        self._sample_rate, self._metrics, self._pool = sample_rate, tuple(metrics), pool
        self.rated = tuple(name for name in metrics if not METRICS[name].needs_reference)
        self.needs_noise = any(METRICS[name].needs_noise for name in metrics)
        self._cache = ResultCache(cache, {'signals': True, 'sample_rate': sample_rate, 'versions': runs.versions(),
                                          'sources': sources.fingerprint()})

    def score(self, count: int, load: Callable[[int], Mapping[str, Signal]],
              label: str = '') -> list[dict[str, Scored]]:
        """Scores the signals of every file.

        Args:
          count: number of files.
          load: file -> row -> signal; called in threads. Signals of the row 'clean' have no clean speech beside them.
          label: of the progress, which is shown if there is one.

        Returns:
          File -> row -> scores. Metrics that compare are NaN for signals without clean speech, and left out in the row
          'clean'.
        """
        found: list[dict[str, Scored]] = [{} for _ in range(count)]
        elsewhere: list[_Job] = []
        done = self._each(load, found, elsewhere)
        for _ in track(done, count, label) if label else done:
            pass
        self._wait_for_others(elsewhere, found, label)
        return found

    def _each(self, load, found, elsewhere: list['_Job']) -> Iterator[int]:
        """Scores some files at a time and yields each; adds what other processes score to `elsewhere`."""
        def jobs(i):
            return [_Job(i, row, signal.key, signal) for row, signal in load(i).items()]

        with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
            stop = 0
            while stop < len(found):
                start, rows = stop, max(map(len, found[:stop]), default=ROWS)
                stop = min(len(found), start + max(1, max(BATCH, PER_WORKER * self._pool.size) // rows))
                batch, todo = range(start, stop), []
                for place, job in enumerate(itertools.chain.from_iterable(threads.map(jobs, batch))):
                    self._store(found, job, Scores({}, {}))  # keeps the order of rows
                    if job.signal.samples is None or self._take(found, job):
                        continue
                    if place % jax.process_count() == jax.process_index():
                        todo.append(job)
                    else:
                        elsewhere.append(job.without_samples())
                for kind in ((False, False), (False, True), (True, True)):
                    self._compute([job for job in todo if kind == (job.signal.clean is None, job.signal.noisy is None)],
                                  found)
                yield from batch

    def _compute(self, jobs: Sequence['_Job'], found) -> None:
        """Scores signals, which all have clean and noisy speech beside them or not."""
        if not jobs:
            return
        samples = [job.signal.samples for job in jobs]
        if jobs[0].signal.clean is None:
            scores = scoring.score(samples, {CLEAN: samples}, self._sample_rate, self.rated, self._pool)[CLEAN]
        else:
            clean, noisy = [job.signal.clean for job in jobs], [job.signal.noisy for job in jobs]
            scores = scoring.score(clean, {ROW: samples}, self._sample_rate, self._metrics, self._pool,
                                   None if jobs[0].signal.noisy is None else noisy)[ROW]
        for job, of_job in zip(jobs, scores, strict=True):
            self._cache.write(job.key, Record({ROW: of_job}, 0.0, ''), {}, self._sample_rate)
            self._store(found, job, of_job)

    def _take(self, found, job: '_Job') -> bool:
        """Whether the cache has the scores of a signal in all metrics; takes them."""
        record = self._cache.read(job.key)
        scores = record.scores.get(ROW) if record else None
        wanted = self.rated if job.signal.clean is None else self._metrics
        if scores is None or not all(scoring.is_final(name, scores) for name in wanted):
            return False
        self._store(found, job, scores)
        return True

    def _store(self, found, job: '_Job', scores: Scores) -> None:
        """Adds the scores of a signal; what they lack of the metrics of its row is NaN for the signal's reason."""
        names = self.rated if job.row == CLEAN else self._metrics
        missing = Scores.undefined([name for name in names if name not in scores.values], job.signal.reason)
        values, reasons = scores.values | missing.values, scores.reasons | missing.reasons
        found[job.file][job.row] = Scored(
            Scores({name: values[name] for name in names}, {name: reasons[name] for name in names if name in reasons}),
            job.signal.offset, job.signal.excess)

    def _wait_for_others(self, elsewhere: list['_Job'], found, label: str) -> None:
        """Waits for the results of other processes; if one of them dies, JAX ends this one."""
        if elsewhere:
            print(f'{label or "scoring"}: waiting for {len(elsewhere)} signals of the other processes', flush=True)
        while elsewhere:
            time.sleep(self._cache.poll_seconds)
            self._cache.list_again()
            elsewhere = [job for job in elsewhere if not self._take(found, job)]


def by_row(found: Sequence[Mapping[str, Scored]], metrics: Sequence[str]) -> dict[str, list[Scores]]:
    """Row -> scores per file; NaN where a file has no such row."""
    rows = dict.fromkeys(row for rows in found for row in rows)
    missing = Scored(Scores.undefined(metrics, NO_FILE), 0, 0)
    return {row: [of_file.get(row, missing).scores for of_file in found] for row in rows}


class _Job(NamedTuple):
    """A signal of a file."""

    file: int
    row: str
    key: str
    signal: Signal

    def without_samples(self) -> '_Job':
        """The job without its samples, so that many can wait."""
        clean = None if self.signal.clean is None else self.signal.clean[:0]
        return self._replace(signal=self.signal._replace(samples=None, clean=clean, noisy=None))
