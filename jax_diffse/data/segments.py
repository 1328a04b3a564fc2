"""Consecutive segments of utterances as training examples, in place of random crops: `config.data.segments`."""

import numpy as np

from jax_diffse.data.source import Source
from jax_diffse.errors import UserError


class Segments:
    """The consecutive, non-overlapping segments of the utterances of a source, a `Source`.

    An utterance of n samples has `n // length` segments. The rest of it is left out, and so are utterances that are
    shorter than a segment. In mixtures, a segment of speech is mixed with a random piece of noise.

    Args:
      source: the utterances; the lengths of all are read once.
      length: of a segment, in samples.

    Raises:
      UserError: no utterance is as long as a segment.
    """

    def __init__(self, source: Source, length: int):
        self._source, self._length = source, length
        counts = [source.info(i)['num_samples'] // length for i in range(len(source))]
        self._ends = np.cumsum(counts)
        self.sample_rate, self.used, self.in_store = source.sample_rate, source.used, source.in_store
        if not len(self):
            raise UserError(f'config.data.segments: none of the {len(source)} utterances has the {length} samples of '
                            f'a segment, {length / source.sample_rate:g} s (config.train.crop_seconds)')

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _place(self, i: int) -> tuple[int, int]:
        """The utterance of segment i, and the sample that the segment starts at."""
        utterance = int(np.searchsorted(self._ends, i, side='right'))
        before = int(self._ends[utterance - 1]) if utterance else 0
        return utterance, (i - before) * self._length

    def info(self, i: int) -> dict:
        """What the source tells about the utterance, with the id 'UTTERANCE@START' and the length of the segment."""
        utterance, start = self._place(i)
        info = self._source.info(utterance)
        return info | {'id': f'{info["id"]}@{start}', 'num_samples': self._length}

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads segment i: (clean `[length]`, noisy `[length]`)."""
        utterance, start = self._place(i)
        clean, noisy = self._source.read(utterance)
        return clean[start:start + self._length], noisy[start:start + self._length]

    def draw(self, i: int, num_samples: int, rng: np.random.Generator,
             start: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Draws a training example: segment i from sample `start` (default: 0) on, at most `num_samples` of it."""
        utterance, begin = self._place(i)
        offset = start or 0
        return self._source.draw(utterance, min(num_samples, self._length - offset), rng, begin + offset)
