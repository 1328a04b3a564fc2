"""Reads packed data sets: many recordings in a few ArrayRecord shards, which `jax-diffse pack` writes.

A packed data set is a folder. `index.columns` names its recordings and says how long they are and where in the shards
they lie, so that nothing else is read when it is opened. It is also a data set of TFDS (`tfds.builder_from_directory`).
"""

import functools
import os
import threading

import numpy as np
from array_record.python import array_record_module

from jax_diffse import audio, audio_files, files
from jax_diffse.data import columns, esc, riegeli
from jax_diffse.data.columns import Columns
from jax_diffse.data.facts import SOUND, Facts, Rules
from jax_diffse.data.recordings import AudioFiles
from jax_diffse.data.scan import judge, once
from jax_diffse.errors import StoreError, UserError

INDEX, METADATA, PLAN = 'index.columns', 'dataset_info.json', 'unfinished_pack.json'  # the last one until it is whole
KIND = 'packed recordings'
SPLIT = 'train'  # TFDS's name for all recordings
FULL_SCALE = 32_768  # int16 value of 1.0
PLACES = 'start', 'size', 'offset'  # of a recording: its first byte in the record, its bytes, its first in the shard
PARTS = {'speech': ('audio', 'clean'), 'clean': ('audio', 'clean'), 'noisy': ('audio', 'noisy'), 'noise': ('audio',)}
_OPTIONS = 'readahead_buffer_size:0,max_parallelism:0'  # records are read in random order, by several threads
_BUFFER = 1 << 16  # bytes that are read at once; records are this long or a little longer


def shard_name(kind: str, shard: int, count: int) -> str:
    """The name of the file of a shard, as TFDS names it."""
    return f'{kind}-{SPLIT}.array_record-{shard:05d}-of-{count:05d}'


