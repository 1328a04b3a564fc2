"""Packs folders of recordings into ArrayRecord shards, which TFDS and `packed` read."""

import concurrent.futures
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import soundfile
import tensorflow_datasets as tfds
from array_record.python import array_record_module

import jax_diffse.data.tf  # noqa: F401  hides accelerators before TFDS uses TensorFlow
from jax_diffse import audio, audio_files, files
from jax_diffse.data import columns, esc, lists, packed, riegeli, scan
from jax_diffse.data.columns import Names
from jax_diffse.data.config import Folders
from jax_diffse.data.facts import Rules
from jax_diffse.data.recordings import AudioFiles, folder_of
from jax_diffse.data.speakers import speakers
from jax_diffse.errors import StoreError, UserError

ENCODINGS = ('flac', 'int16')
SHARD_SAMPLES = 1 << 27  # of a shard; 2.3 hours at 16 kHz
DEEP = ('PCM_24', 'PCM_32', 'FLOAT', 'DOUBLE', 'ALAC_20', 'ALAC_24', 'ALAC_32')  # encodings of more than 16 bits
_OPTIONS = 'group_size:1,uncompressed'  # each record can be read alone; FLAC does not shrink
_PART = 64  # recordings that are encoded before they are written
_SAY_SECONDS = 10
_KINDS = {('speech',): 'speech', ('noise',): 'noise', ('clean', 'noisy'): 'pairs'}


