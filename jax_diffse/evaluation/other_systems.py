"""Finds the files that any systems made for a list of utterances, by name."""

import dataclasses
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jax_diffse import audio_files, files
from jax_diffse.errors import UserError
from jax_diffse.evaluation.results import NOISY
from jax_diffse.evaluation.scorer import Scored
from jax_diffse.evaluation.signals import Reading, Signal, headers
from jax_diffse.evaluation.utterances import partner
from jax_diffse.metrics.scoring import CLEAN

SHOWN = 5  # names that a line lists


@dataclasses.dataclass(frozen=True)
class SystemFiles:
    """The files of a system."""

    name: str
    folder: str
    paths: tuple[pathlib.Path | None, ...]  # per utterance; None: there is no such file
    unused: tuple[str, ...]  # names of files that belong to no utterance

    @property
    def count(self) -> int:
        """The number of utterances with a file."""
        return sum(path is not None for path in self.paths)

    def lacking(self, ids: Sequence[str]) -> list[str]:
        """The utterances without a file."""
        return [name for name, path in zip(ids, self.paths, strict=True) if path is None]


def parse(texts: Sequence[str], flag: str = '', reserved: Sequence[str] = (CLEAN, NOISY)) -> dict[str, str]:
    """'NAME=DIR' of every system -> name -> folder.

    Args:
      texts: as typed.
      flag: before each of them, for messages.
      reserved: names that mean something else.

    Raises:
      UserError: another form, a reserved name or a name that is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, folder = text.partition('=')
        name, shown = audio_files.normal(name.strip()), f'{flag} {text}'.strip()
        if not equals or not name or not folder or '/' in name:
            raise UserError(f'{shown}: expected NAME=DIR, a name for the system and the folder of its files')
        if name in reserved:
            raise UserError(f'{shown}: {name!r} is the name of another column; choose another name')
        if not name.isprintable():
            raise UserError(f'{shown}: {name!r} is no name that can be printed')
        if name in found:
            raise UserError(f'{shown}: {name!r} is given twice; choose another name for one of the folders')
        found[name] = files.given(folder)
    return found


class Folder(NamedTuple):
    """The audio files of a folder, by name."""

    path: str
    files: dict[str, pathlib.Path]

    def without(self, names: Collection[str]) -> 'Folder':
        """The folder without the files of these names."""
        return Folder(self.path, {name: path for name, path in self.files.items() if name not in names})


def list_folders(named: Mapping[str, str | os.PathLike]) -> dict[str, Folder]:
    """Finds the files of folders.

    Raises:
      UserError: a folder does not exist, or two of its files have one name.
    """
    return {name: Folder(os.fspath(path), audio_files.by_name(path)) for name, path in named.items()}


def open_systems(folders: Mapping[str, Folder], ids: Sequence[str], reading: Reading) -> 'OtherSystems':
    """Finds the files of systems for utterances, named by their ids, of any extension and Unicode form.

    Prints which files of which system are there, are missing and are not used.

    Args:
      folders: name of the system -> its files.
      ids: of the utterances.
      reading: how files are read.

    Raises:
      UserError: no file of a system belongs to an utterance, or `Reading.check` refuses files.
    """
    found = OtherSystems(tuple(ids), tuple(_find(name, folder, ids) for name, folder in folders.items()), reading)
    reading.check(headers(path for system in found.systems for path in system.paths if path))
    for system in found.systems:
        lacking = system.lacking(ids)
        print(f'{system.name}: {system.count} of {len(ids)} files' + (f'; lacks {listed(lacking)}' if lacking else '')
              + (f'; not used, as they are named as no utterance: {listed(system.unused)}' if system.unused else ''),
              flush=True)
    return found


def _find(name: str, folder: Folder, ids: Sequence[str]) -> SystemFiles:
    paths = tuple(partner(folder.files, utterance) for utterance in ids)
    if not any(paths):
        example = next(iter(folder.files), None)
        held = f'its files are named as {example!r}' if example else 'it has no audio files'
        raise UserError(f'{folder.path}: no file has the name of one of the {len(ids)} utterances, which are named as '
                        f'{ids[0]!r}; {held}')
    used = set(paths)
    return SystemFiles(name, folder.path, paths, tuple(key for key, path in folder.files.items() if path not in used))


def listed(names: Sequence[str]) -> str:
    """The first names of a list, and how many others there are."""
    more = len(names) - SHOWN
    return ', '.join(names[:SHOWN]) + (f' and {more} more' if more > 0 else '')


@dataclasses.dataclass(frozen=True)
class OtherSystems:
    """The files of several systems for one list of utterances."""

    ids: tuple[str, ...]  # of the utterances
    systems: tuple[SystemFiles, ...]
    reading: Reading  # how files are read

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the systems."""
        return tuple(system.name for system in self.systems)

    def signals(self, i: int, clean: np.ndarray | None, reason: str = '',
                noisy: np.ndarray | None = None) -> dict[str, Signal]:
        """The signals of utterance i, by system, of those that have a file for it.

        Args:
          i: index of the utterance.
          clean: its clean speech `[N]`; None: there is none, or it cannot be read.
          reason: why it cannot be read.
          noisy: its noisy speech `[N]`, if a metric needs the noise.
        """
        return {system.name: self.reading.signal(system.paths[i], clean, reason, noisy)
                for system in self.systems if system.paths[i] is not None}

    def waveforms(self, i: int, clean: np.ndarray | None) -> dict[str, np.ndarray]:
        """The samples of utterance i, by system, of those that have a readable file for it."""
        return {name: signal.samples for name, signal in self.signals(i, clean).items() if signal.samples is not None}

    def summary(self, found: Sequence[Mapping[str, Scored]]) -> dict[str, dict]:
        """For a report: system -> folder, files, and what lacks, is not used or lies beside the clean speech.

        Args:
          found: utterance -> system -> scores.
        """
        return {system.name: {
            'folder': system.folder, 'files': system.count, 'lacking': system.lacking(self.ids),
            'unused': list(system.unused), 'sample_rate': self.reading.sample_rate,
            'tolerance': self.reading.tolerance,
            **{kind: {name: getattr(rows[system.name], kind) for name, rows in zip(self.ids, found, strict=True)
                      if system.name in rows and getattr(rows[system.name], kind)} for kind in ('offset', 'excess')},
        } for system in self.systems}


