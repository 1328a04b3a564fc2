"""Paths as users give them, files that appear when they are whole, and one that only one process holds."""

import contextlib
import hashlib
import os
import pathlib
import platform
import re
from collections.abc import Iterator

from jax_diffse import interrupts
from jax_diffse.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def given(path: str | os.PathLike) -> str:
    """A path that a user gave, with `~` expanded.

    Raises:
      UserError: it is an address, as of object storage.
    """
    text = os.fspath(path)
    if re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', text):
        raise UserError(f'{text}: an address, expected a path on this machine; object storage is not supported yet: '
                        'copy the data to a disk, or mount the bucket as a folder')
    return os.path.expanduser(text)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A name beside `path` to write to, which then takes its place; the folders above it are made where they lack.

    Where anything is raised, what was written is removed and `path` stays as it was.

    Raises:
      OSError: a folder cannot be made, or the file not put in its place.
    """
    path = pathlib.Path(path)
    # Not the name itself, which may be as long as the file system allows.
    partial = path.with_name(f'.{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.{os.getpid()}.partial')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.touch()  # tells why it cannot be written, which not every library does
        with interrupts.on_leave(partial.unlink):
            yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):  # a full or lost disk must not hide what went wrong
            partial.unlink()


def unwritable(path: str | os.PathLike, error: Exception) -> str:
    """The line that says that and why a file could not be written."""
    above = (folder for folder in pathlib.Path(path).parents if os.path.lexists(folder) and not folder.is_dir())
    blocking = next(above, None)
    reason = f'{blocking} is no folder' if blocking else getattr(error, 'strerror', None) or error
    if 'System error' in str(reason):  # libsndfile, of which the file itself was made before
        reason = 'System error, is the disk full?'
    return f'{path}: cannot be written ({reason})'


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a file, and the folders above it; it appears when it is whole.

    Raises:
      UserError: it cannot be written.
    """
    try:
        with atomic_write(path) as partial:
            partial.write_text(text, encoding='utf-8')
    except OSError as error:
        raise UserError(unwritable(path, error)) from error


@contextlib.contextmanager
def locked(path: str | os.PathLike, what: str) -> Iterator[None]:
    """Holds a file, which is made where there is none; the system lets go of it however this process ends.

    Raises:
      UserError: another process holds it, `what` says what for; or it cannot be made.
    """
    try:
        file = open(path, 'a+', encoding='utf-8')
    except OSError as error:
        raise UserError(unwritable(path, error)) from error
    with file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or 'another process'
                raise UserError(f'{what}: {holder} is at work here; wait for it or end it') from error
            except OSError:  # storage that cannot lock
                pass
        file.truncate(0)
        file.write(f'process {os.getpid()} on {platform.node()}\n')
        file.flush()
        yield
