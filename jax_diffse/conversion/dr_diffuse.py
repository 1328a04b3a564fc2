"""DR-DiffuSE: names in the authors' checkpoints (judiebig/DR-DiffuSE, `model_state_dict`)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax_diffse.conversion import layouts
from jax_diffse.conversion.layouts import Entry, Layout, Path
from jax_diffse.errors import UserError


def base(*group: str) -> list[Entry]:
    """Their network `Base` (condition generator, refiner) -> our `TwoBranchUNet` at a path of the variables."""
    return _unet(group, '', steps=False)


def denoiser(two_branch: bool) -> list[Entry]:
    """Their `DiffuSE` (two-branch) or `DiffuSEC` -> our `ConditionalUNet` in the group `denoiser`."""
    group = ('denoiser',)
    entries = layouts.conv((*group, 'preprocess'), 'preprocess.conv', layouts.DENSE_2D)
    for name in ('projection1', 'projection2'):
        entries += layouts.conv((*group, 'embedding', name), f'time_embedding.{name}', layouts.DENSE)
    entries += _unet((*group, 'unet'), '', steps=True)
    return entries + (_unet((*group, 'delivery'), 'c_deliver.', steps=False) if two_branch else [])


def model(kinds: Sequence[str]) -> dict[str, Any]:
    """The fields of the system that these kinds of checkpoints form, with the released code's guidance.

    Raises:
      UserError: they do not form a system.
    """
    denoisers = [kind for kind in kinds if kind in ('dr-diffuse-diffuse', 'dr-diffuse-diffusec')]
    has_c_gen, refines = 'dr-diffuse-base' in kinds, 'dr-diffuse-refiner' in kinds
    if len(denoisers) > 1 or refines and not denoisers:
        raise UserError(f'{" and ".join(kinds)} do not make an enhancer: expected dr-diffuse-base (c_gen), or one of '
                        'dr-diffuse-diffuse and dr-diffuse-diffusec, with or without base and refiner')
    if not denoisers:
        return {'stage': 'c_gen'}
    return {'stage': 'refiner' if refines else 'diffusion', 'denoiser': denoisers[0].removeprefix('dr-diffuse-'),
            'condition': 'c_gen' if has_c_gen else 'noisy', 'guidance': 'released'}


def _unet(path: Path, prefix: str, steps: bool) -> list[Entry]:
    entries = []
    for i in range(1, 6):
        entries += _gated((*path, 'encoder', f'conv{i}'), f'{prefix}en.conv{i}', layouts.CONV_2D, layouts.DENSE_2D)
        entries += _norm_act((*path, 'encoder', f'post{i}'), f'{prefix}en.en{i}.0', f'{prefix}en.en{i}.1')
        if steps:
            entries += layouts.conv((*path, 'encoder', f'step{i}'), f'{prefix}en.tp{i}', layouts.DENSE)
    for place, theirs in enumerate(('de_real', 'de_imag')):
        entries += _at(place, _decoder((*path, 'decoders'), f'{prefix}{theirs}', steps))
    for i in range(18):
        entries += _at(i, _temporal((*path, 'temporal'), f'{prefix}TCMs.{i // 6}.residual{i % 6 + 1}'))
    return entries


def _at(place: int, entries: Sequence[Entry]) -> list[Entry]:
    return [dataclasses.replace(entry, place=place) for entry in entries]


def _decoder(path: Path, prefix: str, steps: bool) -> list[Entry]:
    entries = []
    for i in range(1, 6):
        block = f'{prefix}.de{i}'
        entries += _gated((*path, f'conv{i}'), f'{block}.0', layouts.CONV_TRANSPOSE_2D, layouts.DENSE_TRANSPOSE_2D)
        if i > 1:
            entries += _norm_act((*path, f'post{i}'), f'{block}.2', f'{block}.3')
        if steps:
            entries += layouts.conv((*path, f'step{i}'), f'{block}.0.tp', layouts.DENSE)
    return entries


def _gated(path: Path, name: str, kernel: Layout, dense: Layout) -> list[Entry]:
    parts = {'in': ('conv1', dense), 'left': ('l', kernel), 'left_gate': ('l_conv', dense), 'right': ('r', kernel),
             'right_gate': ('r_conv', dense), 'out': ('conv2', dense)}
    return [entry for ours, (theirs, layout) in parts.items()
            for entry in layouts.conv((*path, ours), f'{name}.{theirs}', layout)]


def _norm_act(path: Path, norm: str, act: str) -> list[Entry]:
    return layouts.batch_norm((*path, 'norm'), norm) + layouts.prelu((*path, 'act'), act)


def _temporal(path: Path, name: str) -> list[Entry]:
    entries = layouts.conv((*path, 'in'), f'{name}.conv1', layouts.DENSE_1D)
    for ours, theirs, layout in (('main', 'mainbranch', layouts.CONV_1D), ('gate', 'maskbranch', layouts.CONV_1D),
                                 ('out', 'conv2', layouts.DENSE_1D)):
        entries += layouts.prelu((*path, f'{ours}_act'), f'{name}.{theirs}.0')
        entries += layouts.batch_norm((*path, f'{ours}_norm'), f'{name}.{theirs}.1')
        entries += layouts.conv((*path, ours), f'{name}.{theirs}.2', layout)
    return entries
