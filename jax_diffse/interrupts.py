"""Ends a command within seconds of Ctrl-C, even if Python cannot interrupt it, for example while XLA compiles."""

import contextlib
import functools
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

PATIENCE_SECONDS = 3.0  # in which the main thread may end by itself
STATUS = 130  # which shells give a command that SIGINT ended

_actions: list[Callable[[], object]] = []
_asked, _told = threading.Event(), threading.Lock()


def watch() -> None:
    """Makes Ctrl-C end this process: by KeyboardInterrupt, and forcibly after `PATIENCE_SECONDS` or a second Ctrl-C.

    Python raises KeyboardInterrupt in the main thread only when that thread returns from library code. A thread of this
    module gets the signal from the system. If SIGINT is ignored or has another handler, nothing changes.
    """
    if (threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGINT) is not signal.default_int_handler):
        return
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = functools.partial(_unraisable, sys.unraisablehook)
    threading.Thread(target=_wait, args=(reading, writing), name='interrupts', daemon=True).start()


def leave() -> NoReturn:
    """Ends the process at once, after the `on_leave` actions only.

    The normal exit of Python and libraries may wait for a compilation that is no longer needed.
    """
    tell()
    end(STATUS)


def end(status: int) -> NoReturn:
    """Ends the process at once with a status, after the `on_leave` actions only."""
    for action in [*_actions, _show_cursor]:
        with contextlib.suppress(Exception):
            action()
    os._exit(status)


def finish() -> None:
    """Makes Ctrl-C end the process at once from now on, because the work is done."""
    _asked.set()


def tell() -> None:
    """Prints that the command was interrupted, once."""
    if _told.acquire(blocking=False) and sys.__stderr__ is not None:  # None: closed before the start
        with contextlib.suppress(OSError):
            os.write(2, b'interrupted\n')  # directly, because another thread may hold the stream


@contextlib.contextmanager
def on_leave(action: Callable[[], object]) -> Iterator[None]:
    """Runs `action` if the process leaves at once within this context; no other cleanup runs then."""
    _actions.append(action)
    try:
        yield
    finally:
        _actions.remove(action)


def _show_cursor() -> None:
    """Shows the cursor, which progress bars hide."""
    if os.isatty(1):
        os.write(1, b'\x1b[?25h')


def _interrupt(signum, frame) -> None:
    if _asked.is_set():
        leave()
    _asked.set()
    raise KeyboardInterrupt


def _unraisable(previous: Callable[[object], object], unraisable) -> None:
    """Leaves if an interrupt comes in a callback, where Python drops it; many come in JAX's garbage collection."""
    if unraisable.exc_type is KeyboardInterrupt:
        leave()
    previous(unraisable)


def _wait(reading: socket.socket, writing: socket.socket) -> None:
    """Counts interrupts. `writing`, which the system writes to, stays open while this runs."""
    interrupts, deadline = 0, None
    while True:
        seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = select.select([reading], [], [], seconds)[0]
        interrupts += reading.recv(4096).count(signal.SIGINT) if ready else 0
        if interrupts > 1 or (interrupts and not ready):
            leave()
        if interrupts and deadline is None:
            deadline = time.monotonic() + PATIENCE_SECONDS
