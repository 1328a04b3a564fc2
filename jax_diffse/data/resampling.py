"""Parts of recordings at another rate, and data sets at another rate."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jax_diffse import audio
from jax_diffse.data.source import Source

MARGIN = 2048  # samples read on both sides of a part, at the lower rate; the filter reaches less far


class Resampling(NamedTuple):
    """A change of rate of a recording."""

    num_samples: int  # of the recording
    from_rate: int  # Hz
    to_rate: int  # Hz

    @property
    def num_resampled(self) -> int:
        """The number of samples after it."""
        return audio.num_resampled(*self)

    def read(self, read: Callable[[int, int], np.ndarray], start: int = 0, stop: int | None = None) -> np.ndarray:
        """Reads a part of the resampled recording, without resampling all of it.

        Args:
          read: (start, stop) -> samples `[stop - start]` of the recording.
          start: first sample, at the new rate.
          stop: the sample behind the last one, at the new rate; default: the end.

        Returns:
          float32 `[stop - start]`: this part of the whole recording after `audio.resample`, up to rounding.
        """
        divisor, total = math.gcd(self.from_rate, self.to_rate), self.num_resampled
        stop = total if stop is None else min(stop, total)
        old, new = self.from_rate // divisor, self.to_rate // divisor  # `new` samples are made of `old` ones
        margin = -(-MARGIN // min(old, new))
        first, last = max(start // new - margin, 0), -(-stop // new) + margin
        samples = audio.resample(read(first * old, min(last * old, self.num_samples)), self.from_rate, self.to_rate)
        return samples[start - first * new:stop - first * new]


class Resampled:
    """A source at another rate, a `Source`; utterances are resampled when they are read."""

    def __init__(self, source: Source, sample_rate: int):
        self._source, self.sample_rate, self.used, self.in_store = source, sample_rate, source.used, source.in_store

    def _of(self, num_samples: int) -> Resampling:
        return Resampling(num_samples, self._source.sample_rate, self.sample_rate)

    def __len__(self) -> int:
        return len(self._source)

    def info(self, i: int) -> dict:
        info = self._source.info(i)
        return info | {'num_samples': self._of(info['num_samples']).num_resampled}

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        clean, noisy = (audio.resample(x, self._source.sample_rate, self.sample_rate) for x in self._source.read(i))
        return clean, noisy

    def draw(self, i: int, num_samples: int, rng: np.random.Generator,
             start: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        clean, noisy = self._source.read(i)
        change = self._of(len(clean))
        if start is None:
            start = int(rng.integers(max(change.num_resampled - num_samples, 0) + 1))
        clean, noisy = (change.read(lambda a, b, x=x: x[a:b], start, start + num_samples) for x in (clean, noisy))
        return clean, noisy
