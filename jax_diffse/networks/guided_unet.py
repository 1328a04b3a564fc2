"""The U-Net of guided diffusion (Dhariwal & Nichol, NeurIPS 2021), as in Diffiner (Sawata et al., Interspeech 2023).

Arrays are `[B, T, F, C]`; on TPUs, within a level, in rows of some bins, `[B, T, F / G, G C]` (see `folding`). Frames
and bins are halved from level to level, and both must be divisible accordingly.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from jax_diffse.networks.convolutions import conv_same
from jax_diffse.networks.folding import filling, regrouped
from jax_diffse.networks.layers import Dense, GroupNorm, along_last, by_parts, channels_of, conv_params, dropped


def step_embedding(t: jax.Array, size: int, longest: float = 10_000.0) -> jax.Array:
    """Cosines, then sines, of t at `size / 2` frequencies from 1 to almost 1 / `longest`: `[B]` -> `[B, size]` float32.

    A float32 product with t in the thousands would be off by 1e-4 radians. The product of t, which has few bits, and
    the leading 11 bits of each frequency is exact; the small rest is added as an angle.
    """
    frequency = np.exp(-math.log(longest) * np.arange(size // 2) / (size // 2))
    leading = np.ldexp(np.round(np.ldexp(np.frexp(frequency)[0], 11)), np.frexp(frequency)[1] - 11)
    t = t.astype(jnp.float32)[:, None]
    large, small = (t * part.astype(np.float32)[None] for part in (leading, frequency - leading))
    cosine = jnp.cos(large) * jnp.cos(small) - jnp.sin(large) * jnp.sin(small)
    sine = jnp.sin(large) * jnp.cos(small) + jnp.cos(large) * jnp.sin(small)
    return jnp.concatenate([cosine, sine], axis=-1)


def _per_channel(x, group):
    return jnp.tile(x, group)[:, None, None, :]


class Conv(nn.Module):
    """A 3 x 3 convolution with zeros around, initialised as PyTorch does, or with zeros; as in `by_parts`."""

    features: int
    stride: int = 1
    zero: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, group=1):
        shape = (3, 3, channels_of(x, group), self.features)
        kernel, bias = conv_params(self, shape, self.zero)
        x = jax.tree.map(lambda part: part.astype(self.dtype), x)
        return along_last(jnp.add, by_parts(lambda *pair: conv_same(*pair, self.stride), x, kernel), bias)


def upsample(x: jax.Array) -> jax.Array:
    """Repeats every frame and bin."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def average_pool(x: jax.Array) -> jax.Array:
    """Averages two frames by two bins; an odd last one is left out."""
    batch, frames, bins, channels = x.shape
    x = x[:, :frames // 2 * 2, :bins // 2 * 2].reshape(batch, frames // 2, 2, bins // 2, 2, channels)
    return jnp.mean(x, axis=(2, 4))


class ResBlock(nn.Module):
    """Two convolutions with the step's embedding in between, added to the input or its projection."""

    features: int
    groups: int
    scale_shift: bool
    dropout: float
    dtype: Dtype
    resample: str = ''  # 'up' or 'down' within the block

    @nn.compact
    def __call__(self, x, embedding, keys=None, group=1):
        """`[B, T, F, C]`, `[B, E]` -> `[B, T, F, features]`; `keys` `[B]` draw the dropout of training.

        Without resampling, x may be a tuple of arrays to be joined along the channels, all in rows of `group` bins.
        """
        h = GroupNorm(self.groups, name='norm_in')(x, group=group)
        if self.resample:
            resample = upsample if self.resample == 'up' else average_pool
            h, x = resample(h), resample(x)
        h = Conv(self.features, dtype=self.dtype, name='conv_in')(h, group)
        step = Dense((1 + self.scale_shift) * self.features, self.dtype, name='step')(nn.silu(embedding))
        norm = GroupNorm(self.groups, name='norm_out')
        if self.scale_shift:
            h = norm(h, *jnp.split(step.astype(jnp.float32), 2, axis=-1), group=group)
        else:
            h = norm(h + _per_channel(step, group), group=group)
        if keys is not None and self.dropout:
            h = dropped(h, keys, self.dropout)
        h = Conv(self.features, zero=True, dtype=self.dtype, name='conv_out')(h, group)
        same = channels_of(x, group) == self.features
        return h + (x if same else Dense(self.features, self.dtype, name='skip')(x, group))


class Attention(nn.Module):
    """Self-attention over all frames and bins, added to the input. `order` is the order of qkv's features.

    'legacy': head by head, its queries, keys and values; 'new': all queries, all keys, all values.
    """

    heads: int
    groups: int
    order: str
    dtype: Dtype

    @nn.compact
    def __call__(self, x):
        batch, frames, bins, channels = x.shape
        h = GroupNorm(self.groups, silu=False, name='norm')(x).reshape(batch, frames * bins, channels)
        qkv = Dense(3 * channels, self.dtype, name='qkv')(h)
        size = channels // self.heads
        if self.order == 'legacy':
            query, key, value = jnp.split(qkv.reshape(batch, -1, self.heads, 3 * size), 3, axis=-1)
        else:
            query, key, value = (part.reshape(batch, -1, self.heads, size) for part in jnp.split(qkv, 3, axis=-1))
        scores = jnp.einsum('bqhc,bkhc->bhqk', query * size**-0.25, key * size**-0.25)  # scaled first: safe in bfloat16
        weights = nn.softmax(scores.astype(jnp.float32), axis=-1).astype(self.dtype)
        h = jnp.einsum('bhqk,bkhc->bqhc', weights, value).reshape(x.shape)
        return x + Dense(channels, self.dtype, zero=True, name='out')(h)


class Stage(nn.Module):
    """A residual block, optionally followed by attention and upsampling."""

    res: dict
    attention: dict | None = None
    upsample: bool = False  # by a convolution

    @nn.compact
    def __call__(self, x, embedding, keys=None, group=1):
        x = ResBlock(**self.res, name='res')(x, embedding, keys, group)
        if self.attention is not None:
            x = regrouped(Attention(**self.attention, name='attention')(regrouped(x, group, 1)), 1, group)
        if self.upsample:
            x = regrouped(upsample(regrouped(x, group, 1)), 1, group)
            x = Conv(channels_of(x, group), dtype=self.res['dtype'], name='up')(x, group)
        return x


class Middle(nn.Module):
    """The bottom of the U-Net."""

    res: dict
    attention: dict

    @nn.compact
    def __call__(self, x, embedding, first_keys=None, second_keys=None):
        x = ResBlock(**self.res, name='res1')(x, embedding, first_keys)
        x = Attention(**self.attention, name='attention')(x)
        return ResBlock(**self.res, name='res2')(x, embedding, second_keys)


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Size and options of a `GuidedUNet`; the defaults are those of Diffiner, 164 303 618 parameters."""

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)  # channels of each level, in units of `channels`
    blocks: int = 3  # residual blocks per level on the way down; one more on the way up
    attention: tuple[int, ...] = (16, 32)  # factors of reduced resolution that have attention
    heads: int = 4
    heads_up: int = 0  # on the way up; 0: the same
    head_channels: int = 0  # per head, in place of `heads`; 0: as many as `heads` gives
    qkv_order: str = 'legacy'  # of the features of attention; or 'new', see `Attention`
    scale_shift: bool = True  # the step scales and shifts normalised features; False: is added to them
    resample_blocks: bool = False  # change resolution within residual blocks, not by convolutions
    dropout: float = 0.0
    groups: int = 32  # of group normalisation
    remat: bool = False  # recompute blocks in the gradient, to save memory (accelerators)
    dtype: str = 'float32'  # of activations and products: 'float32' or 'bfloat16'

    def __post_init__(self):
        for name, known in (('qkv_order', ('legacy', 'new')), ('dtype', ('float32', 'bfloat16'))):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
        counts = (self.channels, self.blocks, *self.multipliers)
        if not self.multipliers or min(counts) < 1 or self.channels % 2 or not 0 <= self.dropout < 1:
            raise ValueError('expected an even number of channels, blocks and multipliers of 1 or more, and a dropout '
                             f'from 0 to below 1, got channels={self.channels}, blocks={self.blocks}, '
                             f'multipliers={self.multipliers}, dropout={self.dropout:g}')
        heads = (self.head_channels,) if self.head_channels else (self.heads, self.heads_up or self.heads)
        named = 'heads of {}' if self.head_channels else '{} or {} heads'
        for width in self.widths:
            if any(part < 1 or width % part for part in (self.groups, *heads)):
                raise ValueError(f'{width} channels are not divisible by {self.groups} groups and '
                                 f'{named.format(*heads)}')

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(multiplier * self.channels for multiplier in self.multipliers)

    @property
    def multiple(self) -> int:
        """Frames and bins must be multiples of this."""
        return 2 ** (len(self.multipliers) - 1)

    def heads_at(self, width: int, up: bool) -> int:
        """Heads of attention over `width` channels."""
        return width // self.head_channels if self.head_channels else up and self.heads_up or self.heads


class GuidedUNet(nn.Module):
    """Estimates the noise in `x` at step `t`."""

    config: UNetConfig = UNetConfig()

    @nn.compact
    def __call__(self, x, t, keys=None):
        """Noise `[B, T, F, C]`, like `x`; `t` `[B]` may be fractional; `keys` `[B]` draw the dropout of training."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        stage, middle, res_block = (  # the group of bins is no array
            nn.remat(m, static_argnums=static) if config.remat else m
            for m, static in ((Stage, (4,)), (Middle, ()), (ResBlock, ())))
        embedding = Dense(4 * config.channels, dtype, name='step1')(step_embedding(t, config.channels))
        embedding = Dense(4 * config.channels, dtype, name='step2')(nn.silu(embedding))
        order = iter(range(1_000_000))

        def drawn():
            """Keys of the next residual block."""
            return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, next(order))

        groups = self._groups(x.shape[2])
        skips = [regrouped(Conv(config.channels, dtype=dtype, name='down0')(x), 1, groups[0])]
        for level, (width, group) in enumerate(zip(config.widths, groups, strict=True)):
            for _ in range(config.blocks):
                block = stage(self._res(width), self._attention(width, level), name=f'down{len(skips)}')
                skips.append(block(skips[-1], embedding, drawn(), group))
            if level < len(config.widths) - 1:
                name, h = f'down{len(skips)}', regrouped(skips[-1], group, 1)
                if config.resample_blocks:
                    h = res_block(**self._res(width), resample='down', name=name)(h, embedding, drawn())
                else:
                    h = Conv(width, stride=2, dtype=dtype, name=name)(h)
                skips.append(regrouped(h, 1, groups[level + 1]))

        width, number = config.widths[-1], 0
        h = regrouped(skips[-1], groups[-1], 1)
        h = middle(self._res(width), self._attention(width), name='middle')(h, embedding, drawn(), drawn())
        h = regrouped(h, 1, groups[-1])

        for level, (width, group) in reversed(list(enumerate(zip(config.widths, groups, strict=True)))):
            for i in range(config.blocks + 1):
                rises = level > 0 and i == config.blocks
                block = stage(self._res(width), self._attention(width, level, up=True),
                              rises and not config.resample_blocks, name=f'up{number}')
                # In rows, bins of the two would have to be interleaved.
                joined = (h, skips.pop()) if group > 1 else jnp.concatenate([h, skips.pop()], axis=-1)
                h = block(joined, embedding, drawn(), group)
                if rises and config.resample_blocks:
                    rise = res_block(**self._res(width), resample='up', name=f'rise{number}')
                    h = regrouped(rise(regrouped(h, group, 1), embedding, drawn()), 1, group)
                if rises:
                    h = regrouped(h, group, groups[level - 1])
                number += 1

        h = regrouped(GroupNorm(config.groups, name='norm')(h, group=groups[0]), groups[0], 1)
        return Conv(x.shape[-1], zero=True, dtype=dtype, name='out')(h).astype(jnp.float32)

    def _groups(self, num_bins: int) -> list[int]:
        """Bins of a row at each level."""
        bins = [num_bins >> level for level in range(len(self.config.widths))]
        return [math.gcd(filling(width), count) for width, count in zip(self.config.widths, bins, strict=True)]

    def _res(self, width):
        config = self.config
        return {'features': width, 'groups': config.groups, 'scale_shift': config.scale_shift,
                'dropout': config.dropout, 'dtype': jnp.dtype(config.dtype)}

    def _attention(self, width, level=None, up=False):
        """Fields of the attention at a level, or None without attention; the bottom (no level) always has it."""
        if level is not None and 2**level not in self.config.attention:
            return None
        return {'heads': self.config.heads_at(width, up), 'groups': self.config.groups,
                'order': self.config.qkv_order, 'dtype': jnp.dtype(self.config.dtype)}
