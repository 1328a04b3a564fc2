"""Enhances files and folders with a run: what `enhance.py` does."""

import os
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
from rich import markup, progress

from jax_diffse import audio, audio_files, launch, runs
from jax_diffse.errors import FULL, UserError
from jax_diffse.inference import streaming
from jax_diffse.inference.enhancer import Enhancer, check_steps
from jax_diffse.inference.journal import Journal, digests
from jax_diffse.inference.setting import Setting


class Job(NamedTuple):
    """One file to enhance."""

    path: pathlib.Path
    name: str  # below the output folder; also the utterance's id
    output: pathlib.Path
    noise: pathlib.Path | None
    processed: pathlib.Path | None = None  # what an earlier enhancer made of it

    @property
    def inputs(self) -> list[pathlib.Path]:
        """What the result is made of."""
        return [path for path in (self.path, self.processed) if path]

    @property
    def outputs(self) -> list[pathlib.Path]:
        """Where it goes."""
        return [path for path in (self.output, self.noise) if path]


def plan(inputs: Sequence[str | os.PathLike], output: str | os.PathLike, noise: str | os.PathLike | None = None,
         processed: str | os.PathLike | None = None) -> list[Job]:
    """The files to enhance and where the results go: folders keep their structure below `output` and `noise`.

    Args:
      inputs: files and folders.
      output: folder of the results.
      noise: folder of what was removed, if wanted.
      processed: a folder with what an earlier enhancer made of the files in the one folder of `inputs`, under the same
        names, of any extension; or the file made of the one file. A job whose file has no partner there has None.

    Raises:
      UserError: a folder without audio, two results of the same name, a result that would overwrite an input or lie
        among the inputs, or two files of one name where partners are looked for by it.
    """
    results = [pathlib.Path(folder) for folder in (output, noise) if folder]
    jobs = [Job(path, name, pathlib.Path(output, name), pathlib.Path(noise, name) if noise else None)
            for given in map(pathlib.Path, inputs) for path, name in _files(given, results)]
    others: Iterable[pathlib.Path] = ()
    if processed:
        partners = _partners(pathlib.Path(inputs[0]), pathlib.Path(processed), results)
        jobs, others = [job._replace(processed=partners.get(job.path)) for job in jobs], partners.values()
    _check_results(jobs, others)
    return jobs


def _partners(noisy: pathlib.Path, processed: pathlib.Path, results) -> dict[pathlib.Path, pathlib.Path]:
    """Noisy file -> what an earlier enhancer made of it, where there is such a file; says how many are left over."""
    if not os.path.isdir(noisy) and not os.path.isdir(processed):
        return {noisy: processed}
    if os.path.isfile(noisy) or os.path.isfile(processed):
        raise UserError(f'--noisy {noisy} and --processed {processed}: expected two folders, or two files')
    _keep_out(processed, results)
    ours, theirs = audio_files.by_name(noisy), audio_files.by_name(processed)
    partners = {path: theirs[name] for name, path in ours.items() if name in theirs}
    if not partners:
        raise UserError(f'{processed}: no file here has the name of one in {noisy}; files are paired by their path '
                        'below the folder, without extension')
    if len(theirs) > len(partners):
        print(f'{processed}: {len(theirs) - len(partners)} of {len(theirs)} files have no partner in {noisy} and are '
              'not used')
    return partners


def _check_results(jobs: Sequence[Job], others: Iterable[pathlib.Path]) -> None:
    """Checks that no result overwrites an input, one of `others`, or another result."""
    taken: dict[str, pathlib.Path] = {}
    originals = {_identity(path): path for path in (*(job.path for job in jobs), *others)
                 if os.path.exists(path)}
    for job in jobs:
        for result in job.outputs:
            if os.path.isdir(result):
                raise UserError(f'{result}: is a folder, where a file would be written; choose another folder')
            if os.path.exists(result) and _identity(result) in originals:
                raise UserError(f'{result}: would overwrite the input {originals[_identity(result)]}; choose another '
                                'folder')
            where = os.path.realpath(result)
            if where in taken:
                raise UserError(f'{result}: both {taken[where]} and {job.path} would be written here; enhance them '
                                'into different folders')
            taken[where] = job.path


