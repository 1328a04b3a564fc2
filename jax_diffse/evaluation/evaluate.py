"""Scores a run on a data set and writes the report: what `evaluate.py` does."""

import contextlib
import datetime
import json
import math
import os
import pathlib
import sys
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import NamedTuple

import jax
import numpy as np
import rich.progress

from jax_diffse import audio
from jax_diffse.data.source import Source
from jax_diffse.errors import UserError
from jax_diffse.evaluation import results as tables
from jax_diffse.evaluation.enhancer import Enhancer
from jax_diffse.evaluation.metrics import METRICS, score_all
from jax_diffse.evaluation.metrics.scores import check
from jax_diffse.evaluation.report import page
from jax_diffse.evaluation.results import Results
from jax_diffse.training import checkpoints
from jax_diffse.training.checkpoints import Run

MARKS = 5  # lines of progress per phase where there is no terminal


class Utterance(NamedTuple):
    """One file of a data set."""

    info: dict  # 'id', and where known 'snr_db', 'noise' and 'noise_kind'
    clean: np.ndarray  # [N]
    noisy: np.ndarray  # [N]


def evaluate(run: Run, source: Source, output: str | os.PathLike, *, data: str = '',
             metrics: Sequence[str] = tuple(METRICS), steps: int | None = None, limit: int | None = None,
             workers: int | None = None, save_audio: bool = False) -> dict:
    """Enhances and scores every utterance, writes the report, and prints progress and the table of means.

    All waveforms are held in memory: clean, noisy and every stage of the system, 0.23 GB each per hour at 16 kHz.

    Args:
      run: whose system is evaluated.
      source: pairs of clean and noisy speech at the system's rate.
      output: the folder that gets `scores.csv` (a row per file and stage), `summary.json`, `summary.md`, `index.html`
        (one page, needs nothing else) and, with `save_audio`, `audio/STAGE/ID.wav`.
      data: what the source is, for the report.
      metrics: of `METRICS`; they are defined at 8 and 16 kHz.
      steps: sampling steps (network evaluations) of a system that samples; default: its own choice.
      limit: at most so many utterances, spread evenly over the source.
      workers: scoring processes, by default one per CPU; 0 scores in this process.
      save_audio: also write what every stage made of every file.

    Returns:
      What `summary.json` holds; NaN, where a mean is over no file, is null there.

    Raises:
      UserError: an unknown metric, a rate that does not fit, an empty source, a system that does not take `steps` or
        gives NaN, or an output that cannot be written.
    """
    _check(run, source, metrics, limit)
    output, started = pathlib.Path(output), time.perf_counter()
    _make_folder(output)
    seconds: dict[str, float] = {}

    with _timed(seconds, 'reading'):
        indices = _spread(len(source), limit)
        utterances = [Utterance(source.info(i), *source.read(i)) for i in _track(indices, len(indices), 'reading')]
    stages = _enhance(run, utterances, steps, seconds)
    with _timed(seconds, 'scoring'):
        results = _score(utterances, stages, source.sample_rate, tuple(metrics), workers)

    summary = _summarise(run, results, utterances, source.sample_rate, data, steps, seconds)
    if save_audio:
        _save_audio(output / 'audio', utterances, stages, source.sample_rate)
    with _timed(seconds, 'report'):
        html = page.render(results, summary, _examples(results, utterances, stages), source.sample_rate)
    seconds['total'] = time.perf_counter() - started
    _write(output / 'scores.csv', tables.to_csv(results))
    _write(output / 'summary.json', json.dumps(_nulled(summary), indent=2, allow_nan=False) + '\n')
    _write(output / 'summary.md', tables.to_markdown(results, 'Evaluation', _notes(summary)))
    _write(output / 'index.html', html)
    print(f'\n{tables.summary_tables(results)}\n\nreport: {output / "index.html"}', flush=True)
    return summary


def _check(run, source, metrics, limit) -> None:
    rate = run.system.sample_rate
    check(rate, metrics)
    if not metrics:
        raise UserError(f'no metric named, expected some of: {", ".join(METRICS)}')
    if limit is not None and limit < 1:
        raise UserError(f'limit={limit}: expected 1 or more files')
    if source.sample_rate != rate:
        raise UserError(f'the data are at {source.sample_rate} Hz, but the system of {run.workdir} works at {rate} Hz: '
                        'resample the data')
    if not len(source):
        raise UserError('the data set is empty, expected at least one pair of files')


