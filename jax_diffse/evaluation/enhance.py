"""Enhances files and folders with a run: what `enhance.py` does."""

import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from rich import progress

from jax_diffse import audio, launch
from jax_diffse.errors import UserError
from jax_diffse.evaluation import streaming
from jax_diffse.evaluation.enhancer import Enhancer
from jax_diffse.training import checkpoints


class Job(NamedTuple):
    """One file to enhance."""

    path: pathlib.Path
    name: str  # below the output folder; also the utterance's id
    output: pathlib.Path
    noise: pathlib.Path | None


def plan(inputs: Sequence[str | os.PathLike], output: str | os.PathLike,
         noise: str | os.PathLike | None = None) -> list[Job]:
    """The files to enhance and where the results go: folders keep their structure below `output` and `noise`.

    Raises:
      UserError: a folder without audio, two results of the same name, or a result that would overwrite an input or
        lie among the inputs.
    """
    jobs = [Job(path, name, pathlib.Path(output, name), pathlib.Path(noise, name) if noise else None)
            for given in map(pathlib.Path, inputs) for path, name in _files(given, [output, noise])]
    taken: dict[str, pathlib.Path] = {}
    originals = {_identity(job.path): job.path for job in jobs if job.path.exists()}
    for job in jobs:
        for result in filter(None, (job.output, job.noise)):
            if result.exists() and _identity(result) in originals:
                raise UserError(f'{result}: would overwrite the input {originals[_identity(result)]}; choose another '
                                'folder')
            where = os.path.realpath(result)
            if where in taken:
                raise UserError(f'{result}: both {taken[where]} and {job.path} would be written here; enhance them '
                                'into different folders')
            taken[where] = job.path
    return jobs


def _identity(path: pathlib.Path) -> tuple[int, int]:
    """The same for all links, symbolic and hard, to one file."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _files(given: pathlib.Path, results) -> list[tuple[pathlib.Path, str]]:
    if not given.is_dir():
        return [(given, given.name)]
    for result in filter(None, results):
        if given.resolve() in pathlib.Path(result).resolve().parents:
            raise UserError(f'{result}: lies in the input folder {given}, where another run would take results for '
                            'inputs; choose a folder outside it')
    found = audio.find(given)
    if not found:
        raise UserError(f'{given}: no audio files ({", ".join(audio.EXTENSIONS)}) in this folder')
    return [(path, path.relative_to(given).as_posix()) for path in found]


def enhance(workdir: str | os.PathLike, inputs: Sequence[str | os.PathLike], output: str | os.PathLike, *,
            noise: str | os.PathLike | None = None, strength: float = 1.0, steps: int | None = None,
            checkpoint: int | str = 'best', chunk_seconds: float | None = None, stream: bool = False) -> int:
    """Enhances files and folders, printing a line for each file and the real-time factor.

    Args:
      workdir: the run.
      inputs: files, and folders that are searched for audio.
      output: folder of the results; earlier results of the same name are replaced.
      noise: folder for what was removed, if wanted.
      strength: share of the enhanced signal in the result, 0 to 1.
      steps: sampling steps of a system that samples.
      checkpoint: 'best', 'latest' or a number.
      chunk_seconds: how much is enhanced at a time (default: 16); less needs less memory.
      stream: enhance hop by hop, as a live stream; the real-time factors are then of the steps alone.

    Returns:
      The exit status: 1 where a file failed (it is listed at the end, the others are done), else 0.

    Raises:
      UserError: no such run, settings that it does not take, or inputs and outputs that get in each other's way.
    """
    if not 0 <= strength <= 1:
        raise UserError(f'--strength={strength:g}: expected a number from 0 to 1')
    if stream and (steps is not None or chunk_seconds is not None):
        raise UserError(f'--stream: does not go together with --{"chunk-seconds" if steps is None else "steps"}; leave '
                        'one of them out')
    jobs = plan(inputs, output, noise)
    run = checkpoints.load(workdir, step=checkpoint)
    enhancer = Enhancer(run, chunk_seconds=16.0 if chunk_seconds is None else chunk_seconds)
    _check_steps(enhancer, steps)
    streams = _Streams(run) if stream else None
    failures, seconds, spent = [], 0.0, 0.0
    with progress.Progress(disable=not sys.stdout.isatty(), transient=True) as bar:
        for job in jobs:
            try:
                duration, busy = _enhance_one(enhancer, job, strength, steps, streams, bar)
                seconds, spent = seconds + duration, spent + busy
            except UserError as error:
                failures.append(str(error))
            except jax.errors.JaxRuntimeError as error:  # memory, most likely
                reason = str(error).splitlines()[0]
                failures.append(f'{job.path}: {reason}' + ('' if stream else
                                                           '; a smaller --chunk-seconds needs less memory'))
    where = f' on {launch.cores()}' if stream else ''
    _summarise(seconds, spent, (streams if stream else enhancer).compile_seconds, where, failures)
    return 1 if failures else 0


class _Streams(dict):
    """Number of channels -> the streaming enhancer for it; prints how late and on how many cores they are."""

    def __init__(self, run: checkpoints.Run):
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


def _check_steps(enhancer: Enhancer, steps: int | None) -> None:
    if steps is None:
        return
    system, variables = enhancer.run.system, enhancer.run.variables
    try:
        jax.eval_shape(lambda: system.enhance(variables, jnp.zeros((1, system.sample_rate)), jnp.ones(1, jnp.int32),
                                              jax.random.split(jax.random.key(0), 1), steps=steps))
    except ValueError as error:
        raise UserError(f'--steps={steps}: {error}') from error


def _enhance_one(enhancer: Enhancer, job: Job, strength, steps, streams: _Streams | None,
                 bar: progress.Progress) -> tuple[float, float]:
    """Enhances one file, prints its line and returns its duration and the time that it took, in seconds."""
    header = audio.info(job.path)
    stream = None if streams is None else streams[header.num_channels]
    before = _clock(enhancer, stream)
    task = bar.add_task(job.name, total=header.num_samples / header.sample_rate)
    try:
        seconds = enhancer.enhance_file(job.path, job.output, noise=job.noise, strength=strength, utterance=job.name,
                                        steps=steps, streaming=stream,
                                        on_progress=lambda done: bar.advance(task, done))
    finally:
        bar.remove_task(task)
    spent = _clock(enhancer, stream) - before
    print(f'{job.output}: {seconds:.1f} s of audio in {spent:.1f} s, real-time factor {spent / seconds:.3f}',
          flush=True)
    return seconds, spent


def _clock(enhancer: Enhancer, stream: streaming.StreamingEnhancer | None) -> float:
    """Seconds that steps of a stream took, or that went by without compilation."""
    return time.perf_counter() - enhancer.compile_seconds if stream is None else stream.step_seconds


def _summarise(seconds: float, spent: float, compiling: float, where: str, failures: list[str]) -> None:
    if seconds:
        print(f'real-time factor {spent / seconds:.3f}{where}: {seconds:.1f} s of audio in {spent:.1f} s, and '
              f'{compiling:.1f} s of compilation')
    for reason in failures:
        print(f'not enhanced: {reason}', file=sys.stderr)
