"""Lists of some of the files of a folder, a path on each line: `jax-diffse pack --list`."""

import os
import posixpath

from jax_diffse import audio_files, files
from jax_diffse.data import scan
from jax_diffse.errors import UserError


def read(folder: str, path: str) -> list[str] | None:
    """Reads the paths that a file lists, below the folder, in the order of `audio_files.list_paths`.

    Args:
      folder: of the files, on this machine or in object storage.
      path: the list; '': none, and None is returned.

    Raises:
      UserError: the list cannot be read, names no files, or names one that is not below the folder or no audio.
    """
    if not path:
        return None
    try:
        lines = files.path(path).read_text(encoding='utf-8-sig').split('\n')
    except (OSError, ValueError) as error:
        raise UserError(f'--list={path}: cannot be read ({files.reason(error)})') from error
    found = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        below = _below(folder, line)
        if below.startswith('../'):
            raise UserError(f'--list={path}: line {number}: {line} does not lie in {folder}')
        if os.path.splitext(below)[1].lower() not in audio_files.EXTENSIONS:
            raise UserError(f'--list={path}: line {number}: {line} is not an audio file by its extension')
        found.add(below)
    if not found:
        raise UserError(f'--list={path}: lists no files, expected one path a line')
    return sorted(found, key=lambda name: name.replace('/', '\0'))


def partners(folder: str, listed: list[str]) -> list[str]:
    """Finds the paths below `folder` that may be partners of the listed ones, by name or else by file id.

    Raises:
      UserError: there are none.
    """
    paths, names = audio_files.list_paths(folder), set(map(audio_files.stem, listed))
    ids = set(map(scan.file_id, names))
    found = [path for path in paths if audio_files.stem(path) in names]
    found = found or [path for path in paths if scan.file_id(audio_files.stem(path)) in ids]
    if not found:
        raise UserError(f'{folder}: has no partner of a listed file')
    return found


def _below(folder: str, line: str) -> str:
    """The path below a folder, '../' and more if it is not there, of a path that may begin with the folder."""
    if files.is_address(line):
        above = f'{folder}/'
        return posixpath.normpath(line.removeprefix(above)) if line.startswith(above) else f'../{line}'
    if files.is_address(folder):
        return posixpath.normpath(line)
    return os.path.relpath(os.path.join(folder, line), folder).replace(os.sep, '/')
