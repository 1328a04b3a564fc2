"""Converts the authors' checkpoints into variables. Only this package imports torch and h5py, to read their files."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from jax_diffse import systems
from jax_diffse.conversion import (
    compact_unet,
    dccrn,
    diffiner,
    dr_diffuse,
    keras,
    layouts,
    noise_unet,
    reading,
    segan,
)
from jax_diffse.errors import UserError
from jax_diffse.systems.base import shapes


@dataclasses.dataclass(frozen=True)
class Kind:
    """A released network, and the parameter group that it becomes."""

    system: str
    group: str
    model: Callable[[Mapping[str, Any]], dict[str, Any]]  # weights -> fields of a system that has the group
    entries: Callable[[Mapping[str, Any]], list[layouts.Entry]]  # these fields -> the table
    entry: str = 'model'  # name of the weights in a file that holds more
    prefix: str = ''  # of names, if the weights were saved as part of a larger module
    keras: bool = False  # the file is Keras's instead of PyTorch's

    def plain(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Removes the prefix from the names."""
        return {name.removeprefix(self.prefix): value for name, value in state_dict.items()}


def _dr_diffuse(group: str, entries: list[layouts.Entry], **fields) -> Kind:
    return Kind('dr_diffuse', group, lambda weights: fields, lambda fields: entries)


KINDS = {
    'dr-diffuse-base': _dr_diffuse('c_gen', dr_diffuse.base('c_gen'), stage='c_gen'),
    'dr-diffuse-diffuse': _dr_diffuse('denoiser', dr_diffuse.denoiser(True), stage='diffusion', denoiser='diffuse'),
    'dr-diffuse-diffusec': _dr_diffuse('denoiser', dr_diffuse.denoiser(False), stage='diffusion', denoiser='diffusec'),
    'dr-diffuse-refiner': _dr_diffuse('refiner', dr_diffuse.base('refiner'), stage='refiner'),
    'dccrn': Kind('dccrn', 'dccrn', dccrn.model, dccrn.entries),
    'diffiner': Kind('diffiner', 'prior', diffiner.model, diffiner.entries),
    'segan': Kind('segan', 'generator', lambda weights: segan.fields(weights, 'enc'), segan.generator,
                  'generator_state_dict'),
    'segan-discriminator': Kind('segan', 'discriminator', lambda weights: segan.fields(weights, 'conv'),
                                segan.discriminator, 'discriminator_state_dict'),
    'compact-unet': Kind('compact_diffiner', 'prior', compact_unet.model, compact_unet.entries, prefix='unet_model.'),
    'noise-unet': Kind('noise_unet', 'unet', noise_unet.model, noise_unet.entries, keras=True),
}


def from_weights(kind: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the authors' weights; torch itself is not needed.

    Args:
      kind: one of `KINDS`.
      state_dict: their names -> tensors or NumPy arrays in their layout.

    Returns:
      The variables of its group, NumPy arrays: `{'params': {group: tree}, 'batch_stats': {group: tree}}`; the latter
      only if the group has any.

    Raises:
      UserError: an unknown kind, or weights that do not fit; names every missing, extra or misshapen entry.
    """
    found = kind_of(kind)
    state_dict = found.plain(state_dict)
    fields = found.model(state_dict)
    expected = {collection: {found.group: groups[found.group]}
                for collection, groups in shapes(systems.build(found.system, fields)).items() if found.group in groups}
    return layouts.convert(found.entries(fields), state_dict, expected)


def describe(weights: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Returns the name and the fields (config.model) of the system that several networks form.

    Args:
      weights: kind -> state dict.

    Raises:
      UserError: an unknown kind, or kinds that do not form a system.
    """
    names = {kind_of(kind).system for kind in weights}
    if len(names) != 1:
        raise UserError(f'{", ".join(weights)}: networks of different systems ({", ".join(sorted(names))})')
    if names == {'dr_diffuse'}:
        return 'dr_diffuse', dr_diffuse.model(list(weights))
    if names == {'segan'}:
        return 'segan', segan.model(weights)
    (kind, state_dict), = weights.items()
    return names.pop(), kind_of(kind).model(kind_of(kind).plain(state_dict))


def kind_of(name: str) -> Kind:
    """Returns a kind of checkpoint by name.

    Raises:
      UserError: an unknown name.
    """
    if name not in KINDS:
        raise UserError(f'unknown kind of checkpoint {name!r}, expected one of {", ".join(KINDS)}')
    return KINDS[name]


def read(kind: str, path: str | os.PathLike) -> dict[str, Any]:
    """Reads the weights of a kind of checkpoint: their names -> arrays. Code in the file is not executed.

    Raises:
      UserError: an unknown kind; the file is missing, damaged, of another format, or contains more than weights.
    """
    found = kind_of(kind)
    if not found.keras:
        return read_state_dict(path, found.entry)
    reading.check_file(path)
    if not keras.is_hdf5(path):
        raise UserError(f'{path}: expected a file of Keras weights in HDF5 (.weights.h5 or .h5)')
    return keras.read_weights(path)


def read_state_dict(path: str | os.PathLike, entry: str = 'model') -> dict[str, Any]:
    """Reads the weights of a PyTorch file: a checkpoint with `model_state_dict` or `entry`, or a bare state dict.

    Code in the file is not executed.

    Raises:
      UserError: the file is missing, damaged or not a checkpoint, contains more than tensors, or is an archive with a
        member that leads outside of it.
    """
    checkpoint = reading.load(path)
    weights = None
    if isinstance(checkpoint, dict):
        weights = checkpoint.get('model_state_dict', checkpoint.get(entry, checkpoint))
    if not isinstance(weights, dict) or not all(isinstance(name, str) and hasattr(value, 'detach')
                                                for name, value in weights.items()):
        held = f'; it holds {", ".join(map(str, checkpoint))[:200]}' if isinstance(checkpoint, dict) else ''
        raise UserError(f'{path}: expected a dict with model_state_dict or {entry}, or a state dict of tensors{held}')
    return weights
