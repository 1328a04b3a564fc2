"""The compact U-Net of S. Previti's diffusion refiner (github.com/Stefano-Previti/Diffusion_Based_Generative_Refiner).

Arrays are `[B, T, F, C]`. Three levels of depthwise-separable convolutions with attention at the bottom; the step is
added after the first convolution of each block.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from jax_diffse.networks.convolutions import conv_same
from jax_diffse.networks.guided_unet import step_embedding
from jax_diffse.networks.layers import ConvParams, Dense, GroupNorm, along_last, dropped, product

CHANNELS = 2  # real and imaginary part
UNIFORM, UNIFORM_3X3 = (nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform', in_axis=axes)
                        for axes in (0, (0, 1)))
EMBEDDING = 32  # sinusoids of the step; the layers after them are four times as wide
ACTIVATIONS = {'silu': nn.silu, 'relu': nn.relu, 'gelu': functools.partial(nn.gelu, approximate=False)}


@dataclasses.dataclass(frozen=True)
class CompactUNetConfig:
    """Size and options of a `CompactUNet`; the defaults are the published 46 210 parameters."""

    widths: tuple[int, ...] = (4, 8, 16)  # channels of each level
    heads: int = 2
    groups: int = 2  # of group normalisation
    activation: str = 'silu'  # or 'relu', or 'gelu' with the error function
    dropout: float = 0.1
    released_attention: bool = False  # as the released code, which mixes channels, positions and examples
    dtype: str = 'float32'  # of activations and products: 'float32' or 'bfloat16'

    def __post_init__(self):
        for name, known in (('activation', tuple(ACTIVATIONS)), ('dtype', ('float32', 'bfloat16'))):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
        if not self.widths or min(self.widths) < 1 or not 0 <= self.dropout < 1:
            raise ValueError('expected widths of 1 or more channels, and a dropout from 0 to below 1, got '
                             f'widths={self.widths}, dropout={self.dropout:g}')
        if self.groups < 1 or any(width % self.groups for width in (CHANNELS, *self.widths)):
            raise ValueError(f'groups: levels of {self.widths} channels, and the {CHANNELS} of a spectrogram, are not '
                             f'divisible by {self.groups} groups')
        if self.heads < 1 or self.widths[-1] % self.heads:
            raise ValueError(f'heads: {self.widths[-1]} channels are not divisible by {self.heads} heads')

    @property
    def multiple(self) -> int:
        """Frames and bins must be multiples of this."""
        return 2 ** len(self.widths)


def conv_transpose(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """PyTorch's `ConvTranspose2d(4, stride=2, padding=1)`: `[B, T, F, C]`, kernel `[4, 4, C, D]` -> `[B, 2T, 2F, D]`.

    Along each axis output 2 i is made of x[i - 1] and x[i] by taps 3 and 1, output 2 i + 1 of x[i] and x[i + 1] by taps
    2 and 0: all four phases at once are a 3 x 3 convolution.
    """
    batch, frames, bins, channels = x.shape
    taps = np.array([[3, 1, 4], [4, 2, 0]])  # of each phase; tap 4 is zero
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))[taps][:, :, taps]
    kernel = kernel.transpose(1, 3, 4, 0, 2, 5).reshape(3, 3, channels, -1)
    phases = conv_same(x, kernel).reshape(batch, frames, bins, 2, 2, -1)
    return phases.swapaxes(2, 3).reshape(batch, 2 * frames, 2 * bins, -1)


def depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Depthwise convolution with zeros around: `[B, T, F, C]`, kernel `[3, 3, C]`.

    It is a sum of shifted copies: with so few channels XLA's grouped convolution takes 15 to 30 times as long on CPUs.
    """
    frames, bins = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(along_last(jnp.multiply, x[:, i:i + frames, j:j + bins], kernel[i, j])
               for i in range(3) for j in range(3))


class Projection(nn.Module):
    """A 1 x 1 convolution without bias, initialised as PyTorch does."""

    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x):
        kernel = self.param('kernel', UNIFORM, (x.shape[-1], self.features), jnp.float32)
        return product(x.astype(self.dtype), kernel.astype(self.dtype))


class SeparableConv(nn.Module):
    """A depthwise 3 x 3 convolution, then a product across channels, both without bias."""

    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x):
        kernel = self.param('depthwise', UNIFORM_3X3, (3, 3, x.shape[-1]), jnp.float32)
        h = depthwise(x.astype(self.dtype), kernel.astype(self.dtype))
        return Projection(self.features, self.dtype, name='pointwise')(h)


