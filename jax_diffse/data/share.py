"""A share of the utterances of a split: `config.data.share` and `config.data.test_share`."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from jax_diffse.data.source import Source


def choose_share(speakers: Mapping[str, str], share: float, seed: int) -> set[str]:
    """Chooses `round(share * n)` of the n utterances of each speaker, at least one of each.

    The utterances of a speaker are ranked by a hash of seed and name, so that the choice depends on nothing else.

    Args:
      speakers: name of an utterance -> its speaker.
      share: of the utterances, above 0 and at most 1.
      seed: other seeds give other choices.
    """
    utterances: dict[str, list[str]] = {}
    for name, speaker in speakers.items():
        utterances.setdefault(speaker, []).append(name)
    chosen = set()
    for names in utterances.values():
        ranked = sorted(names, key=lambda name: hashlib.sha256(f'{seed}/{name}'.encode()).digest())
        chosen.update(ranked[:max(1, round(share * len(names)))])
    return chosen


@dataclasses.dataclass(frozen=True)
class Subset:
    """Some of the utterances of a source, a `Source`."""

    source: Source
    indices: Sequence[int]
    used: str  # how many of how many, in words

    @property
    def sample_rate(self) -> int:
        """Of the source, in Hz."""
        return self.source.sample_rate

    @property
    def in_store(self) -> bool:
        """Whether samples come from object storage."""
        return self.source.in_store

    def __len__(self) -> int:
        return len(self.indices)

    def info(self, i: int) -> dict:
        """What the source tells about utterance i."""
        return self.source.info(self.indices[i])

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads the whole utterance i."""
        return self.source.read(self.indices[i])

    def draw(self, i: int, num_samples: int, rng: np.random.Generator,
             start: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Draws a training example from utterance i."""
        return self.source.draw(self.indices[i], num_samples, rng, start)


def take_share(source: Source, share: float, seed: int) -> Source:
    """Takes a share of the utterances of a source, see `choose_share`; reads the records of all once.

    The speaker of an utterance is the entry 'speaker' of its `info`; without one, all count as one speaker's.
    """
    if share == 1:
        return source
    infos = [source.info(i) for i in range(len(source))]
    chosen = choose_share({info['id']: info.get('speaker', '') for info in infos}, share, seed)
    indices = [i for i, info in enumerate(infos) if info['id'] in chosen]
    return Subset(source, indices, count(len(indices), len(infos)))


def count(used: int, total: int) -> str:
    """Says how many utterances of how many are used."""
    return f'{used} of {total} utterances'
