"""Scores files that any systems made, without a run; implements `jax-diffse score` and `jax_diffse.score`."""

import dataclasses
import logging
import os
import pathlib
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from jax_diffse import files
from jax_diffse.errors import UserError
from jax_diffse.evaluation.evaluate import CACHE, make_folder, summarise, system_notes, timed, write_report
from jax_diffse.evaluation.other_systems import Folder, OtherSystems, list_folders, listed, open_systems
from jax_diffse.evaluation.report import page
from jax_diffse.evaluation.results import NOISY, Results
from jax_diffse.evaluation.scorer import Scorer, by_row
from jax_diffse.evaluation.signals import Reading, Signal, headers
from jax_diffse.evaluation.utterances import partner
from jax_diffse.metrics import DEFAULT, METRICS, Pool, scoring
from jax_diffse.metrics.pool import check_workers
from jax_diffse.metrics.scores import SAMPLE_RATES
from jax_diffse.metrics.scoring import CLEAN

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
    """Metrics, treatment of files and output of `score_folders`.

    Attributes:
      metrics: names; default: see `metrics.scoring.choose`, without clean speech those that need none.
      sort: the metric that orders the systems in tables of means, best first; '': they stay as they are given.
      workers: scoring processes; default: one per CPU; 0: score in this process.
      cache: folder of earlier results; default: `cache` in the output folder.
      sample_rate: resample all files to this rate, Hz; default: the rate of the clean speech.
      resample: resample files that have another rate than the clean speech.
      channel: the channel of files with several, from 1 on; default: such files are refused.
      align: remove offsets from the clean speech before scoring.
      tolerance: the largest difference in length to the clean speech, in seconds.
      command: the command line that repeats the report, for the record.

    Raises:
      UserError: a negative number of workers.
    """

    metrics: Sequence[str] | None = None
    sort: str = ''
    workers: int | None = None
    cache: str | os.PathLike | None = None
    sample_rate: int | None = None
    resample: bool = False
    channel: int | None = None
    align: bool = False
    tolerance: float = 0.25
    command: str = ''

    def __post_init__(self) -> None:
        check_workers(self.workers)


@dataclasses.dataclass(frozen=True)
class _Files:
    """The clean files, if there are any, and those of the systems; 'noisy' is the first system, if it is given."""

    clean: tuple[pathlib.Path | None, ...]  # per utterance
    others: OtherSystems
    seconds: float  # duration of the utterances
    alone: tuple[str, ...]  # names of other clean or noisy files, which no system has

    def clean_speech(self, i: int) -> tuple[np.ndarray | None, str]:
        """The clean speech of utterance i `[N]`, or why there is none."""
        path = self.clean[i]
        if path is None:
            return None, ''
        try:
            return self.others.reading.read(path), ''
        except UserError as error:
            return None, f'the clean speech: {str(error).removeprefix(f"{path}: ")}'

    def signals(self, i: int, scorer: Scorer) -> dict[str, Signal]:
        clean, reason = self.clean_speech(i)
        row = {CLEAN: Signal(clean, reason=reason)} if scorer.rated and self.clean[i] else {}
        noisy = self._noisy(i, clean) if scorer.needs_noise and clean is not None else None
        return row | self.others.signals(i, clean, reason, noisy)

    def _noisy(self, i: int, clean: np.ndarray) -> np.ndarray | None:
        """The noisy speech of utterance i at the time of the clean one `[N]`; None if it has no usable file."""
        path = next((system.paths[i] for system in self.others.systems if system.name == NOISY), None)
        return None if path is None else self.others.reading.in_time(path, clean)

    def waveforms(self, i: int) -> dict[str, np.ndarray]:
        clean, _ = self.clean_speech(i)
        return ({} if clean is None else {CLEAN: clean}) | self.others.waveforms(i, clean)


