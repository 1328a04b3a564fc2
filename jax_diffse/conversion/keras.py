"""Reads the weights of Keras from HDF5 files, of Keras 1 to 3. Nothing in a file is executed."""

import os
import re
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from jax_diffse import files
from jax_diffse.errors import UserError

SIGNATURE = b'\x89HDF\r\n\x1a\n'
LARGEST = 1 << 30  # bytes of one array; a small file may claim a huge one


def is_hdf5(path: str | os.PathLike) -> bool:
    """Whether a file is one of HDF5."""
    try:
        with files.path(path).open('rb') as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the layers that have weights, in the order of the network.

    Args:
      path: a file of `save_weights` or `save`, `.h5` (any version) or `.weights.h5` (Keras 3).

    Returns:
      'KIND/WEIGHT', 'KIND_1/WEIGHT', ... -> array, numbered in the order of the layers of a kind, whatever numbers the
      file has. KIND is a layer's name without its number, such as 'conv2d'; WEIGHT is 'kernel' or 'bias'.

    Raises:
      UserError: the file is damaged, has no weights, or has links to other files.
    """
    try:
        with files.local_copy(path) as copy, h5py.File(copy, 'r') as file:
            layers = list(_named(file, path) if 'layer_names' in _root(file).attrs else _numbered(file, path))
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f'{path}: damaged, or larger than the memory of this machine') from error
    except Exception as error:  # h5py raises many kinds for damaged files
        raise UserError(f'{path}: damaged, or not a file of Keras weights') from error
    if not layers:
        raise UserError(f'{path}: expected the weights of a Keras model (.weights.h5 or .h5), found none')
    found: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for kind, weights in layers:
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        found |= {f'{kind}_{number}/{name}' if number else f'{kind}/{name}': value for name, value in weights.items()}
    return found


def _root(file):
    """The group of the weights: a saved model has them beside its configuration."""
    return file['model_weights'] if isinstance(file.get('model_weights', getlink=True), h5py.HardLink) else file


def _named(file, path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Layers of the older format, whose order and names are attributes."""
    root = _root(file)
    for name in map(_text, root.attrs['layer_names']):
        group = _entry(root, name, path)
        weights = {_text(weight).rpartition('/')[2].partition(':')[0]: _array(_entry(group, _text(weight), path), path)
                   for weight in group.attrs['weight_names']}
        if weights:
            yield _kind(name), weights


def _numbered(file, path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Layers of Keras 3, in the order of their numbers; the variables of a layer are 0 (kernel) and 1 (bias)."""
    layers = _entry(file, 'layers', path) if 'layers' in file else {}
    for name in sorted(layers, key=lambda name: (_kind(name), _number(name))):
        layer = _entry(layers, name, path)
        variables = _entry(layer, 'vars', path) if 'vars' in layer else {}
        names = {'0': 'kernel', '1': 'bias'}
        weights = {names.get(i, i): _array(_entry(variables, i, path), path) for i in variables}
        if weights:
            yield _kind(name), weights


def _entry(group, name: str, path):
    """A member of a group, unless it leads to another file."""
    at = group
    for part in name.split('/'):
        if not isinstance(at.get(part, getlink=True), h5py.HardLink):
            raise UserError(f'{path}: refused, its entry {name!r} is missing or a link')
        at = at[part]
    return at


def _array(dataset, path) -> np.ndarray:
    elsewhere = getattr(dataset, 'external', None) or getattr(dataset, 'is_virtual', False)
    if not isinstance(dataset, h5py.Dataset) or elsewhere or dataset.dtype.kind != 'f' or dataset.nbytes > LARGEST:
        raise UserError(f'{path}: refused, {dataset.name} is no array of floating-point numbers in this file, or is '
                        f'larger than {LARGEST >> 30} GiB')
    return np.asarray(dataset[()], np.float32)


def _text(name) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _kind(name: str) -> str:
    return re.sub(r'_\d+$', '', name)


def _number(name: str) -> int:
    number = re.search(r'_(\d+)$', name)
    return int(number[1]) if number else 0
