"""The U-Net of the noise model (vbelz/Speech-enhancement, `model_unet.py`): level of the noisy speech -> noise model.

Arrays are `[B, T, F, C]`. Frames and bins are halved from level to level, and both must be divisible accordingly.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from jax_diffse.networks.convolutions import conv_same, upsampled_conv
from jax_diffse.networks.layers import along_last, dropped

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
    def __call__(self, x):
        kernel = self.param('kernel', self.init, (self.size, self.size, x.shape[-1], self.features), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        run = upsampled_conv if self.upsamples else conv_same
        return along_last(jnp.add, run(x.astype(self.dtype), kernel.astype(self.dtype)), bias)


class NoiseUNet(nn.Module):
    """Scaled level of the noisy speech `[B, T, F, 1]` -> scaled noise model `[B, T, F, 1]`, in [-1, 1], float32."""

    config: NoiseUNetConfig = NoiseUNetConfig()

    @nn.compact
    def __call__(self, x, keys=None):
        """`keys` `[B]` draw the dropout of training; T and F must be multiples of `config.divisor`."""
        config, skips = self.config, []
        depth = len(config.widths)
        for level, width in enumerate(config.widths):
            if level:
                x = max_pool(x)
            x = self._pair(x, width, f'down{level}')
            if keys is not None and level >= depth - 2:  # the skip connection is dropped, too
                x = dropped(x, jax.vmap(lambda key, level=level: jax.random.fold_in(key, level))(keys), config.dropout)
            skips.append(x)
        for level in reversed(range(depth - 1)):
            x = self._conv(x, config.widths[level], f'up{level}_resample', size=2, upsamples=True)
            x = self._pair(jnp.concatenate([skips[level], x], axis=-1), config.widths[level], f'up{level}')
        x = self._conv(x, 2, 'last')
        x = Conv(1, 1, init=nn.initializers.glorot_uniform(), dtype=jnp.dtype(config.dtype), name='out')(x)
        return jnp.tanh(x.astype(jnp.float32))

    def _pair(self, x, width, name):
        return self._conv(self._conv(x, width, f'{name}_first'), width, f'{name}_second')

    def _conv(self, x, width, name, **fields):
        x = Conv(width, dtype=jnp.dtype(self.config.dtype), name=name, **fields)(x)
        return nn.leaky_relu(x, SLOPE)


def max_pool(x: jax.Array) -> jax.Array:
    """The largest of two frames by two bins, `[B, T, F, C]` -> `[B, T / 2, F / 2, C]`."""
    x = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(x[:, :, ::2], x[:, :, 1::2])
