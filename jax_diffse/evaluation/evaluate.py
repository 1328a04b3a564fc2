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
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import NamedTuple

import jax
import numpy as np
import rich

from jax_diffse import audio
from jax_diffse.data.scan import settle
from jax_diffse.data.source import Source
from jax_diffse.errors import UserError
from jax_diffse.evaluation import results as tables
from jax_diffse.evaluation import scoring
from jax_diffse.evaluation.enhancer import Enhancer
from jax_diffse.evaluation.progress import track
from jax_diffse.evaluation.report import page
from jax_diffse.evaluation.results import Results
from jax_diffse.training import checkpoints
from jax_diffse.training.checkpoints import Run


class Utterance(NamedTuple):
    """One file of a data set."""

    info: dict  # 'id', and where known 'snr_db', 'noise' and 'noise_kind'
    clean: np.ndarray  # [N]
    noisy: np.ndarray  # [N]
    processed: np.ndarray | None  # [N], where what an earlier enhancer made of it is given


def evaluate(run: Run, source: Source, output: str | os.PathLike, *, preceding: Run | None = None,
             processed: str | os.PathLike | None = None, data: str = '', metrics: Sequence[str] | None = None,
             steps: int | None = None, limit: int | None = None, workers: int | None = None, save_audio: bool = False,
             skip_bad: bool = False) -> dict:
    """Enhances and scores every utterance, writes the report, and prints progress and the table of means.

    All waveforms are held in memory: clean, noisy and every stage of the system, 0.23 GB each per hour at 16 kHz.

    A run that refines takes what another enhancer made from the run `preceding` or from the folder `processed`. Stages
    are then 'noisy', 'preceding', 'refined'.

    Args:
      run: whose system is evaluated.
      source: pairs of clean and noisy speech at the system's rate.
      preceding: the run whose output is refined, at its default steps.
      processed: the folder with what is refined: for every utterance a file of its id, or as `save_audio` names it, of
        any extension, with one channel, at the system's rate and as long as the noisy one.
      output: the folder that gets `scores.csv` (a row per file and stage, and for its clean speech where
        metrics need no reference), `summary.json`, `summary.md`, `index.html` (one page, needs nothing else) and, with
        `save_audio`, `audio/STAGE/ID.wav`.
      data: what the source is, for the report.
      metrics: by name, default: see `scoring.choose`.
      steps: sampling steps (network evaluations) of a system that samples; default: its own choice.
      limit: at most so many utterances, spread evenly over the source (of those with a partner in `processed`).
      workers: scoring processes, by default one per CPU; 0 scores in this process.
      save_audio: also write what every stage made of every file.
      skip_bad: leave out utterances without a partner of their length, and say how many, rather than stop.

    Returns:
      What `summary.json` holds; NaN, where a mean is over no file, is null there.

    Raises:
      UserError: metrics that `scoring.check` refuses, a rate that does not fit, an empty source, a system that does
        not take `steps` or gives NaN, an output that cannot be written, nothing to refine or partners that do not fit
        (all in one message).
    """
    _check(run, source, metrics, limit)
    metrics = scoring.choose(metrics)
    output, started = pathlib.Path(output), time.perf_counter()
    enhancer = Enhancer(run, preceding=preceding)
    enhancer.check_processed(processed is not None)
    partners = _partners(source, processed, skip_bad)
    if save_audio and processed is not None:
        _check_apart(output / 'audio', pathlib.Path(processed))
    _make_folder(output)
    seconds: dict[str, float] = {}

    with _timed(seconds, 'reading'):
        indices = _spread(list(partners), limit)
        utterances = [_read(source, i, partners[i]) for i in track(indices, len(indices), 'reading')]
    stages = _enhance(enhancer, utterances, steps, seconds)
    with _timed(seconds, 'scoring'):
        infos, clean = ([getattr(utterance, name) for utterance in utterances] for name in ('info', 'clean'))
        results = scoring.score(infos, clean, stages, source.sample_rate, metrics, workers)

    summary = _summarise(run, results, utterances, source.sample_rate, data, steps, seconds)
    summary['preceding'] = {'folder': str(processed)} if processed else preceding and _checkpoint(preceding)
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
    scoring.check(metrics, rate)
    if limit is not None and limit < 1:
        raise UserError(f'limit={limit}: expected 1 or more files')
    if source.sample_rate != rate:
        raise UserError(f'the data are at {source.sample_rate} Hz, but the system of {run.workdir} works at {rate} Hz: '
                        'resample the data')
    if not len(source):
        raise UserError('the data set is empty, expected at least one pair of files')


