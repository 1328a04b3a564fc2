"""Runs a system in one setting over a list of files and scores every stage, except for results in the cache.

With n processes, each takes every n-th file and reads the results of the others from the cache.
"""

import dataclasses
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np

from jax_diffse import launch
from jax_diffse.errors import UserError
from jax_diffse.evaluation import sources
from jax_diffse.evaluation.cache import Record, ResultCache
from jax_diffse.evaluation.other_systems import NONE, OtherSystems
from jax_diffse.evaluation.progress import track
from jax_diffse.evaluation.results import NOISY, Results
from jax_diffse.evaluation.scorer import Scored, Scorer, by_row
from jax_diffse.evaluation.signals import Signal
from jax_diffse.evaluation.utterances import Utterance
from jax_diffse.inference.enhancer import Batch, Enhancer
from jax_diffse.inference.setting import Setting
from jax_diffse.metrics import Pool, Scores, scoring
from jax_diffse.metrics.scoring import CLEAN


@dataclasses.dataclass(frozen=True)
class Measured:
    """A setting's results on a list of files."""

    results: Results
    seconds: float  # of enhancing all files, without compilation
    new_seconds: float  # the part of `seconds` spent in this call
    compile_seconds: float  # spent in this call; not part of `seconds`
    devices: tuple[str, ...]  # that enhanced the files
    cache: ResultCache
    stages: tuple[str, ...]  # of the system, without the input


