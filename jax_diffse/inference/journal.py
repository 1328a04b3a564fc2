"""Records the finished results of `jax-diffse enhance`, so that an interrupted command can resume."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

from jax_diffse import files

NAME = '.enhanced.jsonl'


class Journal:
    """A file with a line per result: the setting, digests of the inputs, and sizes and times of the output files.

    Recordings are identified by their content: two with the same name, size and time may differ. In object storage, the
    digests and versions are the store's, and come with the listings of the folders.

    Args:
      folder: of the results.
      setting: everything that determines a result besides its recording, for JSON.
    """

    def __init__(self, folder: str | os.PathLike, setting: Mapping):
        self._path = files.path(folder) / NAME
        self._setting = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:16]
        text = ''
        with contextlib.suppress(OSError):
            text = files.read_appended(self._path)
        self._lines, self._complete = set(text.splitlines()), text.endswith('\n') or not text
        self._names = {name for name in map(_name, self._lines) if name}
        self._file: files.AppendedFile | None = None
        self._listings: dict[pathlib.Path, dict[str, files.Entry]] = {}  # of folders in object storage

    def has(self, name: str, inputs: Sequence[pathlib.Path], outputs: Sequence[pathlib.Path]) -> bool:
        """Whether an unchanged result of exactly these recordings exists."""
        try:
            return name in self._names and self._line(name, digests(inputs, self._listed),
                                                      [_stamp(path, self._listed) for path in outputs]) in self._lines
        except OSError:
            return False

    def add(self, name: str, input_digests: Sequence[str], outputs: Sequence[pathlib.Path]) -> None:
        """Records a finished result; `input_digests` are the `digests` of its recordings, taken before enhancement."""
        with contextlib.suppress(OSError):  # without its line, a result is only computed again
            line = self._line(name, input_digests, [_stamp(path) for path in outputs])
            if self._file is None:
                self._file = files.AppendedFile(self._path)
            self._file.write(line + '\n' if self._complete else f'\n{line}\n')  # after a line that was cut off
            self._complete = True

    def close(self) -> None:
        """Writes what is not written yet."""
        with contextlib.suppress(OSError):
            if self._file:
                self._file.close()

    def _line(self, name: str, input_digests: Sequence[str], stamps: Sequence[list]) -> str:
        return json.dumps([name, self._setting, list(input_digests), list(stamps)])

    def _listed(self, path: pathlib.Path) -> files.Entry:
        """What the listing of its folder says of an object; for many of them, one request."""
        if path.parent not in self._listings:
            self._listings[path.parent] = files.listing(path.parent)
        try:
            return self._listings[path.parent][str(path)]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None


def _name(line: str) -> str | None:
    """The name in a line; None if the line is cut off or damaged."""
    try:
        name = json.loads(line)[0]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def _stamp(path: pathlib.Path, entry_of: Callable[[pathlib.Path], files.Entry] = files.entry) -> list:
    """What changes when a file is written: its size and time, in object storage its version."""
    if files.is_address(path):
        found = entry_of(path)
        return [found.size, found.version]
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def digests(paths: Sequence[pathlib.Path], entry_of: Callable[[pathlib.Path], files.Entry] = files.entry) -> list[str]:
    """SHA-256 of files, hexadecimal; of objects in object storage, the MD5 or else the version that the store states.

    Args:
      paths: the files.
      entry_of: tells what the store says of an object.

    Raises:
      OSError: a file cannot be read.
    """
    found = []
    for path in paths:
        if files.is_address(path):
            entry = entry_of(path)
            found.append(entry.md5 or entry.version)
            continue
        with open(path, 'rb') as file:
            found.append(hashlib.file_digest(file, 'sha256').hexdigest())
    return found