def _spread(total: int, limit: int | None) -> list[int]:
    """`limit` of `total` indices, evenly spaced: the first few of a sorted set would be one speaker's."""
    count = total if limit is None else min(limit, total)
    return [i * total // count for i in range(count)]


def _enhance(run: Run, utterances: Sequence[Utterance], steps, seconds) -> dict[str, Sequence[np.ndarray]]:
    """Stage -> waveforms: first the noisy input, then the system's stages, of which the last is its output."""
    noisy, enhancer = [utterance.noisy for utterance in utterances], Enhancer(run)
    duration = sum(map(len, noisy)) / run.system.sample_rate
    print(f'enhancing {len(noisy)} files, {duration:.1f} s of audio', flush=True)
    spinner = rich.get_console().status('enhancing') if sys.stdout.isatty() else contextlib.nullcontext()
    with _timed(seconds, 'enhancing'), spinner:
        try:
            stages = enhancer.stages(noisy, [utterance.info['id'] for utterance in utterances], steps)
        except ValueError as error:
            if steps is None:
                raise
            raise UserError(f'steps={steps}: {error}') from error
    seconds['compiling'] = enhancer.compile_seconds
    seconds['enhancing'] -= enhancer.compile_seconds
    return {'noisy': noisy, **stages}


def _score(utterances: Sequence[Utterance], stages: Mapping[str, Sequence[np.ndarray]], sample_rate: int,
           metrics: tuple[str, ...], workers: int | None) -> Results:
    jobs = ((utterance.clean, waveforms[i]) for i, utterance in enumerate(utterances) for waveforms in stages.values())
    total = len(utterances) * len(stages)
    scores = list(_track(score_all(jobs, sample_rate, metrics, workers), total, 'scoring'))
    values = np.array([[score.values[metric] for metric in metrics] for score in scores], np.float64)
    reasons = [score.reasons for score in scores]
    return Results([utterance.info for utterance in utterances], tuple(stages), metrics,
                   values.reshape(len(utterances), len(stages), len(metrics)),
                   [reasons[i:i + len(stages)] for i in range(0, total, len(stages))])


def _summarise(run, results, utterances, sample_rate, data, steps, seconds) -> dict:
    duration = sum(len(utterance.noisy) for utterance in utterances) / sample_rate
    return {
        'data': data,
        'files': len(utterances),
        'audio_seconds': duration,
        'sample_rate': sample_rate,
        'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'checkpoint': {'workdir': str(run.workdir), 'step': run.step, 'hash': run.hash},
        'sampling_steps': run.system.default_steps if steps is None else steps,
        'stages': list(results.stages),
        'metrics': list(results.metrics),
        'statistics': results.statistics(),
        'groups': {name: {label: {'files': len(files), 'statistics': results.statistics(files)}
                          for label, files in groups.items()} for name, groups in results.groups().items()},
        'noise_kinds': results.by_kind(),
        'failures': results.failures(),
        'seconds': seconds,
        'real_time_factor': seconds['enhancing'] / duration,
        'device': jax.devices()[0].device_kind,
        'versions': checkpoints.versions() | {name: metadata.version(name) for name in ('pesq', 'pystoi', 'scipy')},
        'config': run.config.to_dict(),
    }


def _notes(summary: dict) -> list[str]:
    """The facts at the head of `summary.md`."""
    checkpoint, factor, steps = summary['checkpoint'], summary['real_time_factor'], summary['sampling_steps']
    return [f'data: {summary["data"]} ({summary["files"]} files, {summary["audio_seconds"]:.1f} s)',
            f'checkpoint: {checkpoint["workdir"]}, step {checkpoint["step"]}, {checkpoint["hash"][:12]}',
            *([] if steps is None else [f'sampling steps (network evaluations): {steps}']),
            f'real-time factor of enhancement: {factor:.3f} on {summary["device"]}, without compilation']


def _examples(results: Results, utterances, stages) -> list[page.Example]:
    """The files with the best, the median and the worst gain; fewer where there are fewer files."""
    ranked = results.ranked()
    places = {len(ranked) // 2: 'Median', len(ranked) - 1: 'Worst', 0: 'Best'} if ranked else {}  # the later wins
    return [page.Example(places[place], i, {'clean': utterances[i].clean} | {name: w[i] for name, w in stages.items()})
            for place, i in enumerate(ranked) if place in places]


def _save_audio(folder: pathlib.Path, utterances, stages, sample_rate) -> None:
    for stage in list(stages)[1:]:
        for utterance, waveform in zip(utterances, stages[stage], strict=True):
            audio.write(folder / stage / _file_name(utterance.info['id']), waveform, sample_rate)


def _file_name(utterance: str) -> str:
    """A relative path that stays below its folder, whatever the id is; plain ids are kept."""
    parts = [urllib.parse.quote(part, safe=' ') for part in utterance.split('/') if part not in ('', '.', '..')]
    return '/'.join(parts or ['unnamed']) + '.wav'


def _make_folder(path: pathlib.Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{path}: cannot be made a folder for the report ({error.strerror})') from error


def _write(path: pathlib.Path, text: str) -> None:
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        partial.write_text(text, encoding='utf-8')
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f'{path}: cannot be written ({error.strerror})') from error


def _nulled(tree):
    """A tree for JSON: None in place of NaN and infinities, which JSON lacks."""
    if isinstance(tree, dict):
        return {key: _nulled(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_nulled(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def _track(items: Iterable, total: int, label: str) -> Iterator:
    """Passes `items` on, with a bar on a terminal and a few plain lines elsewhere."""
    if sys.stdout.isatty():
        yield from rich.progress.track(items, label, total, transient=True)
        return
    for done, item in enumerate(items, start=1):
        yield item
        if done * MARKS // total > (done - 1) * MARKS // total:
            print(f'{label}: {done} of {total}', flush=True)
