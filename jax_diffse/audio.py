"""Audio files <-> arrays, and resampling (host side, NumPy)."""

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import soundfile

from jax_diffse import files
from jax_diffse.errors import UserError

EXTENSIONS = ('.wav', '.flac')
UNTOLD = 0x7FFFF000  # bytes of sound that a header tells, or more, where its program could not know: it wrote to a pipe
BLOCK = 2**22  # values that are read at a time
UNKNOWN_LENGTH = 2**62  # what libsndfile gives for it is larger


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
      UserError: there is no such file, it is not audio that soundfile reads or of unknown length, a wav file that was
        cut off, or has a name that is not UTF-8.
    """
    with _opened(path) as file:
        _check_whole(path, file)
        return AudioInfo(file.samplerate, file.frames, file.channels, file.format, file.subtype)


def read(path: str | os.PathLike, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, int]:
    """Reads samples [start, stop) of a file.

    Returns:
      float32 `[N, C]`, integer encodings scaled to [-1, 1), and the sample rate in Hz.

    Raises:
      UserError: the file cannot be read, or ends before its header says.
    """
    with _opened(path) as file:
        start, stop, _ = slice(start, stop).indices(file.frames)
        return _samples(file, start, stop), file.samplerate


@contextlib.contextmanager
def _opened(path) -> Iterator[soundfile.SoundFile]:
    """The file; what soundfile raises meanwhile becomes a `UserError`."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:  # reports and libsndfile take no other
        raise UserError(f'{path}: its name is not UTF-8; rename it') from error
    try:
        if not os.path.isfile(path):  # opening a pipe that nobody writes to would not return
            raise OSError('not a file')
        with soundfile.SoundFile(os.fspath(path)) as file:
            if file.frames >= UNKNOWN_LENGTH:
                raise ValueError('its header does not say how long it is, as where it was encoded into a pipe')
            yield file
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise UserError(_unreadable(path, error)) from error


def _check_whole(path, header: soundfile.SoundFile) -> None:
    # libsndfile takes what is there of a wav file for all of it, and only logs what the header tells.
    found = re.search(r'^data : (\d+) \(should be (\d+)\)', header.extra_info, re.MULTILINE)
    told, there = map(int, found.groups()) if found else (0, 0)
    if there < told < UNTOLD:
        frames = header.frames * told // max(there, 1)
        raise UserError(f'{path}: cut off, {header.frames} of {frames} samples are there; get it again, or have a '
                        'sound editor save what is there')


def _samples(file, start, stop) -> np.ndarray:
    """Block by block, as a damaged header may promise any number."""
    place = file.seek(start) if file.seekable() else 0  # some telephone encodings can only be read from the start
    size, blocks = max(BLOCK // file.channels, 1), []
    while place < stop:
        block = file.read(min(size, stop - place), dtype='float32', always_2d=True)
        if not len(block):
            raise ValueError(f'it ends after {place} samples, its header says {file.frames}')
        blocks.append(block[max(start - place, 0):])
        place += len(block)
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate([np.zeros((0, file.channels), np.float32), *blocks])


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
            if not partial.stat().st_size:  # FLAC without samples; such a file could not be read
                raise ValueError(f'{format} needs at least one sample')
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
