"""Locks that processes hold on files, on this machine and in object storage."""

import contextlib
import os
import pathlib
import platform
import sys
from collections.abc import Iterator
from typing import TextIO

from jax_diffse import interrupts
from jax_diffse.errors import UserError
from jax_diffse.files.paths import is_address
from jax_diffse.files.paths import path as to_path
from jax_diffse.files.store_lock import STALE_SECONDS, StoreLock
from jax_diffse.files.writing import unwritable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(path: str | os.PathLike, what: str) -> Iterator[None]:
    """Locks a file, which is created if necessary; the system releases the lock however this process ends.

    In object storage, a process that ended without releasing the lock keeps it for half a minute, see `StoreLock`. One
    that could not renew it, so that another process took it over, ends at once with status 2.

    Args:
      path: the file.
      what: the resource that it stands for, for messages.

    Raises:
      UserError: another process holds the lock, or the file cannot be created.
    """
    if is_address(path):
        with _locked_in_store(to_path(path), what):
            yield
        return
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
                raise _in_use(what, holder) from error
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
    if is_address(path):
        with _in_turn_in_store(to_path(path), waiting):
            yield
        return
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


@contextlib.contextmanager
def _locked_in_store(path: pathlib.Path, what: str) -> Iterator[None]:
    def wait(holder: str) -> None:
        print(f'{what}: {holder} locked it; waiting up to {STALE_SECONDS:g} s to see whether that process still runs',
              flush=True)

    def renewed(holder: str) -> None:
        raise _in_use(what, holder)

    def lost() -> None:
        print(f'error: {what}: another process has taken the lock {path} over, because this one could not renew it for '
              f'{STALE_SECONDS:g} s', file=sys.stderr, flush=True)
        interrupts.end(2)  # two processes would write to the same files

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(StoreLock(path, wait, renewed, lost))
        except OSError as error:
            raise UserError(unwritable(path, error)) from error
        yield


@contextlib.contextmanager
def _in_turn_in_store(path: pathlib.Path, waiting: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # no permission to write
            stack.enter_context(StoreLock(path, lambda holder: print(f'{waiting} by {holder}', flush=True)))
        yield


def _in_use(what: str, holder: str) -> UserError:
    return UserError(f'{what}: {holder} is using it; wait for that process or end it')
