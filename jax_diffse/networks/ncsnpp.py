"""NCSN++ (Song et al., ICLR 2021) for complex spectrograms, as in SGMSE+ (Richter et al., TASLP 2023) and after it.

SGMSE+, the Schroedinger bridge (Richter et al., ICASSP 2025) and FlowSE (ICASSP 2025) share this U-Net. Arrays are
`[B, T, F, C]`. Frames and bins are halved from level to level, and both must be divisible accordingly.
"""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from jax_diffse.networks.convolutions import conv_same
from jax_diffse.networks.layers import Dense, GroupNorm, along_last, product
from jax_diffse.spectral import mask_frames

ZERO = 1e-10  # variance scale of layers that start at almost zero
FREQUENCIES = 16.0  # standard deviation of the frequencies of the time embedding
DIVISIONS = ('before', 'after', 'none')
HALF = 2 ** -0.5  # keeps the variance of a sum of two


def fourier_embedding(t: jax.Array, frequencies: jax.Array) -> jax.Array:
    """Sines, then cosines, of 2 pi w ln(t): t `[B]` > 0, frequencies w `[C]` -> `[B, 2 C]` float32."""
    turns = jnp.log(t.astype(jnp.float32))[:, None] * frequencies[None]
    # Without whole turns: the rest is exact, while an angle of many turns would be rounded once more.
    angles = 2 * np.pi * (turns - jnp.round(turns))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def downsample(x: jax.Array) -> jax.Array:
    """Filters both axes with [1, 3, 3, 1] / 8 and halves them: `[B, T, F, C]` -> `[B, T // 2, F // 2, C]`."""
    for axis in (1, 2):
        last = 2 * (x.shape[axis] // 2) - 1
        taps = [jax.lax.slice_in_dim(_padded(x, axis), i, i + last, 2, axis) for i in range(4)]
        x = 0.125 * (taps[0] + taps[3]) + 0.375 * (taps[1] + taps[2])
    return x


def upsample(x: jax.Array) -> jax.Array:
    """Puts zeros in between and filters with [1, 3, 3, 1] / 4: `[B, T, F, C]` -> `[B, 2 T, 2 F, C]`."""
    for axis in (1, 2):
        before, after = (jax.lax.slice_in_dim(_padded(x, axis), i, i + x.shape[axis], axis=axis) for i in (0, 2))
        shape = tuple(2 * size if i == axis else size for i, size in enumerate(x.shape))
        # Side by side along the next axis, which the new shape cuts: in turn along this one.
        x = jnp.concatenate([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1).reshape(shape)
    return x


def _padded(x, axis):
    return jnp.pad(x, [(int(i == axis),) * 2 for i in range(x.ndim)])


class Conv(nn.Module):
    """A convolution of `size` x `size` with zeros around; uniform initial weights of variance `scale` / mean fan."""

    features: int
    size: int = 1
    scale: float = 1.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        shape = (self.size,) * 2 * (self.size > 1) + (x.shape[-1], self.features)
        init = nn.initializers.variance_scaling(self.scale, 'fan_avg', 'uniform', in_axis=-2, out_axis=-1)
        kernel = self.param('kernel', init, shape, jnp.float32).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros, shape[-1:], jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        return along_last(jnp.add, conv_same(x, kernel) if self.size > 1 else product(x, kernel), bias)


def group_norm(x: jax.Array, num_frames: jax.Array | None, name: str, silu: bool = True) -> jax.Array:
    """Group normalisation with up to 32 groups, of 4 channels or more, in the module that calls it.

    Frames beyond `num_frames` `[B]` do not count, and are zero behind it.
    """
    x = GroupNorm(_groups(x.shape[-1]), silu, 1e-6, name=name)(x, num_frames=num_frames)
    return mask_frames(x, num_frames)


def _groups(channels):
    return min(channels // 4, 32)


class ResBlock(nn.Module):
    """Two convolutions with the time's embedding in between, and the input or its projection; BigGAN's form."""

    features: int
    dtype: Dtype
    resample: str = ''  # 'up' or 'down' within the block

    @nn.compact
    def __call__(self, x, embedding, num_frames=None):
        """`[B, T, F, C]`, `[B, E]` -> `[B, T, F, features]`, with half or twice the frames and bins if resampled.

        Frames beyond `num_frames` `[B]` do not change earlier ones, and are arbitrary behind it.
        """
        h = group_norm(x, num_frames, 'norm_in')
        if self.resample:
            h, x = (resampled(y, self.resample) for y in (h, mask_frames(x, num_frames)))
            num_frames = frames_of(num_frames, self.resample)
            h = mask_frames(h, num_frames)  # the filter reaches beyond the end
        h = Conv(self.features, 3, dtype=self.dtype, name='conv_in')(h)
        h = h + Conv(self.features, dtype=self.dtype, name='time')(nn.silu(embedding))[:, None, None]
        h = group_norm(h, num_frames, 'norm_out')
        h = Conv(self.features, 3, ZERO, self.dtype, name='conv_out')(h)
        if self.resample or x.shape[-1] != self.features:
            x = Conv(self.features, dtype=self.dtype, name='skip')(x)
        return (x + h) * HALF


def resampled(x: jax.Array, way: str) -> jax.Array:
    """`x` with half ('down') or twice ('up') the frames and bins."""
    return downsample(x) if way == 'down' else upsample(x)


def frames_of(num_frames: jax.Array | None, way: str) -> jax.Array | None:
    """Numbers of frames after `resampled`."""
    if num_frames is None:
        return None
    return num_frames // 2 if way == 'down' else 2 * num_frames


class Attention(nn.Module):
    """Self-attention with one head over all frames and bins, and the input: `[B, T, F, C]` -> `[B, T, F, C]`."""

    dtype: Dtype

    @nn.compact
    def __call__(self, x, num_frames=None):
        batch, frames, bins, channels = x.shape
        h = group_norm(x, num_frames, 'norm', silu=False).reshape(batch, frames * bins, channels)
        query, key, value = (Conv(channels, 1, 0.1, self.dtype, name=name)(h) for name in ('query', 'key', 'value'))
        scores = jnp.einsum('bqc,bkc->bqk', query * channels**-0.25, key * channels**-0.25)  # safe in bfloat16
        scores = scores.astype(jnp.float32)
        if num_frames is not None:
            real = jnp.arange(frames * bins)[None] < bins * num_frames[:, None]
            scores = jnp.where(real[:, None], scores, -jnp.inf)
        weights = nn.softmax(scores, axis=-1).astype(self.dtype)
        h = jnp.einsum('bqk,bkc->bqc', weights, value).reshape(x.shape)
        return (x + Conv(channels, 1, ZERO, self.dtype, name='out')(h)) * HALF


@dataclasses.dataclass(frozen=True)
class NcsnppConfig:
    """Size and options of an `Ncsnpp`; the defaults are those of SGMSE+ and FlowSE, 65 590 822 parameters."""

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2)  # channels of each level, in units of `channels`
    blocks: int = 2  # residual blocks per level on the way down; one more on the way up
    attention: tuple[int, ...] = (16,)  # numbers of bins at which levels have attention; the bottom always has it
    progressive: bool = True  # every level reads the input and adds to the output; False: the first and last only
    division: str = 'before'  # by the time t, 'before' or 'after' the last layer, or 'none'
    remat: bool = False  # recompute blocks in the gradient, to save memory (accelerators)
    dtype: str = 'float32'  # of activations and products: 'float32' or 'bfloat16'

    def __post_init__(self):
        for name, known in (('division', DIVISIONS), ('dtype', ('float32', 'bfloat16'))):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
        if not self.multipliers or min(self.blocks, *self.multipliers) < 1:
            raise ValueError('expected blocks and multipliers of 1 or more, got '
                             f'blocks={self.blocks}, multipliers={self.multipliers}')
        widths = self.widths
        for width in (*widths, *(2 * width for width in widths), *(a + b for a, b in itertools.pairwise(widths))):
            if width < 4 or width % _groups(width):
                raise ValueError('channels: expected a multiple of 4 that groups of normalisation divide, got '
                                 f'{self.channels}, of which {width} are not divisible by {max(_groups(width), 1)}')

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(multiplier * self.channels for multiplier in self.multipliers)

    @property
    def multiple(self) -> int:
        """Frames and bins must be multiples of this."""
        return 2 ** (len(self.multipliers) - 1)

    def attends(self, level: int, bins: int) -> bool:
        """Whether a level has attention, in a network for so many bins."""
        return bins // 2**level in self.attention


BACKBONES = {  # as published
    'ncsnpp': NcsnppConfig(),
    'ncsnpp_v2': NcsnppConfig(division='none'),
    'ncsnpp_48k': NcsnppConfig(attention=(), progressive=False, division='after'),
}


class Ncsnpp(nn.Module):
    """Estimates a score, clean speech or a velocity from the state `x` of a process at time t and noisy speech `y`.

    The frequencies of the time embedding are random and fixed. They are part of the parameters, as in the released
    code, but their gradient is zero, so that Adam and moving averages leave them as they are; weight decay would not.
    Attention depends on the number of bins, so variables fit the number of bins that they were initialised for.
    """

    config: NcsnppConfig = NcsnppConfig()

    @nn.compact
    def __call__(self, x, y, t, num_frames=None):
        """Evaluates the network; the released code's scores and velocities are minus this for `division` by t.

        Args:
          x: `[B, T, F, 2]`; T and F are multiples of `config.multiple`.
          y: `[B, T, F, 2]`.
          t: `[B]`, above 0.
          num_frames: `[B]`, multiples of `config.multiple`, 1 or more times; later frames do not change earlier ones.
            Default: T.

        Returns:
          `[B, T, F, 2]` float32; arbitrary beyond `num_frames`.

        Raises:
          ValueError: numbers of frames or bins that cannot be halved from level to level.
        """
        config, multiple = self.config, self.config.multiple
        if x.shape[1] % multiple or x.shape[2] % multiple:
            raise ValueError(f'x: expected multiples of {multiple} frames and bins, got {x.shape[1]} frames and '
                             f'{x.shape[2]} bins')
        inputs, embedding = jnp.concatenate([x, y], axis=-1), self._embed(t)
        frames = [None if num_frames is None else num_frames // 2**level for level in range(len(config.widths))]
        skips = self._down(inputs, embedding, frames)
        h = self._block('middle1', config.widths[-1])(skips[-1], embedding, frames[-1])
        h = self._attention('middle_attention')(h, frames[-1])
        h = self._block('middle2', config.widths[-1])(h, embedding, frames[-1])
        h = self._up(h, skips, embedding, frames, inputs.shape[-1])
        divisor = t.astype(jnp.float32)[:, None, None, None]
        h = Dense(x.shape[-1], name='out')(h / divisor if config.division == 'before' else h)
        return h / divisor if config.division == 'after' else h

    def _embed(self, t):
        """`[B]` -> `[B, 4 C]`."""
        size = self.config.channels
        frequencies = self.param('frequencies', nn.initializers.normal(FREQUENCIES), (size,), jnp.float32)
        embedding = fourier_embedding(t, jax.lax.stop_gradient(frequencies))
        embedding = nn.silu(self._conv('time1', 4 * size)(embedding))
        return self._conv('time2', 4 * size)(embedding)

    def _down(self, inputs, embedding, frames):
        """What each layer on the way down returns, the last one at the bottom; `frames` are those of each level."""
        config, bins = self.config, inputs.shape[2]
        inputs = mask_frames(inputs, frames[0])
        skips = [self._conv('conv_in', config.channels, 3)(inputs)]
        for level, width in enumerate(config.widths):
            for i in range(config.blocks):
                h = self._block(f'down{level}_{i}', width)(skips[-1], embedding, frames[level])
                if config.attends(level, bins):
                    h = self._attention(f'down{level}_{i}_attention')(h, frames[level])
                skips.append(h)
            if level < len(config.widths) - 1:
                h = self._block(f'shrink{level}', width, 'down')(skips[-1], embedding, frames[level])
                if config.progressive:
                    inputs = mask_frames(downsample(inputs), frames[level + 1])
                    h = self._conv(f'combine{level}', width)(inputs) + h
                skips.append(h)
        return skips

    def _up(self, h, skips, embedding, frames, features):
        """Sum of what the levels add to the output, `[B, T, F, features]` float32."""
        config, bins, total = self.config, skips[0].shape[2], None
        for level, width in reversed(list(enumerate(config.widths))):
            for i in range(config.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._block(f'up{level}_{i}', width)(h, embedding, frames[level])
            if config.attends(level, bins):
                h = self._attention(f'up{level}_attention')(h, frames[level])
            if config.progressive or level == 0:
                own = nn.silu(group_norm(h, frames[level], f'norm{level}', silu=False))  # of 0 it is 0
                own = self._conv(f'conv{level}', features, 3, ZERO)(own).astype(jnp.float32)
                total = mask_frames(own if total is None else upsample(total) + own, frames[level])
            if level:
                h = self._block(f'rise{level}', width, 'up')(h, embedding, frames[level])
        return total

    def _conv(self, name, features, size=1, scale=1.0):
        return Conv(features, size, scale, jnp.dtype(self.config.dtype), name=name)

    def _block(self, name, features, resample=''):
        block = nn.remat(ResBlock) if self.config.remat else ResBlock
        return block(features, jnp.dtype(self.config.dtype), resample, name=name)

    def _attention(self, name):
        attention = nn.remat(Attention) if self.config.remat else Attention
        return attention(jnp.dtype(self.config.dtype), name=name)
