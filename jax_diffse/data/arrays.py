"""Prepared pairs in one `.npy` file as a `Source`: `[B, 2, L]`, or tests by noise kind and SNR.

Files are memory-mapped; of an object in object storage, the pairs that are asked for are read.
"""

import collections
import dataclasses
import functools
import itertools
import logging
import math
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from jax_diffse import files
from jax_diffse.data.config import DataConfig
from jax_diffse.data.folders import held_out
from jax_diffse.data.mixing import crop
from jax_diffse.data.recordings import HEADER
from jax_diffse.data.scan import is_silent
from jax_diffse.errors import UserError

FULL_SCALE = {'float32': 1.0, 'float64': 1.0, 'int16': 32_768.0}  # by type of the samples
KINDS = {1: (None,), 2: ('seen', 'unseen')}  # noise kinds by length of the first axis
REASONS = {  # words of NumPy's errors -> what is wrong with the file
    'Python objects': 'holds Python objects, which are not loaded',
    'mmap length': 'cut off, shorter than its header says',
    'Fortran': 'stored in Fortran order, so that its examples are not in one place each',
    'PK': 'an archive of arrays (.npz)'}
LOUDEST = 100.0  # full scales; what is louder was scaled otherwise, as 16-bit samples stored in floating point are
_BLOCK = 1 << 23  # samples that are checked at once; bounds the memory

log = logging.getLogger(__name__)


class StoredArray:
    """An array of a `.npy` file in object storage; what is asked for is read, by one request.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no such file, or damaged, or holds objects, or is in Fortran order.
    """

    def __init__(self, path: pathlib.Path):
        self._address = os.fspath(path)
        source = files.StoredObject(self._address, files.entry(path).size, HEADER)
        with source.open() as file:
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            self.shape, fortran_order, self.dtype = readers[np.lib.format.read_magic(file)](file)
            self._start = file.tell()
        if self.dtype.hasobject:
            raise ValueError('Python objects')
        if fortran_order:
            raise ValueError('Fortran order')
        self.ndim, self.size = len(self.shape), math.prod(self.shape)
        if source.size < self._start + self.size * self.dtype.itemsize:
            raise ValueError('mmap length is greater than file size')

    def __getitem__(self, index: tuple) -> np.ndarray:
        """Reads `samples[index]` for an index of each leading axis, of which the last may be a slice.

        Raises:
          UserError: it cannot be read.
        """
        *leading, last = index
        axes, below = self.shape[:len(index)], self.shape[len(index):]
        start, stop, _ = (last if isinstance(last, slice) else slice(last, last + 1)).indices(axes[-1])
        size = math.prod(below) * self.dtype.itemsize
        first = self._start + size * int(np.ravel_multi_index((*leading, start), axes))
        try:
            data = files.read_bytes(self._address, first, first + size * (stop - start))
            found = np.frombuffer(data, self.dtype).reshape(stop - start, *below)
        except (OSError, ValueError) as error:  # ValueError: fewer bytes
            raise UserError(f'{self._address}: cannot be read any more ({files.reason(error)})') from error
        return found if isinstance(last, slice) else found[0]


@dataclasses.dataclass(frozen=True)
class _Signal:
    """One signal of the file, in the terms of `mixing.crop`."""

    samples: np.ndarray  # [L], as stored

    @property
    def num_samples(self) -> int:
        return len(self.samples)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Reads samples [start, stop), float32 `[N]`."""
        return _scaled(self.samples[start:stop])


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Pairs in an array; several threads may read from it."""

    sample_rate: int  # Hz
    samples: np.ndarray | StoredArray  # [..., 2, L], as stored; noisy first
    places: Sequence[tuple[int, ...]]  # index of every pair in the leading axes
    infos: Sequence[dict]  # 'id' of every pair, and for tests 'snr_db' and 'noise_kind'

    used = ''  # `share.take_share` takes shares

    @property
    def in_store(self) -> bool:
        """Whether samples come from object storage."""
        return isinstance(self.samples, StoredArray)

    def __len__(self) -> int:
        return len(self.places)

    def info(self, i: int) -> dict:
        """`{'id', 'num_samples'}` of pair i, and for tests by SNR 'snr_db' and, if known, 'noise_kind'."""
        return {**self.infos[i], 'num_samples': self.samples.shape[-1]}

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads the whole pair i: (clean `[L]`, noisy `[L]`)."""
        noisy, clean = self.samples[self.places[i]]
        return _scaled(clean), _scaled(noisy)

    def draw(self, i: int, num_samples: int, rng: np.random.Generator,
             start: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Reads a crop of pair i, at most `num_samples` long, by default where the speech is not silent."""
        noisy, clean = map(_Signal, self.samples[self.places[i]])
        length = min(num_samples, clean.num_samples - (start or 0))
        if start is None:
            start = crop(clean, length, rng)[1]
        return clean.read(start, start + length), noisy.read(start, start + length)


