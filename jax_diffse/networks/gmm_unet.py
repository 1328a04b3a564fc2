"""A one-dimensional U-Net that estimates, sample by sample, a Gaussian mixture of the noise in a waveform.

DiffGMM (Wang et al., arXiv 2406.09154) shows three linear layers, a U-Net of four levels with three blocks each, and
linear layers to pi_k, mu_k and Sigma_k; all else here (widths, kernels, normalisation, strides of 4, the conditioning
on the level) is ours. Arrays are `[B, N, C]`, on TPUs in rows of up to four samples, `[B, N / G, G C]` (see `folding`).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from jax_diffse.networks.convolutions import by_rows, conv_same, dilated_conv
from jax_diffse.networks.folding import Fold, filling, regrouped
from jax_diffse.networks.guided_unet import step_embedding
from jax_diffse.networks.layers import (
    ConvParams,
    Dense,
    GroupNorm,
    along_last,
    by_parts,
    channels_of,
    conv_params,
    product,
)
from jax_diffse.spectral import mask_frames

STRIDE = 4  # from level to level
LEVELS = 1000.0  # factor of a level from 0 to 1 before it is embedded
DILATIONS = (1, 2, 4, 8, 16, 32)  # at the bottom


@dataclasses.dataclass(frozen=True)
class GmmUNetConfig:
    """Size of a `GmmUNet`."""

    components: int = 5  # of the mixture, K
    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels of each level
    blocks: int = 3  # residual blocks per level, on the way down and on the way up
    kernel: int = 9  # samples of a convolution
    groups: int = 8  # of group normalisation
    dtype: str = 'float32'  # of activations and products: 'float32' or 'bfloat16'

    def __post_init__(self):
        if self.dtype not in ('float32', 'bfloat16'):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {self.dtype!r}")
        if self.components < 1 or self.blocks < 1:
            raise ValueError(f'components, blocks: expected 1 or more, got {self.components} and {self.blocks}')
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f'kernel: expected an odd number of samples, got {self.kernel}')
        if not self.widths or min(self.widths) < 2 or self.groups < 1 or any(w % self.groups for w in self.widths):
            raise ValueError(f'widths: expected multiples of {self.groups}, the groups of normalisation, got '
                             f'{self.widths}')

    @property
    def multiple(self) -> int:
        """Waveforms are padded to a multiple of this many samples."""
        return STRIDE ** (len(self.widths) - 1)


class Conv(nn.Module):
    """A convolution that keeps the length, zeros around."""

    features: int
    size: int
    zero: bool = False  # starts at zero
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, group=1):
        kernel, bias = conv_params(self, (self.size, channels_of(x, group), self.features), self.zero)
        x = jax.tree.map(lambda part: part.astype(self.dtype), x)
        return along_last(jnp.add, by_parts(_conv, x, kernel), bias)


def _conv(x, kernel):
    """`[B, N, C]`, or in rows `[B, N / G, G C]`, with zeros around; kernel `[k, C, D]`."""
    if x.shape[-1] > kernel.shape[1]:
        return conv_same(x[:, None], kernel[None])[:, 0]
    return conv_same(x[:, :, None], kernel[:, None])[:, :, 0]


class Down(nn.Module):
    """A convolution of 8 samples and stride 4: `[B, N, C]` -> `[B, N / 4, features]`; with a group, x is in rows."""

    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x, group=1):
        kernel, bias = conv_params(self, (2 * STRIDE, channels_of(x, group), self.features))
        x = x.astype(self.dtype)
        if group == STRIDE:
            folds = Fold(STRIDE * x.shape[1], STRIDE), Fold(x.shape[1])
            return along_last(jnp.add, by_rows(x[:, None], kernel[None], STRIDE // 2, folds)[:, 0], bias)
        # Two products of neighbouring quarters, as the kernel is twice as long as the stride.
        x = jnp.pad(x, ((0, 0), (STRIDE // 2 // group,) * 2, (0, 0)))
        x = regrouped(x, group, STRIDE)
        early, late = kernel.reshape(2, -1, self.features)
        return along_last(jnp.add, product(x[:, :-1], early) + product(x[:, 1:], late), bias)


class Up(nn.Module):
    """Repeats every sample four times, then convolves: `[B, N, C]` -> `[B, N, 4 features]`, rows of four samples.

    The copies are never made: at each of the four places, the convolution sums its taps per neighbouring sample.
    """

    features: int
    size: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        kernel, bias = conv_params(self, (self.size, channels, self.features))
        taps, neighbours = upsampled_taps(self.size)
        kernel = jnp.einsum('pnk,kcd->ncpd', jnp.asarray(taps, self.dtype), kernel)
        kernel = kernel.reshape(neighbours, channels, STRIDE * self.features)
        return along_last(jnp.add, _conv(x.astype(self.dtype), kernel), bias)


def upsampled_taps(size: int) -> tuple[np.ndarray, int]:
    """Which taps of a kernel fall onto which neighbour, `[4 places, neighbours, size]` zeros and ones; neighbours."""
    offsets = (np.arange(STRIDE)[:, None] + np.arange(size)[None] - size // 2) // STRIDE  # [4, size]
    reach = int(np.abs(offsets).max())
    return (offsets[:, None] == np.arange(-reach, reach + 1)[None, :, None]).astype(np.float32), 2 * reach + 1


class ResBlock(nn.Module):
    """Two convolutions with the level's scale and shift in between, added to the input or its projection."""

    features: int
    config: GmmUNetConfig

    @nn.compact
    def __call__(self, x, embedding, num_frames, group):
        config, dtype = self.config, jnp.dtype(self.config.dtype)

        def masked(x):
            return jax.tree.map(lambda part: mask_frames(part, num_frames, group), x)

        h = GroupNorm(config.groups, name='norm_in')(x, num_frames=num_frames, group=group)
        h = Conv(self.features, config.kernel, dtype=dtype, name='conv_in')(masked(h), group)
        scale, shift = jnp.split(Dense(2 * self.features, name='level')(nn.silu(embedding)), 2, axis=-1)
        h = GroupNorm(config.groups, name='norm_out')(h, scale, shift, num_frames, group)
        h = Conv(self.features, config.kernel, zero=True, dtype=dtype, name='conv_out')(masked(h), group)
        same = channels_of(x, group) == self.features
        return h + (x if same else Dense(self.features, dtype, name='skip')(x, group))


