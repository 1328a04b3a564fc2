"""Diffiner: names in the authors' checkpoints (sony/diffiner, bare state dicts, including `ema_*.pt`)."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_diffse.conversion import layouts
from jax_diffse.conversion.layouts import Entry, Path
from jax_diffse.networks.guided_unet import UNetConfig

ROOT = ('prior',)
_UPSAMPLING = re.compile(r'output_blocks\.(\d+)\.[12]\.(conv|in_layers)\.')  # at the end of a level


def model(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the system that these weights belong to.

    Weights do not determine heads, the order of their features and dropout: these are those of the published model
    unless overridden. For the weights of another network, the returned fields do not fit.
    """
    shapes = {name: np.shape(value) for name, value in weights.items()}
    upsampling = {int(found[1]): found[2] for found in map(_UPSAMPLING.match, weights) if found}
    count = layouts.count(weights, 'output_blocks.{}.')
    per_level = min(upsampling, default=max(count, 2) - 1) + 1
    widths = [shapes.get(f'output_blocks.{i}.0.out_layers.3.bias', (1,))[0] for i in range(0, count, per_level)][::-1]
    levels = {len(widths) - 1 - i // per_level for i in range(count) if f'output_blocks.{i}.1.qkv.bias' in shapes}
    channels = shapes.get('input_blocks.0.0.bias', (1,))[0]
    step = shapes.get('middle_block.0.emb_layers.1.bias', (0,))[0]
    network = {'channels': channels, 'multipliers': tuple(width // channels for width in widths) or (1,),
               'blocks': per_level - 1, 'attention': tuple(2**level for level in sorted(levels)),
               'scale_shift': bool(widths) and step == 2 * widths[-1],
               'resample_blocks': 'in_layers' in upsampling.values()}
    try:
        UNetConfig(**network)
    except ValueError:  # weights of another network
        network = dataclasses.asdict(UNetConfig())
    return {'network': network}


def entries(fields: Mapping[str, Any]) -> list[Entry]:
    """Their `UNetModel` -> our `GuidedUNet` in the group `prior`."""
    network = fields['network']
    found = layouts.conv((*ROOT, 'step1'), 'time_embed.0', layouts.DENSE)
    found += layouts.conv((*ROOT, 'step2'), 'time_embed.2', layouts.DENSE)
    found += _conv((*ROOT, 'down0'), 'input_blocks.0.0')
    multipliers, blocks, resample_blocks = network['multipliers'], network['blocks'], network['resample_blocks']
    number, before = 1, network['channels']
    for level, multiplier in enumerate(multipliers):
        for _ in range(blocks):
            after = multiplier * network['channels']
            found += _stage(network, f'down{number}', f'input_blocks.{number}', level, before != after)
            number, before = number + 1, after
        if level < len(multipliers) - 1:
            ours, theirs = (*ROOT, f'down{number}'), f'input_blocks.{number}.0'
            found += _res(ours, theirs, False) if resample_blocks else _conv(ours, f'{theirs}.op')
            number += 1
    found += _res((*ROOT, 'middle', 'res1'), 'middle_block.0', False)
    found += _attention((*ROOT, 'middle', 'attention'), 'middle_block.1')
    found += _res((*ROOT, 'middle', 'res2'), 'middle_block.2', False)
    number = 0
    for level in reversed(range(len(multipliers))):
        for i in range(blocks + 1):
            theirs = f'output_blocks.{number}'
            found += _stage(network, f'up{number}', theirs, level, True)  # concatenation always changes the channels
            if level and i == blocks:
                theirs = f'{theirs}.{2 if 2**level in network["attention"] else 1}'
                found += (_res((*ROOT, f'rise{number}'), theirs, False) if resample_blocks else
                          _conv((*ROOT, f'up{number}', 'up'), f'{theirs}.conv'))
            number += 1
    return found + _norm((*ROOT, 'norm'), 'out.0') + _conv((*ROOT, 'out'), 'out.2')


def _stage(network, ours: str, theirs: str, level: int, projects: bool) -> list[Entry]:
    found = _res((*ROOT, ours, 'res'), f'{theirs}.0', projects)
    if 2**level in network['attention']:
        found += _attention((*ROOT, ours, 'attention'), f'{theirs}.1')
    return found


def _res(path: Path, name: str, projects: bool) -> list[Entry]:
    found = _norm((*path, 'norm_in'), f'{name}.in_layers.0') + _conv((*path, 'conv_in'), f'{name}.in_layers.2')
    found += layouts.conv((*path, 'step'), f'{name}.emb_layers.1', layouts.DENSE)
    found += _norm((*path, 'norm_out'), f'{name}.out_layers.0') + _conv((*path, 'conv_out'), f'{name}.out_layers.3')
    if projects:
        found += layouts.conv((*path, 'skip'), f'{name}.skip_connection', layouts.DENSE_2D)
    return found


def _attention(path: Path, name: str) -> list[Entry]:
    return [*_norm((*path, 'norm'), f'{name}.norm'), *layouts.conv((*path, 'qkv'), f'{name}.qkv', layouts.DENSE_1D),
            *layouts.conv((*path, 'out'), f'{name}.proj_out', layouts.DENSE_1D)]


def _norm(path: Path, name: str) -> list[Entry]:
    return [Entry(('params', *path, 'scale'), f'{name}.weight'), Entry(('params', *path, 'bias'), f'{name}.bias')]


def _conv(path: Path, name: str) -> list[Entry]:
    return layouts.conv(path, name, layouts.CONV_2D_BY_FREQUENCY)
