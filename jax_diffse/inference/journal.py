"""Which results of `jax-diffse enhance` are finished, so that a command that was cut off goes on where it was."""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

NAME = '.enhanced.jsonl'


class Journal:
    """A line for every result in a folder: what made it of which sound, and the sizes and times of the files it is in.

    Recordings are known by their content: two of one name, size and time may differ.

    Args:
      folder: of the results.
      setting: all that decides a result besides its recording, as JSON has it.
    """

    def __init__(self, folder: str | os.PathLike, setting: Mapping):
        self._path = pathlib.Path(folder, NAME)
        self._setting = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:16]
        text = ''
        with contextlib.suppress(OSError):
            text = self._path.read_text(encoding='utf-8', errors='replace')
        self._lines, self._whole = set(text.splitlines()), text.endswith('\n') or not text
        self._names = {name for name in map(_name, self._lines) if name}

    def has(self, name: str, inputs: Sequence[pathlib.Path], outputs: Sequence[pathlib.Path]) -> bool:
        """Whether a result is there that was made of just these recordings, and was not changed since."""
        try:
            return name in self._names and self._line(name, digests(inputs), outputs) in self._lines
        except OSError:
            return False

    def add(self, name: str, made_of: Sequence[str], outputs: Sequence[pathlib.Path]) -> None:
        """Notes that a result is finished; `made_of` are the `digests` of its recordings from before it was begun."""
        with contextlib.suppress(OSError):  # it will be done again, no worse
            line = self._line(name, made_of, outputs)
            with self._path.open('a', encoding='utf-8') as file:
                file.write(line + '\n' if self._whole else f'\n{line}\n')  # behind one that was cut off
            self._whole = True

    def _line(self, name: str, made_of: Sequence[str], outputs: Sequence[pathlib.Path]) -> str:
        stats = [path.stat() for path in outputs]
        return json.dumps([name, self._setting, list(made_of), [[stat.st_size, stat.st_mtime_ns] for stat in stats]])


def _name(line: str) -> str | None:
    """The name in a line, None in one that was cut off or damaged."""
    try:
        name = json.loads(line)[0]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def digests(paths: Sequence[pathlib.Path]) -> list[str]:
    """SHA-256 of files, hexadecimal.

    Raises:
      OSError: one cannot be read.
    """
    found = []
    for path in paths:
        with open(path, 'rb') as file:
            found.append(hashlib.file_digest(file, 'sha256').hexdigest())
    return found
