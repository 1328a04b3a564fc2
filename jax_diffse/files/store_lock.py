"""A lock in object storage: an object that the process which holds the lock renews."""

import contextlib
import os
import pathlib
import platform
import secrets
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
    change for `STALE_SECONDS`, the process takes the lock over. No clocks are compared.

    Args:
      path: the object.
      on_wait: called with the name of the holder when the wait begins.
      on_renewal: called with the name of the holder when it turns out to run; it raises, or else the wait goes on.
      on_loss: called, in a thread, if another process took the lock over; this process then no longer holds it.

    Raises:
      OSError: the store cannot be used.
    """

    def __init__(self, path: pathlib.Path, on_wait: Callable[[str], object],
                 on_renewal: Callable[[str], object] = lambda name: None,
                 on_loss: Callable[[], object] = lambda: None):
        self._path, self._on_wait = os.fspath(path), on_wait
        self._on_renewal, self._on_loss = on_renewal, on_loss
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
        lost = False
        while not lost and not self._released.wait(RENEWAL_SECONDS):
            with contextlib.suppress(OSError), self._changing:  # the store cannot be reached now; later, perhaps
                lost = not self._released.is_set() and not self._write(self._version) and not self._write('')
        if lost:
            self._on_loss()

    def _release(self) -> None:
        self._released.set()
        with self._changing, contextlib.suppress(OSError):
            self._client.delete_if(self._path, self._version)

    def _release_soon(self) -> None:
        thread = threading.Thread(target=self._release, daemon=True)
        thread.start()
        thread.join(RELEASE_SECONDS)