@dataclasses.dataclass(frozen=True)
class PackOptions:
    """How to pack.

    Attributes:
      encoding: 'flac' or 'int16'. FLAC keeps up to 24 bits of every sample, int16 rounds to 16 bits.
      listed: a text file with the paths of the files to pack, one a line, relative to the folder; '': all files.
      speaker_level: of the folders that are speakers, see `speakers.speakers`.
      skip_bad: leave bad files out instead of stopping.
    """

    encoding: str = 'flac'
    listed: str = ''
    speaker_level: int = 0
    skip_bad: bool = False

    def __post_init__(self):
        if self.encoding not in ENCODINGS:
            raise UserError(f'--encoding: expected one of {", ".join(ENCODINGS)}, got {self.encoding!r}')


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is packed: recordings of one or of two folders, in the same order, and what is known of them."""

    kind: str  # 'speech', 'noise' or 'pairs'
    parts: dict[str, AudioFiles]
    encoding: str
    speakers: list[str]
    clips: list[esc.Clip] | None  # of ESC
    shards: np.ndarray  # the shard of every recording

    @property
    def first(self) -> AudioFiles:
        return next(iter(self.parts.values()))

    def rows(self, shard: int) -> list[int]:
        """The recordings of a shard."""
        return np.flatnonzero(self.shards == shard).tolist()

    def digest(self) -> str:
        """A hash of all that the result depends on."""
        found = hashlib.sha256(json.dumps([self.kind, self.encoding, self.speakers, self.clips,
                                           self.shards.tolist()]).encode())
        for recordings in self.parts.values():
            table = recordings.facts.columns(recordings.rows)
            for name in ('paths', 'size', 'changed', 'num_samples', 'sample_rate'):
                column = table[name]
                found.update(column.blob if isinstance(column, Names) else column.tobytes())
        return found.hexdigest()


def pack(folders: Folders, output: str, options: PackOptions) -> str:
    """Packs the recordings of `speech`, of `noise`, or of `clean` and `noisy`.

    A command that was interrupted goes on behind the last whole shard. The data set can be read when it is complete.

    Args:
      folders: one folder, or two of pairs.
      output: the folder of the data set.
      options: how to pack.

    Returns:
      What was packed, in words.

    Raises:
      UserError: bad files, or files of another name or length in the other folder; `output` holds something else, or
        cannot be written.
    """
    named = {field.name: getattr(folders, field.name) for field in dataclasses.fields(folders)
             if getattr(folders, field.name)}
    kind = _KINDS.get(tuple(named))
    if kind is None:
        raise UserError(f'{" and ".join(f"--{name}" for name in named) or "no folder"} given, expected --speech, '
                        '--noise, or --clean and --noisy')
    root = files.path(output)
    for name, folder in named.items():
        if _lies_in(root, files.path(folder)):
            raise UserError(f'--output={output}: lies in --{name}={folder}; choose a folder outside of it')
    plan = _plan(kind, named, options)
    digest, count = plan.digest(), int(plan.shards[-1]) + 1
    if _is_complete(root, digest, [packed.shard_name(kind, shard, count) for shard in range(count)]):
        return f'{output}: is complete already, {len(plan.first)} {kind} in {count} shard(s)'
    try:
        files.write_text(root / packed.PLAN, json.dumps({'digest': digest}) + '\n')
        tables = []
        for shard in range(count):
            tables.append(_shard(root, plan, shard, count, digest))
        _finish(root, plan, tables, digest)
    except OSError as error:
        raise UserError(files.unwritable(output, error)) from error
    seconds = float(np.sum(plan.first.num_samples() / plan.first.facts.sample_rate[plan.first.rows]))
    return f'{output}: {len(plan.first)} {kind}, {seconds / 3600:.2f} hours, in {count} shard(s)'


def _lies_in(path: pathlib.Path, folder: pathlib.Path) -> bool:
    if files.is_address(path) or files.is_address(folder):
        return f'{path}/'.startswith(f'{folder}/')
    return path.resolve().is_relative_to(folder.resolve())


# ----------------------------------------------------------------------------------------------------------- planning


def _plan(kind: str, folders: dict[str, str], options: PackOptions) -> _Plan:
    rules = Rules(0, 0.0)
    paths: list[str] | None = None
    surveys = []
    for name, folder in folders.items():
        paths = lists.partners(folder, paths) if name == 'noisy' and paths else lists.read(folder, options.listed)
        surveys.append(scan.survey(rules, folder, paths))
    found, bad = zip(*surveys)
    total = sum(map(len, (*found, *bad)))
    if kind == 'pairs':
        *found, problems = scan.partners(*found, bad)
    else:
        problems, = bad
    scan.report_bad_files(problems, total, options.skip_bad, '--skip-bad')
    first = found[0]
    if not first:
        raise UserError(f'{next(iter(folders.values()))}: all audio files are bad and were left out, expected at '
                        'least one good file')
    names = first.names()
    who = [''] * len(names)
    if kind != 'noise':
        groups = speakers(names, options.speaker_level, '--speaker-level')
        who = [groups.of[name] if groups.found else '' for name in names]
    known = _clips(folders['noise'], first, options) if kind == 'noise' else None
    ends = np.cumsum(first.num_samples())
    shards = np.unique((ends - 1) // SHARD_SAMPLES, return_inverse=True)[1]
    parts = dict(zip(folders, found)) if kind == 'pairs' else {'audio': first}
    return _Plan(kind, parts, options.encoding, who, [known[name] for name in names] if known else None, shards)


def _clips(folder: str, found: AudioFiles, options: PackOptions) -> dict[str, esc.Clip] | None:
    paths = audio_files.list_paths(folder) if options.listed else found.facts.paths
    return esc.clips(folder, list(map(audio_files.stem, paths)))


def _is_complete(root: pathlib.Path, digest: str, shards: list[str]) -> bool:
    """Whether the whole data set is there already.

    Raises:
      UserError: the folder holds something else.
    """
    plan = root / packed.PLAN
    try:
        if plan.exists():
            earlier = json.loads(plan.read_text(encoding='utf-8')).get('digest')
        elif (root / packed.INDEX).exists():
            earlier = columns.read(root / packed.INDEX, packed.KIND)[1].get('digest')
        elif root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise UserError(f'{root}: exists and is not a packed data set; choose another --output')
        else:
            return False
    except StoreError as error:
        raise UserError(f'{root}: cannot be read ({files.reason(error)})') from error
    except (OSError, ValueError, AttributeError):
        earlier = None
    if earlier != digest:
        raise UserError(f'{root}: holds a data set of other files, or packed otherwise; remove it or choose another '
                        '--output')
    there = {path.name for path in root.iterdir()}
    return packed.PLAN not in there and there >= {packed.METADATA, *shards}


# ------------------------------------------------------------------------------------------------------------ writing


def _shard(root: pathlib.Path, plan: _Plan, shard: int, count: int, digest: str) -> columns.Columns:
    """Writes a shard, unless it is there already; returns its part of the index."""
    path = root / packed.shard_name(plan.kind, shard, count)
    table_path = _table_path(root, shard)
    if path.exists():
        try:
            table, about = columns.read(table_path, packed.KIND)
            if about['digest'] == digest:
                return table
        except (OSError, ValueError, KeyError):
            pass
    starts: list[list[int]] = []
    wanted: list[riegeli.Wanted] = []
    features = _features(plan)
    with files.atomic_write(path) as partial:
        writer = array_record_module.ArrayRecordWriter(os.fspath(partial), _OPTIONS)
        try:
            for record, payloads in _records(plan, plan.rows(shard), features):
                writer.write(record)
                starts.append([record.index(payload) for payload in payloads])
                wanted += map(riegeli.Wanted.of, sorted(payloads, key=record.index))
            writer.close()
            table = _places(plan, starts, wanted, riegeli.find(partial, wanted))
        except (RuntimeError, ValueError) as error:
            raise OSError(0, str(error), os.fspath(path)) from error
        columns.write(table_path, packed.KIND, table, {'digest': digest})
    print(f'{path}: {len(starts)} recordings, shard {shard + 1} of {count}', flush=True)
    return table


def _places(plan: _Plan, starts: list[list[int]], wanted: list[riegeli.Wanted], offsets: list[int]) -> columns.Columns:
    """The columns `packed.PLACES` of each part; `wanted` and `offsets` are in the order of the bytes of a record."""
    shape = len(starts), len(plan.parts)
    ranks = np.argsort(np.argsort(starts, axis=1, kind='stable'), axis=1)
    sizes = np.take_along_axis(np.reshape([each.size for each in wanted], shape), ranks, axis=1)
    found = np.stack([starts, sizes, np.take_along_axis(np.reshape(offsets, shape), ranks, axis=1)])
    return {f'{part}_{what}': found[j, :, k].astype(np.int64) for k, part in enumerate(plan.parts)
            for j, what in enumerate(packed.PLACES)}


def _records(plan: _Plan, rows: list[int], features) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yields the records of some recordings, and the payloads in them."""
    said = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(rows), _PART):
            yield from pool.map(lambda i: _record(plan, i, features), rows[start:start + _PART])
            if time.monotonic() - said > _SAY_SECONDS:
                said = time.monotonic()
                print(f'packed {min(start + _PART, len(rows))} of {len(rows)} recordings of this shard', flush=True)


