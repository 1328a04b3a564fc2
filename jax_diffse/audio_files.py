"""Finds the audio files of a folder, and names them."""

import collections
import functools
import os
import pathlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from jax_diffse import files
from jax_diffse.errors import UserError

# The formats that libsndfile reads, without headerless files and those of Matlab, which rarely hold sound.
EXTENSIONS = ('.wav', '.flac', '.mp3', '.ogg', '.opus', '.aiff', '.aif', '.aifc', '.au', '.snd', '.caf', '.w64',
              '.rf64', '.wave', '.bwf', '.oga', '.mp1', '.mp2', '.sph', '.nist', '.voc', '.8svx', '.svx', '.iff',
              '.avr', '.ircam', '.sf', '.paf', '.pvf', '.xi', '.wve')
_EXTENSIONS = frozenset(EXTENSIONS)


def name(path: str | os.PathLike, root: str | os.PathLike) -> str:
    """The name of a file below a folder: its path there, '/' between parts, without extension.

    Names are in Unicode's normal form C, because file systems and programs store the same letters differently, and
    partners are found by name.
    """
    return normal(files.path(path).relative_to(root).with_suffix('').as_posix())


def stem(path: str) -> str:
    """The name of a file, from its path below the folder as `list_paths` returns it."""
    return normal(path.rpartition('.')[0])


def normal(text: str) -> str:
    """Returns a name in Unicode's normal form C, in which all names are compared."""
    return unicodedata.normalize('NFC', text)


def find(root: str | os.PathLike) -> list[pathlib.Path]:
    """Finds all audio files below a directory, see `list_paths`."""
    folder = files.path(root)
    return [folder / path for path in list_paths(root)]


def list_paths(root: str | os.PathLike) -> list[str]:
    """Lists all audio files below a directory, and prints how many other files were left out and why.

    Hidden files are left out. Links to folders are followed, each folder once. Links that lead nowhere are returned
    too, so that the caller reports them when it reads them.

    Returns:
      Paths below the directory, '/' between parts, sorted part by part.

    Raises:
      UserError: there is no such directory.
    """
    root = os.fspath(root)
    return list(list_objects(root)) if files.is_address(root) else _select(root, _local_files(root))


def list_objects(root: str) -> dict[str, files.Entry]:
    """Lists all audio files below an address as `list_paths` does, and returns what the listing says of each.

    Raises:
      UserError: there is nothing below the address, or it cannot be read.
    """
    try:
        listed = files.listing(root)
    except OSError as error:
        raise UserError(f'{root}: cannot be read ({files.reason(error)})') from error
    if not listed and files.is_file(root):
        raise UserError(f'{root}: a file, expected a directory')
    if not listed and len(files.path(root).parts) > 3:  # a bucket itself may be empty
        raise UserError(f'{root}: no such directory')
    above = os.fspath(files.path(root)) + '/'  # as in the listing, without empty names of folders
    paths = (address.removeprefix(above) for address in listed)
    return {path: listed[above + path] for path in _select(root, ((path, _left_out_by_name(path)) for path in paths))}


def _select(root: str, found: Iterable[tuple[str, str]]) -> list[str]:
    """Sorts the paths that are not left out, and prints why others are.

    Args:
      root: the folder, for messages.
      found: paths below it, and why each is left out, or ''.
    """
    kept, left_out = [], collections.Counter()
    for path, reason in found:
        if not reason:
            kept.append(path)
        elif reason != 'hidden' or _suffix(path) in _EXTENSIONS:  # nobody misses the others, such as .DS_Store
            left_out[reason] += 1
    if left_out:
        reasons = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
        _say_once(f'{root}: left out {left_out.total()} of {left_out.total() + len(kept)} files: '
                  + ', '.join(f'{count} {reason}' for reason, count in reasons))
    kept.sort(key=lambda path: path.replace('/', '\0'))  # a folder comes before 'folder-2', as its parts do
    return kept


def _local_files(root: str) -> Iterator[tuple[str, str]]:
    """Yields all files below a folder, and why they are left out, or ''."""
    if not os.path.isdir(root):
        raise UserError(f'{root}: no such directory')
    if not os.access(root, os.R_OK | os.X_OK):
        raise UserError(f'{root}: cannot be read (Permission denied)')
    for path, entry in _entries(root):
        yield path, _left_out(path, entry)


def _entries(root: str) -> Iterator[tuple[str, os.DirEntry | None]]:
    """Yields all files below a folder, with hidden ones and those of linked folders, each folder once.

    A folder that cannot be read is yielded as well, without an entry.
    """
    seen, links, folders = set(), collections.deque(), [(root, '')]
    while folders or links:
        linked = not folders
        folder, below = links.popleft() if linked else folders.pop()
        if not os.access(folder, os.R_OK | os.X_OK):
            yield below.removesuffix('/'), None
            continue
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if not _is(entry.is_dir):
                    yield below + entry.name, entry
                elif entry.is_symlink():
                    links.append((entry.path, f'{below}{entry.name}/'))
                else:
                    folders.append((entry.path, f'{below}{entry.name}/'))


def _is(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except OSError:  # a loop of links
        return False


def _left_out(path: str, entry: os.DirEntry | None) -> str:
    """Why a file is left out, or ''."""
    if entry is None:
        return 'hidden' if _is_hidden(path) else 'folders that cannot be read'
    reason = _left_out_by_name(path)
    if reason or _is(entry.is_file) or not os.path.exists(entry.path):
        return reason
    return 'not a file but a device or pipe'


def _left_out_by_name(path: str) -> str:
    if _is_hidden(path):
        return 'hidden'
    if path.startswith('/') or '//' in path:
        return 'with an empty name of a folder'
    suffix = _suffix(path)
    if suffix in _EXTENSIONS:
        return ''
    return f'{suffix if len(suffix) > 1 else "without an extension"} (not an audio format)'


def _suffix(path: str) -> str:
    name = path.rpartition('/')[2]
    return name[name.rfind('.'):].lower() if '.' in name else ''


def _is_hidden(path: str) -> bool:
    return path.startswith('.') or '/.' in path


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
