"""Reads and writes audio files as arrays, and resamples (on the host, NumPy)."""

import contextlib
import functools
import io
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from jax_diffse import containers, files
from jax_diffse.errors import StoreError, UserError

BLOCK = 2**20  # values that are read at a time
UNCLIPPED = ('FLOAT', 'DOUBLE')  # encodings that can hold any level
FULL_SCALE = 1 - 2**-23  # float32; at 1.0 some encoders wrap around
# The predictors of these encoders overshoot and wrap around below full scale. At these levels, sines and speech that
# are clipped by a third keep the right sign.
CEILINGS = {'G721_32': 0.85, 'G723_24': 0.85, 'G723_40': 0.85,
            'NMS_ADPCM_16': 1 - 2**-15, 'NMS_ADPCM_24': 1 - 2**-15, 'NMS_ADPCM_32': 1 - 2**-15}
DAMAGED = ('ALAC_20', 'ALAC_24', 'ALAC_32')  # libsndfile 1.2 loses frames of loud sound when it writes these
# Encodings, with those of FLAC, in which reading from the middle gives the same samples as reading from the start.
SEEKABLE = ('PCM_S8', 'PCM_U8', 'PCM_16', 'PCM_24', 'PCM_32', 'FLOAT', 'DOUBLE', 'ULAW', 'ALAW')
FORMATS_WITHOUT_SEEK = ('SDS', 'PAF')  # blocks of samples
EMPTY = 'the file is empty'
FRAME = 1152  # samples of an MP3's frame; the tag's count may be wrong by one frame

log = logging.getLogger(__name__)


class AudioInfo(NamedTuple):
    """Properties of an audio file."""

    sample_rate: int  # Hz
    num_samples: int  # per channel
    num_channels: int
    format: str  # soundfile's name of the container, e.g. 'WAV'
    subtype: str  # soundfile's name of the encoding, e.g. 'PCM_16'


class _Sound(NamedTuple):
    """A file that was examined."""

    info: AudioInfo
    parts: tuple[containers.Part, ...]
    counts: tuple[int, ...]  # samples of each part
    content: files.StoredObject | None  # of an object in object storage


def info(path: str | os.PathLike) -> AudioInfo:
    """Examines a file. If its header does not state the length, or only estimates it, the whole file is decoded.

    Raises:
      UserError: there is no such file, or it is not audio that soundfile reads, is shorter than it claims, or has a
        name that is not UTF-8.
    """
    return _look(path).info


def read(path: str | os.PathLike, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, int]:
    """Reads samples [start, stop) of a file: the same as if the whole file was decoded.

    Encodings in which samples depend on earlier ones are decoded from the start of the file.

    Returns:
      float32 `[N, C]`, integer encodings scaled to [-1, 1), and the sample rate in Hz.

    Raises:
      UserError: the file cannot be read, or is shorter than its header claims.
    """
    sound = _look(path)
    start, stop, _ = slice(start, stop).indices(sound.info.num_samples)
    seekable = (len(sound.parts) == 1 and sound.info.subtype in SEEKABLE
                and sound.info.format not in FORMATS_WITHOUT_SEEK)
    if sound.content and (not seekable or stop - start == sound.info.num_samples):
        _read_whole(path, sound.content)
    at, found = start if seekable else 0, [np.zeros((0, sound.info.num_channels), np.float32)]
    for block in _blocks(path, sound, at, stop):
        found.append(block[max(start - at, 0):])
        at += len(block)
    return (found[1] if len(found) == 2 else np.concatenate(found)), sound.info.sample_rate


def blocks(path: str | os.PathLike, size: int) -> Iterator[np.ndarray]:
    """Decodes a file from start to end.

    Yields:
      Consecutive blocks `[n, C]` float32, n at most `size`.

    Raises:
      UserError: see `read`.
    """
    sound = _look(path)
    if sound.content:
        _read_whole(path, sound.content)
    return _blocks(path, sound, 0, sound.info.num_samples, size)


