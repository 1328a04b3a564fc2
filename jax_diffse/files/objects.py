"""Objects of object storage that are read as far as they are needed."""

import errno
import io
import os
from typing import Any

from jax_diffse.errors import StoreError
from jax_diffse.files import store

WHOLE = 1 << 20  # bytes; objects up to this size are read by one request
BLOCK = 1 << 18  # bytes of a larger object that are read at once


class StoredObject(os.PathLike):
    """An object of known size; its bytes are read when they are needed, and kept. Several threads may use it.

    Args:
      address: the object.
      size: in bytes, as a listing says.
      block: bytes that are read at once; by default small objects are read whole.
    """

    def __init__(self, address: str, size: int, block: int = 0):
        self.size, self._address = size, address
        self._block = block or (max(size, 1) if size <= WHOLE else BLOCK)
        self._blocks: dict[int, bytes] = {}
        self._whole: bytes | None = None

    def __fspath__(self) -> str:
        return self._address

    __str__ = __fspath__

    @property
    def in_parts(self) -> bool:
        """Whether a read may read a part of the object only."""
        return self._whole is None and self._block < self.size

    def whole(self) -> bytes:
        """Reads all bytes, by one request.

        Raises:
          OSError: the object is not there or cannot be read.
        """
        if self._whole is None:
            self._whole = store.read_bytes(self._address)
            self.size = len(self._whole)
            self._blocks.clear()
        return self._whole

    def read(self, start: int, stop: int) -> bytes:
        """Reads the bytes from `start` to `stop`, as far as there are so many.

        Raises:
          OSError: the object is not there, cannot be read or has become shorter.
        """
        if not self.in_parts:
            return self.whole()[start:stop]
        stop = min(stop, self.size)
        if start >= stop:
            return b''
        numbers = range(start // self._block, -(-stop // self._block))
        found = {number: self._blocks[number] for number in numbers if number in self._blocks}
        missing = [number for number in numbers if number not in found]
        if missing:
            found |= self._fetch(missing[0], missing[-1])
        skipped = numbers[0] * self._block
        return b''.join(found[number] for number in numbers)[start - skipped:stop - skipped]

    def _fetch(self, first: int, last: int) -> dict[int, bytes]:
        """Reads consecutive blocks by one request."""
        start, stop = first * self._block, min((last + 1) * self._block, self.size)
        data = store.read_bytes(self._address, start, stop)
        if len(data) < stop - start:
            raise StoreError(errno.ESTALE, 'it has changed while it was read', self._address)
        blocks = {first + k: data[k * self._block:(k + 1) * self._block] for k in range(last - first + 1)}
        self._blocks |= blocks
        return blocks

    def open(self) -> io.RawIOBase | io.BytesIO:
        """Opens the object for reading."""
        return _Reader(self) if self.in_parts else io.BytesIO(self.whole())


class _Reader(io.RawIOBase):
    """A file object on a `StoredObject`."""

    def __init__(self, source: StoredObject):
        self._source, self._at = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._source.size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(self._at, self._at + len(buffer))
        buffer[:len(data)] = data
        self._at += len(data)
        return len(data)
