"""Scores a run on a data set and writes the report; implements `jax-diffse evaluate` for one setting."""

import contextlib
import datetime
import json
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from importlib import metadata

import jax

from jax_diffse import audio, files, runs
from jax_diffse.data.source import Source
from jax_diffse.errors import UserError
from jax_diffse.evaluation import tables
from jax_diffse.evaluation.cache import json_safe
from jax_diffse.evaluation.evaluator import Evaluator, Measured
from jax_diffse.evaluation.options import EvaluationOptions, EvaluationSet
from jax_diffse.evaluation.other_systems import described, list_folders, listed, open_systems
from jax_diffse.evaluation.report import page
from jax_diffse.evaluation.results import Results
from jax_diffse.evaluation.signals import Reading
from jax_diffse.evaluation.utterances import file_name, read_all
from jax_diffse.inference.setting import Setting
from jax_diffse.metrics import Pool, scoring
from jax_diffse.runs import Run

CACHE = 'cache'  # in the output folder; the default cache
AUDIO = 'audio'  # in the output folder
REASONS = 5  # for undefined values, that are printed


def evaluate(setting: Setting, data: EvaluationSet, output: str | os.PathLike,
             options: EvaluationOptions = EvaluationOptions()) -> dict:
    """Enhances and scores every utterance, writes the report, and prints progress and the table of means.

    The cache supplies results of earlier evaluations. Clean and noisy speech stay in memory, 0.23 GB each per hour at
    16 kHz.

    A refiner gets the output of `setting.preceding` or the files in `options.processed`. The stages are then 'noisy',
    'preceding', 'refined'.

    Args:
      setting: the run and its sampler settings.
      data: pairs of clean and noisy speech at the system's rate.
      output: the folder for `scores.csv` (a row per file and stage, and one for clean speech if metrics need no
        reference), `summary.json`, `summary.md`, `index.html` (one self-contained page) and, with
        `options.save_audio`, `audio/STAGE/ID.wav`.
      options: metrics, cache and so on.

    Returns:
      The content of `summary.json`; NaN (a mean over no files) is null there.

    Raises:
      UserError: metrics that `scoring.check` refuses, a wrong sample rate, an empty source, a system that does not take
        `setting.steps` or gives NaN, an output that cannot be written, nothing to refine, or processed files that do
        not fit (all in one message).
    """
    run, source = setting.run, data.source
    check(run, source, options.metrics)
    setting.check(options.processed is not None)
    metrics = scoring.choose(options.metrics)
    output, started = files.path(output), time.perf_counter()
    if options.save_audio and options.processed is not None:
        check_apart(output, options.processed)
    folders = list_folders(options.also)
    seconds: dict[str, float] = {}
    with timed(seconds, 'reading'):
        utterances = read_all(source, options.processed, data.limit, data.skip_bad)
    others = open_systems(folders, [utterance.info['id'] for utterance in utterances],
                          Reading(source.sample_rate, data.resample))
    make_folder(output)
    data.write_manifest(output)

    with timed(seconds, 'scoring'), Pool(options.workers) as pool:
        evaluator = Evaluator(utterances, source.sample_rate, metrics, options.cache or output / CACHE, pool, others)
        measured = evaluator.measure(setting, 'enhancing and scoring')
    seconds |= {'enhancing': measured.seconds, 'compiling': measured.compile_seconds}
    seconds['scoring'] = max(0.0, seconds['scoring'] - measured.compile_seconds - measured.new_seconds)

    summary = _summarise(setting, measured, evaluator, seconds)
    summary |= {'data': data.description, 'command': options.command,
                'preceding': refined(setting.preceding, options.processed),
                'systems': others.summary(evaluator.scored_inputs()), 'aligned': False, 'not_scored': []}
    if jax.process_index():
        return summary  # the first process writes the report
    with timed(seconds, 'report'):
        html = page.render(measured.results, summary, _examples(evaluator, measured), source.sample_rate)
    seconds['total'] = time.perf_counter() - started
    write_report(output, measured.results, summary, _notes(summary), html)
    if options.save_audio:  # last, so that a failure here loses nothing else
        _save_audio(output / AUDIO, evaluator, measured)
    return summary


