"""Which results of `enhance.py` are finished, so that a command that was cut off goes on where it was."""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

NAME = '.enhanced.jsonl'


class Journal:
    """A line for every result in a folder: what made it, and the sizes and times of the files that belong to it.

    Args:
      folder: of the results.
      setting: all that decides a result besides its file, as JSON has it.
    """

    def __init__(self, folder: str | os.PathLike, setting: Mapping):
        self._path = pathlib.Path(folder, NAME)
        self._setting = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:16]
        self._lines = set()
        with contextlib.suppress(OSError):
            self._lines = set(self._path.read_text(encoding='utf-8').splitlines())

    def has(self, name: str, files: Sequence[pathlib.Path]) -> bool:
        """Whether a result is there and neither it nor what it was made of has changed since."""
        try:
            return self._line(name, files) in self._lines
        except OSError:
            return False

    def add(self, name: str, files: Sequence[pathlib.Path]) -> None:
        """Notes that a result is finished."""
        with contextlib.suppress(OSError):  # it will be done again, no worse
            with self._path.open('a', encoding='utf-8') as file:
                file.write(self._line(name, files) + '\n')

    def _line(self, name: str, files: Sequence[pathlib.Path]) -> str:
        stats = [path.stat() for path in files]
        return json.dumps([name, self._setting, [[stat.st_size, stat.st_mtime_ns] for stat in stats]])
