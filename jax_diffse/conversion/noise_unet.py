"""The U-Net of the noise model: names in Keras's weights of vbelz/Speech-enhancement, `conv2d` to `conv2d_23`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_diffse.conversion.layouts import Entry, Layout
from jax_diffse.networks.noise_unet import NoiseUNetConfig

CONV = Layout((1, 0, 2, 3))  # [kf, kt, in, out]


def model(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the system that these weights belong to, as released.

    For the weights of another network, the returned fields do not fit.
    """
    depth = (sum(name.endswith('/kernel') for name in weights) + 1) // 5
    names = [_name(2 * level) + '/kernel' for level in range(depth)]
    widths = tuple(int(np.shape(weights[name])[-1]) for name in names if np.ndim(weights.get(name, 0)) == 4)
    try:
        NoiseUNetConfig(widths)
    except ValueError:  # weights of another network
        widths = NoiseUNetConfig().widths
    return {'network': {'widths': widths}, 'overlap': 0, 'amplify': True, 'released': True}


def entries(fields: Mapping[str, Any]) -> list[Entry]:
    """Their `unet` -> our `NoiseUNet` in the group `unet`."""
    return [entry for i, name in enumerate(layers(len(fields['network']['widths'])))
            for entry in (Entry(('params', 'unet', name, 'kernel'), f'{_name(i)}/kernel', CONV),
                          Entry(('params', 'unet', name, 'bias'), f'{_name(i)}/bias'))]


def layers(depth: int) -> list[str]:
    """Our convolutions in the order of theirs, in a network of `depth` levels."""
    found = [f'down{level}_{which}' for level in range(depth) for which in ('first', 'second')]
    for level in reversed(range(depth - 1)):
        found += [f'up{level}_{which}' for which in ('resample', 'first', 'second')]
    return [*found, 'last', 'out']


def _name(number: int) -> str:
    return f'conv2d_{number}' if number else 'conv2d'
