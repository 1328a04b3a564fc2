"""Records the finished results of `jax-diffse enhance`, so that an interrupted command can resume."""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

NAME = '.enhanced.jsonl'


class Journal:
    """A file with a line per result: the setting, digests of the inputs, and sizes and times of the output files.

    Recordings are identified by their content: two with the same name, size and time may differ.

    Args:
      folder: of the results.
      setting: everything that determines a result besides its recording, for JSON.
    """

    def __init__(self, folder: str | os.PathLike, setting: Mapping):
        self._path = pathlib.Path(folder, NAME)
        self._setting = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:16]
        text = ''
        with contextlib.suppress(OSError):
            text = self._path.read_text(encoding='utf-8', errors='replace')
        self._lines, self._complete = set(text.splitlines()), text.endswith('\n') or not text
        self._names = {name for name in map(_name, self._lines) if name}

    def has(self, name: str, inputs: Sequence[pathlib.Path], outputs: Sequence[pathlib.Path]) -> bool:
        """Whether an unchanged result of exactly these recordings exists."""
        try:
            return name in self._names and self._line(name, digests(inputs), outputs) in self._lines
        except OSError:
            return False

    def add(self, name: str, input_digests: Sequence[str], outputs: Sequence[pathlib.Path]) -> None:
        """Records a finished result; `input_digests` are the `digests` of its recordings, taken before enhancement."""
        with contextlib.suppress(OSError):  # without its line, a result is only computed again
            line = self._line(name, input_digests, outputs)
            with self._path.open('a', encoding='utf-8') as file:
                file.write(line + '\n' if self._complete else f'\n{line}\n')  # after a line that was cut off
            self._complete = True

    def _line(self, name: str, input_digests: Sequence[str], outputs: Sequence[pathlib.Path]) -> str:
        sizes_and_times = [[stat.st_size, stat.st_mtime_ns] for stat in (path.stat() for path in outputs)]
        return json.dumps([name, self._setting, list(input_digests), sizes_and_times])


def _name(line: str) -> str | None:
    """The name in a line; None if the line is cut off or damaged."""
    try:
        name = json.loads(line)[0]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def digests(paths: Sequence[pathlib.Path]) -> list[str]:
    """SHA-256 of files, hexadecimal.

    Raises:
      OSError: a file cannot be read.
    """
    found = []
    for path in paths:
        with open(path, 'rb') as file:
            found.append(hashlib.file_digest(file, 'sha256').hexdigest())
    return found