class Index:
    """What a packed data set holds: one row for each recording, or for each pair of recordings."""

    def __init__(self, root: str, table: Columns, about: dict):
        self.root, self._table, self.about = root, table, about
        self.parts = tuple(about['parts'])  # ('audio',) or ('clean', 'noisy')
        self._places = {part: [table[f'{part}_{what}'] for what in PLACES] for part in self.parts}
        self._ends = np.cumsum(about['shard_lengths'])
        self._readers: dict[int, array_record_module.ArrayRecordReader] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The names of the recordings, see `audio_files.name`."""
        return [audio_files.stem(path) for path in self._table['paths']]

    def clips(self) -> dict[str, esc.Clip] | None:
        """The clips by name, if they are those of ESC, see `esc.clips`."""
        if 'recording' not in self._table:
            return None
        known = zip(self._table['noise_class'], self._table['recording'], self._table['fold'].tolist(), strict=True)
        return {name: esc.Clip(*clip) for name, clip in zip(self.names(), known, strict=True)}

    def survey(self, role: str, rules: Rules) -> tuple[AudioFiles, dict[str, str]]:
        """Divides the recordings into good and bad ones, as `scan.survey` does, without reading any.

        Args:
          role: 'speech', 'clean', 'noisy' or 'noise'; of pairs, speech is the clean part.
          rules: which recordings can be used.

        Raises:
          UserError: the data set has no recordings for this role. Packed speech may serve as noise (babble).
        """
        if self.about['kind'] == 'noise' and role != 'noise':
            raise UserError(f'{self.root}: holds packed noise, expected packed speech or pairs, or a folder of {role}')
        part = next((part for part in PARTS[role] if part in self.parts), None)
        if part is None:
            raise UserError(f'{self.root}: holds packed pairs, expected packed noise or a folder of noise')
        facts = Facts.unknown(self._table.get(f'{part}_paths', self._table['paths']))
        facts.num_samples, facts.sample_rate = self._table['num_samples'], self._table['sample_rate']
        facts.num_channels[:], facts.content[:] = 1, SOUND
        store = _Part(self, *self._places[part])
        return judge(AudioFiles(os.path.join(self.root, ''), facts, rules, np.arange(len(facts)), store), {})

    def path(self, row: int) -> str:
        """The path of a recording, as if the data set were the folder that was packed."""
        return os.path.join(self.root, self._table['paths'][row])

    def payload(self, row: int, place: tuple[int, int, int]) -> bytes:
        """Reads a recording of the record of a row: a FLAC file, or samples.

        Args:
          row: of the index.
          place: of the recording, see `PLACES`.

        Raises:
          UserError: its shard is missing or damaged.
        """
        shard = int(np.searchsorted(self._ends, row, side='right'))
        path = os.path.join(self.root, shard_name(self.about['kind'], shard, len(self._ends)))
        start, size, offset = place
        try:
            if files.is_address(path):
                stored = files.read_bytes(path, offset, offset + riegeli.stored_size(offset, size))
                payload = riegeli.without_headers(stored, offset)
                if len(payload) < size:
                    raise ValueError('cut off')
                return payload
            return self._record(path, shard, row)[start:start + size]
        except (RuntimeError, IndexError, ValueError, OSError) as error:
            gone = isinstance(error, FileNotFoundError) or not (files.is_address(path) or os.path.exists(path))
            reason = 'no such file' if gone else files.reason(error)
            raise UserError(f'{path}: cannot be read ({reason}); restore it, or pack the recordings again') from error

    def _record(self, path: str, shard: int, row: int) -> bytes:
        with self._lock:
            if shard not in self._readers:
                self._readers[shard] = array_record_module.ArrayRecordReader(
                    path, _OPTIONS, file_reader_buffer_size=_BUFFER)
        length = self.about['shard_lengths'][shard]
        record: bytes = self._readers[shard].read([row - int(self._ends[shard]) + length])[0]
        return record


class _Part:
    """One part of every record, a `recordings.Store`; `places` has a column for each of `PLACES`."""

    def __init__(self, index: Index, *places: np.ndarray):
        self._index, self._places = index, places

    def read(self, row: int, start: int, stop: int | None) -> np.ndarray:
        """Reads samples [start, stop) of the recording of a row, float32 `[N]`."""
        begin, size, offset = (int(column[row]) for column in self._places)
        payload = self._index.payload(row, (begin, size, offset))
        if self._index.about['encoding'] == 'int16':
            return np.frombuffer(payload, '<i2')[start:stop].astype(np.float32) / FULL_SCALE
        return audio.decode(payload, self._index.path(row), start, stop)


def index(root: str) -> Index | None:
    """The index of a packed data set; None if the folder is none.

    Raises:
      UserError: it is not finished, or its index is damaged.
    """
    return once(_index, root)


def _index(root: str) -> Index | None:
    path = os.path.join(root, INDEX)
    there = [_exists(os.path.join(root, name)) for name in (PLAN, INDEX, METADATA)]
    if there[0] or there[1] and not there[2]:
        raise UserError(f'{root}: a packed data set that is not finished; run its jax-diffse pack command again')
    if not all(there[1:]):
        return None
    return _read(root, path, files.entry(path).version if files.is_address(path) else os.stat(path).st_mtime_ns)


def _exists(path: str) -> bool:
    """Whether a file exists; in object storage by a single request, with which no listing is made."""
    if not files.is_address(path):
        return os.path.exists(path)
    try:
        return bool(files.read_bytes(path, 0, 1))
    except FileNotFoundError:
        return False
    except StoreError as error:
        raise UserError(f'{os.path.dirname(path)}: cannot be read ({files.reason(error)})') from error


@functools.lru_cache(maxsize=8)  # train and validation read the same data set
def _read(root: str, path: str, changed: int | str) -> Index:
    del changed  # only part of the key
    try:
        return Index(root, *columns.read(path, KIND))
    except (OSError, ValueError, KeyError) as error:
        reason = getattr(error, 'strerror', None) or str(error).removeprefix(f'{path}: ')
        raise UserError(f'{path}: cannot be read ({reason}); restore it, or pack the recordings again') from error