def score_folders(clean: str | os.PathLike | None, systems: Mapping[str, str | os.PathLike],
                  output: str | os.PathLike, noisy: str | os.PathLike | None = None,
                  options: ScoreOptions = ScoreOptions()) -> dict:
    """Scores the files of several systems, writes a report and prints its tables.

    Files belong together by name: their path below the folder, without extension, in any Unicode form.

    Args:
      clean: folder of the clean speech; None: only metrics that need no reference are computed.
      systems: name -> folder; a system may lack files.
      output: the folder for `scores.csv`, `summary.json`, `summary.md` and `index.html`, as those of `evaluate`.
      noisy: folder of the noisy input, which becomes the first column and the reference of differences.
      options: metrics, treatment of files and so on.

    Returns:
      The content of `summary.json`; NaN is null there.

    Raises:
      UserError: a folder that is missing or has no file in common with the others, files of other rates or several
        channels that the options do not allow, or metrics that are not defined.
    """
    started = time.perf_counter()
    seconds: dict[str, float] = {}
    output, columns = files.path(output), {NOISY: noisy} if noisy else {}
    metrics = _metrics(options, clean is not None)
    for name in metrics:
        if METRICS[name].needs_noise and not noisy:
            raise UserError(f'metric {name!r} needs the noise: give --noisy')
    with timed(seconds, 'reading'):
        found = _open(clean, columns | dict(systems), options, any(METRICS[name].needs_reference for name in metrics))
    scoring.check(metrics, found.others.reading.sample_rate)
    make_folder(output)
    ids, reading = found.others.ids, found.others.reading
    with timed(seconds, 'scoring'), Pool(options.workers) as pool:
        scorer = Scorer(reading.sample_rate, metrics, options.cache or output / CACHE, pool)
        scored = scorer.score(len(ids), lambda i: found.signals(i, scorer), 'scoring')
    results = Results.of([{'id': name} for name in ids], found.others.names, metrics, by_row(scored, metrics),
                         side_by_side=True)
    given = {CLEAN: clean} if clean is not None else {}
    summary = summarise(results, found.seconds, reading.sample_rate, options.sort) | {
        'data': ', '.join(os.fspath(folder) for folder in (given | columns).values()) or 'files without a reference',
        'command': options.command, 'systems': found.others.summary(scored), 'aligned': options.align,
        'not_scored': list(found.alone), 'seconds': seconds}
    if jax.process_index():
        return summary  # the first process writes the report
    with timed(seconds, 'report'):
        examples = [page.Example(label, i, found.waveforms(i)) for label, i in results.ends().items()]
        html = page.render(results, summary, examples, reading.sample_rate)
    seconds['total'] = time.perf_counter() - started
    notes = [f'data: {summary["data"]} ({len(ids)} files, {summary["audio_seconds"]:.1f} s)',
             *([f'{_not_scored(found.alone)}: {listed(found.alone)}'] if found.alone else []), *system_notes(summary)]
    write_report(output, results, summary, notes, html)
    return summary


def _metrics(options: ScoreOptions, with_clean: bool) -> tuple[str, ...]:
    """The metrics to compute."""
    names = options.metrics
    comparing = [name for name in names or () if name in METRICS and METRICS[name].needs_reference]
    if comparing and not with_clean:
        raise UserError(f'metric {comparing[0]!r} compares with clean speech: give --clean, or name only some of: '
                        f'{", ".join(name for name, metric in METRICS.items() if not metric.needs_reference)}')
    if options.align and not with_clean:
        raise UserError('--align needs --clean, which offsets are measured from')
    unreferenced = tuple(name for name, metric in METRICS.items() if metric.default and not metric.needs_reference)
    scoring.check(unreferenced if names is None and not with_clean else names, 16_000)
    chosen = scoring.choose(names)
    if not with_clean:
        chosen = tuple(name for name in chosen if not METRICS[name].needs_reference)
    if options.sort and options.sort not in chosen:
        raise UserError(f'--sort={options.sort}: expected one of the metrics that are computed: {", ".join(chosen)}')
    return chosen


def _open(clean, named: Mapping[str, str | os.PathLike], options: ScoreOptions, compared: bool) -> _Files:
    """Finds the files; the utterances are those that some system has a file for."""
    folders = list_folders(named)
    systems = [folder.files for name, folder in folders.items() if name != NOISY]
    if clean is not None:
        reference = list_folders({CLEAN: clean})[CLEAN]
    else:
        reference = folders.get(NOISY) or Folder('', {name: path for there in systems for name, path in there.items()})
    if not reference.files:
        raise UserError(f'{reference.path or next(iter(folders.values())).path}: no audio files in this directory')
    ids = sorted(name for name in reference.files if any(partner(there, name) for there in systems))
    alone = sorted(set(reference.files) - set(ids)) if ids else []
    if ids:
        folders = {name: folder.without(set(alone)) for name, folder in folders.items()}
    else:
        ids = sorted(reference.files)  # `open_systems` refuses the first system
    paths = [reference.files[name] for name in ids]
    found = headers(paths)
    if not found:
        raise UserError(f'{paths[0]}: not readable as audio, nor are the other files there; expected audio files')
    rate = next(iter(found.values())).sample_rate if options.sample_rate is None else options.sample_rate
    reading = Reading(rate, options.resample or options.sample_rate is not None, options.channel, options.align,
                      options.tolerance)
    if compared and rate not in SAMPLE_RATES:
        raise UserError(f'files of {rate} Hz: metrics that compare with clean speech are defined at '
                        f'{" and ".join(map(str, SAMPLE_RATES))} Hz; --sample-rate {SAMPLE_RATES[-1]} resamples all '
                        'files')
    reading.check(found)
    if alone:
        print(f'{_not_scored(alone)}: {listed(alone)}', flush=True)
    others = open_systems(folders, ids, reading)
    return _Files(tuple(path if clean is not None else None for path in paths), others,
                  sum(info.num_samples / info.sample_rate for info in found.values()), tuple(alone))


