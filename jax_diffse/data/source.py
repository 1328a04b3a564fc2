"""The interface of all data sets: random-access pairs of clean and noisy speech."""

from typing import Protocol

import numpy as np


class Source(Protocol):
    """Pairs of clean and noisy speech at one sample rate, one channel, float32 in [-1, 1]."""

    sample_rate: int  # Hz
    used: str  # how many utterances of how many, in words, if a share is used, else ''

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
