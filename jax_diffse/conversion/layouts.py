"""Tables from torch's names and layouts to ours, and conversions by these tables, which report all errors at once."""

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from jax_diffse.errors import UserError

Path = tuple[str, ...]  # in a variables tree: ('params', 'c_gen', 'encoder', ..., 'kernel')

# Entries that are not weights: counters of batch normalisation (used only without a fixed momentum) and constants of
# DCCRN's transforms.
IGNORED = re.compile(r'.*num_batches_tracked|i?stft\..*')


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout of an array in torch: our axes are torch's in the order `axes`, without the first `squeezed` ones."""

    axes: tuple[int, ...]
    squeezed: int = 0

    def from_torch(self, x: np.ndarray) -> np.ndarray:
        x = x.transpose(self.axes)
        return x.reshape(x.shape[self.squeezed:])

    def to_torch(self, x: np.ndarray) -> np.ndarray:
        return x.reshape((1,) * self.squeezed + x.shape).transpose(np.argsort(self.axes))

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in torch of an array that has `shape` here."""
        shape = (1,) * self.squeezed + shape
        return tuple(shape[i] for i in np.argsort(self.axes))


VECTOR = Layout((0,))
DENSE = Layout((1, 0))  # [out, in]
SCALAR = Layout((0,), squeezed=1)  # [1]: PReLU's slope
CONV_1D = Layout((2, 1, 0))  # [out, in, k]
CONV_TRANSPOSE_1D = Layout((2, 0, 1))  # [in, out, k]
CONV_2D = Layout((2, 3, 1, 0))  # [out, in, kt, kf]
CONV_TRANSPOSE_2D = Layout((2, 3, 0, 1))  # [in, out, kt, kf]
# Frequency before time: [out, in, kf, kt] and [in, out, kf, kt].
CONV_2D_BY_FREQUENCY = Layout((3, 2, 1, 0))
CONV_TRANSPOSE_2D_BY_FREQUENCY = Layout((3, 2, 0, 1))
# Convolutions of kernel size 1, which are dense layers here.
DENSE_1D = Layout((2, 1, 0), squeezed=1)
DENSE_2D = Layout((2, 3, 1, 0), squeezed=2)
DENSE_TRANSPOSE_2D = Layout((2, 3, 0, 1), squeezed=2)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array: its path in our variables, and its name and layout in torch's state dict."""

    path: Path
    name: str
    layout: Layout = VECTOR
    place: int | None = None  # index in the leading axis of our array, if that stacks several of torch's


def conv(path: Path, name: str, layout: Layout) -> list[Entry]:
    """Entries of the kernel and bias of a convolution or dense layer; `path` starts below the collection."""
    return [Entry(('params', *path, 'kernel'), f'{name}.weight', layout),
            Entry(('params', *path, 'bias'), f'{name}.bias')]


def batch_norm(path: Path, name: str) -> list[Entry]:
    """Entries of the scale, bias and running statistics of batch normalisation."""
    return [Entry(('params', *path, 'scale'), f'{name}.weight'), Entry(('params', *path, 'bias'), f'{name}.bias'),
            Entry(('batch_stats', *path, 'mean'), f'{name}.running_mean'),
            Entry(('batch_stats', *path, 'var'), f'{name}.running_var')]


def prelu(path: Path, name: str) -> list[Entry]:
    """The entry of the slope of a PReLU."""
    return [Entry(('params', *path, 'slope'), f'{name}.weight', SCALAR)]


def count(weights: Mapping[str, Any], pattern: str) -> int:
    """Counts the layers whose names start with `pattern`, numbered from 0."""
    total = 0
    while any(name.startswith(pattern.format(total)) for name in weights):
        total += 1
    return total


def convert(entries: Iterable[Entry], state_dict: Mapping[str, Any], shapes) -> dict[str, Any]:
    """Fills a variables tree from a state dict.

    Args:
      entries: the table; it must cover the tree.
      state_dict: torch's names -> tensors or NumPy arrays.
      shapes: a variables tree of arrays or shapes, to be filled.

    Returns:
      A tree like `shapes`, of float32 NumPy arrays.

    Raises:
      UserError: entries are missing, not expected, of another shape or not finite; names all of them.
    """
    table = collections.defaultdict(list)
    for entry in entries:
        table[entry.path].append(entry)
    wanted = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(shapes).items()}
    short = {path for path in set(table) & set(wanted)
             if table[path][0].place is not None and len(table[path]) != wanted[path][0]}
    if set(table) != set(wanted) or short:
        raise ValueError(f'the table does not match the system: {sorted(set(table) ^ set(wanted) | short)}')
    expected = {entry.name: entry.layout.torch_shape(wanted[path][entry.place is not None:])
                for path, group in table.items() for entry in group}
    _check(expected, {name: tuple(np.shape(value)) for name, value in state_dict.items()
                      if not IGNORED.fullmatch(name)})
    broken = [name for name in expected if not np.isfinite(_to_numpy(state_dict[name])).all()]
    if broken:
        raise UserError(f'weights that are NaN or infinite: {", ".join(broken)}; expected finite weights')
    filled = {}
    for path, group in table.items():
        arrays = [entry.layout.from_torch(_to_numpy(state_dict[entry.name])) for entry in group]
        filled[path] = arrays[0] if group[0].place is None else np.stack(arrays)
    return traverse_util.unflatten_dict(filled)


def to_torch(entries: Iterable[Entry], variables) -> dict[str, np.ndarray]:
    """The inverse of `convert` for the entries in `variables`: torch's names -> arrays in torch's layout."""
    flat = traverse_util.flatten_dict(jax.device_get(variables))
    return {entry.name: entry.layout.to_torch(_own(np.asarray(flat[entry.path]), entry))
            for entry in entries if entry.path in flat}


def _own(array, entry):
    return array if entry.place is None else array[entry.place]


def _check(expected, found):
    misshapen = [f'{name} {list(found[name])} for {list(shape)}' for name, shape in expected.items()
                 if found.get(name, shape) != shape]
    problems = {'missing': expected.keys() - found.keys(), 'not expected': found.keys() - expected.keys(),
                'of another shape': misshapen}
    listed = [f'{what}: {", ".join(sorted(names))}' for what, names in problems.items() if names]
    if listed:
        raise UserError('not the weights of this network; ' + '; '.join(listed))


def _to_numpy(value) -> np.ndarray:
    value = value.detach().cpu().float().numpy() if hasattr(value, 'detach') else value
    return np.ascontiguousarray(value, np.float32)
