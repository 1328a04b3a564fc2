"""Audio files <-> arrays, and resampling (host side, NumPy)."""

import dataclasses
import os
import pathlib
import re

import numpy as np
import soundfile

from jax_diffse import files
from jax_diffse.errors import UserError

EXTENSIONS = ('.wav', '.flac')
UNTOLD = 0x7FFFF000  # bytes of sound that a header tells, or more, where its program could not know: it wrote to a pipe


@dataclasses.dataclass(frozen=True)
class AudioInfo:
    """What a file's header says."""

    sample_rate: int  # Hz
    num_samples: int  # per channel
    num_channels: int
    format: str  # soundfile's name of the container, e.g. 'WAV'
    subtype: str  # soundfile's name of the encoding, e.g. 'PCM_16'


def info(path: str | os.PathLike) -> AudioInfo:
    """Reads a file's header.

    Raises:
      UserError: there is no such file, it is not audio that soundfile reads, a wav file that was cut off, or has a name
        that is not UTF-8.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:  # reports and libsndfile take no other
        raise UserError(f'{path}: its name is not UTF-8; rename it') from error
    try:
        if not os.path.isfile(path):  # opening a pipe that nobody writes to would not return
            raise OSError('not a file')
        header = soundfile.info(os.fspath(path))
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise UserError(_unreadable(path, error)) from error
    _check_whole(path, header)
    return AudioInfo(header.samplerate, header.frames, header.channels, header.format, header.subtype)


def read(path: str | os.PathLike, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, int]:
    """Reads samples [start, stop) of a file.

    Returns:
      float32 `[N, C]`, integer encodings scaled to [-1, 1), and the sample rate in Hz.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        return soundfile.read(os.fspath(path), start=start, stop=stop, dtype='float32', always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise UserError(_unreadable(path, error)) from error


def _check_whole(path, header) -> None:
    # libsndfile takes what is there of a wav file for all of it, and only logs what the header tells.
    found = re.search(r'^data : (\d+) \(should be (\d+)\)', header.extra_info, re.MULTILINE)
    told, there = map(int, found.groups()) if found else (0, 0)
    if there < told < UNTOLD:
        frames = header.frames * told // max(there, 1)
        raise UserError(f'{path}: cut off, {header.frames} of {frames} samples are there; get it again, or have a '
                        'sound editor save what is there')


def _unreadable(path, error) -> str:
    if not os.path.exists(path):
        return f'{path}: ' + ('a link that leads to no file' if os.path.islink(path) else 'no such file')
    if os.path.isdir(path):
        return f'{path}: a directory, expected an audio file ({", ".join(EXTENSIONS)})'
    if not os.path.isfile(path):
        return f'{path}: not a file but a device or pipe, expected an audio file ({", ".join(EXTENSIONS)})'
    if os.path.getsize(path) == 0:
        return f'{path}: the file is empty'
    try:
        open(path, 'rb').close()
    except OSError as denied:
        return f'{path}: cannot be read ({denied.strerror})'
    reason = str(getattr(error, 'error_string', error)).strip().rstrip('.')
    return f'{path}: not readable as audio ({reason})'


def write(path: str | os.PathLike, samples: np.ndarray, sample_rate: int, *, format: str | None = None,
          subtype: str | None = None) -> None:
    """Writes float samples `[N]` or `[N, C]`, clipped to [-1, 1] for integer encodings, atomically.

    `format` and `subtype` are soundfile's names; by default they follow the extension.

    Raises:
      UserError: the file cannot be written, or the format does not take the rate, channels or subtype.
    """
    format = format or pathlib.Path(path).suffix.lstrip('.').upper()
    try:
        subtype = subtype or soundfile.default_subtype(format)
        if subtype not in ('FLOAT', 'DOUBLE'):
            samples = np.clip(samples, -1.0, 1.0)
        with files.whole(path) as partial:
            soundfile.write(os.fspath(partial), samples, sample_rate, format=format, subtype=subtype)
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
        raise UserError(files.unwritable(path, error)) from error


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resamples `[N]` or `[N, C]` along time with soxr (high quality) -> float32, `ceil(N to / from)` samples."""
    if from_rate == to_rate:
        return samples
    import librosa  # slow to import, and only needed here

    return librosa.resample(samples, orig_sr=from_rate, target_sr=to_rate, axis=0, res_type='soxr_hq')


def find(root: str | os.PathLike) -> list[pathlib.Path]:
    """All audio files below a directory, sorted; hidden ones are left out, and links to folders are not followed.

    Links that lead nowhere are among them, so that whoever reads them says so.

    Raises:
      UserError: there is no such directory.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise UserError(f'{root}: no such directory')
    return sorted(path for path in root.rglob('*')
                  if path.suffix.lower() in EXTENSIONS and (path.is_file() or not path.exists())
                  and not any(part.startswith('.') for part in path.relative_to(root).parts))


def by_name(root: str | os.PathLike) -> dict[str, pathlib.Path]:
    """All audio files below a directory by their name: the path below it, '/' between parts, without extension.

    Raises:
      UserError: there is no such directory, or two files have one name.
    """
    files: dict[str, pathlib.Path] = {}
    for path in find(root):
        name = path.relative_to(root).with_suffix('').as_posix()
        if name in files:
            raise UserError(f'{path}: has the same name as {files[name]}, expected one file of a name; remove one')
        files[name] = path
    return files
