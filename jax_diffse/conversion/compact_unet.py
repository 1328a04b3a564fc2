"""The compact U-Net: names in the notebook's checkpoints, which are state dicts of its `UNet`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_diffse.conversion import layouts
from jax_diffse.conversion.layouts import Entry, Layout, Path
from jax_diffse.networks.compact_unet import CompactUNetConfig

ROOT = ('prior',)
DEPTHWISE = Layout((1, 3, 2, 0), squeezed=1)  # [channels, 1, kf, kt]
# The notebook's refinement, see `diffusion.notebook`.
RELEASED = {'released': True, 'scale': 1.0, 'respacing': '', 'diffiner': {'eta_a': 0.8, 'eta_b': 0.8},
            'floor': 1e-5**0.5, 'ceiling': 97**0.5}
_WIDTH = 'down_block{}.downBlock.res.conv1.pointwise.weight'


def model(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the system that these weights belong to, as released.

    Weights do not determine heads, groups, dropout and the activation: these are the defaults unless overridden. For
    the weights of another network, the returned fields do not fit.
    """
    names = [name for i in range(1, len(weights)) if (name := _WIDTH.format(i)) in weights]
    widths = tuple(np.shape(weights[name])[0] for name in names)
    try:
        CompactUNetConfig(widths)
    except ValueError:  # weights of another network
        widths = CompactUNetConfig().widths
    return {'network': {'widths': widths, 'released_attention': True}, **RELEASED}


def entries(fields: Mapping[str, Any]) -> list[Entry]:
    """Their `UNet` -> our `CompactUNet` in the group `prior`."""
    widths = fields['network']['widths']
    levels = len(widths)
    found = layouts.conv((*ROOT, 'step1'), 'time_embed.0', layouts.DENSE)
    found += layouts.conv((*ROOT, 'step2'), 'time_embed.2', layouts.DENSE)
    for i in range(levels):
        found += _res((*ROOT, f'down{i}', 'res'), f'down_block{i + 1}.downBlock.res', True)
        found += _resample((*ROOT, f'down{i}', 'resample'), f'down_block{i + 1}.scale_down')
        found += _res((*ROOT, f'up{i}', 'res'), f'up_block{i + 1}.upBlock.res', True)
        found += _resample((*ROOT, f'up{i}', 'resample'), f'up_block{i + 1}.scale_up')
        found += layouts.conv((*ROOT, f'join{i}'), f'proj{i + 1}', layouts.DENSE_2D)
    for i in (1, 2):
        found += _res((*ROOT, f'middle{i}'), f'mid_block.res{i}', False)
    found += _attention((*ROOT, 'attention'), 'mid_block.attn')
    return found + _norm((*ROOT, 'norm'), 'final_norm') + _separable((*ROOT, 'out'), 'final_conv')


def _res(path: Path, name: str, projects: bool) -> list[Entry]:
    found = _norm((*path, 'norm_in'), f'{name}.norm1') + _separable((*path, 'conv_in'), f'{name}.conv1')
    found += layouts.conv((*path, 'step'), f'{name}.time_emb', layouts.DENSE)
    found += _norm((*path, 'norm_out'), f'{name}.norm2') + _separable((*path, 'conv_out'), f'{name}.conv2')
    return found + [_kernel((*path, 'skip'), f'{name}.shortcut')] * projects


def _resample(path: Path, name: str) -> list[Entry]:
    return [*layouts.conv((*path, 'down'), f'{name}.downsample', layouts.CONV_2D_BY_FREQUENCY),
            *layouts.conv((*path, 'up'), f'{name}.upsample', layouts.CONV_TRANSPOSE_2D_BY_FREQUENCY)]


def _attention(path: Path, name: str) -> list[Entry]:
    theirs = f'{name}.multihead_attn'
    return [*_norm((*path, 'norm'), f'{name}.norm'),
            Entry(('params', *path, 'qkv', 'kernel'), f'{theirs}.in_proj_weight', layouts.DENSE),
            Entry(('params', *path, 'qkv', 'bias'), f'{theirs}.in_proj_bias'),
            *layouts.conv((*path, 'heads'), f'{theirs}.out_proj', layouts.DENSE),
            *layouts.conv((*path, 'out'), f'{name}.output', layouts.DENSE)]


def _separable(path: Path, name: str) -> list[Entry]:
    return [Entry(('params', *path, 'depthwise'), f'{name}.depthwise.weight', DEPTHWISE),
            _kernel((*path, 'pointwise'), f'{name}.pointwise')]


def _kernel(path: Path, name: str) -> Entry:
    return Entry(('params', *path, 'kernel'), f'{name}.weight', layouts.DENSE_2D)


def _norm(path: Path, name: str) -> list[Entry]:
    return [Entry(('params', *path, 'scale'), f'{name}.weight'), Entry(('params', *path, 'bias'), f'{name}.bias')]
