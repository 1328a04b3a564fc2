"""Where the recordings of a folder are: on a disk of this machine or in object storage."""

import array
import os
import pathlib

import numpy as np

from jax_diffse import audio_files, files
from jax_diffse.data.facts import Facts
from jax_diffse.data.recordings import Objects

REQUESTS = 32  # that are under way at once; a request is mostly waiting


class Disk:
    """A folder of this machine.

    Attributes:
      key: names the folder in manifests.
      prefix: of the path of every file.
      workers: the number of threads that look at files.
      times_are_listed: whether sizes and times of the files come with their names.
    """

    times_are_listed = False

    def __init__(self, root: str):
        self.key, self.prefix = os.path.realpath(root), str(pathlib.Path(root, '_'))[:-1]
        self.workers, self._root = os.cpu_count() or 1, root

    def paths(self) -> list[str]:
        """The audio files, see `audio_files.list_paths`."""
        return audio_files.list_paths(self._root)

    def stat(self, facts: Facts, paths: list[str]) -> dict[int, str]:
        """Stores size and time of every file; returns why files cannot be read: row -> reason."""
        failures, found = {}, array.array('q')  # which is faster than single elements of NumPy's arrays
        for row, path in enumerate(paths):
            try:
                stat = os.stat(self.prefix + path)
                found.extend((stat.st_size, stat.st_mtime_ns))
            except OSError as error:
                found.extend((0, 0))
                failures[row] = ('a link that leads to no file' if os.path.islink(self.prefix + path) else
                                 f'cannot be read ({error.strerror})')
        facts.size[:], facts.changed[:] = np.array(found).reshape(-1, 2).T
        return failures

    def store(self, facts: Facts) -> None:
        """None, as each recording is a file."""


class Bucket:
    """A folder in object storage, which is listed once; its attributes and methods are those of `Disk`."""

    times_are_listed = True
    workers = REQUESTS

    def __init__(self, root: str):
        self.key = os.fspath(files.path(root))
        self.prefix = self.key + '/'
        self._listed: dict[str, files.Entry] = {}

    def paths(self) -> list[str]:
        self._listed = audio_files.list_objects(self.key)
        return list(self._listed)

    def stat(self, facts: Facts, paths: list[str]) -> dict[int, str]:
        listed = self._listed or audio_files.list_objects(self.key)
        self._listed = {}
        failures = {}
        for row, path in enumerate(paths):
            if path in listed:
                facts.size[row], facts.changed[row] = listed[path].size, _change(listed[path])
            else:
                failures[row] = 'cannot be read (No such file or directory)'
        return failures

    def store(self, facts: Facts) -> Objects:
        """The recordings, one in each object."""
        return Objects(self.prefix, facts)


def place(root: str) -> Disk | Bucket:
    """Where a folder is."""
    return Bucket(root) if files.is_address(root) else Disk(root)


def _change(entry: files.Entry) -> int:
    """A number that differs after every change: the generation (gs://), or the time in ns."""
    return int(entry.version) if entry.version.isdecimal() else round(entry.changed * 1e9)
