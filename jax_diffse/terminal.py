"""Standard output and error that no terminal, locale or pipe can make fail."""

import errno
import io
import os
import select
import sys


def prepare() -> None:
    """Replaces `sys.stdout` and `sys.stderr` by streams that work goes on behind, whatever becomes of what is printed.

    Characters that the encoding lacks are written as escapes. What a closed pipe (`| head -1`) would have shown is
    dropped, and so is what does not fit on a full disk, with a line that says so. Streams that are not those of the
    process are left alone.
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
    """Writes to a file descriptor as long as that takes it."""

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
            except BlockingIOError:  # somebody else made the pipe non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                self._lost = True
                if error.errno != errno.EPIPE and self._descriptor == 1:
                    print(f'what is printed is lost ({error.strerror}); the work goes on', file=sys.stderr)
        return len(data)
