"""The two-branch U-Net of DR-DiffuSE (Tai et al., AAAI 2023): condition generator and refiner.

A causal gated convolutional encoder over compressed complex spectrograms, a stack of dilated temporal convolution
modules, and two gated decoders, one for the real and one for the imaginary part.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jax_diffse.networks import layers
from jax_diffse.networks.layers import BatchNorm, Dense, PReLU
from jax_diffse.spectral import mask_frames

ENCODER_WIDTHS = (5, 3, 3, 3, 3)  # kernel sizes over frequency, blocks 1 to 5
DILATIONS = (1, 2, 4, 8, 16, 32)


class Features(NamedTuple):
    """Everything the network computes that another one may take up."""

    output: jax.Array  # [B, T, F, 2]
    encoder: list[jax.Array]  # blocks 1 to 5, [B, T, F_i, C]
    real: list[jax.Array]  # decoder blocks 5 to 1; the last is [B, T, F, 1]
    imag: list[jax.Array]


class GatedConv(nn.Module):
    """BiConvGLU, or its transposed twin: two convolutions of a 32-channel bottleneck that gate each other."""

    features: int
    width: int  # kernel size over frequency
    transposed: bool = False
    bottleneck: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        c = self.bottleneck
        u = Dense(c, self.dtype, name='in')(x)
        left_kernel, left_bias = layers.ConvParams((2, self.width, c, c), self.dtype, name='left')()
        right_kernel, right_bias = layers.ConvParams((2, self.width, c, c), self.dtype, name='right')()
        conv = layers.causal_conv_transpose if self.transposed else layers.causal_conv
        both = conv(u, jnp.concatenate([left_kernel, right_kernel], axis=-1))
        both = layers.along_last(jnp.add, both, jnp.concatenate([left_bias, right_bias]))
        left, right = both[..., :c], both[..., c:]
        left_gate = nn.sigmoid(Dense(c, self.dtype, name='left_gate')(left))
        right_gate = nn.sigmoid(Dense(c, self.dtype, name='right_gate')(right))
        return Dense(self.features, self.dtype, name='out')(left * right_gate + right * left_gate)


class NormAct(nn.Module):
    """Batch normalisation, then PReLU."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train, num_frames):
        return PReLU(name='act')(BatchNorm(self.axis_name, name='norm')(x, train, num_frames))


class Encoder(nn.Module):
    """Five gated blocks that halve the frequency axis: 161 -> 79, 39, 19, 9, 4; each looks one frame back."""

    channels: int
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train, num_frames):
        features = []
        for i, width in enumerate(ENCODER_WIDTHS, start=1):
            # Zero frames in front, before the biased 1 x 1 convolution, as in the released code.
            x = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))
            x = GatedConv(self.channels, width, dtype=self.dtype, name=f'conv{i}')(x)
            x = NormAct(self.axis_name, name=f'post{i}')(x, train, num_frames)
            features.append(x)
        return features


class Decoder(nn.Module):
    """Mirror of `Encoder` with skip connections; one output channel, linear."""

    channels: int
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, skips, train, num_frames):
        features = []
        for i, width in reversed(list(enumerate(ENCODER_WIDTHS, start=1))):
            x = jnp.concatenate([x, skips[i - 1]], axis=-1)
            x = GatedConv(self.channels if i > 1 else 1, width, transposed=True, dtype=self.dtype, name=f'conv{i}')(x)
            if i > 1:
                x = NormAct(self.axis_name, name=f'post{i}')(x, train, num_frames)
            features.append(x)
        return features


class TemporalUnit(nn.Module):
    """One residual unit of the temporal convolution modules: a dilated convolution times its gate."""

    dilation: int
    channels: int = 64
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train, num_frames):
        v = Dense(self.channels, self.dtype, name='in')(x)
        y = self._branch('main', v, train, num_frames) * nn.sigmoid(self._branch('gate', v, train, num_frames))
        y = BatchNorm(self.axis_name, name='out_norm')(PReLU(name='out_act')(y), train, num_frames)
        return x + Dense(x.shape[-1], self.dtype, name='out')(y)

    def _branch(self, name, v, train, num_frames):
        v = BatchNorm(self.axis_name, name=f'{name}_norm')(PReLU(name=f'{name}_act')(v), train, num_frames)
        # The only place that looks ahead in time: padding frames must be zero here.
        v = mask_frames(v, num_frames)
        kernel, bias = layers.ConvParams((5, self.channels, self.channels), self.dtype, name=name)()
        return layers.along_last(jnp.add, layers.dilated_conv(v, kernel, self.dilation), bias)


class TwoBranchUNet(nn.Module):
    """Maps a compressed complex spectrogram to an enhanced one.

    Causal but for the temporal modules, which see 378 frames to either side. 161 bins are needed for the bottleneck
    to come out as the paper's; others work as long as they shrink and grow back to the same number.
    """

    channels: int = 64
    temporal_groups: int = 3
    axis_name: str | None = None  # batch statistics are averaged over it in training
    dtype: Dtype = jnp.float32  # of activations and products; parameters and statistics stay float32

    def setup(self):
        common = {'axis_name': self.axis_name, 'dtype': self.dtype}
        self.encoder = Encoder(self.channels, **common)
        self.temporal = [TemporalUnit(dilation, **common) for dilation in self.temporal_groups * DILATIONS]
        self.decoder_real = Decoder(self.channels, **common)
        self.decoder_imag = Decoder(self.channels, **common)

    def features(self, x, num_frames=None, *, train=False) -> Features:
        """As `__call__`, with every intermediate feature."""
        encoded = self.encoder(x.astype(self.dtype), train, num_frames)
        batch, frames, bins, channels = encoded[-1].shape
        # Channel-major, as the released weights expect.
        x = encoded[-1].swapaxes(2, 3).reshape(batch, frames, channels * bins)
        for unit in self.temporal:
            x = unit(x, train, num_frames)
        x = x.reshape(batch, frames, channels, bins).swapaxes(2, 3)
        real = self.decoder_real(x, encoded, train, num_frames)
        imag = self.decoder_imag(x, encoded, train, num_frames)
        output = jnp.concatenate([real[-1], imag[-1]], axis=-1).astype(jnp.float32)
        return Features(output, encoded, real, imag)

    def __call__(self, x, num_frames=None, *, train=False) -> jax.Array:
        """Enhances spectrograms.

        Args:
          x: `[B, T, F, 2]`.
          num_frames: `[B]`, real frames of each; the others change neither output nor statistics. None: all are real.
          train: normalise with the batch's statistics and update the running ones (collection 'batch_stats').

        Returns:
          `[B, T, F, 2]` float32.
        """
        return self.features(x, num_frames, train=train).output
