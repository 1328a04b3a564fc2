"""Standard output and error that never fail, whatever the terminal, the locale or the pipe."""

import errno
import io
import os
import select
import sys


def prepare() -> None:
    """Replaces `sys.stdout` and `sys.stderr` by streams that never raise, so that work continues if output is lost.

    Characters that the encoding lacks are written as escapes. Output to a closed pipe (`| head -1`) is dropped. Output
    to a full disk is dropped too, and one line says so. Streams that are not those of the process are not changed.
    """
    for name in ('stdout', 'stderr'):
        stream = getattr(sys, name)
        if stream is None:  # closed before the start
            setattr(sys, name, open(os.devnull, 'w', encoding='utf-8', errors='replace'))
        elif stream is getattr(sys, f'__{name}__') and not isinstance(_raw(stream), _Lossy):
            setattr(sys, name, _lossy(stream))


def _raw(stream) -> object:
    return getattr(getattr(stream, 'buffer', None), 'raw', None)


def _lossy(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    buffer = io.BufferedWriter(_Lossy(stream.fileno()))
    replacement = io.TextIOWrapper(buffer, encoding=stream.encoding, errors='backslashreplace',
                                   line_buffering=stream.line_buffering, write_through=stream.write_through)
    replacement.mode = 'w'
    return replacement


class _Lossy(io.RawIOBase):
    """Writes to a file descriptor until a write fails, and drops everything after that."""

    def __init__(self, descriptor: int):
        self._descriptor, self._lost = descriptor, False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data) -> int:
        while not self._lost:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # another program made the pipe non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                self._lost = True
                if error.errno != errno.EPIPE and self._descriptor == 1:
                    print(f'output is lost ({error.strerror}); the work continues', file=sys.stderr)
        return len(data)
