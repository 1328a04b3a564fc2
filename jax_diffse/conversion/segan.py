"""SEGAN: names in the notebook's checkpoints (Stefano-Previti/Diffusion_Based_Generative_Refiner)."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_diffse.conversion import layouts
from jax_diffse.conversion.layouts import Entry
from jax_diffse.errors import UserError
from jax_diffse.networks.segan import CHANNELS


def model(weights: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of the system that a generator, with or without its discriminator, belongs to.

    Args:
      weights: kind -> state dict.

    Raises:
      UserError: there is no generator.
    """
    if 'segan' not in weights:
        raise UserError(f'{", ".join(weights)} cannot enhance alone; add the generator, segan=FILE')
    return fields(weights['segan'], 'enc') | {'adversary': 'segan-discriminator' in weights}


def fields(weights: Mapping[str, Any], layer: str) -> dict[str, Any]:
    """The fields of the system that a network with layers LAYER1, LAYER2 ... belongs to."""
    biases = (weights.get(f'{layer}{i}.bias') for i in itertools.count(1))
    found = itertools.takewhile(lambda bias: bias is not None, biases)
    channels = tuple(int(np.prod(np.shape(bias))) for bias in found)
    return {'channels': channels or CHANNELS, 'l1_weight': 0.001, 'released': True}


def generator(fields: Mapping[str, Any]) -> list[Entry]:
    """Their `Generator` -> ours in the group `generator`."""
    root, found = ('generator',), layouts.prelu(('generator', 'act'), 'prelu')
    for i in range(len(fields['channels'])):
        found += layouts.conv((*root, f'encoder_{i}'), f'enc{i + 1}', layouts.CONV_1D)
        found += layouts.conv((*root, f'decoder_{i}'), f'dec{i + 1}', layouts.CONV_TRANSPOSE_1D)
    return found


def discriminator(fields: Mapping[str, Any]) -> list[Entry]:
    """Their `Discriminator` -> ours in the group `discriminator`."""
    root, found = ('discriminator',), layouts.conv(('discriminator', 'judge'), 'fc', layouts.DENSE_1D)
    for i in range(len(fields['channels'])):
        found += layouts.conv((*root, f'conv_{i}'), f'conv{i + 1}', layouts.CONV_1D)
        found += layouts.batch_norm((*root, f'norm_{i}'), f'bn{i + 1}')
    return found
