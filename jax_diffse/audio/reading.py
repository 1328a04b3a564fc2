"""Reads audio files as arrays."""

import contextlib
import functools
import io
import logging
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import soundfile

from jax_diffse import files
from jax_diffse.audio import claims, containers
from jax_diffse.audio.messages import EMPTY, cut_off, unreadable, words
from jax_diffse.errors import UserError

BLOCK = 2**20  # values that are read at a time
FORMATS_WITHOUT_SEEK = ('SDS', 'PAF')  # blocks of samples

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
    seekable = (len(sound.parts) == 1 and sound.info.subtype in claims.SEEKABLE
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
        raise UserError(f'{path}: damaged ({words(error)})') from error
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
        claimed = max(claims.of_part(part, file), claims.of_header(path, content, file))
        if claimed > there:
            raise UserError(cut_off(path, there, claimed))
        return AudioInfo(file.samplerate, there, file.channels, file.format, file.subtype)


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
                     f'({words(error)}); get the file again, or open it in a sound editor and save it')


@contextlib.contextmanager
def _errors(path) -> Iterator[None]:
    """Turns errors of soundfile into `UserError`s."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise UserError(f'{path}: its name is not UTF-8; rename it') from error
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise UserError(unreadable(path, error)) from error
