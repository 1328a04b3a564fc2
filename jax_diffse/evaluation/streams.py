"""Long audio in pieces: bounded reading, resampling block by block, overlapping cross-faded chunks (host, NumPy)."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import soundfile

from jax_diffse import audio, files
from jax_diffse.errors import UserError

BLOCK = 1 << 18  # samples per channel that are read at a time
MAX_CHANNELS = 64  # more than that is an array that needs transposing


@dataclasses.dataclass(frozen=True)
class Stream:
    """Audio that is read in pieces, from an array or from a file."""

    name: str  # for messages
    sample_rate: int  # Hz
    num_samples: int  # per channel
    num_channels: int
    read: Callable[[int, int], np.ndarray]  # (start, stop) -> float32 [stop - start, C]

    def blocks(self) -> Iterator[np.ndarray]:
        """All samples in order, at most `BLOCK` at a time."""
        for start in range(0, self.num_samples, BLOCK):
            yield self.read(start, min(start + BLOCK, self.num_samples))


def from_array(samples: np.ndarray, sample_rate: int, name: str) -> Stream:
    """A stream over `[N, C]`."""
    return Stream(name, sample_rate, *samples.shape, lambda start, stop: samples[start:stop])


def from_samples(samples: np.ndarray, sample_rate: int, name: str) -> Stream:
    """A stream over `[N]` or `[N, C]`.

    Raises:
      UserError: they have another shape, or are not floating point.
    """
    samples = np.asarray(samples)
    if not np.issubdtype(samples.dtype, np.floating):
        raise UserError(f'{name}: expected floating-point samples in [-1, 1], got {samples.dtype}; divide integers by '
                        'their full scale')
    if samples.ndim not in (1, 2) or samples.size and samples[:1].size > MAX_CHANNELS:
        raise UserError(f'{name}: expected the shape [samples] or [samples, channels], got {list(samples.shape)}')
    columns = samples.reshape(len(samples), -1 if samples.size else 1).astype(np.float32, copy=False)
    return from_array(columns, sample_rate, name)


def from_file(path: str | os.PathLike) -> Stream:
    """A stream over a file, which is opened anew for each piece.

    Raises:
      UserError: the file is not audio; also from `read`, where the file is shorter than its header says.
    """
    header = audio.info(path)

    def read(start, stop):
        samples, _ = audio.read(path, start, stop)
        if len(samples) != stop - start:
            raise UserError(f'{path}: ends after {start + len(samples)} of {header.num_samples} samples, is it '
                            'complete?')
        return samples

    return Stream(os.fspath(path), header.sample_rate, header.num_samples, header.num_channels, read)


def check_alike(noisy: Stream, processed: Stream) -> None:
    """Checks that what an enhancer made of a recording still has its rate, channels and number of samples.

    Raises:
      UserError: it has not; names both, with what they have.
    """
    for what, unit in (('sample_rate', 'Hz'), ('num_channels', 'channels'), ('num_samples', 'samples')):
        expected, found = getattr(noisy, what), getattr(processed, what)
        if found != expected:
            raise UserError(f'{processed.name}: {found} {unit}, but {expected} in {noisy.name}; expected what an '
                            'enhancer made of that, neither resampled nor cut')


def beside(left: Stream, right: Stream) -> Stream:
    """Two streams of equal rate and length as one: the channels of `left`, then those of `right`."""
    return dataclasses.replace(
        left, num_channels=left.num_channels + right.num_channels,
        read=lambda start, stop: np.concatenate([left.read(start, stop), right.read(start, stop)], axis=1))


def num_resampled(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Samples after resampling: every input sample lies within their span."""
    return -(-num_samples * to_rate // from_rate)


def resampled(blocks: Iterable[np.ndarray], num_samples: int, from_rate: int, to_rate: int) -> Iterator[np.ndarray]:
    """Resamples consecutive blocks `[n, C]`, `num_samples` in all, with soxr (high quality).

    Yields:
      Blocks that together have `num_resampled(...)` samples; the same values however the input is cut.
    """
    if from_rate == to_rate:
        yield from blocks
        return
    import soxr

    remaining, stream = num_resampled(num_samples, from_rate, to_rate), None
    for block in blocks:
        stream = stream or soxr.ResampleStream(from_rate, to_rate, block.shape[1], dtype='float32', quality='HQ')
        piece = stream.resample_chunk(block)[:remaining]
        remaining -= len(piece)
        yield piece
    # soxr rounds the total down: a few zeros behind the end bring out the last sample.
    zeros = np.zeros((2 * math.ceil(from_rate / to_rate) + 2, block.shape[1]), np.float32)
    yield stream.resample_chunk(zeros, last=True)[:remaining]


class Window:
    """Reads [start, stop) of consecutive blocks, keeping only what may still be asked for."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks, self._start, self._held = iter(blocks), 0, None

    def read(self, start: int, stop: int) -> np.ndarray:
        """`[stop - start, C]`; `start` never decreases from one call to the next."""
        held = [next(self._blocks) if self._held is None else self._held]
        end = self._start + len(held[0])
        while end < stop:
            held.append(next(self._blocks))
            end += len(held[-1])
        self._held = np.concatenate(held)[start - self._start:]
        self._start = start
        return self._held[:stop - start]


def chunk_starts(num_samples: int, chunk: int, overlap: int) -> list[int]:
    """Where chunks of `chunk` samples begin. The last one is moved back to be whole, so that all share one program."""
    starts = range(0, max(num_samples - overlap, 1), chunk - overlap)
    return [max(0, min(start, num_samples - chunk)) for start in starts]


def cross_faded(read: Callable[[int, int], np.ndarray], num_samples: int, chunk: int, overlap: int,
                process: Callable[[np.ndarray, int], np.ndarray]) -> Iterator[np.ndarray]:
    """Processes overlapping chunks and joins them.

    The fades are linear, because they add two estimates of the same speech: fades of constant power are right for
    uncorrelated signals and would make the joins up to 3 dB louder. A fade spans the last `overlap` samples of the
    chunk that ends; what the next chunk has before that is context for its network only.

    Args:
      read: (start, stop) -> `[stop - start, C]`.
      num_samples: to be read in all.
      chunk: samples that are processed at a time.
      overlap: samples of a fade, at most half a chunk.
      process: (`[n, C]`, number of the chunk) -> `[n, C]`.

    Yields:
      Consecutive pieces, `num_samples` in all.
    """
    fade_in = ((np.arange(overlap, dtype=np.float32) + 0.5) / max(overlap, 1))[:, None]
    done, tail = 0, None
    for number, start in enumerate(chunk_starts(num_samples, chunk, overlap)):
        stop = min(start + chunk, num_samples)
        piece = process(read(start, stop), number)[done - start:]
        if tail is not None:
            piece[:overlap] = fade_in * piece[:overlap] + (1 - fade_in) * tail
        keep = len(piece) if stop == num_samples else len(piece) - overlap
        yield piece[:keep]
        done, tail = done + keep, piece[keep:]


@contextlib.contextmanager
def write(path: str | os.PathLike, like: audio.AudioInfo) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes a file piece by piece in the rate, channels, format and subtype of `like`; it appears when it is whole.

    Yields:
      A function that appends `[n, C]`, clipped to [-1, 1] for integer encodings.

    Raises:
      UserError: the file cannot be written.
    """
    try:
        # soundfile clips what an integer encoding cannot hold.
        with files.whole(path) as partial, soundfile.SoundFile(
                partial, 'w', like.sample_rate, like.num_channels, like.subtype, format=like.format) as file:
            yield file.write
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(files.unwritable(path, error)) from error