def refined(preceding: Run | None, processed: str | os.PathLike | None) -> dict | None:
    """The input of a refiner, for a summary: a folder, a run or None."""
    if processed is not None:
        return {'folder': str(processed)}
    return preceding and named(preceding)


def check(run: Run, source: Source, metrics: Sequence[str] | None) -> None:
    """Checks that a run can be evaluated on a source.

    Raises:
      UserError: metrics that `scoring.check` refuses, a wrong sample rate, or an empty source.
    """
    rate = run.system.sample_rate
    scoring.check(metrics, rate)
    if source.sample_rate != rate:
        raise UserError(f'the data are at {source.sample_rate} Hz, but the system of {run.workdir} works at {rate} Hz; '
                        'resample the data')
    if not len(source):
        raise UserError('the data set is empty, expected at least one pair of files')


def check_apart(output: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Checks that a folder of inputs does not lie where the audio of a report is saved.

    Raises:
      UserError: it does.
    """
    saved, given = files.resolved(files.path(output) / AUDIO), files.resolved(folder)
    if saved in (given, *given.parents):
        raise UserError(f'{folder}: lies in {files.path(output) / AUDIO}, where --save-audio may overwrite it; choose '
                        'another --output')


def _summarise(setting: Setting, measured: Measured, evaluator: Evaluator, seconds: dict[str, float]) -> dict:
    duration = sum(len(utterance.noisy) for utterance in evaluator.utterances) / evaluator.sample_rate
    return {
        **summarise(measured.results, duration, evaluator.sample_rate),
        'checkpoint': named(setting.run),
        'sampling_steps': setting.sampling_steps,
        'network_evaluations': setting.evaluations,
        'seed': setting.seed,
        'seconds': seconds,
        'real_time_factor': seconds['enhancing'] / duration,
        'device': ', '.join(measured.devices),
        'config': setting.run.config.to_dict(),
    }


def summarise(results: Results, audio_seconds: float, sample_rate: int, sort: str = '') -> dict:
    """The part of a summary that is about scores.

    Args:
      results: the scores.
      audio_seconds: duration of all utterances.
      sample_rate: Hz.
      sort: the metric that orders the stages in the tables of means, best first; '': none.
    """
    statistics = results.statistics(intervals=True)
    return {
        'files': len(results.infos),
        'audio_seconds': audio_seconds,
        'sample_rate': sample_rate,
        'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'stages': list(results.stages),
        'metrics': list(results.metrics),
        'sort': sort,
        'statistics': tables.ranked(statistics, sort) if sort else statistics,
        'groups': {name: {label: {'files': len(files), 'statistics': results.statistics(files)}
                          for label, files in groups.items()} for name, groups in results.groups().items()},
        'noise_kinds': results.by_kind(),
        'failures': results.failures(),
        'versions': all_versions(),
    }


def write_report(output: pathlib.Path, results: Results, summary: dict, notes: Sequence[str], html: str) -> None:
    """Writes the files of a report and prints its tables.

    Args:
      output: the folder.
      results: the scores.
      summary: the content of `summary.json`, of `summarise` and more.
      notes: facts for the head of `summary.md`.
      html: the page.
    """
    files.write_text(output / 'scores.csv', tables.to_csv(results))
    files.write_text(output / 'summary.json', json.dumps(json_safe(summary), indent=2, allow_nan=False) + '\n')
    files.write_text(output / 'summary.md', tables.to_markdown(results, 'Evaluation', notes, summary['statistics']))
    files.write_text(output / 'index.html', html)
    print(f'\n{tables.summary_tables(results, summary["sort"])}', flush=True)
    print('\n'.join(['', *described(summary['systems'], summary['aligned']), *_undefined(summary['failures'])]))
    print(f'report: {output / "index.html"}', flush=True)


def all_versions() -> dict[str, str]:
    """Versions of the libraries that can change a result, including those of the metrics."""
    return runs.versions() | {name: metadata.version(name) for name in ('pesq', 'pystoi', 'scipy')}


def named(run: Run) -> dict:
    """A run's checkpoint, for a summary."""
    return {'workdir': str(run.workdir), 'step': run.step, 'hash': run.hash, 'history': dict(run.history)}


def _notes(summary: dict) -> list[str]:
    """The facts at the head of `summary.md`."""
    factor, steps, preceding = summary['real_time_factor'], summary['sampling_steps'], summary['preceding']
    given = preceding and 'folder' in preceding
    timed = f', {"without" if given else "with"} the preceding enhancer' if preceding else ''
    return [f'data: {summary["data"]} ({summary["files"]} files, {summary["audio_seconds"]:.1f} s)',
            f'checkpoint: {_named(summary["checkpoint"])}',
            *([f'preceding: {preceding["folder"] if given else _named(preceding)}'] if preceding else []),
            *([] if steps is None else [f'sampling steps: {steps}, network evaluations: '
                                        f'{summary["network_evaluations"]}']),
            f'real-time factor of enhancement: {factor:.3f} on {summary["device"]}, without compilation{timed}',
            *system_notes(summary)]


def _undefined(failures: Sequence[dict]) -> list[str]:
    """Lines on undefined values: the most frequent reasons, with the number of files of each."""
    files_of: dict[tuple, set[str]] = {}
    for failure in failures:
        files_of.setdefault((failure['stage'], failure['reason']), set()).add(failure['id'])
    most = sorted(files_of.items(), key=lambda item: -len(item[1]))
    lines = [f'n/a: {stage}, {len(ids)} file{"s" * (len(ids) > 1)} ({listed(sorted(ids))}): {reason}'
             for (stage, reason), ids in most[:REASONS]]
    return lines + (['n/a: more reasons are in summary.json, under failures'] if len(most) > REASONS else [])


def system_notes(summary: dict) -> list[str]:
    """The facts on systems that were given as files."""
    systems = summary['systems']
    return [*(f'{name}: {system["folder"]}, {system["files"]} of {summary["files"]} files'
              for name, system in systems.items()), *described(systems, summary['aligned'])]


def _named(checkpoint: dict) -> str:
    return f'{checkpoint["workdir"]}, step {checkpoint["step"]}, {checkpoint["hash"][:12]}'


def _examples(evaluator: Evaluator, measured: Measured) -> list[page.Example]:
    """The files with the best, the median and the worst gain; fewer if there are fewer files."""
    return [page.Example(label, i, evaluator.waveforms(measured.cache, i, measured.stages))
            for label, i in measured.results.ends().items()]


def _save_audio(folder: pathlib.Path, evaluator: Evaluator, measured: Measured) -> None:
    """Writes as many files as possible.

    Raises:
      UserError: some files cannot be written.
    """
    failures = []
    for i, utterance in enumerate(evaluator.utterances):
        waveforms = evaluator.waveforms(measured.cache, i, measured.stages)
        for stage in measured.stages:
            try:
                audio.write(folder / stage / file_name(utterance.info['id']), waveforms[stage], evaluator.sample_rate)
            except UserError as error:
                failures.append(str(error))
    if failures:
        count = len(evaluator.utterances) * len(measured.stages)
        raise UserError(f'{len(failures)} of {count} audio files were not saved (the report was): {failures[0]}')


def make_folder(path: pathlib.Path) -> None:
    """Creates the folder of a report.

    Raises:
      UserError: it cannot be created.
    """
    try:
        files.make_folder(path)
    except OSError as error:
        raise UserError(f'{path}: cannot create the report folder ({files.reason(error)})') from error


@contextlib.contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
