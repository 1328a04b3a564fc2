"""Audio files <-> arrays, and resampling (host side, NumPy)."""

import dataclasses
import os
import pathlib

import numpy as np
import soundfile

from jax_diffse import files
from jax_diffse.errors import UserError

EXTENSIONS = ('.wav', '.flac')


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
      UserError: there is no such file, or it is not audio that soundfile reads.
    """
    try:
        header = soundfile.info(os.fspath(path))
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise UserError(_unreadable(path, error)) from error
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


def _unreadable(path, error) -> str:
    if not os.path.exists(path):
        return f'{path}: no such file'
    if os.path.isdir(path):
        return f'{path}: a directory, expected an audio file ({", ".join(EXTENSIONS)})'
    if os.path.getsize(path) == 0:
        return f'{path}: the file is empty'
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
        raise UserError(f'{path}: cannot be written ({error})') from error


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resamples `[N]` or `[N, C]` along time with soxr (high quality) -> float32, `ceil(N to / from)` samples."""
    if from_rate == to_rate:
        return samples
    import librosa  # slow to import, and only needed here

    return librosa.resample(samples, orig_sr=from_rate, target_sr=to_rate, axis=0, res_type='soxr_hq')


def find(root: str | os.PathLike) -> list[pathlib.Path]:
    """All audio files below a directory, sorted; hidden ones are left out.

    Raises:
      UserError: there is no such directory.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise UserError(f'{root}: no such directory')
    return sorted(path for path in root.rglob('*')
                  if path.suffix.lower() in EXTENSIONS and path.is_file()
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