def _identity(path: pathlib.Path) -> tuple[int, int]:
    """The same for all links, symbolic and hard, to one file."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _files(given: pathlib.Path, results) -> list[tuple[pathlib.Path, str]]:
    if not os.path.isdir(given):
        return [(given, given.name)]
    _keep_out(given, results)
    found = _apart(audio_files.find(given), results)
    if not found:
        raise UserError(f'{given}: no audio files in this folder')
    return [(path, path.relative_to(given).as_posix()) for path in found]


def _apart(found: Sequence[pathlib.Path], results: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Files without the results of an earlier call that links lead to, which are no inputs."""
    places = {os.path.realpath(result) for result in results}

    def among_results(folder):
        where = pathlib.Path(os.path.realpath(folder))
        return bool(places & {str(place) for place in (where, *where.parents)})

    left_out = {folder for folder in {path.parent for path in found} if among_results(folder)}
    return [path for path in found if path.parent not in left_out]


def _keep_out(given: pathlib.Path, results: Sequence[pathlib.Path]) -> None:
    for result in results:
        where = pathlib.Path(os.path.realpath(result))  # resolve() fails at a loop of links
        if given.resolve() in (where, *where.parents):
            raise UserError(f'{result}: is or lies in the input folder {given}, where another run would take results '
                            'for inputs; choose a folder outside it')


def enhance(workdir: str | os.PathLike, inputs: Sequence[str | os.PathLike], output: str | os.PathLike, *,
            noisy: str | os.PathLike | None = None, processed: str | os.PathLike | None = None,
            preceding: str | os.PathLike | None = None, noise: str | os.PathLike | None = None, strength: float = 1.0,
            steps: int | None = None, checkpoint: int | str = 'best', model: Mapping[str, object] | None = None,
            chunk_seconds: float | None = None, stream: bool = False) -> int:
    """Enhances files and folders, printing a line for each file and the real-time factor.

    Args:
      workdir: the run.
      inputs: files, and folders that are searched for audio; empty where `noisy` is given.
      output: folder of the results; earlier ones of the same name are replaced, but for those that this run made of
        these very files in these settings, in an earlier call: they are not made again.
      noisy, processed: folders of equally named files, of any extension, or two files: noisy recordings and what an
        earlier enhancer made of them, for a run that refines.
      preceding: the run whose output is refined, in place of these.
      noise: folder for what was removed, if wanted.
      strength: share of the enhanced signal in the result, 0 to 1.
      steps: sampling steps of a system that samples.
      checkpoint: 'best', 'latest' or a number.
      model: fields of config.model in place of the run's own.
      chunk_seconds: how much is enhanced at a time (default: 16); less needs less memory.
      stream: enhance hop by hop, as a live stream; the real-time factors are then of the steps alone.

    Returns:
      The exit status: 0 where all files are done, else 1, or 2 where none is; those that failed are listed at the end.

    Raises:
      UserError: no such run, settings that it does not take, or inputs and outputs that get in each other's way; no
        file in `noisy` has a partner in `processed`.
    """
    if not 0 <= strength <= 1:
        raise UserError(f'--strength={strength:g}: expected a number from 0 to 1')
    if stream and (steps is not None or chunk_seconds is not None):
        raise UserError(f'--stream: does not go together with --{"chunk-seconds" if steps is None else "steps"}; leave '
                        'one of them out')
    if (noisy is None) != (processed is None):
        raise UserError(f'--{"processed" if noisy is None else "noisy"}: given alone, expected --noisy and --processed')
    if bool(inputs) == bool(noisy):
        raise UserError('expected files or folders to enhance, or --noisy and --processed in their place'
                        + (', got both' if noisy else ''))
    jobs = plan(inputs or [noisy], output, noise, processed)
    run = runs.load(workdir, step=checkpoint, model=model)
    first = None if preceding is None else runs.load(preceding, step='best')
    enhancer = Enhancer(run, preceding=first, chunk_seconds=16.0 if chunk_seconds is None else chunk_seconds)
    enhancer.check_processed(processed is not None)
    check_steps(run.system, steps)
    failures = _unsuitable(jobs)  # before work that would be lost
    setting = Setting(run, steps, preceding=first).record()
    journal = Journal(output, setting | {'strength': strength, 'chunk_seconds': chunk_seconds, 'stream': stream})
    suitable = [job for job in jobs if job not in failures]
    todo = [job for job in suitable if not journal.has(job.name, job.inputs, job.outputs)]
    if len(todo) < len(suitable):
        print(f'{len(suitable) - len(todo)} of {len(jobs)} files were enhanced before (remove a result to have it made '
              'again)', flush=True)
    streams = _Streams(run) if stream and todo else None
    seconds, spent = 0.0, 0.0
    with progress.Progress(disable=not sys.stdout.isatty(), transient=True) as bar:
        for job in todo:
            try:
                if processed is not None and job.processed is None:
                    raise UserError(f'{job.path}: no file of this name in {processed}')
                made_of = digests(job.inputs)
                duration, busy = _enhance_one(enhancer, job, strength, steps, streams, bar)
                seconds, spent = seconds + duration, spent + busy
                journal.add(job.name, made_of, job.outputs)
            except UserError as error:
                failures[job] = str(error)
            except OSError as error:
                if error.errno in FULL:
                    raise
                failures[job] = f'{error.filename or job.path}: {error.strerror}'
            except jax.errors.JaxRuntimeError as error:  # memory, most likely
                reason = str(error).splitlines()[0]
                failures[job] = f'{job.path}: {reason}' + ('' if stream else
                                                           '; a smaller --chunk-seconds needs less memory')
    where = f' on {launch.cores()}' if stream else ''
    return _summarise(seconds, spent, (streams or enhancer).compile_seconds, where, failures, jobs)


