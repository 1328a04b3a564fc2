"""Finds the speaker of each file of a corpus from the layout of its folders."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from jax_diffse.errors import UserError


class Speakers(NamedTuple):
    """The speaker of every file, and how it was found."""

    of: dict[str, str]  # name of a file -> its speaker
    found: str  # what is used as speakers, in words; '': each file counts as a speaker of its own
    doubt: str = ''  # what else may be the speakers, in words; these would be both in training and held out


def speakers(names: Iterable[str], level: int = 0, key: str = '') -> Speakers:
    """Finds the speakers of files that are named by their paths below a folder.

    With `level` 0, the speakers are the first of these that exists:

    - the readers in the names of all files, as in the DNS challenge (`book_00007_chp_0008_reader_01326_1`);
    - the folders whose names begin the names of all files below them, as in LibriSpeech and VCTK
      (`wav48/p225/p225_001`);
    - the first level with several folders; if names of a deeper level recur in several of them, as with a folder for
      each microphone, the level with more names;
    - without folders, the beginnings of the names up to the first `_` or `-`, as in VoiceBank (`p226_001`), if one of
      them has several files.

    The first level may be one of dialects or subsets. That is too coarse, but no speaker is then both in training and
    held out. If names of another level, or beginnings of names, recur in several of the chosen folders, these may be
    the speakers instead.

    Args:
      names: '/' between parts, without extension.
      level: of the folder that names the speaker, 1 for the first level below the root.
      key: the config key of `level`, for messages.

    Raises:
      UserError: a file lies in too few folders.
    """
    names = list(names)
    places = {place: place.split('/')[:-1] for place in dict.fromkeys(map(_place, names))}
    if level:
        shallow = next((name for name in names if len(places[_place(name)]) < level), None)
        if shallow is not None:
            raise UserError(f'{key}={level}: {shallow} lies in {len(places[_place(shallow)])} folders, expected '
                            f'{level} or more')
        chosen = level - 1
    elif names and all(map(_reader, names)):
        return Speakers({name: _reader(name) for name in names}, 'the readers in the names of files')
    else:
        chosen = _level(names, places)
    if chosen is not None:
        at = {place: _at(place, path, chosen) for place, path in places.items()}
        of = {name: at[_place(name)] for name in names}
        return Speakers(of, f'folders of level {chosen + 1}', '' if level else _doubt(places, at, of, chosen))
    if 1 < _num_beginnings(names) < len(names):
        return Speakers({name: _beginning(name) for name in names}, 'the beginnings of the names of files')
    return Speakers({name: name for name in names}, '')


def _place(name: str) -> str:
    """The folder of a file, with a slash at its end, or without a folder the file itself."""
    return name[:name.rfind('/') + 1] or name


def _reader(name: str) -> str:
    found = re.search(r'_(reader_\d+)(?:_|$)', name.rpartition('/')[2])
    return found[1] if found else ''


def _beginning(name: str) -> str:
    return name.rpartition('/')[2].replace('-', '_').partition('_')[0]


def _num_beginnings(names: list[str]) -> int:
    """The number of different beginnings; a hash each takes less memory than a million strings."""
    return len(np.unique(np.fromiter((hash(_beginning(name)) for name in names), np.int64, len(names))))


def _doubt(places: dict[str, list[str]], at: dict[str, str], of: dict[str, str], chosen: int) -> str:
    """What may be the speakers instead: another level that crosses the chosen one, or beginnings of names."""
    count = len(set(at.values()))
    for level in range(max(map(len, places.values()))):
        names = {place: _at(place, path, level) for place, path in places.items()}
        if level != chosen and 1 < len(set(names.values())) and _recurs(names, at) and _recurs(at, names):
            return f'folders of level {level + 1}'
    several = count <= _num_beginnings(list(of)) < len(of)
    recur = several and _recurs({name: _beginning(name) for name in of}, of)
    return 'the beginnings of the names of files' if recur else ''


def _at(place: str, path: list[str], level: int) -> str:
    """The folder of a level; for files in fewer folders, the last one, or the file itself."""
    return path[level] if level < len(path) else path[-1] if path else place


def _level(names: list[str], places: dict[str, list[str]]) -> int | None:
    """The level whose folders are speakers; None if there are not several folders."""
    depth = max(map(len, places.values()), default=0)
    at = [{place: _at(place, path, level) for place, path in places.items()} for level in range(depth)]
    several = [level for level in range(depth) if len(set(at[level].values())) > 1]
    for level in several:
        if all(name.rpartition('/')[2].startswith(at[level][_place(name)]) for name in names):
            return level
    chosen = None
    for level in several:
        if chosen is None or (len(set(at[level].values())) > len(set(at[chosen].values()))
                              and _recurs(at[level], at[chosen])):
            chosen = level
    return chosen


def _recurs(deep: dict[str, str], shallow: dict[str, str]) -> bool:
    """Whether a folder of the deeper level occurs in several of the shallower one."""
    above: dict[str, str] = {}
    return any(above.setdefault(folder, shallow[name]) != shallow[name] for name, folder in deep.items())
