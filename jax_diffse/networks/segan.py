"""A generator and a patch discriminator over waveforms, from SEGAN (Pascual et al., Interspeech 2017), scaled down.

Compared with SEGAN there is no latent noise, skips are added rather than joined, one PReLU slope serves the whole
generator, and the discriminator judges patches, as in Stefano-Previti/Diffusion_Based_Generative_Refiner.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jax_diffse.networks.convolutions import conv, conv_transpose
from jax_diffse.networks.folding import Fold, Folds, halving
from jax_diffse.networks.layers import BatchNorm, Dense, PReLU, along_last, conv_params

CHANNELS = (8, 16, 32, 64, 128, 256)
WIDTH = 31  # samples of a kernel
NEGATIVE_SLOPE = 0.3  # of the discriminator's leaky ReLU


class Resample(nn.Module):
    """A convolution of stride 2, or with `up` its adjoint: `[B, 1, N, C]` -> `[B, 1, N / 2 or 2 N, features]`.

    `folds`: how the samples of input and result lie in rows.
    """

    features: int
    up: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, folds: Folds):
        kernel, bias = conv_params(self, (WIDTH, x.shape[-1] // folds[0].group, self.features))
        x, kernel = x.astype(self.dtype), kernel[None]
        if self.up:
            y = conv_transpose(x, kernel, WIDTH // 2, extra=1, folds=folds)
        else:
            y = conv(x, kernel, WIDTH // 2, folds=folds)
        return along_last(jnp.add, y, bias)


def _folds(channels: tuple[int, ...], length: int) -> list[Fold]:
    """How the samples, which are the bins of one frame, of the input and of each level lie in rows."""
    return halving([length >> i for i in range(len(channels) + 1)], channels[0])


class Generator(nn.Module):
    """Noisy speech -> clean speech; 2 707 426 parameters with the default channels."""

    channels: tuple[int, ...] = CHANNELS  # of the encoder
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, noisy):
        """`[B, N]` -> `[B, N]` in (-1, 1), float32; N a multiple of 2 ** len(channels)."""
        act, skips = PReLU(name='act'), []
        folds = _folds(self.channels, noisy.shape[1])
        x = folds[0].pack(noisy[:, None, :, None])
        for i, features in enumerate(self.channels):
            x = act(Resample(features, dtype=self.dtype, name=f'encoder_{i}')(x, folds[i:i + 2]))
            skips.append(x)
        for i, features in enumerate((*self.channels[-2::-1], 1)):
            x = x + skips.pop()  # the first one is thus doubled, as released
            own = (folds[-1 - i], folds[-2 - i])
            x = act(Resample(features, up=True, dtype=self.dtype, name=f'decoder_{i}')(x, own))
        return jnp.tanh(folds[0].unpack(x)[:, 0, :, 0].astype(jnp.float32))


class Discriminator(nn.Module):
    """Judges whether `candidate` is clean speech, given `noisy`; 1 355 353 parameters with the default channels."""

    channels: tuple[int, ...] = CHANNELS
    axis_name: str | None = None  # over which batch statistics are averaged in training
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, noisy: jax.Array, candidate: jax.Array, train: bool = False) -> jax.Array:
        """`[B, N]` each -> judgements of patches `[B, N / 2 ** len(channels)]`, trained towards 1 for clean speech."""
        folds = _folds(self.channels, noisy.shape[1])
        x = folds[0].pack(jnp.stack([noisy, candidate], axis=-1)[:, None])
        for i, features in enumerate(self.channels):
            x = Resample(features, dtype=self.dtype, name=f'conv_{i}')(x, folds[i:i + 2])
            x = BatchNorm(self.axis_name, name=f'norm_{i}')(x, train, fold=folds[i + 1])
            x = nn.leaky_relu(x, NEGATIVE_SLOPE)
        x = folds[-1].unpack(x)
        return Dense(1, self.dtype, name='judge')(x)[:, 0, :, 0].astype(jnp.float32)
