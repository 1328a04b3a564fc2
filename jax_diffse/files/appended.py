"""Files that a process appends lines to, such as logs."""

import datetime
import os
import pathlib
import re
import time

from jax_diffse.files.paths import is_address, path
from jax_diffse.files.store import read_bytes

PART_SECONDS = 60.0  # between parts


class AppendedFile:
    """A file that lines are appended to.

    Object storage cannot append, and writing the whole file anew for each line would take time that grows with its
    square. There each `PART_SECONDS` seconds of lines become a part of their own beside the file's name, with the time
    in its name: `log-20261231T235959.123456.jsonl`. Sorted by name they are in order, see `read_appended`.

    Raises:
      OSError: the file, or a part of it, cannot be written.
    """

    def __init__(self, file: str | os.PathLike):
        self._path = path(file)
        self._local = None if is_address(self._path) else self._path.open('a', encoding='utf-8')
        self._text, self._since = '', time.monotonic()

    def write(self, text: str) -> None:
        """Appends text, which ends with a line break, and writes it through, in object storage as part of a part."""
        if self._local:
            self._local.write(text)
            self._local.flush()
            return
        self._text += text
        if time.monotonic() - self._since >= PART_SECONDS:
            self._write_part()

    def close(self) -> None:
        """Writes what is left and closes the file."""
        if self._local:
            self._local.close()
        else:
            self._write_part()

    def _write_part(self) -> None:
        if self._text:
            self._path.with_name(part_name(self._path.name)).write_text(self._text, encoding='utf-8')
        self._text, self._since = '', time.monotonic()


def part_name(name: str) -> str:
    """The name of a new part of a file."""
    now = datetime.datetime.now(datetime.UTC).strftime('%Y%m%dT%H%M%S.%f')
    stem, dot, extension = name.rpartition('.')
    return f'{stem}-{now}{dot}{extension}' if stem else f'{name}-{now}'


def read_appended(file: str | os.PathLike) -> str:
    """The text of an `AppendedFile`, of all its parts in object storage; damaged characters are replaced.

    Raises:
      FileNotFoundError: there is none.
      OSError: it cannot be read.
    """
    file = path(file)
    if not is_address(file):
        return file.read_text(encoding='utf-8', errors='replace')
    stem, dot, extension = file.name.rpartition('.')
    start, end = (f'{stem}-', dot + extension) if stem else (f'{file.name}-', '')
    pattern = re.compile(re.escape(start) + r'\d{8}T\d{6}\.\d{6}' + re.escape(end))
    parts = sorted(part for part in _siblings(file) if pattern.fullmatch(part.name))
    if not parts:
        raise FileNotFoundError(2, 'No such file or directory', os.fspath(file))
    return ''.join(read_bytes(part).decode(errors='replace') for part in parts)


def _siblings(file: pathlib.Path) -> list[pathlib.Path]:
    try:
        return list(file.parent.iterdir())
    except FileNotFoundError:
        return []