def _record(plan: _Plan, i: int, features) -> tuple[bytes, list[bytes]]:
    file = plan.first[i]
    row = plan.first.rows[i]
    header = file.num_samples, int(plan.first.facts.sample_rate[row])
    payloads = {part: _encode(found.source(found.rows[i]), plan.encoding, header)
                for part, found in plan.parts.items()}
    example = {'name': file.name, 'path': plan.first.facts.paths[row], 'speaker': plan.speakers[i],
               'sample_rate': header[1], 'num_samples': header[0]}
    if plan.kind == 'noise':
        clip = plan.clips[i] if plan.clips else esc.Clip(folder_of(file.path), '')
        example |= {'noise_class': clip.noise_class, 'recording': clip.recording, 'fold': clip.fold}
    stored = {part: payload if plan.encoding == 'flac' else np.frombuffer(payload, '<i2')
              for part, payload in payloads.items()}
    return features.serialize_example(example | stored), list(payloads.values())


def _encode(path: str | files.StoredObject, encoding: str, header: tuple[int, int]) -> bytes:
    """Reads a file of so many samples at so many Hz, and encodes its samples, clipped to full scale."""
    samples, rate = audio.read(path)
    if (len(samples), rate) != header:
        raise UserError(f'{path}: has changed since it was checked; run the command again')
    bits = 24 if encoding == 'flac' and audio.info(path).subtype in DEEP else 16
    scale = 1 << (bits - 1)
    whole = np.clip(np.rint(samples[:, 0].astype(np.float64) * scale), -scale, scale - 1).astype(np.int32)
    if encoding == 'int16':
        return whole.astype('<i2').tobytes()
    # Whole numbers: libsndfile scales floating-point samples by another factor when it writes than when it reads.
    buffer = io.BytesIO()
    data = whole.astype(np.int16) if bits == 16 else whole << 8
    soundfile.write(buffer, data, rate, format='FLAC', subtype=f'PCM_{bits}')
    return buffer.getvalue()