NONE = OtherSystems((), (), Reading(16_000))


def described(systems: Mapping[str, Mapping], aligned: bool) -> list[str]:
    """Lines on missing files, offsets and lengths, from `OtherSystems.summary`, of the systems that have any."""
    lines = []
    if any(system['lacking'] for system in systems.values()):
        lines.append('not every system has every file: compare systems by their paired differences, not by means over '
                     'different files')
    for name, system in systems.items():
        late, excess, rate = list(system['offset'].values()), list(system['excess'].values()), system['sample_rate']
        if late:
            middle = sorted(late)[len(late) // 2]
            lines.append(f'{name}: {len(late)} of {system["files"]} files are offset from the clean speech by '
                         f'{span(late)} samples, median {middle:+d} ({1000 * middle / rate:+.1f} ms; + is late); '
                         + ('removed before scoring' if aligned else 'not removed (score: --align)'))
        if excess:
            lines.append(f'{name}: {len(excess)} of {system["files"]} files differ in length from the clean speech by '
                         f'{span(excess)} samples; up to {system["tolerance"]:g} s are cut off, beyond that metrics '
                         'that compare are n/a')
    return lines


def span(values: Collection[int]) -> str:
    """The range of whole numbers, in words."""
    low, high = min(values), max(values)
    return f'{low:+d}' if low == high else f'{low:+d} to {high:+d}'
