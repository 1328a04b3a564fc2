"""What is known of the files of a folder, in columns, and the rules that say which of them can be used."""

import dataclasses
from typing import NamedTuple

import numpy as np

from jax_diffse import audio
from jax_diffse.data.columns import Columns, Names

UNREAD, SOUND, NAN, SILENT = range(4)  # what the samples of a file are
CHECKS = ('full', 'header', 'none')
_TYPES = {'size': np.int64, 'changed': np.int64, 'num_samples': np.int64, 'sample_rate': np.int32,
          'num_channels': np.int16, 'content': np.int8, 'resampled': np.int32}


class Finding(NamedTuple):
    """What is found in a file."""

    sample_rate: int  # Hz
    num_samples: int
    num_channels: int
    content: int = UNREAD
    resampled: int = 0  # the rate, in Hz, that it was resampled to, negative if it was silent then; 0: it was not


@dataclasses.dataclass
class Facts:
    """What is known of the files of a folder, a row each. Arrays have the axis `[files]`."""

    paths: Names  # below the folder
    size: np.ndarray  # bytes
    changed: np.ndarray  # time of the last change, ns
    num_samples: np.ndarray  # -1: not known
    sample_rate: np.ndarray  # Hz
    num_channels: np.ndarray
    content: np.ndarray  # UNREAD, SOUND, NAN or SILENT
    resampled: np.ndarray  # see `Finding`

    @classmethod
    def unknown(cls, paths: Names) -> 'Facts':
        """The facts of files that nothing is known of."""
        facts = cls(paths, **{name: np.zeros(len(paths), kind) for name, kind in _TYPES.items()})
        facts.num_samples[:] = -1
        return facts

    @classmethod
    def from_columns(cls, columns: Columns) -> 'Facts':
        """The facts of a stored table.

        Raises:
          ValueError: it lacks columns.
        """
        try:
            return cls(columns['paths'], **{name: columns[name].astype(kind) for name, kind in _TYPES.items()})
        except (KeyError, AttributeError) as error:
            raise ValueError(f'no column {error}') from error

    def columns(self, rows: np.ndarray) -> Columns:
        """The table of some rows."""
        return {'paths': self.paths.take(rows), **{name: getattr(self, name)[rows] for name in _TYPES}}

    def __len__(self) -> int:
        return len(self.paths)

    def adopt(self, known: 'Facts', whatever_changed: bool = False) -> None:
        """Takes over what more is known of files of the same path, size and time, or of the same path."""
        if not known:
            return
        if self.paths == known.paths:
            rows = np.arange(len(self))
        else:
            at = {path: row for row, path in enumerate(known.paths)}
            rows = np.fromiter((at.get(path, -1) for path in self.paths), np.int64, len(self))
        same = rows >= 0
        if not whatever_changed:
            same &= (self.size == known.size[rows]) & (self.changed == known.changed[rows])
        same &= (known.num_samples[rows] >= 0) & ((self.num_samples < 0) | (known.content[rows] != UNREAD))
        for name in _TYPES:
            getattr(self, name)[same] = getattr(known, name)[rows[same]]

    def equals(self, known: 'Facts') -> bool:
        """Whether the same is known of the same files."""
        return self.paths == known.paths and all(
            np.array_equal(getattr(self, name), getattr(known, name)) for name in _TYPES)

    def put(self, row: int, finding: Finding) -> None:
        """Stores what was found in a file."""
        for name, value in finding._asdict().items():
            getattr(self, name)[row] = value


@dataclasses.dataclass(frozen=True)
class Rules:
    """Which files can be used."""

    sample_rate: int  # of every file, in Hz; 0: any
    min_seconds: float  # the minimum duration
    resample: bool = False  # also accept files at another rate, and resample them whenever they are read
    check: str = 'full'  # 'full': every file is decoded once; 'header': opened once; 'none': opened when it is used

    def rates(self, facts: Facts, rows: np.ndarray) -> np.ndarray:
        """The rates `[rows]`, in Hz, that files are read at."""
        rates = facts.sample_rate[rows].astype(np.int64)
        return np.full_like(rates, self.sample_rate) if self.sample_rate else rates

    def num_samples(self, facts: Facts, rows: np.ndarray) -> np.ndarray:
        """Numbers of samples `[rows]` at these rates; -1 where not known."""
        count, rate = facts.num_samples[rows], facts.sample_rate[rows].astype(np.int64)
        return np.where(count < 0, -1, audio.num_resampled(count, np.maximum(rate, 1), self.rates(facts, rows)))

    def header_problems(self, facts: Facts, rows: np.ndarray) -> dict[int, str]:
        """What is wrong with files, from what their headers say: row -> reason."""
        count, rate, channels = facts.num_samples[rows], facts.sample_rate[rows], facts.num_channels[rows]
        read_at, resampled, problems = self.rates(facts, rows), self.num_samples(facts, rows), {}
        for wrong, reason in (
                (count == 0, lambda k: 'the file is empty'),
                ((rate != read_at) & (not self.resample), lambda k: (
                    f'{rate[k]} Hz, expected {read_at[k]} Hz; --config.data.resample=True (evaluate: '
                    '--resample) resamples it')),
                (channels != 1, lambda k: f'{channels[k]} channels, expected 1'),
                (resampled < self.min_seconds * read_at, lambda k: (
                    f'too short: {resampled[k] / read_at[k]:.3f} s, expected {self.min_seconds:g} s or more'))):
            for k in np.flatnonzero(wrong & (count >= 0)).tolist():
                problems.setdefault(int(rows[k]), reason(k))
        return problems

    def refuses(self, header: Finding) -> bool:
        """Whether a file cannot be used, from what its header says."""
        facts = Facts.unknown(Names.of(['']))
        facts.put(0, header)
        return bool(self.header_problems(facts, np.arange(1)))

    def problems(self, facts: Facts, rows: np.ndarray) -> dict[int, str]:
        """What is wrong with files: row -> reason. Samples count only if all files are decoded."""
        problems = self.header_problems(facts, rows)
        if self.check != 'full':
            return problems
        content = facts.content[rows]
        other_rate = facts.sample_rate[rows] != self.rates(facts, rows)
        for wrong, reason in (
                (content == NAN, 'has NaN or infinite samples'), (content == SILENT, 'silent'),
                (other_rate & (facts.resampled[rows] == -self.sample_rate),
                 f'silent at {self.sample_rate} Hz: all its sound is above half that rate')):
            for k in np.flatnonzero(wrong).tolist():
                problems.setdefault(int(rows[k]), reason)
        return problems

    def undecided(self, facts: Facts) -> np.ndarray:
        """The rows of files that have to be looked at before `problems` can tell."""
        unknown = facts.num_samples < 0
        if self.check == 'full':
            unheard = facts.content == UNREAD
            every = np.arange(len(facts))
            read_at = self.rates(facts, every)
            unheard |= (facts.content == SOUND) & (facts.sample_rate != read_at) & (np.abs(facts.resampled) != read_at)
            refused = np.zeros(len(facts), bool)
            refused[list(self.header_problems(facts, every))] = True
            unknown |= unheard & ~refused
        return np.flatnonzero(unknown)