def decode(data: bytes, path: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Decodes samples [start, stop) of the first channel of an audio file in memory, of which seeking is exact.

    Args:
      data: the file.
      path: where it comes from, for messages.
      start, stop: in samples.

    Returns:
      float32 `[N]`, integer encodings scaled to [-1, 1).

    Raises:
      UserError: the data are damaged.
    """
    try:
        with _InOneGo(io.BytesIO(data)) as file:
            start, stop, _ = slice(start, stop).indices(file.frames)
            if start:
                file.seek(start)
            samples = file.read(max(stop - start, 0), dtype='float32', always_2d=True)[:, 0]
    except soundfile.SoundFileError as error:
        raise UserError(f'{path}: damaged ({getattr(error, "error_string", error)})') from error
    if len(samples) < stop - start:
        raise UserError(cut_off(path, start + len(samples), stop))
    return samples


def _look(path) -> _Sound:
    with _errors(path):
        os.fspath(path).encode()  # reports and libsndfile need names in UTF-8
        if isinstance(path, files.StoredObject):
            return _examine(os.fspath(path), path.size, path)
        if files.is_address(path):
            entry = files.entry(path)
            return _object_looked_at(os.fspath(path), entry.size, entry.version)
        if not os.path.isfile(path):  # opening a pipe that nobody writes to would block
            raise OSError('not a file')
        status = os.stat(path)
        return _looked_at(os.fspath(path), status.st_size, status.st_ctime_ns)


@functools.lru_cache(maxsize=4096)
def _looked_at(path: str, size: int, changed: int) -> _Sound:
    """Examines a file; `changed` is a time that only the system sets, while programs can set st_mtime."""
    return _examine(path, size, None)


@functools.lru_cache(maxsize=2)  # a file and what another enhancer made of it are examined and read in turn
def _object_looked_at(path: str, size: int, version: str) -> _Sound:
    content = files.StoredObject(path, size)
    if content.read(0, 4) == b'fLaC':  # may be several files joined, which only a search of all bytes reveals
        content.whole()
    return _examine(path, size, content)


def _examine(path: str, size: int, content: files.StoredObject | None) -> _Sound:
    if not size:
        raise ValueError(EMPTY)
    parts = containers.parts(path, content)
    headers = [_part_info(path, content, parts, part) for part in parts]
    first, count = headers[0], sum(header.num_samples for header in headers)
    if parts[-1].unfinished:
        log.warning('%s: the last page is missing, so the file may have been cut off; it has %d samples', path, count)
    for header in headers:
        if (header.sample_rate, header.num_channels) != (first.sample_rate, first.num_channels):
            raise UserError(f'{path}: several files joined end to end, of {first.sample_rate} Hz with '
                            f'{first.num_channels} channels and of {header.sample_rate} Hz with {header.num_channels}; '
                            'expected one rate and one number of channels: split the file')
    return _Sound(first._replace(num_samples=count), parts, tuple(header.num_samples for header in headers), content)


def _read_whole(path, content: files.StoredObject) -> None:
    """Reads all of an object at once, because its blocks would be read one after the other."""
    with _errors(path):
        content.whole()


def _part_info(path, content: files.StoredObject | None, parts, part: containers.Part) -> AudioInfo:
    with _decoder(path, content, parts, part) as file:
        there = file.frames
        if file.subtype.startswith('MPEG') or there >= containers.UNSIZED // 2:
            there = _count(file)
        if part.claimed > part.there and file.subtype.startswith('ALAC'):  # which has a variable bit rate
            raise UserError(cut_off(path, part.there, part.claimed, 'bytes of sound'))
        claimed = max(_claimed(part, file), _logged(path, content, file))
        if claimed > there:
            raise UserError(cut_off(path, there, claimed))
        return AudioInfo(file.samplerate, there, file.channels, file.format, file.subtype)


def cut_off(path, there: int, claimed: int, unit: str = 'samples') -> str:
    """The message about a file that has `there` of `claimed` samples."""
    return (f'{path}: cut off, {there} of {claimed} {unit} are left; get the file again, or open it in a sound editor '
            'and save it')


def _claimed(part: containers.Part, file: soundfile.SoundFile) -> int:
    """Samples that the bytes of the part claim; 0 if they claim no more than the part has."""
    if part.claimed > part.there:
        block, samples = (re.search(rf'{name} *: (\d+)', file.extra_info) for name in ('Block Align', 'Samples/Block'))
        if block and samples:
            claimed = part.claimed // int(block[1]) * int(samples[1])
        elif file.subtype in SEEKABLE and file.frames:
            return part.claimed // (part.there // file.frames)  # bytes of a sample of all channels
        else:
            claimed = file.frames * part.claimed // max(part.there, 1)
        return max(claimed, file.frames + 1)
    return part.claimed_samples or (max(file.frames - FRAME, 0) if part.tagged else 0)


# Containers whose claim is in libsndfile's log or in the first bytes of the file: the pattern of the claim, what it
# counts besides sound, and whether it counts bytes.
_CLAIMS = {
    'NIST': (r'sample_count -i (\d+)', 0, False),
    'AVR': (r'^\s*Frames\s*: (\d+)', 0, False),
    'MPC2K': (r'^\s*Frames\s*: (\d+)', 0, False),
    'SVX': (r'^\s*OneShotHiSamples\s*: (\d+)', 0, False),
    'WVE': (r'Data length (\d+) should be', 0, True),
    'MAT4': (r'truncated\. \d+ <--> (\d+)', 0, True),
    'MAT5': (r'(?s)Size : (\d+)(?!.*Size : )', 0, True),
    'VOC': (r'(?:Sound Data|Extended II)\s*: (\d+)', 13, True),
}
_WIDTH = {'PCM_16': 2, 'PCM_24': 3, 'PCM_32': 4, 'FLOAT': 4, 'DOUBLE': 8}  # bytes; others: 1


def _logged(path, content: files.StoredObject | None, file: soundfile.SoundFile) -> int:
    """Samples that the header of a rare container claims; 0 if it claims none."""
    if file.format not in _CLAIMS:
        return 0
    pattern, besides, in_bytes = _CLAIMS[file.format]
    text = file.extra_info
    if file.format == 'NIST':
        with open(path, 'rb') if content is None else content.open() as header:
            text = header.read(1024).decode('latin-1')
    found = re.search(pattern, text, re.MULTILINE if pattern.startswith('^') else 0)
    if not found:
        return 0
    claimed = int(found[1]) - besides
    return claimed // (file.channels * _WIDTH.get(file.subtype, 1)) if in_bytes else claimed


class _InOneGo(soundfile.SoundFile):
    """Decodes from start to end, without seeking.

    soundfile seeks after every block that it reads, and some decoders then continue with other samples.
    """

    def seekable(self) -> bool:
        return False


def _decoder(path, content: files.StoredObject | None, parts, part: containers.Part) -> soundfile.SoundFile:
    plain = len(parts) == 1 and not part.patch and part.sized
    if plain:
        return _InOneGo(os.fspath(path) if content is None else content.open())
    return _InOneGo(containers.View(path, part, content))


def _count(file: soundfile.SoundFile) -> int:
    """Counts the samples by decoding the file."""
    total, size = 0, max(BLOCK // file.channels, 1)
    while got := len(file.read(size, dtype='float32', always_2d=True)):
        total += got
    return total


def _blocks(path, sound: _Sound, start: int, stop: int, size: int | None = None) -> Iterator[np.ndarray]:
    """Decodes samples [start, stop) block by block, because a damaged header may claim any number of them.

    `start` must be 0 if seeking in the file is not exact.
    """
    size, place = size or max(BLOCK // sound.info.num_channels, 1), start
    with _errors(path):
        for part, count in zip(sound.parts, sound.counts, strict=True):
            with _decoder(path, sound.content, sound.parts, part) as file:
                if start:
                    file.seek(start)
                end = min(stop, place - start + count)  # of the part; bytes behind it may not be sound
                while place < end:
                    try:
                        block = file.read(min(size, end - place), dtype='float32', always_2d=True)
                    except soundfile.SoundFileError as error:
                        raise _damaged(path, sound, error) from error
                    if not len(block):
                        break
                    place += len(block)
                    yield block
        if place < stop:
            raise UserError(cut_off(path, place, sound.info.num_samples))


def _damaged(path, sound: _Sound, error: soundfile.SoundFileError) -> UserError:
    """The message about a file that the decoder cannot finish; it says how many samples can be read."""
    place = 0
    with contextlib.suppress(soundfile.SoundFileError):
        for part in sound.parts:
            with _decoder(path, sound.content, sound.parts, part) as file:
                while got := len(file.read(1024, always_2d=True)):
                    place += got
    return UserError(f'{path}: cut off or damaged, {place} of {sound.info.num_samples} samples can be read '
                     f'({_words(error)}); '
                     'get the file again, or open it in a sound editor and save it')


@contextlib.contextmanager
def _errors(path) -> Iterator[None]:
    """Turns errors of soundfile into `UserError`s."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise UserError(f'{path}: its name is not UTF-8; rename it') from error
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise UserError(_unreadable(path, error)) from error


def _unreadable(path, error) -> str:
    if files.is_address(path):
        return _unreadable_object(path, error)
    try:
        os.stat(path)
    except PermissionError as denied:  # for a folder above it
        return f'{path}: cannot be read ({denied.strerror})'
    except OSError:
        pass  # see below
    if not os.path.exists(path):
        return f'{path}: ' + ('a link that leads to no file' if os.path.islink(path) else 'no such file')
    if os.path.isdir(path):
        return f'{path}: a directory, expected an audio file'
    if not os.path.isfile(path):
        return f'{path}: not a file but a device or pipe, expected an audio file'
    if os.path.getsize(path) == 0:
        return f'{path}: {EMPTY}'
    try:
        open(path, 'rb').close()
    except OSError as denied:
        return f'{path}: cannot be read ({denied.strerror})'
    return f'{path}: not readable as audio ({_words(error)})'


def _unreadable_object(path, error) -> str:
    if isinstance(error, FileNotFoundError):
        return f'{path}: no such file'
    if isinstance(error, IsADirectoryError):
        return f'{path}: a directory, expected an audio file'
    if isinstance(error, StoreError):
        return f'{path}: cannot be read ({files.reason(error)})'
    if str(error) == EMPTY:
        return f'{path}: {EMPTY}'
    return f'{path}: not readable as audio ({_words(error)})'


def _words(error) -> str:
    return str(getattr(error, 'error_string', error)).strip().rstrip('.')


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


def num_resampled(num_samples: int, from_rate: int, to_rate: int) -> int:
    """The number of samples after resampling; their span covers every input sample."""
    return -(-num_samples * to_rate // from_rate)


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resamples `[N]` or `[N, C]` along time with soxr (high quality) -> float32, `ceil(N to / from)` samples."""
    if from_rate == to_rate:
        return samples
    length = num_resampled(len(samples), from_rate, to_rate)
    found = soxr.resample(np.asarray(samples, np.float32), from_rate, to_rate, quality='HQ')[:length]
    return np.pad(found, [(0, length - len(found)), *[(0, 0)] * (found.ndim - 1)])
