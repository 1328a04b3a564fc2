"""The authors' PyTorch checkpoints -> variables. The only package that knows torch, and only to read their files."""

import dataclasses
import functools
import os
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jax_diffse import systems
from jax_diffse.convert import dr_diffuse, layouts
from jax_diffse.errors import UserError


@dataclasses.dataclass(frozen=True)
class Kind:
    """A released network, and the parameter group that it becomes."""

    system: str
    group: str
    model: Mapping[str, Any]  # fields of a system that has the group
    entries: Callable[[], list[layouts.Entry]]


KINDS = {
    'dr-diffuse-base': Kind('dr_diffuse', 'c_gen', {'stage': 'c_gen'}, functools.partial(dr_diffuse.base, 'c_gen')),
    'dr-diffuse-diffuse': Kind('dr_diffuse', 'denoiser', {'stage': 'diffusion', 'denoiser': 'diffuse'},
                               functools.partial(dr_diffuse.denoiser, True)),
    'dr-diffuse-diffusec': Kind('dr_diffuse', 'denoiser', {'stage': 'diffusion', 'denoiser': 'diffusec'},
                                functools.partial(dr_diffuse.denoiser, False)),
    'dr-diffuse-refiner': Kind('dr_diffuse', 'refiner', {'stage': 'refiner'},
                               functools.partial(dr_diffuse.base, 'refiner')),
}


def from_torch(kind: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a state dict; torch itself is not needed.

    Args:
      kind: one of `KINDS`.
      state_dict: torch's names -> tensors or NumPy arrays in torch's layout.

    Returns:
      The variables of its group, NumPy arrays: `{'params': {group: tree}, 'batch_stats': {group: tree}}`.

    Raises:
      UserError: an unknown kind, or weights that do not fit: every missing, extra or misshapen entry is named.
    """
    found = _kind(kind)
    variables = jax.eval_shape(systems.build(found.system, found.model).init, jax.random.key(0))
    shapes = {collection: {found.group: groups[found.group]} for collection, groups in variables.items()}
    return layouts.convert(found.entries(), state_dict, shapes)


def assemble(converted: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Several networks of one system -> the system's name, its fields (as config.model) and its variables.

    Args:
      converted: kind -> what `from_torch` made of it.

    Raises:
      UserError: an unknown kind, or kinds that do not make a system together.
    """
    names = {_kind(kind).system for kind in converted}
    if len(names) != 1:
        raise UserError(f'{", ".join(converted)}: networks of different systems ({", ".join(sorted(names))})')
    variables: dict[str, Any] = {}
    for tree in converted.values():
        for collection, groups in tree.items():
            variables.setdefault(collection, {}).update(groups)
    return names.pop(), dr_diffuse.model(list(converted)), variables


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise UserError(f'unknown kind of checkpoint {name!r}, expected one of {", ".join(KINDS)}')
    return KINDS[name]


def read_state_dict(path: str | os.PathLike) -> dict[str, Any]:
    """The weights in a PyTorch file, a checkpoint with `model_state_dict` or a bare state dict; no code in it is run.

    Raises:
      UserError: the file is missing, damaged or not a checkpoint, or contains more than tensors.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError('reading PyTorch files needs torch: pip install torch') from error
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from error
    except pickle.UnpicklingError as error:
        raise UserError(f'{path}: refused, it is damaged or contains code besides tensors') from error
    except (EOFError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f'{path}: not a PyTorch checkpoint, or damaged') from error
    weights = checkpoint.get('model_state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f'{path}: expected a dict with model_state_dict, or a state dict of tensors')
    return weights
