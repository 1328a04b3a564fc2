"""DCCRN: names in the authors' checkpoints (seorim0/DCCRN-with-various-loss-functions, `model`)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_diffse.conversion import layouts
from jax_diffse.conversion.layouts import Entry, Path

ROOT = ('dccrn',)
_COMPLEX_NORM = {'params': {'scale_real': 'Wrr', 'scale_cross': 'Wri', 'scale_imag': 'Wii', 'bias_real': 'Br',
                            'bias_imag': 'Bi'},
                 'batch_stats': {'mean_real': 'RMr', 'mean_imag': 'RMi', 'var_real': 'RVrr', 'cov': 'RVri',
                                 'var_imag': 'RVii'}}


def model(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the system that these weights belong to, with the released code's clamp and padding.

    Fields that the weights do not determine are those of the released configuration: hops of a quarter of the window,
    and a window of 25 / 32 of the transform. For a wrong state dict, the returned fields do not fit.
    """
    shapes = {name: np.shape(value) for name, value in weights.items()}
    depth = layouts.count(weights, 'encoder.{}.0')
    blocks = [shapes.get(f'encoder.{i}.0.real_conv.weight', (1,)) for i in range(depth)]
    is_complex = any(name.startswith('enhance.0.') for name in weights)
    layer = 'enhance.{}.real_lstm.weight_ih_l0' if is_complex else 'enhance.weight_ih_l{}'
    gates, features = shapes.get(layer.format(0), (8, 1024))
    channels = tuple(2 * shape[0] for shape in blocks) or (32,)
    parts = 2 if is_complex else 1
    n_fft = 2 * (parts * features // channels[-1]) << len(channels)
    window = shapes.get('stft.weight', (0, 0, n_fft * 25 // 32))[-1]
    return {'channels': channels, 'lstm': 'complex' if is_complex else 'real', 'lstm_units': parts * gates // 4,
            'lstm_layers': layouts.count(weights, layer), 'norm': 'complex' if 'encoder.0.1.Wrr' in weights else 'real',
            'n_fft': n_fft, 'window': window, 'hop': window // 4, 'clamp': True, 'mask_padding': False}


def entries(fields: Mapping[str, Any]) -> list[Entry]:
    """Their network -> ours in the group `dccrn`."""
    depth, found = len(fields['channels']), []
    for side, conv in (('encoder', layouts.CONV_2D_BY_FREQUENCY), ('decoder', layouts.CONV_TRANSPOSE_2D_BY_FREQUENCY)):
        for i in range(depth):
            ours, theirs = (*ROOT, f'{side}_{i}'), f'{side}.{i}'
            for part in ('real', 'imag'):
                found += layouts.conv((*ours, part), f'{theirs}.0.{part}_conv', conv)
            if side == 'encoder' or i < depth - 1:
                found += _norm((*ours, 'norm'), f'{theirs}.1', fields['norm'])
                found += layouts.prelu((*ours, 'act'), f'{theirs}.2')
    return found + _recurrent((*ROOT, 'recurrent'), fields['lstm'] == 'complex', fields['lstm_layers'])


def _norm(path: Path, name: str, kind: str) -> list[Entry]:
    if kind == 'real':
        return layouts.batch_norm(path, name)
    return [Entry((collection, *path, ours), f'{name}.{theirs}')
            for collection, names in _COMPLEX_NORM.items() for ours, theirs in names.items()]


def _recurrent(path: Path, is_complex: bool, num_layers: int) -> list[Entry]:
    found = []
    for i in range(num_layers):
        for part in ('real', 'imag') if is_complex else ('real',):
            name, number = (f'enhance.{i}.{part}_lstm', 0) if is_complex else ('enhance', i)
            for ours, theirs in (('input', 'ih'), ('recurrent', 'hh')):
                here = ('params', *path, f'layer{i}_{part}', ours)
                found += [Entry((*here, 'kernel'), f'{name}.weight_{theirs}_l{number}', layouts.DENSE),
                          Entry((*here, 'bias'), f'{name}.bias_{theirs}_l{number}')]
    last = f'enhance.{num_layers - 1}'
    names = {'real': f'{last}.r_trans', 'imag': f'{last}.i_trans'} if is_complex else {'real': 'tranform'}
    for part, name in names.items():
        found += layouts.conv((*path, f'project_{part}'), name, layouts.DENSE)
    return found
