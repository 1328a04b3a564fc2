"""Streaming of long audio on the host: bounded reading, blockwise resampling, cross-faded chunks (NumPy)."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import soxr

from jax_diffse import audio
from jax_diffse.errors import UserError

BLOCK = 1 << 18  # samples per channel and read
MAX_CHANNELS = 64  # an array with more is most likely [channels, samples]
write = audio.writer  # writes block by block


@dataclasses.dataclass(frozen=True)
class Stream:
    """Audio from an array or a file, read block by block."""

    name: str  # for messages
    sample_rate: int  # Hz
    num_samples: int  # per channel
    num_channels: int
    blocks: Callable[[], Iterator[np.ndarray]]  # all samples in order, float32 [n, C], at most `BLOCK` at a time


def from_array(samples: np.ndarray, sample_rate: int, name: str) -> Stream:
    """A stream over `[N, C]`."""
    return Stream(name, sample_rate, *samples.shape,
                  lambda: (samples[start:start + BLOCK] for start in range(0, len(samples), BLOCK)))


def from_samples(samples: np.ndarray, sample_rate: int, name: str) -> Stream:
    """A stream over `[N]` or `[N, C]`.

    Raises:
      UserError: another shape, or samples that are not floating point.
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
    """A stream over a file; every pass decodes the file from its start.

    Raises:
      UserError: the file is not audio; also while reading, if it is damaged or changes meanwhile.
    """
    header = audio.info(path)

    def blocks():
        count = 0
        for block in audio.blocks(path, BLOCK):
            count += len(block)
            yield block
        if count != header.num_samples:
            raise UserError(f'{path}: ends after {count} of {header.num_samples} samples; is it still being written?')

    return Stream(os.fspath(path), header.sample_rate, header.num_samples, header.num_channels, blocks)


def check_alike(noisy: Stream, processed: Stream) -> None:
    """Checks that a recording and another enhancer's output for it have equal rate, channels and number of samples.

    Raises:
      UserError: they differ; the message names both and what they have.
    """
    for attribute, unit in (('sample_rate', 'Hz'), ('num_channels', 'channels'), ('num_samples', 'samples')):
        expected, found = getattr(noisy, attribute), getattr(processed, attribute)
        if found != expected:
            raise UserError(f'{processed.name}: {found} {unit}, but {expected} in {noisy.name}; expected an '
                            "enhancer's output for that file, neither resampled nor cut")


def stack_channels(left: Stream, right: Stream) -> Stream:
    """Joins two streams of equal rate and length: the channels of `left`, then those of `right`."""
    def blocks():
        start, window = 0, Window(right.blocks())
        for block in left.blocks():
            yield np.concatenate([block, window.read(start, start + len(block))], axis=1)
            start += len(block)

    return dataclasses.replace(left, num_channels=left.num_channels + right.num_channels, blocks=blocks)


class Resampler:
    """Resamples a recording of unknown length block by block with soxr (high quality).

    The values do not depend on how the input is cut into blocks. In all, there are `audio.num_resampled(...)` samples.
    """

    def __init__(self, from_rate: int, to_rate: int, num_channels: int):
        self.rates, self._num_channels = (from_rate, to_rate), num_channels
        self._taken = self._given = 0
        self._stream = None if from_rate == to_rate else soxr.ResampleStream(
            from_rate, to_rate, num_channels, dtype='float32', quality='HQ')

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Takes the next samples `[n, C]` and returns the next resampled ones, `[m, C]`."""
        return block if self._stream is None else self._resampled(block)

    def flush(self) -> np.ndarray:
        """Ends the recording and returns its remaining samples."""
        if self._stream is None or not self._taken:
            return np.zeros((0, self._num_channels), np.float32)
        remaining = audio.num_resampled(self._taken, *self.rates) - self._given
        # soxr rounds the total down: a few zeros after the end bring out the last sample.
        zeros = np.zeros((2 * math.ceil(self.rates[0] / self.rates[1]) + 2, self._num_channels), np.float32)
        return self._resampled(zeros, last=True)[:remaining]

    def _resampled(self, block, last=False):
        found = self._stream.resample_chunk(block, last=last)
        self._taken, self._given = self._taken + len(block), self._given + len(found)
        return found


def resampled(blocks: Iterable[np.ndarray], from_rate: int, to_rate: int) -> Iterator[np.ndarray]:
    """Resamples consecutive blocks `[n, C]` of a recording; see `Resampler`.

    Yields:
      Blocks with `audio.num_resampled(...)` samples in all.
    """
    resampler = None
    for block in blocks:
        resampler = resampler or Resampler(from_rate, to_rate, block.shape[1])
        yield resampler(block)
    if resampler and from_rate != to_rate:
        yield resampler.flush()


class Window:
    """Reads ranges [start, stop) of consecutive blocks and keeps only the samples that later reads may need."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks, self._start, self._held = iter(blocks), 0, None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns `[stop - start, C]`; `start` must not decrease from one call to the next."""
        held = [next(self._blocks) if self._held is None else self._held]
        end = self._start + len(held[0])
        while end < stop:
            held.append(next(self._blocks))
            end += len(held[-1])
        self._held = np.concatenate(held)[start - self._start:]
        self._start = start
        return self._held[:stop - start]


def chunk_starts(num_samples: int, chunk: int, overlap: int) -> list[int]:
    """First samples of the chunks. The last chunk starts early enough to be complete, so that all share one program."""
    starts = range(0, max(num_samples - overlap, 1), chunk - overlap)
    return [max(0, min(start, num_samples - chunk)) for start in starts]


def cross_faded(read: Callable[[int, int], np.ndarray], num_samples: int, chunk: int, overlap: int,
                process: Callable[[np.ndarray, int], np.ndarray]) -> Iterator[np.ndarray]:
    """Processes overlapping chunks and cross-fades them.

    The fades are linear, because they add two estimates of the same speech: constant-power fades suit uncorrelated
    signals and would make the joins up to 3 dB louder. A fade spans the last `overlap` samples of the earlier chunk;
    samples that the later chunk has before the fade are only context for its network.

    Args:
      read: (start, stop) -> `[stop - start, C]`.
      num_samples: samples in all.
      chunk: samples of a chunk.
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