def _features(plan: _Plan) -> tfds.features.FeaturesDict:
    """TFDS's description of a record."""
    text = tfds.features.Text()
    if plan.encoding == 'flac':
        payload = tfds.features.Text(doc='a FLAC file')
    else:
        payload = tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding='bytes')
    noise = {'noise_class': text, 'recording': text, 'fold': np.int32} if plan.kind == 'noise' else {}
    return tfds.features.FeaturesDict({'name': text, 'path': text, 'speaker': text, 'sample_rate': np.int32,
                                       'num_samples': np.int64, **dict.fromkeys(plan.parts, payload), **noise})


def _finish(root: pathlib.Path, plan: _Plan, tables: list[columns.Columns], digest: str) -> None:
    """Writes the index, and TFDS's metadata last; then it removes what only an unfinished data set has."""
    lengths = [len(table[f'{next(iter(plan.parts))}_start']) for table in tables]
    facts = plan.first.facts.columns(plan.first.rows)
    table = {name: facts[name] for name in ('paths', 'num_samples', 'sample_rate')}
    table |= {f'{part}_paths': recordings.facts.paths.take(recordings.rows) for part, recordings in plan.parts.items()
              if recordings.names() != plan.first.names()}  # of partners by file id
    table |= {name: np.concatenate([part[name] for part in tables]) for name in tables[0]}
    if plan.clips:
        classes, recordings, folds = zip(*plan.clips, strict=True)
        table |= {'noise_class': Names.of(classes), 'recording': Names.of(recordings), 'fold': np.array(folds)}
    about = {'kind': plan.kind, 'parts': list(plan.parts), 'encoding': plan.encoding, 'shard_lengths': lengths,
             'digest': digest}
    columns.write(root / packed.INDEX, packed.KIND, table, about)
    _write_metadata(root, plan, lengths)
    for shard in range(len(lengths)):
        _table_path(root, shard).unlink(missing_ok=True)
    (root / packed.PLAN).unlink()


def _write_metadata(root: pathlib.Path, plan: _Plan, lengths: list[int]) -> None:
    """Writes TFDS's metadata, the file that makes the data set complete last."""
    shards = [packed.shard_name(plan.kind, shard, len(lengths)) for shard in range(len(lengths))]
    with tempfile.TemporaryDirectory(prefix='jax_diffse_') as folder:
        for name in shards:
            pathlib.Path(folder, name).touch()  # TFDS wants names of files
        tfds.folder_dataset.write_metadata(
            data_dir=folder, features=_features(plan), check_data=False, description=f'Recordings: {plan.kind}.',
            split_infos=[tfds.core.SplitInfo(packed.SPLIT, lengths, sum(_size(root / name) for name in shards))],
            metadata=tfds.core.MetadataDict(encoding=plan.encoding))
        names = {path.name for path in pathlib.Path(folder).iterdir()} - set(shards)
        for name in sorted(names, key=lambda name: name == packed.METADATA):
            files.write_text(root / name, pathlib.Path(folder, name).read_text(encoding='utf-8'))


def _size(path: pathlib.Path) -> int:
    return files.entry(path).size if files.is_address(path) else path.stat().st_size


def _table_path(root: pathlib.Path, shard: int) -> pathlib.Path:
    return root / f'index-{shard:05d}.columns'