def _unsuitable(jobs: Sequence[Job]) -> dict[Job, str]:
    """The files that cannot be read, or not be written as they were read -> why."""
    failures = {}
    for job in jobs:
        try:
            audio.check_writable(job.path)
        except UserError as error:
            failures[job] = str(error)
    return failures


class _Streams(dict):
    """Number of channels -> the streaming enhancer for it; prints how late and on how many cores they are."""

    def __init__(self, run: runs.Run):
        super().__init__()
        timing, hop = streaming.timing(run), run.system.hop / run.system.sample_rate
        print(f'streaming on {launch.cores()}: look-ahead {1000 * timing.look_ahead:g} ms; with hops of '
              f'{1000 * hop:g} ms a latency of {1000 * timing.latency:g} ms and the time that a hop takes', flush=True)
        self.run = run

    def __missing__(self, num_channels):
        self[num_channels] = streaming.StreamingEnhancer(self.run, num_channels)
        return self[num_channels]

    @property
    def compile_seconds(self) -> float:
        return sum(stream.compile_seconds for stream in self.values())


def _enhance_one(enhancer: Enhancer, job: Job, strength, steps, streams: _Streams | None,
                 bar: progress.Progress) -> tuple[float, float]:
    """Enhances one file, prints its line and returns its duration and the time that it took, in seconds."""
    header = audio.info(job.path)
    stream = None if streams is None else streams[header.num_channels]
    before = _clock(enhancer, stream)
    task = bar.add_task(markup.escape(job.name), total=header.num_samples / header.sample_rate)
    try:
        seconds = enhancer.enhance_file(job.path, job.output, noise=job.noise, processed=job.processed,
                                        strength=strength, utterance=audio_files.normal(job.name), steps=steps,
                                        streaming=stream, on_progress=lambda done: bar.advance(task, done))
    finally:
        bar.remove_task(task)
    spent = _clock(enhancer, stream) - before
    print(f'{job.output}: {seconds:.1f} s of audio in {spent:.1f} s, real-time factor {spent / seconds:.3f}',
          flush=True)
    return seconds, spent


def _clock(enhancer: Enhancer, stream: streaming.StreamingEnhancer | None) -> float:
    """Seconds that steps of a stream took, or that went by without compilation."""
    return time.perf_counter() - enhancer.compile_seconds if stream is None else stream.step_seconds


def _summarise(seconds: float, spent: float, compiling: float, where: str, failures: Mapping[Job, str],
               jobs: Sequence[Job]) -> int:
    """Prints what was done and what was not -> the exit status."""
    if seconds:
        print(f'real-time factor {spent / seconds:.3f}{where}: {seconds:.1f} s of audio in {spent:.1f} s, and '
              f'{compiling:.1f} s of compilation')
    for job in jobs:
        if job in failures:
            print(f'not enhanced: {failures[job]}', file=sys.stderr)
    return 0 if not failures else 1 if len(failures) < len(jobs) else 2
