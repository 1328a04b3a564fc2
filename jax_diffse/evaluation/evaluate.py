"""Scores a run on a data set and writes the report: what `evaluate.py` does."""

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
from jax_diffse.evaluation import results as tables
from jax_diffse.evaluation.cache import json_safe
from jax_diffse.evaluation.evaluator import Evaluator, Measured
from jax_diffse.evaluation.report import page
from jax_diffse.evaluation.utterances import Utterance, file_name, read_all
from jax_diffse.inference.enhancer import Enhancer
from jax_diffse.inference.setting import Setting
from jax_diffse.metrics import Pool, scoring
from jax_diffse.runs import Run
from jax_diffse.systems.base import sampling_steps

CACHE = 'cache'  # below the output, where no other folder is given
AUDIO = 'audio'  # below the output, where it is saved


def evaluate(run: Run, source: Source, output: str | os.PathLike, *, preceding: Run | None = None,
             processed: str | os.PathLike | None = None, data: str = '', metrics: Sequence[str] | None = None,
             steps: int | None = None, seed: int = 0, limit: int | None = None, workers: int | None = None,
             save_audio: bool = False, skip_bad: bool = False, cache: str | os.PathLike | None = None,
             command: str = '') -> dict:
    """Enhances and scores every utterance, writes the report, and prints progress and the table of means.

    What was measured already, by this call cut off or by another one, is taken from the cache. Clean and noisy speech
    are held in memory, 0.23 GB each per hour at 16 kHz.

    A run that refines takes what another enhancer made from the run `preceding` or from the folder `processed`. Stages
    are then 'noisy', 'preceding', 'refined'.

    Args:
      run: whose system is evaluated.
      source: pairs of clean and noisy speech at the system's rate.
      preceding: the run whose output is refined, at its default steps.
      processed: the folder with what is refined, see `utterances.read_all`.
      output: the folder that gets `scores.csv` (a row per file and stage, and for its clean speech where
        metrics need no reference), `summary.json`, `summary.md`, `index.html` (one page, needs nothing else) and, with
        `save_audio`, `audio/STAGE/ID.wav`.
      data: what the source is, for the report.
      metrics: by name, default: see `scoring.choose`.
      steps: sampling steps (network evaluations) of a system that samples; default: its own choice.
      seed: of the noise that a sampler draws.
      limit: at most so many utterances, spread evenly over the source (of those with a partner in `processed`).
      workers: scoring processes, by default one per CPU; 0 scores in this process.
      save_audio: also write what every stage made of every file.
      skip_bad: leave out utterances without a partner of their length, and say how many, rather than stop.
      cache: the folder of what was measured already (default: `cache` in `output`), see `evaluation/cache.py`.
      command: that can be typed to have it done again, for the record.

    Returns:
      What `summary.json` holds; NaN, where a mean is over no file, is null there.

    Raises:
      UserError: metrics that `scoring.check` refuses, a rate that does not fit, an empty source, a system that does
        not take `steps` or gives NaN, an output that cannot be written, nothing to refine or partners that do not fit
        (all in one message).
    """
    check(run, source, metrics)
    metrics = scoring.choose(metrics)
    output, started = pathlib.Path(files.given(output)), time.perf_counter()
    Enhancer(run, preceding=preceding, seed=seed).check_processed(processed is not None)
    if save_audio and processed is not None:
        check_apart(output, processed)
    seconds: dict[str, float] = {}
    with _timed(seconds, 'reading'):
        utterances = read_all(source, processed, limit, skip_bad)
    make_folder(output)

    with _timed(seconds, 'scoring'), Pool(workers) as pool:
        evaluator = Evaluator(utterances, source.sample_rate, metrics, cache or output / CACHE, pool)
        measured = evaluator.measure(Setting(run, steps, seed, preceding), 'enhancing and scoring')
    seconds |= {'enhancing': measured.seconds, 'compiling': measured.compile_seconds}
    seconds['scoring'] = max(0.0, seconds['scoring'] - measured.compile_seconds - measured.new_seconds)

    summary = _summarise(run, measured, utterances, source.sample_rate, data, steps, seed, seconds)
    refined = {'folder': str(processed)} if processed else preceding and named(preceding)
    summary |= {'command': command, 'preceding': refined}
    if jax.process_index():
        return summary  # the first process writes the report
    with _timed(seconds, 'report'):
        html = page.render(measured.results, summary, _examples(evaluator, measured), source.sample_rate)
    seconds['total'] = time.perf_counter() - started
    files.write_text(output / 'scores.csv', tables.to_csv(measured.results))
    files.write_text(output / 'summary.json', json.dumps(json_safe(summary), indent=2, allow_nan=False) + '\n')
    files.write_text(output / 'summary.md', tables.to_markdown(measured.results, 'Evaluation', _notes(summary)))
    files.write_text(output / 'index.html', html)
    print(f'\n{tables.summary_tables(measured.results)}\n\nreport: {output / "index.html"}', flush=True)
    if save_audio:  # last, so that audio that cannot be saved costs nothing else
        _save_audio(output / AUDIO, evaluator, measured)
    return summary


