"""Tables of many rows, stored by column in one ArrayRecord file, and lists of names in one block of memory."""

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from array_record.python import array_record_module

from jax_diffse import files

VERSION = 1
_OPTIONS = 'group_size:1024,zstd:1'
_ENCODING = 'utf-8', 'surrogateescape'  # names in other encodings are kept byte by byte


class Names(Sequence[str]):
    """Strings without zero bytes in one block of memory: their bytes, and 8 bytes each for their ends.

    Args:
      blob: the names, each with a zero byte behind it.
    """

    def __init__(self, blob: bytes):
        self.blob = blob
        self._ends = np.flatnonzero(np.frombuffer(blob, np.uint8) == 0)

    @classmethod
    def of(cls, names: Iterable[str]) -> 'Names':
        """Stores the names of an iterable."""
        text = '\0'.join([*names, ''])
        return cls(text.encode(*_ENCODING))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i):
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        start = self._ends[i - 1] + 1 if i else 0
        return self.blob[start:self._ends[i]].decode(*_ENCODING)

    def __iter__(self) -> Iterator[str]:
        return iter(self.blob.decode(*_ENCODING).split('\0')[:-1])

    def __eq__(self, other) -> bool:
        return isinstance(other, Names) and self.blob == other.blob

    __hash__ = None  # type: ignore[assignment]

    def take(self, rows: np.ndarray) -> 'Names':
        """The names of some rows."""
        names = list(self)
        return Names.of(names[row] for row in rows.tolist())


Columns = dict[str, np.ndarray | Names]


def write(path: str | os.PathLike, kind: str, columns: Mapping[str, np.ndarray | Names],
          about: Mapping[str, object] | None = None) -> None:
    """Writes a table atomically: one record for its description, in JSON, and one for each column.

    Args:
      path: the file.
      kind: what the table holds; `read` asks for it.
      columns: arrays of one axis, and names.
      about: what else there is to say of the table, in JSON's types.

    Raises:
      OSError: the file cannot be written.
    """
    stored = {name: column.blob if isinstance(column, Names) else np.ascontiguousarray(column).tobytes()
              for name, column in columns.items()}
    header = {'kind': kind, 'version': VERSION, 'about': dict(about or {}), 'columns': {
        name: ['names' if isinstance(column, Names) else column.dtype.str, len(column), zlib.crc32(stored[name])]
        for name, column in columns.items()}}
    with files.atomic_write(path) as partial:
        try:
            writer = array_record_module.ArrayRecordWriter(os.fspath(partial), _OPTIONS)
            for record in (json.dumps(header).encode(), *stored.values()):
                writer.write(record)
            writer.close()
        except RuntimeError as error:
            raise OSError(0, str(error), os.fspath(path)) from error


def read(path: str | os.PathLike, kind: str) -> tuple[Columns, dict]:
    """Reads a table: its columns, and what else is said of it.

    Raises:
      OSError: there is no such file, or it cannot be read.
      ValueError: it is damaged, of another kind or of another version.
    """
    try:
        with files.local_copy(path) as copy:
            open(copy, 'rb').close()  # raises what ArrayRecord has no word for
            reader = array_record_module.ArrayRecordReader(os.fspath(copy))
            try:
                first, *stored = reader.read_all()
            finally:
                reader.close()
        header = json.loads(first)
        if (header['kind'], header['version']) != (kind, VERSION):
            raise ValueError(f'{path}: of another kind or version')
        columns: Columns = {}
        for (name, (form, length, checksum)), data in zip(header['columns'].items(), stored, strict=True):
            columns[name] = Names(data) if form == 'names' else np.frombuffer(data, form).copy()
            if zlib.crc32(data) != checksum or len(columns[name]) != length:
                raise ValueError(f'{path}: damaged in the column {name}')
        return columns, header['about']
    except (RuntimeError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path}: damaged ({error})') from error