def open_arrays(config: DataConfig, split: str) -> ArraySource:
    """Opens the array of a split, or the part of the training array that is held out for validation.

    Arrays have the axes `[B, 2, L]`: B examples of noisy and clean speech, in this order, at `config.sample_rate`. An
    array for tests may also be `[noise kind, dB class, B, 2, L]`. Two noise kinds are 'seen' and 'unseen', one is
    without name; the dB classes are `config.test_snr_db`. Samples are float32 or float64 in [-1, 1], or int16. The file
    is read once, block by block, to check it.

    Raises:
      UserError: no such file, another format, or axes or samples that cannot be used.
    """
    key, folders, shared = config.folders_of(split)
    path = files.path(folders.arrays)
    samples = _opened(path)
    _check_axes(path, samples, by_condition=split == 'test')
    seconds = samples.shape[-1] / config.sample_rate
    if seconds < config.min_seconds:
        raise UserError(f'{path}: {seconds:.3f} s per example at {config.sample_rate} Hz, expected '
                        f'{config.min_seconds:g} s or more')
    conditions = _conditions(path, samples, config.test_snr_db)
    version = files.entry(path).version if files.is_address(path) else os.stat(path).st_mtime_ns
    bad = _bad_examples(path, version)
    _report(path, bad, math.prod(samples.shape[:-2]), config.skip_bad)
    found = {info['id']: (place, info) for place, info in _listed(samples, conditions) if place not in bad}
    if split != 'validation' or not shared:
        print(f'{path}: {len(found)} examples of {seconds:g} s, taken to be at {config.sample_rate} Hz', flush=True)
    if shared:
        found = _shared(path, found, config, split)
    return ArraySource(config.sample_rate, samples, *zip(*found.values()))


def _opened(path: pathlib.Path) -> np.ndarray | StoredArray:
    """Maps the file into memory; nothing in it is executed."""
    try:
        samples = StoredArray(path) if files.is_address(path) else np.lib.format.open_memmap(path, mode='r')
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({files.reason(error)})') from error
    except Exception as error:  # NumPy raises many kinds for a damaged header
        reason = next((reason for words, reason in REASONS.items() if words in str(error)),
                      'not an array of NumPy (.npy), or damaged')
        raise UserError(f'{path}: {reason}; expected one array of float32, float64 or int16, saved with numpy.save'
                        ) from error
    if samples.dtype.newbyteorder('=').name not in FULL_SCALE:
        raise UserError(f'{path}: samples are {samples.dtype.name}, expected {", ".join(FULL_SCALE)}')
    return samples


def _check_axes(path: pathlib.Path, samples: np.ndarray | StoredArray, by_condition: bool) -> None:
    shape = list(samples.shape)
    expected = '[B, 2, L]' + (' or [noise kind, dB class, B, 2, L]' if by_condition else '')
    if len(shape) not in ((3, 5) if by_condition else (3,)):
        raise UserError(f'{path}: {len(shape)} axes, {shape}, expected {expected}')
    if shape[-2] != 2:
        raise UserError(f'{path}: {shape[-2]} signals per example in {shape}, expected noisy and clean: {expected}')
    if not samples.size:
        raise UserError(f'{path}: no examples in {shape}, expected one or more: {expected}')
    if len(shape) == 5 and shape[0] not in KINDS:
        raise UserError(f'{path}: {shape[0]} noise kinds in {shape}, expected 2 (seen, unseen) or 1')