def _not_scored(alone: Sequence[str]) -> str:
    return f'not scored, as no system has a file of the name: {len(alone)} file{"s" * (len(alone) > 1)}'


def score(clean: np.ndarray | Sequence[np.ndarray] | None, enhanced: np.ndarray | Sequence[np.ndarray],
          sample_rate: int, *, metrics: Sequence[str] | None = None,
          noisy: np.ndarray | Sequence[np.ndarray] | None = None,
          workers: int | None = None) -> dict[str, float] | dict[str, np.ndarray]:
    """Scores arrays in memory; `jax-diffse score` scores folders of files.

    Undefined values are NaN, for example of silent signals, of signals that are not finite, or of clean and enhanced
    signals that differ in length. The reason of each is logged as a warning of the logger `jax_diffse`, and
    docs/metrics.md lists the reasons. Nothing is resampled or aligned.

    Args:
      clean: `[N]`, or a list of `[N]` of any lengths; None: only metrics without a reference.
      enhanced: like `clean`, as long as it.
      sample_rate: Hz; 8000 or 16000 for metrics that compare with clean speech.
      metrics: names, see docs/metrics.md; default: those that compare with clean speech, or without it those that need
        none and whose weights are installed.
      noisy: like `clean`, for metrics that need the noise; without it they are NaN.
      workers: processes that score a list; default: one per CPU; 0: score in this process. One signal starts none.

    Returns:
      Metric -> its value, or for lists its values `[signals]`.

    Raises:
      UserError: an unknown metric, one that compares without `clean`, a rate at which metrics are not defined, arrays
        of other shapes, or lists of different lengths.
    """
    names = _metrics(ScoreOptions(DEFAULT if metrics is None and clean is not None else metrics, workers=workers),
                     clean is not None)
    scoring.check(names, sample_rate)
    several = isinstance(enhanced, (list, tuple))
    signals = _arrays(enhanced, 'enhanced')
    references = signals if clean is None else _arrays(clean, 'clean')
    if noisy is not None and len(_arrays(noisy, 'noisy')) != len(signals):
        raise UserError(f'noisy: expected as many signals as in enhanced, {len(signals)}')
    if len(references) != len(signals) or (clean is not None and isinstance(clean, (list, tuple)) != several):
        raise UserError(f'clean has {len(references)} signals and enhanced {len(signals)}, expected two arrays [N] or '
                        'two lists of equal length')
    row = CLEAN if clean is None else NOISY
    with Pool(workers if several else 0) as pool:
        scored = scoring.score(references, {row: signals}, sample_rate, names, pool,
                               None if noisy is None else _arrays(noisy, 'noisy'))[row]
    for i, scores in enumerate(scored):
        for name, reason in scores.reasons.items():
            log.warning('%s%s is NaN: %s', name, f' of signal {i}' if several else '', reason)
    if not several:
        return dict(scored[0].values)
    return {name: np.array([scores.values[name] for scores in scored]) for name in names}


def _arrays(given, label: str) -> list[np.ndarray]:
    """The signals of an argument.

    Raises:
      UserError: one is no array `[N]`.
    """
    signals = [np.asarray(signal) for signal in (given if isinstance(given, (list, tuple)) else [given])]
    for signal in signals:
        if signal.ndim != 1 or not np.isrealobj(signal) or signal.dtype.kind not in 'fiu':
            raise UserError(f'{label}: an array of {signal.dtype} of the shape {list(signal.shape)}, expected real '
                            'numbers [N], or a list of such arrays')
    return signals
