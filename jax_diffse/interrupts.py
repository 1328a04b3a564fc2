"""Ctrl-C ends a command within seconds, also where Python cannot interrupt it, as while XLA compiles."""

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

PATIENCE_SECONDS = 3.0  # that the main thread has to end by itself
STATUS = 130  # as of a shell's command that SIGINT ended

_actions: list[Callable[[], object]] = []
_asked, _told = threading.Event(), threading.Lock()


def watch() -> None:
    """Has Ctrl-C end this process: by KeyboardInterrupt, but after `PATIENCE_SECONDS`, or at a second one, at once.

    Python raises KeyboardInterrupt in the main thread only when that returns from the library it is in. A thread of
    this module learns of the signal from the system. Where SIGINT is ignored, or somebody else's, nothing changes.
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
    """Ends the process at once, after `on_leave` actions alone.

    What Python and libraries do at exit may wait for a compilation that nobody wants any more.
    """
    tell()
    for action in [*_actions, _show_cursor]:
        with contextlib.suppress(Exception):
            action()
    os._exit(STATUS)


def finish() -> None:
    """From now on Ctrl-C ends the process at once: what was asked for is done."""
    _asked.set()


def tell() -> None:
    """Prints that the command was interrupted, once."""
    if _told.acquire(blocking=False) and sys.__stderr__ is not None:  # None: closed before the start
        with contextlib.suppress(OSError):
            os.write(2, b'interrupted\n')  # not by way of a stream that another thread may be stuck in


@contextlib.contextmanager
def on_leave(action: Callable[[], object]) -> Iterator[None]:
    """Has `action` done if the process leaves at once in this context, as nothing else is done then."""
    _actions.append(action)
    try:
        yield
    finally:
        _actions.remove(action)


def _show_cursor() -> None:
    """Progress bars hide it."""
    if os.isatty(1):
        os.write(1, b'\x1b[?25h')


def _interrupt(signum, frame) -> None:
    if _asked.is_set():
        leave()
    _asked.set()
    raise KeyboardInterrupt


def _unraisable(previous: Callable[[object], object], unraisable) -> None:
    """Leaves at an interrupt in a callback, which Python drops; many come in JAX's of the garbage collector."""
    if unraisable.exc_type is KeyboardInterrupt:
        leave()
    previous(unraisable)


def _wait(reading: socket.socket, writing: socket.socket) -> None:
    """Counts interrupts; `writing`, which the system writes to, stays open as long as this runs."""
    interrupts, deadline = 0, None
    while True:
        seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = select.select([reading], [], [], seconds)[0]
        interrupts += reading.recv(4096).count(signal.SIGINT) if ready else 0
        if interrupts > 1 or (interrupts and not ready):
            leave()
        if interrupts and deadline is None:
            deadline = time.monotonic() + PATIENCE_SECONDS
