"""Writes audio files whole."""

import contextlib
import io
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import soundfile

from jax_diffse import files
from jax_diffse.audio.reading import AudioInfo, info
from jax_diffse.errors import UserError

UNCLIPPED = ('FLOAT', 'DOUBLE')  # encodings that can hold any level
FULL_SCALE = 1 - 2**-23  # float32; at 1.0 some encoders wrap around
# The predictors of these encoders overshoot and wrap around below full scale. At these levels, sines and speech that
# are clipped by a third keep the right sign.
CEILINGS = {'G721_32': 0.85, 'G723_24': 0.85, 'G723_40': 0.85,
            'NMS_ADPCM_16': 1 - 2**-15, 'NMS_ADPCM_24': 1 - 2**-15, 'NMS_ADPCM_32': 1 - 2**-15}
DAMAGED = ('ALAC_20', 'ALAC_24', 'ALAC_32')  # libsndfile 1.2 loses frames of loud sound when it writes these


def write(path: str | os.PathLike, samples: np.ndarray, sample_rate: int, *, format: str | None = None,
          subtype: str | None = None) -> None:
    """Writes float samples `[N]` or `[N, C]`, clipped to [-1, 1] unless the encoding is floating point, atomically.

    `format` and `subtype` are soundfile's names; by default the extension of the path determines them.

    Raises:
      UserError: the file cannot be written, or the format does not support the rate, channels or subtype.
    """
    format = format or os.path.splitext(path)[1].lstrip('.').upper()
    columns = samples if samples.ndim == 2 else samples[:, None]
    try:
        subtype = subtype or soundfile.default_subtype(format)
    except (ValueError, TypeError) as error:
        raise UserError(files.unwritable(path, error)) from error
    with writer(path, AudioInfo(sample_rate, len(columns), columns.shape[1], format, subtype)) as append:
        append(columns)


@contextlib.contextmanager
def writer(path: str | os.PathLike, like: AudioInfo) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes a file piece by piece in the rate, channels, format and subtype of `like`; it appears when complete.

    Yields:
      A function that appends `[n, C]`, clipped to [-1, 1] unless the encoding is floating point.

    Raises:
      UserError: the file cannot be written.
    """
    try:
        with files.atomic_write(path) as partial:
            with _encoder(partial, like) as file:
                yield lambda samples: file.write(clipped(samples, like.subtype))
            if not partial.stat().st_size:  # FLAC without samples, which could not be read
                raise soundfile.SoundFileRuntimeError(f'{like.format} needs at least one sample')
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(files.unwritable(path, error)) from error


def _encoder(target: pathlib.Path | io.BytesIO, like: AudioInfo) -> soundfile.SoundFile:
    if like.subtype in DAMAGED:
        raise soundfile.SoundFileRuntimeError('libsndfile damages loud sound in this encoding')
    try:
        return soundfile.SoundFile(target, 'w', like.sample_rate, like.num_channels, like.subtype, format=like.format)
    except (ValueError, TypeError) as error:
        raise soundfile.SoundFileRuntimeError(str(error)) from error


def clipped(samples: np.ndarray, subtype: str) -> np.ndarray:
    """Clips samples to what an encoding can hold: beyond full scale most encodings wrap around, or worse."""
    if subtype in UNCLIPPED:
        return samples
    ceiling = CEILINGS.get(subtype)
    return np.clip(samples, -(ceiling or 1.0), ceiling or FULL_SCALE)


def check_writable(path: str | os.PathLike) -> None:
    """Checks that results can be written in the rate, channels and encoding of a file.

    Raises:
      UserError: they cannot, or the file cannot be read.
    """
    like = info(path)
    try:
        _encoder(io.BytesIO(), like).close()
    except soundfile.SoundFileError as error:
        raise UserError(f'{path}: {like.format} with {like.subtype}, {like.sample_rate} Hz and {like.num_channels} '
                        'channels can be read but not written, and results keep the encoding of their input; convert '
                        'the file first, for example to FLAC or 16-bit wav') from error