def check(run: Run, source: Source, metrics: Sequence[str] | None) -> None:
    """Refuses what cannot be evaluated.

    Raises:
      UserError: metrics that `scoring.check` refuses, a rate that does not fit, or an empty source.
    """
    rate = run.system.sample_rate
    scoring.check(metrics, rate)
    if source.sample_rate != rate:
        raise UserError(f'the data are at {source.sample_rate} Hz, but the system of {run.workdir} works at {rate} Hz: '
                        'resample the data')
    if not len(source):
        raise UserError('the data set is empty, expected at least one pair of files')


def check_apart(output: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Refuses a folder of inputs that lies where the audio of a report is saved.

    Raises:
      UserError: it does.
    """
    saved, given = pathlib.Path(output, AUDIO).resolve(), pathlib.Path(folder).resolve()
    if saved in (given, *given.parents):
        raise UserError(f'{folder}: lies in {pathlib.Path(output, AUDIO)}, where --save-audio may overwrite it; choose '
                        'another --output')


def _summarise(run, measured: Measured, utterances: Sequence[Utterance], sample_rate, data, steps, seed,
               seconds) -> dict:
    results, duration = measured.results, sum(len(utterance.noisy) for utterance in utterances) / sample_rate
    return {
        'data': data,
        'files': len(utterances),
        'audio_seconds': duration,
        'sample_rate': sample_rate,
        'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'checkpoint': named(run),
        'sampling_steps': sampling_steps(run.system, steps),
        'seed': seed,
        'stages': list(results.stages),
        'metrics': list(results.metrics),
        'statistics': results.statistics(),
        'groups': {name: {label: {'files': len(files), 'statistics': results.statistics(files)}
                          for label, files in groups.items()} for name, groups in results.groups().items()},
        'noise_kinds': results.by_kind(),
        'failures': results.failures(),
        'seconds': seconds,
        'real_time_factor': seconds['enhancing'] / duration,
        'device': ', '.join(measured.devices),
        'versions': all_versions(),
        'config': run.config.to_dict(),
    }


def all_versions() -> dict[str, str]:
    """Of what decides a result, the metrics' libraries included."""
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
            *([] if steps is None else [f'sampling steps (network evaluations): {steps}']),
            f'real-time factor of enhancement: {factor:.3f} on {summary["device"]}, without compilation{timed}']


def _named(checkpoint: dict) -> str:
    return f'{checkpoint["workdir"]}, step {checkpoint["step"]}, {checkpoint["hash"][:12]}'


def _examples(evaluator: Evaluator, measured: Measured) -> list[page.Example]:
    """The files with the best, the median and the worst gain; fewer where there are fewer files."""
    return [page.Example(label, i, evaluator.waveforms(measured.cache, i, measured.stages))
            for label, i in measured.results.ends().items()]


def _save_audio(folder: pathlib.Path, evaluator: Evaluator, measured: Measured) -> None:
    """Writes what it can.

    Raises:
      UserError: some of it cannot be written.
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
        raise UserError(f'{len(failures)} of {count} audio files were not saved, the report was: {failures[0]}')


def make_folder(path: pathlib.Path) -> None:
    """Makes the folder of a report.

    Raises:
      UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{path}: cannot be made a folder for the report ({error.strerror})') from error


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
