"""Keeps what is known of the files of a folder from one start to the next.

The manifest of a folder is a table of `facts.Facts` in the cache folder, named by the folder's real path or address. A
row counts only while path, size and time (in Google Cloud Storage: generation) of the file are the same, and a table
that is damaged or of another version counts as none. So manifests may be removed, and several processes may write one
at once. Files that cannot be read have no row and are looked at again, because the reason may be storage that failed
for a moment.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from jax_diffse import files, launch
from jax_diffse.data import columns
from jax_diffse.data.facts import Facts

KIND = 'files of a folder'
SIZE = 2 * 10**9  # bytes of all manifests; the oldest go first

log = logging.getLogger(__name__)
_seen: dict[str, Facts] = {}  # of this process, by key: train and validation read the same folders


class Manifest:
    """What is known of the files of a folder.

    Args:
      key: names the folder, or a list of files in it; its real path.
      root: the folder, for messages.
    """

    def __init__(self, key: str, root: str):
        self.key, self.root = key, root

    def load(self) -> Facts | None:
        """What this process knows of the folder, or else an earlier one; None if nothing is known."""
        return _seen[self.key] if self.key in _seen else self.load_stored()

    def load_stored(self) -> Facts | None:
        """What is stored of the folder; None if there is nothing that can be read."""
        path = self.place()
        if path is None:
            return None
        try:
            return Facts.from_columns(columns.read(path, KIND)[0])
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.info('%s: not used: %s', path, error)
            return None

    def remember(self, facts: Facts) -> None:
        """Keeps what is known for this process."""
        _seen[self.key] = facts

    def save(self, facts: Facts) -> None:
        """Stores the rows that something is known of; a line says if that is not possible."""
        path = self.place()
        if path is None:
            return
        try:
            columns.write(path, KIND, facts.columns(np.flatnonzero(facts.num_samples >= 0)))
            if not files.is_address(path):  # there, a lifecycle rule of the bucket can delete old objects
                launch.discard_oldest(path.parent, SIZE)
        except OSError as error:
            log.warning('%s: what the check of the files found is not kept, so the next start checks them again: %s',
                        self.root, files.unwritable(path, error))

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Lets one process at a time look at the files, as far as the cache folder can be locked."""
        path = self.place()
        if path is None:
            yield
            return
        with files.locked_in_turn(path.with_suffix('.lock'), f'{self.root}: waiting while its files are checked'):
            yield

    def place(self) -> pathlib.Path | None:
        """The file; None if nothing is cached."""
        if os.environ.get('JAX_DIFFSE_CACHE') in launch.OFF:
            return None
        try:
            name = hashlib.sha256(os.fsencode(self.key)).hexdigest()[:32]
            return launch.cache() / 'manifests' / f'{name}.array_record'
        except OSError:  # no home folder
            return None
