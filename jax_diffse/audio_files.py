"""Finds the audio files of a folder, and names them."""

import collections
import functools
import os
import pathlib
import unicodedata
from collections.abc import Iterator

from jax_diffse.errors import UserError

# The formats that libsndfile reads, without headerless files and those of Matlab, which rarely hold sound.
EXTENSIONS = ('.wav', '.flac', '.mp3', '.ogg', '.opus', '.aiff', '.aif', '.aifc', '.au', '.snd', '.caf', '.w64',
              '.rf64', '.wave', '.bwf', '.oga', '.mp1', '.mp2', '.sph', '.nist', '.voc', '.8svx', '.svx', '.iff',
              '.avr', '.ircam', '.sf', '.paf', '.pvf', '.xi', '.wve')


def name(path: str | os.PathLike, root: str | os.PathLike) -> str:
    """The name of a file below a folder: its path there, '/' between parts, without extension.

    Names are in Unicode's normal form C, because file systems and programs store the same letters differently, and
    partners are found by name.
    """
    return normal(pathlib.Path(path).relative_to(root).with_suffix('').as_posix())


def normal(text: str) -> str:
    """Returns a name in Unicode's normal form C, in which all names are compared."""
    return unicodedata.normalize('NFC', text)


def find(root: str | os.PathLike) -> list[pathlib.Path]:
    """Finds all audio files below a directory, sorted, and prints how many other files were left out and why.

    Hidden files are left out. Links to folders are followed, each folder once. Links that lead nowhere are returned
    too, so that the caller reports them when it reads them.

    Raises:
      UserError: there is no such directory.
    """
    root = pathlib.Path(root)
    if not os.path.isdir(root):
        raise UserError(f'{root}: no such directory')
    if not os.access(root, os.R_OK | os.X_OK):
        raise UserError(f'{root}: cannot be read (Permission denied)')
    found, left_out = [], collections.Counter()
    for path in _files(root):
        reason = _left_out(path, root)
        if reason:
            left_out[reason] += 1
        else:
            found.append(path)
    if left_out:
        reasons = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
        _say_once(f'{root}: left out {left_out.total()} of {left_out.total() + len(found)} files: '
                  + ', '.join(f'{count} {reason}' for reason, count in reasons))
    return sorted(found)


def _files(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields all files below a folder, with hidden ones and those of linked folders, each folder once.

    Folders that cannot be read are yielded as well.
    """
    seen, links, folders = set(), collections.deque(), [root]
    while folders or links:
        linked = not folders
        folder = links.popleft() if linked else folders.pop()
        if not os.access(folder, os.R_OK | os.X_OK):
            yield folder
            continue
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = pathlib.Path(entry.path)
                if not _is_folder(entry):
                    yield path
                elif entry.is_symlink():
                    links.append(path)
                else:
                    folders.append(path)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _left_out(path: pathlib.Path, root: pathlib.Path) -> str:
    """Why a file is left out, or ''."""
    if any(part.startswith('.') for part in path.relative_to(root).parts):
        return 'hidden'
    if os.path.isdir(path):
        return 'folders that cannot be read'
    if path.suffix.lower() in EXTENSIONS:
        return '' if os.path.isfile(path) or not os.path.exists(path) else 'not a file but a device or pipe'
    kind = path.suffix.lower() or 'without an extension'
    return f'{kind} (not an audio format)'


@functools.lru_cache(maxsize=256)
def _say_once(line: str) -> None:
    print(line, flush=True)


def by_name(root: str | os.PathLike) -> dict[str, pathlib.Path]:
    """Finds all audio files below a directory, by their `name`.

    Raises:
      UserError: there is no such directory, or two files have the same name.
    """
    found: dict[str, pathlib.Path] = {}
    for path in find(root):
        own = name(path, root)
        if own in found:
            raise UserError(f'{path}: has the same name as {found[own]}, expected one file per name; remove one')
        found[own] = path
    return found
