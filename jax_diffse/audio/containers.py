"""Reads the length of a sound file from its bytes, where libsndfile would lose sound or not notice missing sound.

The bytes of three kinds of files must be examined before libsndfile decodes them:

- containers of chunks (WAV, RF64, W64, AIFF, SVX, CAF, AU) that were cut off, or in which the size of the sound was
  never filled in, or counts the header;
- MP3, Ogg and FLAC files that were joined end to end: libsndfile stops after the first;
- MP3 without a Xing or Info tag: libsndfile guesses its length.

Sources: Microsoft RIFF, EBU Tech 3306 (RF64), Sony Wave64, Apple AIFF and CAF specifications, RFC 3533 (Ogg), RFC 9639
(FLAC), ISO 11172-3 (MPEG audio) and the Xing and LAME tags.
"""

import contextlib
import io
import mmap
import os
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from jax_diffse import files

Data = mmap.mmap | bytes

# Sizes that programs write if they write to a pipe and do not know the size, give or take a header and a block.
UNTOLD = (0x3FFFFFFF, 0x7F000000, 0x7FFF0000, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
NEARLY = 4096  # bytes
LARGEST = 2**31 - 1  # bytes; the largest 32-bit size that libsndfile accepts
UNSIZED = 2**63 - 1  # the length of a stream without an end for libsndfile
SEARCHED = 2**16  # bytes that are searched for the first frame of an MP3
MAX_CHUNKS = 10_000  # before the sound; a file with more is damaged


class Part(NamedTuple):
    """Bytes of a file that are one complete stream of sound."""

    start: int
    stop: int
    patch: tuple[int, bytes] | None = None  # (byte of the file, bytes to read there instead of a wrong size)
    claimed: int = 0  # bytes of sound that a header claims
    there: int = 0  # bytes of sound that the file has; equal to `claimed` unless the file was cut off
    claimed_samples: int = 0  # that the tag of an MP3 claims, per channel; 0: no claim
    unfinished: bool = False  # whether the last page of an Ogg stream is missing
    tagged: bool = False  # whether an MP3 begins with a correct tag
    sized: bool = True  # whether libsndfile may know where the part ends; otherwise it has to search for the end


class _Chunks(NamedTuple):
    """The layout of the chunks of a container."""

    first: int  # byte of the first chunk
    identifier: int  # bytes
    size: str  # of the chunk, a format of `struct`
    counted: int  # bytes of the chunk's own header that its size includes
    align: int
    sound: bytes  # first four bytes of the identifier of the chunk with the sound
    fields: int = 0  # bytes in that chunk before the sound


_RIFF = _Chunks(12, 4, '<I', 0, 2, b'data')
_CHUNKS = {
    b'RIFF': _RIFF, b'RF64': _RIFF, b'BW64': _RIFF, b'RIFX': _RIFF._replace(size='>I'),
    b'riff': _Chunks(40, 16, '<Q', 24, 8, b'data'),
    b'FORM': _Chunks(12, 4, '>I', 0, 2, b'SSND', 8),
    b'caff': _Chunks(8, 4, '>Q', 0, 1, b'data', 4),
}
_AU = {b'.snd': '>', b'dns.': '<'}  # byte order


def parts(path: str | os.PathLike, content: files.StoredObject | None = None) -> tuple[Part, ...]:
    """Finds the streams of a file, in order; one, unless files were joined end to end.

    FLAC in object storage of which only a part is read counts as one stream, because all bytes would be searched.

    Args:
      path: the file.
      content: of the file, if it is in object storage.

    Raises:
      OSError: the file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, 'rb') if content is None else content.open())
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        magic = file.read(4)
        if magic in _CHUNKS or magic in _AU:
            found = _find_au(file, _AU[magic]) if magic in _AU else _find_sound(file, magic, size)
            return (_corrected(found, size) if found else Part(0, size),)
        if content and content.in_parts and magic == b'fLaC':
            return (Part(0, size),)
        if content:
            data: Data = content.whole()
        else:
            data = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        start = _behind_tag(data, 0)
        if data[start:start + 4] == b'fLaC':
            return _split(size, (match.start() for match in re.finditer(rb'fLaC[\x00\x80]\x00\x00\x22', data)
                                 if match.start() > start))
        if magic == b'OggS':
            *whole, last = _split(size, _ogg_streams(data))
            return *whole, last._replace(unfinished=not _ends(data))
        if _holds_frames(data, 0, size) or os.fspath(path).lower().endswith('.mp3'):
            return tuple(_mp3_parts(data)) or (Part(0, size),)
    return (Part(0, size),)


def _split(size: int, starts: Iterator[int]) -> tuple[Part, ...]:
    edges = [0, *starts, size]
    return tuple(Part(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True))


# ------------------------------------------------------------------------------------------------ containers of chunks
class _Chunk(NamedTuple):
    name: bytes  # the first four of its identifier
    field: int  # byte of its size
    claimed: int  # bytes of content, by its size
    begins: int  # byte of its content


def _chunks(file, layout: _Chunks, at: int, size: int) -> Iterator[_Chunk]:
    """Yields the chunks from byte `at` on, as far as the file has them."""
    width = struct.calcsize(layout.size)
    for _ in range(MAX_CHUNKS):
        if at + layout.identifier + width > size:
            return
        file.seek(at)
        header = file.read(layout.identifier + width)
        claimed, = struct.unpack(layout.size, header[layout.identifier:])
        begins = at + len(header)
        yield _Chunk(header[:4], at + layout.identifier, max(claimed - layout.counted, 0), begins)
        at = begins + max(claimed - layout.counted, 0)
        at += -at % layout.align


class _Sound(NamedTuple):
    """The field of a container that states the size of its sound."""

    field: int  # byte of the size
    size: str  # its format
    counted: int  # bytes that the size counts besides the sound
    claimed: int  # bytes of sound
    begins: int  # byte of the sound
    empty: bool = False  # whether other chunks follow up to the end of the file, so that a size of 0 can be correct


def _find_au(file, order: str) -> _Sound | None:
    header = file.read(8)
    if len(header) < 8:
        return None
    begins, claimed = struct.unpack(f'{order}II', header)
    return _Sound(8, f'{order}I', 0, claimed, begins)


def _find_sound(file, magic: bytes, size: int) -> _Sound | None:
    """Finds the chunk with the sound; None if the headers have no such chunk."""
    layout, long = _CHUNKS[magic], None
    file.seek(8)
    if magic == b'FORM' and file.read(4) in (b'8SVX', b'16SV'):
        layout = layout._replace(sound=b'BODY', fields=0)
    for chunk in _chunks(file, layout, layout.first, size):
        if chunk.name == b'ds64':
            long = chunk.begins + 8  # RF64 has the size of the sound here
        if chunk.name != layout.sound:
            continue
        short, begins = struct.calcsize(layout.size) == 4, chunk.begins + layout.fields
        empty = _only_chunks(file, layout, chunk.begins + chunk.claimed, size)
        if short and chunk.claimed == 0xFFFFFFFF and long is not None:
            file.seek(long)
            claimed, = struct.unpack('<Q', file.read(8))
            return _Sound(long, '<Q', 0, claimed, begins, empty)
        claimed = max(chunk.claimed - layout.fields, 0)
        return _Sound(chunk.field, layout.size, layout.fields + layout.counted, claimed, begins, empty)
    return None


def _only_chunks(file, layout: _Chunks, at: int, size: int) -> bool:
    """Whether the bytes from `at` to the end of the file are chunks."""
    at += -at % layout.align
    for chunk in _chunks(file, layout, at, size):
        if not all(0x20 <= byte < 0x7F for byte in chunk.name):
            return False
        at = chunk.begins + chunk.claimed
        at += -at % layout.align
        if at >= size:
            return at - layout.align < size
    return False


def _corrected(sound: _Sound, size: int) -> Part:
    """Returns the part with a corrected size of its sound, so that libsndfile reads all the sound of the file.

    If the size was never filled in, or counts the header, the sound extends to the end of the file.
    """
    there, claimed = max(size - sound.begins, 0), sound.claimed
    never_filled_in = claimed == 0 and not sound.empty
    if claimed <= there and not (never_filled_in and there):
        return Part(0, size)
    right = there + sound.counted
    fits = struct.calcsize(sound.size) == 8 or right <= LARGEST
    patch = (sound.field, struct.pack(sound.size, right)) if fits else None
    untold = claimed >= UNSIZED // 2 or any(abs(claimed - value) <= NEARLY for value in UNTOLD)
    if untold or never_filled_in or claimed + sound.counted in (size, size - 8):
        return Part(0, size, patch)
    return Part(0, size, patch, claimed, there)


# --------------------------------------------------------------------------------------------- Ogg, and MPEG audio
def _ogg_streams(data: Data) -> Iterator[int]:
    """Yields where chained streams begin: at a page that begins a stream and does not directly follow such a page."""
    end = None
    for match in re.finditer(rb'OggS\x00[\x02\x06]', data):
        if match.start() not in (0, end):
            yield match.start()
        end = _page_end(data, match.start())


def _page_end(data: Data, at: int) -> int:
    segments = data[at + 27:at + 27 + sum(data[at + 26:at + 27])]
    return at + 27 + len(segments) + sum(segments)


def _ends(data: Data) -> bool:
    """Whether an Ogg file has its last page complete, and that page is marked as the last one."""
    at = data.rfind(b'OggS')
    return bool(sum(data[at + 5:at + 6]) & 4) and _page_end(data, at) <= len(data)


def _behind_tag(data: Data, at: int) -> int:
    """The byte after ID3v2 tags that begin at `at`."""
    while data[at:at + 3] == b'ID3' and at + 10 <= len(data):
        high, *rest = data[at + 6:at + 10]
        for byte in rest:
            high = high << 7 | byte & 0x7F
        at += 10 + high
    return at


def _is_mpeg(header: bytes) -> bool:
    """Whether four bytes are the header of an MPEG audio frame."""
    return (len(header) == 4 and header[0] == 0xFF and header[1] & 0xE0 == 0xE0 and header[1] & 0x18 != 0x08
            and header[1] & 0x06 != 0 and header[2] & 0xF0 != 0xF0 and header[2] & 0x0C != 0x0C)


# kbit/s of layer III by index, in MPEG 2 and 2.5, and in MPEG 1; Hz in MPEG 1
_KBPS = ((0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
         (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320))
_RATES = (44_100, 48_000, 32_000)


class _Tag(NamedTuple):
    """The first frame of an MP3, which states the length and holds no sound."""

    start: int  # byte
    frames: int  # 0: not stated
    size: int  # bytes of the MP3, 0: not stated
    per_frame: int  # samples
    field: int  # byte of the size in the file


def _mp3_tags(data: Data) -> Iterator[_Tag]:
    for match in re.finditer(rb'Xing|Info', data):
        at = match.start()
        for side in (9, 17, 32):  # bytes of side information between the header of the frame and the tag
            start = at - 4 - side
            header = data[start:start + 4] if start >= 0 else b''
            if not _is_mpeg(header) or header[1] & 0x06 != 0x02:  # layer III
                continue
            first, mono = header[1] & 0x18 == 0x18, header[3] >> 6 == 3
            if side == {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}[first, mono]:
                fields = data[at + 4:at + 16].ljust(12, b'\0')
                flags, *values = struct.unpack('>III', fields)
                frames = values.pop(0) if flags & 1 else 0
                size = values.pop(0) if flags & 2 else 0
                yield _Tag(start, frames, size, 1152 if first else 576, at + 8 + 4 * (flags & 1))


def _mp3_parts(data: Data) -> Iterator[Part]:
    """Yields streams with a tag, and the streams between them."""
    tags = list(_mp3_tags(data))
    edges = [tag.start for tag in tags] + [len(data)]
    start = _first_frame(data, edges[0])
    if start is not None:
        yield Part(start, edges[0], sized=False)
    for tag, stop in zip(tags, edges[1:], strict=True):
        end = tag.start + tag.size
        if tag.size and _holds_frames(data, end, stop):
            yield _tagged(data, tag, end)
            yield Part(end, stop, sized=False)
        else:
            yield _tagged(data, tag, stop)


def _tagged(data: Data, tag: _Tag, stop: int) -> Part:
    """The part of a tag. libsndfile sees the tag only if it is correct, because it reads no more than a tag states."""
    frames, behind, end = _frames(data, tag.start, stop)
    if not behind:
        return Part(tag.start, stop)
    if 0 <= tag.frames - frames <= 1:  # some encoders also count the tag
        # libsndfile prints a warning if the size is wrong.
        patch = (tag.field, struct.pack('>I', end - tag.start)) if tag.size else None
        return Part(tag.start, end, patch, tagged=True)
    cut_off = frames < tag.frames and (not tag.size or tag.start + tag.size > stop)
    return Part(behind, end, claimed_samples=tag.frames * tag.per_frame if cut_off else 0, sized=False)


def _frames(data: Data, start: int, stop: int) -> tuple[int, int, int]:
    """Counts the frames of layer III after the one at `start` -> count, where the first begins, where the last ends.

    For free formats it returns (0, 0, 0).
    """
    count, at, behind = -1, start, 0
    while at + 4 <= stop and _is_mpeg(header := data[at:at + 4]):
        version, kbps = header[1] >> 3 & 3, _KBPS[header[1] >> 3 & 1][header[2] >> 4]
        if not kbps:
            return 0, 0, 0
        rate = _RATES[header[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}[version]
        at += (144_000 if version == 3 else 72_000) * kbps // rate + (header[2] >> 1 & 1)
        count += at <= stop
        behind = behind or at
    return count, behind, min(at, stop)


def _first_frame(data: Data, stop: int) -> int | None:
    """The byte of the first frame before `stop`, or of ID3 tags before it; other bytes are skipped."""
    if _holds_frames(data, 0, stop):
        return 0
    return next((at for at in range(min(SEARCHED, stop)) if data[at] == 0xFF and _frames(data, at, stop)[0] > 1), None)


def _holds_frames(data: Data, start: int, stop: int) -> bool:
    """Whether MPEG audio begins at `start`, or after ID3 tags there."""
    start = _behind_tag(data, start)
    return start < stop and _is_mpeg(data[start:start + 4])


# ------------------------------------------------------------------------------------------------------ reading a part
class View(io.RawIOBase):
    """A part of a file that reads like a file of its own."""

    def __init__(self, path: str | os.PathLike, part: Part, content: files.StoredObject | None = None):
        self._file = open(path, 'rb', buffering=0) if content is None else content.open()
        self._part, self._at = part, 0
        self._seeking_end = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        length = self._part.stop - self._part.start
        self._seeking_end = whence == os.SEEK_END and not offset
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: length}[whence])
        return self._at

    def tell(self) -> int:
        if self._seeking_end and not self._part.sized:
            return UNSIZED
        return self._at

    def readinto(self, buffer) -> int:
        start = self._part.start + self._at
        self._file.seek(start)
        data = bytearray(self._file.read(max(0, min(len(buffer), self._part.stop - start))))
        if self._part.patch:
            where, new = self._part.patch
            for i, byte in enumerate(new, where - start):
                if 0 <= i < len(data):
                    data[i] = byte
        buffer[:len(data)] = data
        self._at += len(data)
        self._seeking_end = False
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