def _conditions(path: pathlib.Path, samples: np.ndarray | StoredArray, snr_db: Sequence[float]) -> list[dict]:
    """What is known of the examples below each place of the leading axes."""
    if samples.ndim == 3:
        return [{}]
    names = [f'{level:g}' for level in snr_db]
    if len(names) != samples.shape[1] or len(set(names)) < len(names):
        raise UserError(f'{path}: {samples.shape[1]} dB classes, got {len(names)} SNRs ({", ".join(names)}); expected '
                        'one for each: config.data.test_snr_db (evaluate: --snr-db)')
    return [{'snr_db': float(level)} | ({'noise_kind': kind} if kind else {})
            for kind in KINDS[samples.shape[0]] for level in snr_db]


def _listed(samples: np.ndarray | StoredArray, conditions: Sequence[dict]) -> Iterator[tuple[tuple[int, ...], dict]]:
    """Place in the leading axes and information of every example."""
    *leading, count = samples.shape[:-2]
    width = max(4, len(str(count - 1)))
    for place, known in zip(np.ndindex(*leading), conditions, strict=True):
        above = [known['noise_kind']] if 'noise_kind' in known else []
        above += [f'{known["snr_db"]:g}dB'] if known else []
        for k in range(count):
            yield (*place, k), {'id': '/'.join([*above, f'{k:0{width}d}']), **known}


@functools.cache  # train and a validation split that is held out of it check the same file
def _bad_examples(path: pathlib.Path, changed: int | str) -> dict[tuple[int, ...], str]:
    """Place of every example that cannot be used -> what is wrong with it."""
    del changed  # only part of the key
    samples, bad = _opened(path), {}
    *leading, count, _, length = samples.shape
    step = max(1, _BLOCK // (2 * length))
    for place, start in itertools.product(np.ndindex(*leading), range(0, count, step)):
        with np.errstate(over='ignore'):  # beyond float32: becomes infinite, and is reported
            block = _scaled(samples[*place, start:start + step])
        for k, pair in enumerate(block):
            reason = _reason(pair)
            if reason:
                bad[*place, start + k] = reason
    return bad


def _reason(pair: np.ndarray) -> str:
    """Why an example `[2, L]` cannot be used, or ''."""
    if not np.isfinite(pair).all():
        return 'has NaN or infinite samples'
    if np.abs(pair).max() > LOUDEST:
        return f'has samples beyond {LOUDEST:g}, where full scale is 1,'
    return next((f'{name} speech is silent' for name, x in zip(('noisy', 'clean'), pair) if is_silent(x)), '')


def _report(path: pathlib.Path, bad: dict[tuple[int, ...], str], total: int, skip_bad: bool) -> None:
    """Raises or, with `skip_bad`, logs one line about the examples that cannot be used."""
    if not bad:
        return
    reasons = collections.Counter(bad.values())
    first = next(iter(bad))
    line = (f'{", ".join(f"{reason} in {count} of {total} examples" for reason, count in reasons.items())}, first in '
            f'{list(first)}')
    if len(bad) == total:
        raise UserError(f'{path}: {line}, so none is left')
    if not skip_bad:
        raise UserError(f'{path}: {line}; prepare them again, or leave them out with --config.data.skip_bad=True '
                        '(evaluate: --skip-bad)')
    log.warning('%s: left out: %s', path, line)


def _shared(path: pathlib.Path, found: dict, config: DataConfig, split: str) -> dict:
    """The examples of train or validation where they share an array."""
    if len(found) < 2:
        raise UserError(f'{path}: has a single example, so none can be held out for validation; set '
                        'config.data.validation')
    held = held_out({name: name for name in found}, config.held_out)
    if split == 'validation':
        print(f'{path}: arrays name no speakers; {len(held)} of {len(found)} examples are held out for validation, and '
              'their speakers may also be in training (config.data.validation.arrays names an array of other speakers)',
              flush=True)
    return {name: entry for name, entry in found.items() if (name in held) == (split == 'validation')}


def _scaled(samples: np.ndarray) -> np.ndarray:
    """Samples as stored -> float32 in [-1, 1]."""
    return np.asarray(samples, np.float32) / np.float32(FULL_SCALE[samples.dtype.newbyteorder('=').name])
