"""Enhances files and folders with a run; implements `jax-diffse enhance`."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from rich import markup, progress

from jax_diffse import audio, audio_files, files, launch, runs
from jax_diffse.errors import FULL, UserError
from jax_diffse.inference.enhancer import CHUNK_SECONDS, Enhancer
from jax_diffse.inference.jobs import Job, plan_jobs
from jax_diffse.inference.journal import Journal, digests
from jax_diffse.inference.setting import Setting, check_processed


@dataclasses.dataclass(frozen=True)
class EnhanceOptions:
    """Inputs and settings of an enhancement of files.

    Attributes:
      noisy, processed: for a refiner: noisy recordings, and another enhancer's output for them. Two files, or two
        folders whose files have the same names; extensions may differ.
      preceding: for a refiner: the run whose output it refines, instead of `noisy` and `processed`.
      noise: folder for the removed noise (input - output).
      strength: share of the enhanced signal in the result, 0 to 1.
      steps: sampling steps, for systems that sample.
      checkpoint: 'best', 'latest' or a step.
      model: fields of config.model to override.
      chunk_seconds: length of the chunks that recordings are split into; default 16.
      name_by_setting: write the results, and the removed noise, to a subfolder that is named by the sampler's settings;
        see `setting.Setting.folder_name`.
      stream: enhance hop by hop, as a live stream; real-time factors then count only the steps.

    Raises:
      UserError: a value out of range, or options that exclude each other.
    """

    noisy: str | os.PathLike | None = None
    processed: str | os.PathLike | None = None
    preceding: str | os.PathLike | None = None
    noise: str | os.PathLike | None = None
    strength: float = 1.0
    steps: int | None = None
    checkpoint: int | str = 'best'
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    chunk_seconds: float | None = None
    name_by_setting: bool = False
    stream: bool = False

    def __post_init__(self):
        if not 0 <= self.strength <= 1:
            raise UserError(f'--strength={self.strength:g}: expected a number from 0 to 1')
        if self.stream and (self.steps is not None or self.chunk_seconds is not None):
            other = 'chunk-seconds' if self.steps is None else 'steps'
            raise UserError(f'--stream: cannot be combined with --{other}; drop one of them')
        if (self.noisy is None) != (self.processed is None):
            raise UserError(f'--{"processed" if self.noisy is None else "noisy"}: given alone, expected --noisy and '
                            '--processed')


def enhance(workdir: str | os.PathLike, inputs: Sequence[str | os.PathLike], output: str | os.PathLike,
            options: EnhanceOptions = EnhanceOptions()) -> int:
    """Enhances files and folders; prints a line per file and the real-time factor.

    Args:
      workdir: the run, or `pretrained.NAME`.
      inputs: files, and folders to search for audio; empty if `options.noisy` is given.
      output: folder of the results. Existing files of the same name are replaced, except results that an earlier call
        made from the same recordings with this run and these settings.
      options: see `EnhanceOptions`.

    Returns:
      The exit status: 0 if all files are done, 1 if some failed, 2 if all failed. Failures are listed at the end.

    Raises:
      UserError: no such run, settings that it does not take, inputs and outputs that overlap, or no file in `noisy`
        that has a partner in `processed`.
    """
    if bool(inputs) == bool(options.noisy):
        raise UserError('expected files or folders to enhance, or --noisy and --processed instead'
                        + (', got both' if inputs else ''))
    enhancer = _enhancer(workdir, options)
    setting, noise = Setting(enhancer.run, options.steps, preceding=enhancer.preceding), options.noise
    if options.name_by_setting:
        name = setting.folder_name(options.model) + (f'_strength={options.strength:g}' if options.strength < 1 else '')
        output, noise = files.path(output) / name, noise and files.path(noise) / name
    jobs = plan_jobs(inputs or [options.noisy], output, noise, options.processed)
    journal = Journal(output, setting.record() | {'strength': options.strength, 'chunk_seconds': options.chunk_seconds,
                                         'stream': options.stream})
    new = [job for job in jobs if not journal.has(job.name, job.inputs, job.outputs)]
    failures = _unsuitable(new)  # before any work is spent
    todo = [job for job in new if job not in failures]
    if len(new) < len(jobs):
        print(f'{len(jobs) - len(new)} of {len(jobs)} files were enhanced before (delete a result to redo it)',
              flush=True)
    if options.stream and todo:
        _print_timing(enhancer)
    seconds, spent = 0.0, 0.0
    with (contextlib.closing(journal),
          progress.Progress(disable=not sys.stdout.isatty(), transient=True) as bar):
        for job in todo:
            try:
                if options.processed is not None and job.processed is None:
                    raise UserError(f'{job.path}: no file of this name in {options.processed}')
                input_digests = digests(job.inputs)
                duration, busy = _enhance_one(enhancer, job, options.strength, bar)
                seconds, spent = seconds + duration, spent + busy
                journal.add(job.name, input_digests, job.outputs)
            except (UserError, OSError, jax.errors.JaxRuntimeError) as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise
                failures[job] = _failure(error, job, options.stream)
    return _summarise(enhancer, seconds, spent, failures, jobs)


def _enhancer(workdir: str | os.PathLike, options: EnhanceOptions) -> Enhancer:
    run = runs.load(workdir, step=options.checkpoint, model=options.model)
    preceding = None if options.preceding is None else runs.load(options.preceding)
    check_processed(run, preceding, options.processed is not None)
    chunk_seconds = CHUNK_SECONDS if options.chunk_seconds is None else options.chunk_seconds
    return Enhancer(run, preceding=preceding, steps=options.steps, chunk_seconds=chunk_seconds, stream=options.stream)


def _unsuitable(jobs: Sequence[Job]) -> dict[Job, str]:
    """Files that cannot be read, or whose format cannot be written -> reason."""
    failures = {}
    for job in jobs:
        try:
            audio.check_writable(job.path)
        except UserError as error:
            failures[job] = str(error)
    return failures


def _print_timing(enhancer: Enhancer) -> None:
    system, timing = enhancer.run.system, enhancer.stream_timing
    print(f'streaming on {launch.cores()}: look-ahead {1000 * timing.look_ahead:g} ms; with hops of '
          f'{1000 * system.hop / system.sample_rate:g} ms the latency is {1000 * timing.latency:g} ms plus the compute '
          'time of a hop', flush=True)


def _enhance_one(enhancer: Enhancer, job: Job, strength: float, bar: progress.Progress) -> tuple[float, float]:
    """Enhances one file, prints its line and returns its duration and the enhancement time, in seconds."""
    header, before = audio.info(job.path), enhancer.busy_seconds()
    task = bar.add_task(markup.escape(job.name), total=header.num_samples / header.sample_rate)
    try:
        seconds = enhancer.enhance_file(job.path, job.output, noise=job.noise, processed=job.processed,
                                        strength=strength, utterance=audio_files.normal(job.name),
                                        on_progress=lambda done: bar.advance(task, done))
    finally:
        bar.remove_task(task)
    spent = enhancer.busy_seconds() - before
    print(f'{job.output}: {seconds:.1f} s of audio in {spent:.1f} s, real-time factor {spent / seconds:.3f}',
          flush=True)
    return seconds, spent


def _failure(error: Exception, job: Job, stream: bool) -> str:
    """The reason why a file was not enhanced, in one line."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f'{error.filename or job.path}: {files.reason(error)}'
    advice = '' if stream else '; a smaller --chunk-seconds needs less memory'  # the likely cause is memory
    return f'{job.path}: {str(error).splitlines()[0]}{advice}'


def _summarise(enhancer: Enhancer, seconds: float, spent: float, failures: Mapping[Job, str],
               jobs: Sequence[Job]) -> int:
    """Prints the real-time factor and the failures, and returns the exit status."""
    if seconds:
        where = '' if enhancer.stream_timing is None else f' on {launch.cores()}'
        print(f'real-time factor {spent / seconds:.3f}{where}: {seconds:.1f} s of audio in {spent:.1f} s, and '
              f'{enhancer.compile_seconds:.1f} s of compilation')
    for job in jobs:
        if job in failures:
            print(f'not enhanced: {failures[job]}', file=sys.stderr)
    return 0 if not failures else 1 if len(failures) < len(jobs) else 2
