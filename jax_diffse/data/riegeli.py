"""Where in a shard the bytes of uncompressed records are, so that they can be read without ArrayRecord.

ArrayRecord's own client of object storage asks for everything from a record to the end of its shard, and breaks the
connection off when it has the record; it also reads a megabyte at the end of each shard that it opens.

Source: Riegeli's `doc/riegeli_records_file_format.md`. At every multiple of 64 KiB, a header of 24 bytes interrupts
what the file holds.
"""

import mmap
import pathlib
import zlib
from collections.abc import Iterable
from typing import NamedTuple

BLOCK, HEADER = 1 << 16, 24


class Wanted(NamedTuple):
    """Bytes to find."""

    head: bytes  # the first of them
    size: int
    checksum: int  # CRC-32 of all

    @classmethod
    def of(cls, data: bytes) -> 'Wanted':
        """Describes these bytes."""
        return cls(data[:64], len(data), zlib.crc32(data))


def stored_size(offset: int, size: int) -> int:
    """The number of bytes of a file that `size` bytes from byte `offset` on take, with the headers between them."""
    room = BLOCK - offset % BLOCK
    return size + HEADER * -(-max(size - room, 0) // (BLOCK - HEADER))


def without_headers(stored: bytes, offset: int) -> bytes:
    """Removes the headers from the bytes of a file from byte `offset` on, which is not within a header."""
    room = BLOCK - offset % BLOCK
    return stored[:room] + b''.join(stored[at + HEADER:at + BLOCK] for at in range(room, len(stored), BLOCK))


def find(path: pathlib.Path, all_wanted: Iterable[Wanted]) -> list[int]:
    """Finds the bytes of consecutive records -> the byte of the file that each begins at.

    Raises:
      ValueError: a record is not there.
    """
    offsets, at = [], 0  # in the file without headers
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for wanted in all_wanted:
            start = _offset(at)
            window = without_headers(data[start:start + stored_size(start, wanted.size + 2 * BLOCK)], start)
            begin = window.find(wanted.head)
            while begin >= 0 and zlib.crc32(window[begin:begin + wanted.size]) != wanted.checksum:
                begin = window.find(wanted.head, begin + 1)
            if begin < 0:
                raise ValueError('a record is not in the shard')
            offsets.append(_offset(at + begin))
            at += begin + wanted.size
    return offsets


def _offset(at: int) -> int:
    """The byte of the file, from the byte of the file without headers."""
    block, within = divmod(at, BLOCK - HEADER)
    return block * BLOCK + HEADER + within
