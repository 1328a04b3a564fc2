"""The recordings of a folder: one, and many of them in columns."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from jax_diffse import audio, audio_files, files
from jax_diffse.data.facts import Facts, Finding, Rules
from jax_diffse.data.resampling import Resampling
from jax_diffse.errors import UserError

HEADER = 1 << 16  # bytes of an object that are read to know its length


class Store(Protocol):
    """Where the samples of recordings are, if not in a file each."""

    def read(self, row: int, start: int, stop: int | None) -> np.ndarray:
        """Reads samples [start, stop) of the recording of a row, float32 `[N]`."""


@dataclasses.dataclass(frozen=True)
class Objects:
    """Recordings in object storage, one in each object, a `Store`."""

    prefix: str  # of the address of every object
    facts: Facts

    def source(self, row: int, block: int = 0) -> files.StoredObject:
        """The object of a row, for `audio.read`."""
        return files.StoredObject(self.prefix + self.facts.paths[row], int(self.facts.size[row]), block)

    def read(self, row: int, start: int, stop: int | None) -> np.ndarray:
        """Reads samples [start, stop) of the recording of a row, float32 `[N]`."""
        return audio.read(self.source(row), start, stop)[0][:, 0]


@dataclasses.dataclass(frozen=True)
class AudioFile:
    """A checked recording of one channel, or a room impulse response, of which the first channel counts."""

    path: str
    name: str  # see `audio_files.name`
    num_samples: int
    resampling: Resampling | None = None  # of a file at another rate, whose `num_samples` and `read` are those after it
    label: str = ''  # the class of a noise, if it lies in a class folder or a table names it
    zeros: int = 0  # samples at its end that are not in the file, part of `num_samples`
    record: tuple[Store, int] | None = None  # where its samples are, if not in a file of its own

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return folder_of(self.path)

    @property
    def noise_class(self) -> str:
        """The class of a noise, or else the name of its folder."""
        return self.label or self.folder

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Reads samples [start, stop), float32 `[N]`, of the file or of the resampled file, and the zeros after it."""
        if self.zeros:
            whole = dataclasses.replace(self, zeros=0).read()
            return np.pad(whole, (0, self.num_samples - len(whole)))[start:stop]
        return self._stored(start, stop) if self.resampling is None else self.resampling.read(self._stored, start, stop)

    def _stored(self, start, stop) -> np.ndarray:
        if self.record is None:
            return audio.read(self.path, start, stop)[0][:, 0]
        store, row = self.record
        return store.read(row, start, stop)

    def extended(self, num_samples: int) -> 'AudioFile':
        """This file, with zeros at its end if it is shorter than `num_samples`."""
        zeros = max(0, num_samples - self.num_samples)
        return dataclasses.replace(self, num_samples=self.num_samples + zeros, zeros=self.zeros + zeros)


def folder_of(path: str) -> str:
    """The name of the folder that a file lies in."""
    return audio_files.normal(os.path.basename(os.path.dirname(path)))


@dataclasses.dataclass(frozen=True)
class AudioFiles(Sequence[AudioFile]):
    """Recordings of one folder in columns; an `AudioFile` is made when it is asked for.

    A recording of which nothing is known is opened then.
    """

    prefix: str  # of the path of every file
    facts: Facts  # of all files of the folder
    rules: Rules
    rows: np.ndarray  # the recordings, as rows of the facts
    store: Store | None = None  # where the samples are, if not in files
    labels: np.ndarray | None = None  # classes of noise, see `AudioFile.label`

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i):
        row = int(self.rows[i])
        if self.facts.num_samples[row] < 0:
            self._look(row)
        name, count, rate = self.facts.paths[row], int(self.facts.num_samples[row]), int(self.facts.sample_rate[row])
        read_at = self.rules.sample_rate or rate
        resampling = Resampling(count, rate, read_at) if rate != read_at else None
        return AudioFile(
            self.prefix + name, audio_files.stem(name), resampling.num_resampled if resampling else count, resampling,
            '' if self.labels is None else self.labels[i], record=None if self.store is None else (self.store, row))

    def _look(self, row: int) -> None:
        """Opens a file that nothing is known of.

        Raises:
          UserError: it cannot be used.
        """
        self.facts.put(row, Finding(*audio.info(self.source(row, HEADER))[:3]))
        problems = self.rules.header_problems(self.facts, np.array([row]))
        if problems:
            raise UserError(f'{self.path(row)}: {problems[row]}')

    def source(self, row: int, block: int = 0) -> str | files.StoredObject:
        """What `audio.read` reads for a row of the facts.

        Args:
          row: of a recording that is in a file or object of its own.
          block: bytes of an object that are read at once, see `files.StoredObject`.
        """
        return self.store.source(row, block) if isinstance(self.store, Objects) else self.path(row)

    @property
    def in_store(self) -> bool:
        """Whether they are in object storage."""
        return files.is_address(self.prefix)

    def path(self, row: int) -> str:
        """The path of the file of a row of the facts."""
        return self.prefix + self.facts.paths[row]

    def names(self) -> list[str]:
        """The names of the recordings, see `audio_files.name`."""
        paths = list(self.facts.paths)
        names = [paths[row] for row in self.rows]
        del paths
        for i, path in enumerate(names):  # in place: a million names in memory once
            names[i] = audio_files.stem(path)
        return names

    def num_samples(self) -> np.ndarray:
        """Numbers of samples `[files]` at `rates`; -1 where not known."""
        return self.rules.num_samples(self.facts, self.rows)

    def rates(self) -> np.ndarray:
        """The rates `[files]`, in Hz, that the recordings are read at."""
        return self.rules.rates(self.facts, self.rows)

    def noise_classes(self) -> list[str]:
        """The `noise_class` of every recording."""
        labels = [''] * len(self) if self.labels is None else self.labels.tolist()
        return [label or folder_of(self.path(row)) for label, row in zip(labels, self.rows.tolist(), strict=True)]

    def take(self, indices, labels: Sequence[str] | None = None) -> 'AudioFiles':
        """Some of the recordings, and their classes."""
        labels = self.labels[indices] if labels is None and self.labels is not None else labels
        return dataclasses.replace(self, rows=self.rows[np.asarray(indices, np.int64)], labels=(
            None if labels is None else np.array(labels, object)))