def _partners(source: Source, folder, skip_bad: bool) -> dict[int, pathlib.Path | None]:
    """Utterance -> the file in `folder` of what was made of it, None where no folder is given; without the bad ones."""
    if folder is None:
        return dict.fromkeys(range(len(source)))
    files, partners, bad = audio.by_name(folder), {}, {}
    for i in range(len(source)):
        info = source.info(i)
        name = _file_name(info['id'])
        path = files.get(name.removesuffix('.wav')) or files.get(info['id'])
        wrong = _mismatch(path, source.sample_rate, info['num_samples']) if path else 'no such file, of any extension'
        if wrong:
            bad[str(path or pathlib.Path(folder, name))] = wrong
        else:
            partners[i] = path
    settle(bad, len(source), skip_bad)
    if not partners:
        raise UserError(f'{folder}: no utterance of the data has a file here that fits it, expected files named by id')
    return partners


def _mismatch(path: pathlib.Path, sample_rate: int, num_samples: int) -> str:
    """What keeps a file from being what was made of a recording of that rate and length, or ''."""
    try:
        header = audio.info(path)
    except UserError as error:
        return str(error).removeprefix(f'{path}: ')
    for found, expected, unit in ((header.sample_rate, sample_rate, 'Hz'), (header.num_channels, 1, 'channels'),
                                  (header.num_samples, num_samples, 'samples')):
        if found != expected:
            return f'{found} {unit}, expected {expected} as in the noisy speech'
    return ''


def _check_apart(results: pathlib.Path, processed: pathlib.Path) -> None:
    if results.resolve() in (processed.resolve(), *processed.resolve().parents):
        raise UserError(f'{processed}: lies in {results}, where --save-audio may overwrite it; choose another --output')


def _spread(items: Sequence[int], limit: int | None) -> list[int]:
    """`limit` of the items, evenly spaced: the first few of a sorted set would be one speaker's."""
    count = len(items) if limit is None else min(limit, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _read(source: Source, i: int, partner: pathlib.Path | None) -> Utterance:
    return Utterance(source.info(i), *source.read(i), None if partner is None else audio.read(partner)[0][:, 0])


def _enhance(enhancer: Enhancer, utterances: Sequence[Utterance], steps, seconds) -> dict[str, Sequence[np.ndarray]]:
    """Stage -> waveforms: first the noisy input, then the system's stages, of which the last is its output."""
    noisy, processed = ([getattr(u, name) for u in utterances] for name in ('noisy', 'processed'))
    duration = sum(map(len, noisy)) / enhancer.sample_rate
    print(f'enhancing {len(noisy)} files, {duration:.1f} s of audio', flush=True)
    spinner = rich.get_console().status('enhancing') if sys.stdout.isatty() else contextlib.nullcontext()
    with _timed(seconds, 'enhancing'), spinner:
        try:
            stages = enhancer.stages(noisy, [utterance.info['id'] for utterance in utterances], steps,
                                     None if processed[0] is None else processed)
        except ValueError as error:
            if steps is None:
                raise
            raise UserError(f'steps={steps}: {error}') from error
    seconds['compiling'] = enhancer.compile_seconds
    seconds['enhancing'] -= enhancer.compile_seconds
    return {'noisy': noisy, **stages}


def _summarise(run, results, utterances, sample_rate, data, steps, seconds) -> dict:
    duration = sum(len(utterance.noisy) for utterance in utterances) / sample_rate
    return {
        'data': data,
        'files': len(utterances),
        'audio_seconds': duration,
        'sample_rate': sample_rate,
        'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'checkpoint': _checkpoint(run),
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


def _checkpoint(run: Run) -> dict:
    return {'workdir': str(run.workdir), 'step': run.step, 'hash': run.hash}


def _notes(summary: dict) -> list[str]:
    """The facts at the head of `summary.md`."""
    factor, steps, preceding = summary['real_time_factor'], summary['sampling_steps'], summary['preceding']
    given = preceding and 'folder' in preceding
    timed = f', {"without" if given else "with"} the preceding enhancer' if preceding else ''
    return [f'data: {summary["data"]} ({summary["files"]} files, {summary["audio_seconds"]:.1f} s)',
            f'checkpoint: {_named(summary["checkpoint"])}',
            *([f'preceding: {preceding["folder"] if given else _named(preceding)}'] if preceding else []),
            *([] if steps is None else [f'sampling steps (network evaluations): {steps}']),
            f'real-time factor of enhancement: {factor:.3f} on {summary["device"]}, without compilation{timed}']


def _named(checkpoint: dict) -> str:
    return f'{checkpoint["workdir"]}, step {checkpoint["step"]}, {checkpoint["hash"][:12]}'


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
