"""Finds the audio files that cannot be trained or evaluated on, before anything starts."""

import concurrent.futures
import dataclasses
import functools
import logging
import os
import pathlib

import numpy as np

from jax_diffse import audio
from jax_diffse.errors import UserError

SILENCE = 1e-5  # RMS, -100 dBFS: the rounding of 16-bit samples
_BLOCK = 1 << 22  # samples read at once, which bounds the memory that a long file takes

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class AudioFile:
    """A checked file of one channel."""

    path: str
    name: str  # path below its folder, '/' between parts, without extension
    num_samples: int

    @property
    def folder(self) -> str:
        """Name of the folder it lies in: the class of a noise."""
        return os.path.basename(os.path.dirname(self.path))

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Samples [start, stop), float32 `[N]`."""
        return audio.read(self.path, start, stop)[0][:, 0]


def is_silent(samples: np.ndarray) -> bool:
    """Whether `[N]` is below the rounding of 16-bit samples."""
    return float(np.dot(samples, samples)) <= SILENCE**2 * len(samples)


def survey(root: str, sample_rate: int, min_seconds: float) -> tuple[dict[str, AudioFile], dict[str, str]]:
    """Reads every audio file below `root` once, in a pool of threads.

    Args:
      root: a directory.
      sample_rate: what every file must have, in Hz.
      min_seconds: the least duration.

    Returns:
      The good files by name, in order, and the bad ones: path -> reason.

    Raises:
      UserError: there is no such directory, or no audio file in it.
    """
    paths = audio.find(root)
    if not paths:
        raise UserError(f'{root}: no audio files ({", ".join(audio.EXTENSIONS)}) in this directory')
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda path: _check(path, sample_rate, min_seconds), paths))
    files, bad = {}, {}
    for path, (num_samples, reason) in zip(paths, results, strict=True):
        name = path.relative_to(root).with_suffix('').as_posix()
        if not reason and name in files:
            reason = f'has the same name as {files[name].path}'
        if reason:
            bad[str(path)] = reason
        else:
            files[name] = AudioFile(str(path), name, num_samples)
    return files, bad


def settle(bad: dict[str, str], total: int, skip_bad: bool) -> None:
    """Raises one `UserError` that lists all bad files, or with `skip_bad` says how many are left out."""
    if not bad:
        return
    lines = '\n'.join(f'  {path}: {reason}' for path, reason in sorted(bad.items()))
    if not skip_bad:
        raise UserError(f'{len(bad)} of {total} audio files cannot be used: mend or remove them, or leave them out '
                        f'with --config.data.skip_bad=True (evaluate.py: --skip-bad)\n{lines}')
    log.warning('left out %d of %d audio files:\n%s', len(bad), total, lines)


def _check(path: pathlib.Path, sample_rate: int, min_seconds: float) -> tuple[int, str]:
    stat = path.stat()
    return _examine(path, sample_rate, min_seconds, stat.st_size, stat.st_mtime_ns)


@functools.cache  # train and a validation split held out of it look at the same files
def _examine(path, sample_rate, min_seconds, size, mtime) -> tuple[int, str]:
    """Number of samples, and what is wrong with a file or ''."""
    try:
        header = audio.info(path)
        if header.num_samples == 0:
            return 0, 'the file is empty'
        if header.sample_rate != sample_rate:
            return 0, f'{header.sample_rate} Hz, expected {sample_rate} Hz (config.data.sample_rate): resample it'
        if header.num_channels != 1:
            return 0, f'{header.num_channels} channels, expected 1'
        if header.num_samples < min_seconds * sample_rate:
            seconds = header.num_samples / sample_rate
            return 0, f'too short: {seconds:.3f} s, expected {min_seconds:g} s or more (config.data.min_seconds)'
        return header.num_samples, _examine_samples(path, header.num_samples)
    except UserError as error:
        return 0, str(error).removeprefix(f'{path}: ')


def _examine_samples(path, num_samples: int) -> str:
    energy = 0.0
    for start in range(0, num_samples, _BLOCK):
        block = audio.read(path, start, min(start + _BLOCK, num_samples))[0][:, 0]
        if not np.isfinite(block).all():
            return 'has NaN or infinite samples'
        energy += float(np.dot(block, block))
    return 'silent' if energy <= SILENCE**2 * num_samples else ''
