"""A generator and a patch discriminator over waveforms, from SEGAN (Pascual et al., Interspeech 2017), scaled down.

Compared with SEGAN there is no latent noise, skips are added rather than joined, one PReLU slope serves the whole
generator, and the discriminator judges patches, as in Stefano-Previti/Diffusion_Based_Generative_Refiner.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jax_diffse.networks.convolutions import conv, conv_transpose
from jax_diffse.networks.layers import BatchNorm, Dense, PReLU, along_last, conv_params

CHANNELS = (8, 16, 32, 64, 128, 256)
WIDTH = 31  # samples of a kernel
NEGATIVE_SLOPE = 0.3  # of the discriminator's leaky ReLU


class Resample(nn.Module):
    """A convolution of stride 2, or with `up` its adjoint: `[B, N, C]` -> `[B, N / 2 or 2 N, features]`."""

    features: int
    up: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        kernel, bias = conv_params(self, (WIDTH, x.shape[-1], self.features))
        x, kernel = x[:, None].astype(self.dtype), kernel[None]  # samples as the bins of one frame
        y = conv_transpose(x, kernel, WIDTH // 2, extra=1) if self.up else conv(x, kernel, WIDTH // 2)
        return along_last(jnp.add, y[:, 0], bias)


class Generator(nn.Module):
    """Noisy speech -> clean speech; 2 707 426 parameters with the default channels."""

    channels: tuple[int, ...] = CHANNELS  # of the encoder
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, noisy):
        """`[B, N]` -> `[B, N]` in (-1, 1), float32; N a multiple of 2 ** len(channels)."""
        act, skips = PReLU(name='act'), []
        x = noisy[..., None]
        for i, features in enumerate(self.channels):
            x = act(Resample(features, dtype=self.dtype, name=f'encoder_{i}')(x))
            skips.append(x)
        for i, features in enumerate((*self.channels[-2::-1], 1)):
            x = x + skips.pop()  # the first one is thus doubled, as released
            x = act(Resample(features, up=True, dtype=self.dtype, name=f'decoder_{i}')(x))
        return jnp.tanh(x[..., 0].astype(jnp.float32))


class Discriminator(nn.Module):
    """Judges whether `candidate` is clean speech, given `noisy`; 1 355 353 parameters with the default channels."""

    channels: tuple[int, ...] = CHANNELS
    axis_name: str | None = None  # over which batch statistics are averaged in training
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, noisy: jax.Array, candidate: jax.Array, train: bool = False) -> jax.Array:
        """`[B, N]` each -> judgements of patches `[B, N / 2 ** len(channels)]`, trained towards 1 for clean speech."""
        x = jnp.stack([noisy, candidate], axis=-1)
        for i, features in enumerate(self.channels):
            x = Resample(features, dtype=self.dtype, name=f'conv_{i}')(x)
            x = BatchNorm(self.axis_name, name=f'norm_{i}')(x, train)
            x = nn.leaky_relu(x, NEGATIVE_SLOPE)
        return Dense(1, self.dtype, name='judge')(x)[..., 0].astype(jnp.float32)