class Evaluator:
    """Measures settings on one list of files with one set of metrics.

    Args:
      utterances: the files.
      sample_rate: Hz.
      metrics: names that `scoring.check` accepts.
      cache: folder of earlier results.
      pool: for scoring.
      others: systems whose files are scored, too.
    """

    def __init__(self, utterances: Sequence[Utterance], sample_rate: int, metrics: Sequence[str],
                 cache: str | os.PathLike, pool: Pool, others: OtherSystems = NONE):
        self.utterances, self.sample_rate, self.metrics = utterances, sample_rate, tuple(metrics)
        self.others = others
        self._cache, self._pool = cache, pool
        self._inputs: list[dict[str, Scored]] | None = None

    def measure(self, setting: Setting, label: str = 'enhancing') -> Measured:
        """Enhances and scores the files that the cache lacks, batch by batch, and returns all results.

        Prints the progress. Enhancement and scoring alternate, so that scoring does not slow the timed enhancement.

        Raises:
          UserError: a system that does not take the steps, gives NaN or cannot refine its input.
        """
        inputs = by_row(self.scored_inputs(), self.metrics)
        cache = ResultCache(self._cache, {**setting.record(), 'sources': _sources(setting)})
        records = [self._stored(cache, utterance) for utterance in self.utterances]
        before = sum(record is not None for record in records)
        if before:
            print(f'{label}: {before} of {len(records)} files are in the cache', flush=True)
        compile_seconds, todo = 0.0, _share(records)
        if todo:
            enhancer = Enhancer(setting.run, preceding=setting.preceding, steps=setting.steps, seed=setting.seed)
            for i, record in track(self._new(enhancer, cache, todo, setting), len(todo), label):
                records[i] = record
            compile_seconds = enhancer.compile_seconds
        self._wait_for_others(records, cache, label)
        stages = tuple(records[0].scores)
        self._check_names(stages, setting)
        rows = inputs | {stage: [record.scores[stage] for record in records] for stage in stages}
        return Measured(
            Results.of([u.info for u in self.utterances], (NOISY, *self.others.names, *stages), self.metrics, rows),
            sum(record.seconds for record in records), sum(records[i].seconds for i in todo), compile_seconds,
            tuple(dict.fromkeys(record.device for record in records)), cache, stages)

    def waveforms(self, cache: ResultCache, i: int, stages: Sequence[str]) -> dict[str, np.ndarray]:
        """'clean', 'noisy', other systems and every stage -> the waveform `[N]` of file i; stages to 16 bits."""
        utterance = self.utterances[i]
        outputs = {stage: cache.waveform(utterance.key, stage) for stage in stages}
        return {CLEAN: utterance.clean, NOISY: utterance.noisy, **self.others.waveforms(i, utterance.clean), **outputs}

    def _check_names(self, stages: Iterable[str], setting: Setting) -> None:
        for name in set(stages) & set(self.others.names):
            raise UserError(f'--also {name}=...: {name!r} is a stage of {setting.run.workdir}; choose another name')

    def _new(self, enhancer: Enhancer, cache: ResultCache, todo: list[int],
             setting: Setting) -> Iterator[tuple[int, Record]]:
        """Enhances and scores files; yields the index and the record of each when it is done."""
        files = [self.utterances[i] for i in todo]
        processed = None if files[0].processed is None else [utterance.processed for utterance in files]
        batches = enhancer.in_batches([utterance.noisy for utterance in files],
                                      [utterance.info['id'] for utterance in files], processed)
        for batch in batches:
            self._check_names(batch.stages, setting)  # only enhancement tells the stages; ends with the first batch
            yield from self._scored(batch, files, todo, cache)

    def _scored(self, batch: Batch, files, todo, cache: ResultCache) -> Iterator[tuple[int, Record]]:
        members = [files[k] for k in batch.indices]
        total = sum(len(utterance.noisy) for utterance in members)
        scores = self._score(members, batch.stages)
        for place, (k, utterance) in enumerate(zip(batch.indices, members, strict=True)):
            record = Record({stage: found[place] for stage, found in scores.items()},
                            batch.seconds * len(utterance.noisy) / total, _device())
            outputs = {stage: found[place] for stage, found in batch.stages.items()}
            cache.write(utterance.key, record, outputs, self.sample_rate)
            yield todo[k], record

    def scored_inputs(self) -> list[dict[str, Scored]]:
        """File -> 'clean' (only if a metric needs no reference), 'noisy' and other systems -> scores."""
        if self._inputs is None:
            scorer = Scorer(self.sample_rate, self.metrics, self._cache, self._pool)
            self._inputs = scorer.score(len(self.utterances), lambda i: self._signals(i, scorer))
        return self._inputs

    def _signals(self, i: int, scorer: Scorer) -> dict[str, Signal]:
        utterance = self.utterances[i]
        clean = {CLEAN: Signal(utterance.clean)} if scorer.rated else {}
        noisy = utterance.noisy if scorer.needs_noise else None
        return clean | {NOISY: Signal(utterance.noisy, utterance.clean, noisy=noisy),
                        **self.others.signals(i, utterance.clean, noisy=noisy)}

    def _score(self, utterances: Sequence[Utterance],
               rows: Mapping[str, Sequence[np.ndarray]]) -> dict[str, list[Scores]]:
        clean, noisy = [u.clean for u in utterances], [u.noisy for u in utterances]
        return scoring.score(clean, rows, self.sample_rate, self.metrics, self._pool, noisy)

    def _wait_for_others(self, records: list[Record | None], cache: ResultCache, label: str) -> None:
        """Waits for the records of other processes; if one of them dies, JAX ends this one."""
        missing = [i for i, record in enumerate(records) if record is None]
        if missing:
            print(f'{label}: waiting for {len(missing)} files of the other processes', flush=True)
        while missing:
            time.sleep(cache.poll_seconds)
            cache.list_again()
            for i in missing:
                records[i] = self._stored(cache, self.utterances[i])
            missing = [i for i in missing if records[i] is None]

    def _stored(self, cache: ResultCache, utterance: Utterance) -> Record | None:
        """The record of a file, if it has all metrics and the audio of all stages."""
        record = cache.read(utterance.key)
        if record is None:
            return None
        for stage, scores in record.scores.items():
            if not all(scoring.is_final(name, scores) for name in self.metrics):
                return None
            if not cache.has_audio(utterance.key, stage):
                return None
        return record


def _share(records: Sequence[Record | None]) -> list[int]:
    """The files without a record that this process measures."""
    return [i for i in range(jax.process_index(), len(records), jax.process_count()) if records[i] is None]


def _sources(setting: Setting) -> list[str]:
    """Fingerprints of the code that a setting runs."""
    return [sources.fingerprint(type(run.system).__module__) for run in (setting.run, setting.preceding) if run]


def _device() -> str:
    """A description of the devices that enhance."""
    device = jax.local_devices()[0]
    name = f'{launch.cpu()}, {launch.cores()}' if device.platform == 'cpu' else device.device_kind
    return name + (f', {jax.local_device_count()} devices' if jax.local_device_count() > 1 else '')
