"""Finds the audio files that cannot be used, before a training or an evaluation starts."""

import concurrent.futures
import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable

import numpy as np

from jax_diffse import audio, audio_files
from jax_diffse.data.resampling import Resampling
from jax_diffse.errors import UserError

SILENCE = 1e-5  # RMS, -100 dBFS: the rounding error of 16-bit samples
LONGEST_RIR = 10.0  # seconds; collections of room impulse responses may hold recordings of noise, too
_BLOCK = 1 << 22  # samples that are read at once; bounds the memory for a long file

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class AudioFile:
    """A checked file of one channel, or a room impulse response, of which the first channel counts."""

    path: str
    name: str  # see `audio_files.name`
    num_samples: int
    resampling: Resampling | None = None  # of a file at another rate, whose `num_samples` and `read` are those after it
    label: str = ''  # the class of a noise, if it lies in a class folder or a table names it
    zeros: int = 0  # samples at its end that are not in the file, part of `num_samples`

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return audio_files.normal(os.path.basename(os.path.dirname(self.path)))

    @property
    def noise_class(self) -> str:
        """The class of a noise, or else the name of its folder."""
        return self.label or self.folder

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Reads samples [start, stop), float32 `[N]`, of the file or of the resampled file, and the zeros after it."""
        if self.zeros:
            whole = dataclasses.replace(self, zeros=0).read()
            return np.pad(whole, (0, self.num_samples - len(whole)))[start:stop]

        def read(start, stop):
            return audio.read(self.path, start, stop)[0][:, 0]

        return read(start, stop) if self.resampling is None else self.resampling.read(read, start, stop)

    def extended(self, num_samples: int) -> 'AudioFile':
        """This file, with zeros at its end if it is shorter than `num_samples`."""
        zeros = max(0, num_samples - self.num_samples)
        return dataclasses.replace(self, num_samples=self.num_samples + zeros, zeros=self.zeros + zeros)


def is_silent(samples: np.ndarray) -> bool:
    """Whether the RMS of `[N]` is at most the rounding error of 16-bit samples."""
    return float(np.dot(samples, samples)) <= SILENCE**2 * len(samples)


def survey(root: str, sample_rate: int, min_seconds: float,
           resample: bool = False) -> tuple[dict[str, AudioFile], dict[str, str]]:
    """Reads every audio file below `root` once, in a pool of threads.

    Args:
      root: a directory.
      sample_rate: of every file, in Hz.
      min_seconds: the minimum duration.
      resample: also accept files at another rate, and resample them whenever they are read.

    Returns:
      The good files by name, in order, and the bad ones: path -> reason.

    Raises:
      UserError: there is no such directory, or it has no audio file.
    """
    return _survey(root, _examine, sample_rate, min_seconds, resample)


def survey_rirs(root: str, sample_rate: int) -> tuple[dict[str, AudioFile], dict[str, str]]:
    """Reads every room impulse response below `root` once, see `survey`.

    They may have any rate and number of channels, and at most `LONGEST_RIR` seconds. The first channel counts, and is
    resampled when it is read.
    """
    return _survey(root, _examine_rir, sample_rate)


def _survey(root: str, examine: Callable[..., AudioFile | str],
            *rules: float) -> tuple[dict[str, AudioFile], dict[str, str]]:
    paths = audio_files.find(root)
    if not paths:
        raise UserError(f'{root}: no audio files in this directory')
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda path: _check(path, root, examine, *rules), paths))
    files, bad = {}, {}
    for path, found in zip(paths, results, strict=True):
        if isinstance(found, str):
            bad[str(path)] = found
        elif found.name in files:
            bad[str(path)] = f'has the same name as {files[found.name].path}'
        else:
            files[found.name] = found
    return files, bad


def report_bad_files(bad: dict[str, str], total: int, skip_bad: bool) -> None:
    """Raises one `UserError` that lists all bad files, a line each; with `skip_bad`, logs them instead."""
    if not bad:
        return
    lines = '\n'.join(f'  {path}: {reason}' for path, reason in sorted(bad.items()))
    advice = 'leave {} out with --config.data.skip_bad=True (evaluate: --skip-bad)'
    if not skip_bad and len(bad) == 1:
        raise UserError(f'{lines.strip()}; repair or remove it, or {advice.format("it")}')
    if not skip_bad:
        raise UserError(f'{len(bad)} of {total} audio files cannot be used: repair or remove them, or '
                        f'{advice.format("them")}\n{lines}')
    log.warning('left out %d of %d audio files:\n%s', len(bad), total, lines)


def _check(path: pathlib.Path, root: str, examine, *rules) -> AudioFile | str:
    name = audio_files.name(path, root)
    try:
        stat = path.stat()
    except OSError as error:
        return 'a link that leads to no file' if path.is_symlink() else f'cannot be read ({error.strerror})'
    return examine(path, name, *rules, stat.st_size, stat.st_ctime_ns)


@functools.cache  # train and a validation split that is held out of it check the same files
def _examine(path, name, sample_rate, min_seconds, resample, size, changed) -> AudioFile | str:
    """Returns the file, or what is wrong with it."""
    try:
        header = audio.info(path)
        if header.num_samples == 0:
            return 'the file is empty'
        same = header.sample_rate == sample_rate
        if not same and not resample:
            return (f'{header.sample_rate} Hz, expected {sample_rate} Hz; --config.data.resample=True (evaluate: '
                    '--resample) resamples it')
        if header.num_channels != 1:
            return f'{header.num_channels} channels, expected 1'
        resampling = Resampling(header.num_samples, header.sample_rate, sample_rate)
        num_samples = resampling.num_resampled
        if num_samples < min_seconds * sample_rate:
            seconds = num_samples / sample_rate
            return f'too short: {seconds:.3f} s, expected {min_seconds:g} s or more'
        file = AudioFile(str(path), name, num_samples, None if same else resampling)
        return _examine_samples(path, header.num_samples) or _examine_resampled(file) or file
    except UserError as error:
        return str(error).removeprefix(f'{path}: ')


@functools.cache
def _examine_rir(path, name, sample_rate, size, changed) -> AudioFile | str:
    """Returns the room impulse response, or what is wrong with it."""
    try:
        header = audio.info(path)
        seconds = header.num_samples / header.sample_rate
        if seconds > LONGEST_RIR:
            return f'{seconds:.1f} s long, expected a room impulse response of {LONGEST_RIR:g} s or less'
        change = Resampling(header.num_samples, header.sample_rate, sample_rate)
        file = AudioFile(str(path), name, change.num_resampled, None if header.sample_rate == sample_rate else change)
        samples = file.read()
    except UserError as error:
        return str(error).removeprefix(f'{path}: ')
    if not np.isfinite(samples).all():
        return 'has NaN or infinite samples'
    return file if samples.any() else 'silent in its first channel'


def _examine_resampled(file: AudioFile) -> str:
    if file.resampling is None or not is_silent(file.read()):
        return ''
    return f'silent at {file.resampling.to_rate} Hz: all its sound is above half that rate'


def _examine_samples(path, num_samples: int) -> str:
    energy = 0.0
    for block in audio.blocks(path, _BLOCK):
        if not np.isfinite(block).all():
            return 'has NaN or infinite samples'
        energy += float(np.dot(block[:, 0], block[:, 0]))
    return 'silent' if energy <= SILENCE**2 * num_samples else ''
