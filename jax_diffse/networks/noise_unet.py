"""The U-Net of the noise model (vbelz/Speech-enhancement, `model_unet.py`): level of the noisy speech -> noise model.

Arrays are `[B, T, F, C]`; on TPUs, within a level, in rows of some bins, `[B, T, F / G, G C]` (see `folding`). Frames
and bins are halved from level to level, and both must be divisible accordingly.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from jax_diffse.networks.convolutions import conv_same, upsampled_conv
from jax_diffse.networks.folding import filling, regrouped
from jax_diffse.networks.layers import along_last, by_parts, channels_of, dropped

SLOPE = 0.3  # of leaky rectifiers: Keras's default
HE_NORMAL = nn.initializers.he_normal()  # truncated at two standard deviations, as Keras's


@dataclasses.dataclass(frozen=True)
class NoiseUNetConfig:
    """The size of the network; the default is the released one, with 1 941 093 parameters."""

    widths: tuple[int, ...] = (16, 32, 64, 128, 256)  # channels of each level
    dropout: float = 0.5  # behind the two lowest levels of the encoder
    dtype: str = 'float32'  # of activations and products: 'float32' or 'bfloat16'

    def __post_init__(self):
        if len(self.widths) < 2 or min(self.widths) < 1 or not 0 <= self.dropout < 1:
            raise ValueError('expected two or more widths of 1 or more channels, and a dropout from 0 to below 1, got '
                             f'widths={self.widths}, dropout={self.dropout:g}')
        if self.dtype not in ('float32', 'bfloat16'):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {self.dtype!r}")

    @property
    def divisor(self) -> int:
        """What frames and bins must be multiples of."""
        return 1 << (len(self.widths) - 1)


class Conv(nn.Module):
    """A convolution with zeros around, or, with `upsamples`, on the array upsampled by 2 and of kernel size 2."""

    features: int
    size: int = 3
    upsamples: bool = False
    init: Initializer = HE_NORMAL
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, group=1):
        shape = (self.size, self.size, channels_of(x, group), self.features)
        kernel = self.param('kernel', self.init, shape, jnp.float32).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        x = jax.tree.map(lambda part: part.astype(self.dtype), x)
        return along_last(jnp.add, by_parts(upsampled_conv if self.upsamples else conv_same, x, kernel), bias)


class NoiseUNet(nn.Module):
    """Scaled level of the noisy speech `[B, T, F, 1]` -> scaled noise model `[B, T, F, 1]`, in [-1, 1], float32."""

    config: NoiseUNetConfig = NoiseUNetConfig()

    @nn.compact
    def __call__(self, x, keys=None):
        """`keys` `[B]` draw the dropout of training; T and F must be multiples of `config.divisor`."""
        config, skips = self.config, []
        depth = len(config.widths)
        # Bins of a row at each level.
        groups = [math.gcd(filling(width), x.shape[2] >> level) for level, width in enumerate(config.widths)]
        for level, (width, group) in enumerate(zip(config.widths, groups, strict=True)):
            if level:
                x = max_pool(regrouped(x, groups[level - 1], 1))
            x = self._pair(regrouped(x, 1, group), width, f'down{level}', group)
            if keys is not None and level >= depth - 2:  # the skip connection is dropped, too
                x = dropped(x, jax.vmap(lambda key, level=level: jax.random.fold_in(key, level))(keys), config.dropout)
            skips.append(x)
        for level in reversed(range(depth - 1)):
            width, group = config.widths[level], groups[level]
            x = regrouped(x, groups[level + 1], 1)
            x = regrouped(self._conv(x, width, f'up{level}_resample', size=2, upsamples=True), 2, group)
            # In rows, bins of the two would have to be interleaved.
            x = (skips[level], x) if group > 1 else jnp.concatenate([skips[level], x], axis=-1)
            x = self._pair(x, width, f'up{level}', group)
        x = self._conv(x, 2, 'last', groups[0])
        x = Conv(1, 1, init=nn.initializers.glorot_uniform(), dtype=jnp.dtype(config.dtype), name='out')(x, groups[0])
        return jnp.tanh(regrouped(x, groups[0], 1).astype(jnp.float32))

    def _pair(self, x, width, name, group):
        return self._conv(self._conv(x, width, f'{name}_first', group), width, f'{name}_second', group)

    def _conv(self, x, width, name, group=1, **fields):
        x = Conv(width, dtype=jnp.dtype(self.config.dtype), name=name, **fields)(x, group)
        return nn.leaky_relu(x, SLOPE)


def max_pool(x: jax.Array) -> jax.Array:
    """The largest of two frames by two bins, `[B, T, F, C]` -> `[B, T / 2, F / 2, C]`."""
    x = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(x[:, :, ::2], x[:, :, 1::2])