class Dilated(nn.Module):
    """A dilated convolution over three frames, added to the input."""

    dilation: int
    config: GmmUNetConfig

    @nn.compact
    def __call__(self, x, num_frames):
        dtype = jnp.dtype(self.config.dtype)
        h = GroupNorm(self.config.groups, name='norm')(x, num_frames=num_frames)
        kernel, bias = ConvParams((3, x.shape[-1], x.shape[-1]), dtype, name='conv')()
        h = dilated_conv(mask_frames(h, num_frames).astype(dtype), kernel, self.dilation, largest=self.dilation)
        return x + along_last(jnp.add, h, bias)


class GmmUNet(nn.Module):
    """Estimates the unconstrained parameters of the mixture."""

    config: GmmUNetConfig = GmmUNetConfig()

    @nn.compact
    def __call__(self, x, noisy, level, num_samples=None):
        """Waveforms between clean and noisy speech -> parameters of the mixture of their noise, see `gmm.mixture`.

        Args:
          x: `[B, N]`.
          noisy: `[B, N]`.
          level: `[B]`, the share of the noise that x has, from 0 to 1.
          num_samples: `[B]`, real lengths; later samples do not change the result; default N.

        Returns:
          `[3, K, B, N]` float32; arbitrary beyond `num_samples`.
        """
        config, dtype, length = self.config, jnp.dtype(self.config.dtype), x.shape[1]
        if num_samples is None:
            num_samples = jnp.full(len(x), length)
        frames = [-(-num_samples // STRIDE**i) for i in range(len(config.widths))]
        x = jnp.pad(jnp.stack([x, noisy], axis=-1), ((0, 0), (0, -length % config.multiple), (0, 0)))
        embedding = self._embed(level)
        # Samples of a row; the last level, with its dilations, has rows of one.
        groups = [*(min(STRIDE, filling(width)) for width in config.widths[:-1]), 1]
        x = regrouped(x, 1, groups[0])
        for i, width in enumerate((config.widths[0] // 2, config.widths[0], config.widths[0])):
            x = Dense(width, dtype, name=f'stem{i}')(x if i == 0 else nn.silu(x), groups[0])
        skips = []
        for i, (width, group) in enumerate(zip(config.widths, groups, strict=True)):
            if i:
                skips.append(x)
                x = mask_frames(x, frames[i - 1], groups[i - 1])
                x = regrouped(Down(width, dtype, name=f'down{i}')(x, groups[i - 1]), 1, group)
            x = self._blocks(f'encoder{i}', x, embedding, frames[i], (width, group))
        for dilation in DILATIONS:
            x = Dilated(dilation, config, name=f'dilated{dilation}')(x, frames[-1])
        for i in reversed(range(len(skips))):
            width, group = config.widths[i], groups[i]
            x = regrouped(mask_frames(x, frames[i + 1], groups[i + 1]), groups[i + 1], 1)
            x = regrouped(Up(width, config.kernel, dtype, name=f'up{i}')(x), STRIDE, group)
            # In rows, samples of the two would have to be interleaved.
            x = (x, skips[i]) if group > 1 else jnp.concatenate([x, skips[i]], axis=-1)
            x = self._blocks(f'decoder{i}', x, embedding, frames[i], (width, group))
        x = GroupNorm(config.groups, name='norm')(x, num_frames=frames[0], group=groups[0])
        x = regrouped(x, groups[0], 1)[:, :length].astype(jnp.float32)
        kernel, bias = ConvParams((x.shape[-1], 3 * config.components), name='mixture')()
        y = jnp.einsum('bnc,cd->dbn', x, kernel) + bias[:, None, None]
        return y.reshape(3, config.components, *y.shape[1:])

    def _embed(self, level):
        """`[B]` -> `[B, 4 C]`."""
        size = self.config.widths[0]
        embedding = Dense(4 * size, name='level0')(step_embedding(LEVELS * level, size))
        return Dense(4 * size, name='level1')(nn.silu(embedding))

    def _blocks(self, name, x, embedding, num_frames, size):
        width, group = size
        for i in range(self.config.blocks):
            x = ResBlock(width, self.config, name=f'{name}_{i}')(x, embedding, num_frames, group)
        return x