class ResBlock(nn.Module):
    """Two separable convolutions with the step's embedding added in between, added to the input or its projection."""

    features: int
    config: CompactUNetConfig

    @nn.compact
    def __call__(self, x, embedding, keys=None):
        """`[B, T, F, C]`, `[B, E]` -> `[B, T, F, features]`; `keys` `[B]` draw the dropout of training."""
        config, dtype, act = self.config, jnp.dtype(self.config.dtype), ACTIVATIONS[self.config.activation]
        h = act(GroupNorm(config.groups, silu=False, name='norm_in')(x))
        h = SeparableConv(self.features, dtype, name='conv_in')(h)
        h = h + Dense(self.features, dtype, name='step')(act(embedding))[:, None, None]
        h = act(GroupNorm(config.groups, silu=False, name='norm_out')(h))
        if keys is not None and config.dropout:
            h = dropped(h, keys, config.dropout)
        h = SeparableConv(self.features, dtype, name='conv_out')(h)
        return h + (x if x.shape[-1] == self.features else Projection(self.features, dtype, name='skip')(x))


class Resample(nn.Module):
    """Halves or doubles frames and bins by a convolution.

    The released blocks hold the layers of both directions and use one; the published number of parameters and the
    checkpoints include the other.
    """

    up: bool
    dtype: Dtype

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        down, up = (ConvParams((size, size, channels, channels), self.dtype, name=name)()
                    for name, size in (('down', 3), ('up', 4)))
        x = x.astype(self.dtype)
        y = conv_transpose(x, up[0]) if self.up else conv_same(x, down[0], stride=2)
        return along_last(jnp.add, y, up[1] if self.up else down[1])


class Attention(nn.Module):
    """Self-attention over all frames and bins, added to the input.

    `released` follows the released code: the residual is the normalised input, and axes are reshaped where they should
    be transposed (positions into channels; in the residual also examples), so an example's result depends on its place
    in the batch and on its neighbours.
    """

    heads: int
    groups: int
    released: bool
    dtype: Dtype

    @nn.compact
    def __call__(self, x):
        batch, frames, bins, channels = x.shape
        h = GroupNorm(self.groups, silu=False, name='norm')(x)
        if self.released:
            h = h.swapaxes(1, 2)  # frequency first, as there
        h = h.reshape(batch, frames * bins, channels)
        qkv = Dense(3 * channels, self.dtype, name='qkv')(h).reshape(batch, -1, 3, self.heads, channels // self.heads)
        y = nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]).reshape(h.shape)
        y = Dense(channels, self.dtype, name='out')(Dense(channels, self.dtype, name='heads')(y))
        if not self.released:
            return x + y.reshape(x.shape)
        y = y + h.transpose(1, 2, 0).reshape(h.shape)
        return y.reshape(batch, channels, bins, frames).transpose(0, 3, 2, 1)


class Stage(nn.Module):
    """A residual block and a change of resolution."""

    features: int
    up: bool
    config: CompactUNetConfig

    @nn.compact
    def __call__(self, x, embedding, keys=None):
        x = ResBlock(self.features, self.config, name='res')(x, embedding, keys)
        return Resample(self.up, jnp.dtype(self.config.dtype), name='resample')(x)


class CompactUNet(nn.Module):
    """Estimates the noise in `x` at step `t`."""

    config: CompactUNetConfig = CompactUNetConfig()

    @nn.compact
    def __call__(self, x, t, keys=None):
        """Noise `[B, T, F, 2]`, like `x`; `t` `[B]` may be fractional; `keys` `[B]` draw the dropout of training."""
        config, dtype, act = self.config, jnp.dtype(self.config.dtype), ACTIVATIONS[self.config.activation]
        embedding = Dense(4 * EMBEDDING, dtype, name='step1')(step_embedding(t, EMBEDDING))
        embedding = Dense(4 * EMBEDDING, dtype, name='step2')(act(embedding))
        order = iter(range(1_000_000))

        def drawn():
            """Keys of the next residual block."""
            return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, next(order))

        *narrower, widest = config.widths
        skips = [x]
        for i, width in enumerate(config.widths):
            skips.append(Stage(width, False, config, name=f'down{i}')(skips[-1], embedding, drawn()))
        h = ResBlock(widest, config, name='middle1')(skips.pop(), embedding, drawn())
        h = Attention(config.heads, config.groups, config.released_attention, dtype, name='attention')(h)
        h = ResBlock(widest, config, name='middle2')(h, embedding, drawn())
        for i, width in enumerate([*narrower[::-1], CHANNELS]):
            h = Stage(width, True, config, name=f'up{i}')(h, embedding, drawn())
            h = Dense(width, dtype, name=f'join{i}')(jnp.concatenate([h, skips.pop()], axis=-1))
        h = act(GroupNorm(config.groups, silu=False, name='norm')(h))
        return SeparableConv(CHANNELS, dtype, name='out')(h).astype(jnp.float32)
