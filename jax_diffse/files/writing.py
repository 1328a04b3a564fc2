"""Writes files that appear whole."""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Iterator

from jax_diffse import interrupts
from jax_diffse.errors import UserError
from jax_diffse.files import store
from jax_diffse.files.paths import is_address, reason
from jax_diffse.files.temporary import temporary_folder


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path on this machine to write to, which becomes `path` at the end.

    It is a file beside `path` that is renamed, or for an address a file in a temporary folder that is uploaded as one
    object. Missing folders above `path` are created. If anything is raised, the temporary file is removed and `path`
    does not change.

    Raises:
      OSError: a folder cannot be created, or the file cannot be renamed or uploaded.
    """
    if is_address(path):
        with temporary_folder() as folder:
            partial = folder / 'partial'
            partial.touch()
            yield partial
            store.upload(partial, path)
        return
    path = pathlib.Path(path)
    # A hash, because the name itself may be as long as the file system allows.
    partial = path.with_name(f'.{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.{os.getpid()}.partial')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.touch()  # raises the reason if it cannot be written; not every library does
        with interrupts.on_leave(partial.unlink):
            yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):  # a full or lost disk must not hide the first error
            partial.unlink()


def unwritable(path: str | os.PathLike, error: Exception) -> str:
    """The message that a file could not be written, and why."""
    if is_address(path):
        return f'{path}: cannot be written ({reason(error)})'
    above = (folder for folder in pathlib.Path(path).parents if os.path.lexists(folder) and not folder.is_dir())
    blocking = next(above, None)
    why = f'{blocking} is not a folder' if blocking else reason(error)
    if 'System error' in why:  # of libsndfile, after the file itself was created
        why = 'System error, is the disk full?'
    return f'{path}: cannot be written ({why})'


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a file atomically, and creates the folders above it.

    Raises:
      UserError: it cannot be written.
    """
    try:
        with atomic_write(path) as partial:
            partial.write_text(text, encoding='utf-8')
    except OSError as error:
        raise UserError(unwritable(path, error)) from error
