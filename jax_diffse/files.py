"""Paths that users give, atomic writes, and file locks."""

import contextlib
import hashlib
import os
import pathlib
import platform
import re
from collections.abc import Iterator
from typing import TextIO

from jax_diffse import interrupts
from jax_diffse.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def given(path: str | os.PathLike) -> str:
    """Expands `~` in a path that a user gave.

    Raises:
      UserError: it is an address, for example of object storage.
    """
    text = os.fspath(path)
    if re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', text):
        raise UserError(f'{text}: an address, expected a path on this machine; object storage is not supported yet: '
                        'copy the data to a disk, or mount the bucket as a folder')
    return os.path.expanduser(text)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` to write to, and renames it to `path` at the end.

    Missing folders above it are created. If anything is raised, the temporary file is removed and `path` does not
    change.

    Raises:
      OSError: a folder cannot be created, or the file cannot be renamed.
    """
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
    above = (folder for folder in pathlib.Path(path).parents if os.path.lexists(folder) and not folder.is_dir())
    blocking = next(above, None)
    reason = f'{blocking} is not a folder' if blocking else getattr(error, 'strerror', None) or error
    if 'System error' in str(reason):  # of libsndfile, after the file itself was created
        reason = 'System error, is the disk full?'
    return f'{path}: cannot be written ({reason})'


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


@contextlib.contextmanager
def locked(path: str | os.PathLike, what: str) -> Iterator[None]:
    """Locks a file, which is created if necessary; the system releases the lock however this process ends.

    Args:
      path: the file.
      what: the resource that it stands for, for messages.

    Raises:
      UserError: another process holds the lock, or the file cannot be created.
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
                raise UserError(f'{what}: {holder} is using it; wait for that process or end it') from error
            except OSError:  # storage that cannot lock
                pass
        file.truncate(0)
        file.write(f'process {os.getpid()} on {platform.node()}\n')
        file.flush()
        yield


@contextlib.contextmanager
def locked_in_turn(path: str | os.PathLike, waiting: str) -> Iterator[None]:
    """Waits for the lock on a file, which exists only while a process holds the lock.

    On storage that cannot lock or cannot be written, several processes continue at once.

    Args:
      path: the file.
      waiting: the line that is printed if another process holds the lock; the name of that process follows.
    """
    file = _lock(pathlib.Path(path), waiting)
    try:
        yield
    finally:
        if file:
            pathlib.Path(path).unlink(missing_ok=True)
            file.close()


def _lock(path: pathlib.Path, waiting: str) -> TextIO | None:
    while fcntl:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, 'a+', encoding='utf-8')
        except OSError:
            return None
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                print(f'{waiting} by {file.read().strip() or "another process"}', flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            file.close()
            return None
        with contextlib.suppress(FileNotFoundError):  # the holder has removed it
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                file.write(f'process {os.getpid()} on {platform.node()}\n')
                file.flush()
                return file
        file.close()
    return None
