"""The interface of all data sets: random-access pairs of clean and noisy speech."""

import dataclasses
from typing import Protocol

import numpy as np


class Source(Protocol):
    """Pairs of clean and noisy speech at one sample rate, one channel, float32 in [-1, 1]."""

    sample_rate: int  # Hz
    used: str  # how many utterances of how many, in words, if a share is used, else ''
    in_store: bool  # whether samples come from object storage, so that readers mostly wait

    def __len__(self) -> int:
        """Number of utterances."""

    def info(self, i: int) -> dict:
        """`{'id': unique name, 'num_samples': length}` of utterance i, and 'snr_db' and 'noise' (class) if known."""

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads the whole utterance i, always the same: (clean `[N]`, noisy `[N]`)."""

    def draw(self, i: int, num_samples: int, rng: np.random.Generator,
             start: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Draws a training example from utterance i: at most `num_samples` of it; mixtures are mixed anew.

        The example starts at the sample `start` of the utterance, or at a random one. All randomness comes from `rng`,
        so an example is a function of the generator's seed.
        """


@dataclasses.dataclass(frozen=True)
class Padded:
    """Another source, whose shorter utterances are extended to `num_samples` with zeros at their end."""

    source: Source
    num_samples: int

    @property
    def sample_rate(self) -> int:
        return self.source.sample_rate

    @property
    def used(self) -> str:
        return self.source.used

    @property
    def in_store(self) -> bool:
        return self.source.in_store

    def __len__(self) -> int:
        return len(self.source)

    def info(self, i: int) -> dict:
        """That of the source, with the number of samples after extension."""
        info = self.source.info(i)
        return {**info, 'num_samples': max(info['num_samples'], self.num_samples)}

    def unpadded(self, i: int) -> int:
        """The number of samples of utterance i before extension."""
        return self.source.info(i)['num_samples']

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads the whole utterance i, extended: (clean `[N]`, noisy `[N]`)."""
        clean, noisy = (np.pad(x, (0, max(0, self.num_samples - len(x)))) for x in self.source.read(i))
        return clean, noisy

    def draw(self, i: int, num_samples: int, rng: np.random.Generator,
             start: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Draws a training example, which is not extended."""
        return self.source.draw(i, num_samples, rng, start)
