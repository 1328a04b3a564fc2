"""A lock in object storage: an object that the process which holds the lock renews."""

import contextlib
import os
import pathlib
import platform
import secrets
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from jax_diffse import interrupts
from jax_diffse.files import store

RENEWAL_SECONDS = 5.0
STALE_SECONDS = 30.0  # without renewal, after which another process takes the lock over
POLL_SECONDS = 1.0
RELEASE_SECONDS = 2.0  # that an interrupted process spends on the release


class Holder(NamedTuple):
    """What a lock's object says."""

    version: str
    name: str  # of the process
    token: str  # of this lock of the process


class StoreLock:
    """A lock that a context manager holds; the object is removed at its end.

    The object is only created if it does not exist, and only changed if nobody else changed it since. A process that
    wants a lock whose holder ended without removing it, for example by a power cut, watches the object: if it does not
    change for `STALE_SECONDS`, the process takes the lock over. No clocks are compared. A process that finds that
    its lock was taken over ends at once with status 2, because two processes would write to the same files.

    Args:
      path: the object.
      what: the resource that it stands for, for messages.
      on_wait: called with the name of the holder when the wait begins.
      on_renewal: called with the name of the holder when it turns out to run; it raises, or else the wait goes on.

    Raises:
      OSError: the store cannot be used.
    """

    def __init__(self, path: pathlib.Path, what: str, on_wait: Callable[[str], object],
                 on_renewal: Callable[[str], object] = lambda name: None):
        self._path, self._what, self._on_wait, self._on_renewal = os.fspath(path), what, on_wait, on_renewal
        self._client, self._version = store.file_system(path), ''
        self._name, self._token, self._count = f'process {os.getpid()} on {platform.node()}', secrets.token_hex(8), 0
        self._released, self._changing = threading.Event(), threading.Lock()
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> None:
        self._acquire()
        threading.Thread(target=self._renew, name='lock', daemon=True).start()
        self._exits.enter_context(interrupts.on_leave(self._release_soon))

    def __exit__(self, *exception: object) -> None:
        self._exits.close()
        self._release()

    def _acquire(self) -> None:
        watched, since = None, 0.0
        while True:
            holder = self._read()
            if holder is None or (watched == holder and time.monotonic() - since >= STALE_SECONDS):
                if self._write(holder.version if holder else ''):
                    return
                continue
            if watched is None:
                self._on_wait(holder.name)
            elif watched.token == holder.token and watched != holder:
                self._on_renewal(holder.name)
            if watched != holder:
                watched, since = holder, time.monotonic()
            time.sleep(POLL_SECONDS)

    def _read(self) -> Holder | None:
        try:
            version = store.version_of(self._client.info(self._path))
            text: str = self._client.cat_file(self._path).decode()
        except FileNotFoundError:
            return None
        name, token, *_ = [*text.split('\n'), '', '']
        return Holder(version, name, token)

    def _write(self, version: str) -> bool:
        """Writes the object if it still has this version -> whether this process holds the lock."""
        self._count += 1  # differs at each renewal, because the version may be a hash of the content
        text = f'{self._name}\n{self._token}\n{self._count}\n'
        try:
            self._version = self._client.write_if(self._path, text.encode(), version)
        except (FileExistsError, FileNotFoundError):
            holder = self._read()
            if not holder or holder.token != self._token:
                return False
            self._version = holder.version  # the client repeated a request whose answer was lost
        return True

    def _renew(self) -> None:
        while not self._released.wait(RENEWAL_SECONDS):
            # While the store cannot be reached, no other process can take the lock over either.
            with contextlib.suppress(OSError), self._changing:
                if not self._released.is_set() and not self._write(self._version) and not self._write(''):
                    print(f'error: {self._what}: another process has taken the lock {self._path} over, because this '
                          f'one could not renew it for {STALE_SECONDS:g} s', file=sys.stderr, flush=True)
                    os._exit(2)

    def _release(self) -> None:
        self._released.set()
        with self._changing, contextlib.suppress(OSError):
            self._client.delete_if(self._path, self._version)

    def _release_soon(self) -> None:
        thread = threading.Thread(target=self._release, daemon=True)
        thread.start()
        thread.join(RELEASE_SECONDS)
