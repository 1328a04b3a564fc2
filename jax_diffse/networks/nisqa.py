"""NISQA v2: speech quality from the degraded signal alone (Mittag, Naderi, Chehadi and Moeller, "NISQA: A deep
CNN-self-attention model for multidimensional speech quality prediction with crowdsourced datasets", Interspeech 2021).

A CNN processes overlapping segments of a Mel spectrogram, self-attention or an LSTM relates them in time, and pooling
over time gives the scores. It is for inference only: there is no dropout, and normalisation has fixed statistics.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jax_diffse.networks import layers
from jax_diffse.networks.dccrn import LstmWeights, lstm
from jax_diffse.networks.layers import Dense

SEGMENT = 15  # frames
MELS = 48
CHANNELS = (16, 32, 64, 64, 64, 64)  # of the convolutions
UNITS = 64  # of the attention layers
LAYERS = 2
LSTM_UNITS = 128  # per direction
QUERIES = 512  # processed at a time, so that attention over an hour fits into memory
EPSILON = 1e-5  # of layer normalisation

Windows = Sequence[tuple[int, int]]  # [start, stop) of each


@dataclasses.dataclass(frozen=True)
class NisqaConfig:
    """What differs between the released models."""

    heads: int = 1  # scores
    recurrent: bool = False  # plain pooling in the CNN, then a bidirectional LSTM, in place of attention
    max_hz: int = 20_000  # upper end of the Mel scale
    hop: int = 4  # frames between segments


NISQA_V2 = NisqaConfig(heads=5)
NISQA_V2_MOS_ONLY = NisqaConfig()
NISQA_TTS = NisqaConfig(recurrent=True, max_hz=8000, hop=1)


def adaptive_windows(size: int, count: int) -> Windows:
    """The windows of PyTorch's adaptive pooling of `size` to `count`; they overlap where `count` does not divide it."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def max_pool(x: jax.Array, windows: Windows) -> jax.Array:
    """Maxima over windows of time and pairs of bands: `[S, T, F, C]` -> `[S, len(windows), F / 2, C]`."""
    x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3]).max(axis=3)
    return jnp.stack([x[:, start:stop].max(axis=1) for start, stop in windows], axis=1)


class ConvNorm(nn.Module):
    """A 3 x 3 convolution, zero-padded (in time unless `valid`), and batch normalisation with fixed statistics."""

    features: int
    valid: bool = False

    @nn.compact
    def __call__(self, x):
        kernel, bias = layers.ConvParams((3, 3, x.shape[-1], self.features), name='conv')()
        pads = ((0, 0) if self.valid else (1, 1), (1, 1))
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
        return layers.BatchNorm(name='norm')(layers.along_last(jnp.add, x, bias), train=False)


class Cnn(nn.Module):
    """Features of each segment: dB `[S, 15, 48]` -> `[S, 384]`, or with `recurrent` `[S, 20]`."""

    recurrent: bool

    @nn.compact
    def __call__(self, segments):
        pools = self._pools()
        x = segments[..., None]
        for i, features in enumerate(CHANNELS, 1):
            last = i == len(CHANNELS)
            x = nn.relu(ConvNorm(features, valid=last and not self.recurrent, name=f'block{i}')(x))
            if i in pools:
                x = max_pool(x, pools[i])
        x = x.transpose(0, 3, 2, 1).reshape(len(x), -1)  # features are ordered channel, band, time
        return Dense(20, name='out')(x) if self.recurrent else x

    def _pools(self):
        """Block -> windows in time of the pooling after it."""
        if self.recurrent:  # pairs; the first pooling has a frame of padding before the first one
            return {1: [(max(0, 2 * i - 1), 2 * i + 1) for i in range(8)], 2: adaptive_windows(8, 4),
                    4: adaptive_windows(4, 2)}
        return {1: adaptive_windows(SEGMENT, 7), 2: adaptive_windows(7, 5), 4: adaptive_windows(5, 3)}


class Attention(nn.Module):
    """Self-attention with one head over the real segments: `[B, W, D]`, mask `[B, W]` -> `[B, W, D]`."""

    @nn.compact
    def __call__(self, x, real):
        units = x.shape[-1]
        query, key, value = jnp.split(Dense(3 * units, name='qkv')(x), 3, axis=-1)

        def attend(query):  # [B, D]
            logits = jnp.einsum('bd,bwd->bw', query, key) / jnp.sqrt(jnp.float32(units))
            return jnp.einsum('bw,bwd->bd', masked_softmax(logits, real), value)

        attended = jax.lax.map(attend, query.swapaxes(0, 1), batch_size=QUERIES)
        return Dense(units, name='out')(attended.swapaxes(0, 1))


def masked_softmax(logits: jax.Array, real: jax.Array) -> jax.Array:
    """Softmax over the last axis where `real`; zero elsewhere. Finite even where nothing is real."""
    return nn.softmax(jnp.where(real, logits, jnp.finfo(logits.dtype).min), axis=-1)


class AttentionLayer(nn.Module):
    """A layer of a Transformer, each half normalised after its residual (Vaswani et al., 2017)."""

    @nn.compact
    def __call__(self, x, real):
        units = x.shape[-1]
        x = layer_norm('norm1')(x + Attention(name='attention')(x, real))
        hidden = nn.relu(Dense(units, name='hidden')(x))
        return layer_norm('norm2')(x + Dense(units, name='out')(hidden))


def layer_norm(name: str) -> nn.LayerNorm:
    """Layer normalisation as PyTorch's."""
    return nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, name=name)


class AttentionTime(nn.Module):
    """Projection and attention layers: `[B, W, 384]`, mask `[B, W]` -> `[B, W, 64]`."""

    @nn.compact
    def __call__(self, x, real):
        x = layer_norm('norm')(Dense(UNITS, name='project')(x))
        for i in range(LAYERS):
            x = AttentionLayer(name=f'layer{i}')(x, real)
        return x


class AttentionPool(nn.Module):
    """A score from the mean over time, weighted by learnt importance: `[B, W, D]`, mask `[B, W]` -> `[B, 1]`."""

    @nn.compact
    def __call__(self, x, real):
        logits = Dense(1, name='importance')(nn.relu(Dense(2 * x.shape[-1], name='hidden')(x)))
        pooled = jnp.einsum('bw,bwd->bd', masked_softmax(logits[..., 0], real), x)
        return Dense(1, name='score')(pooled)


def reverse(x: jax.Array, num_segments: jax.Array) -> jax.Array:
    """Reverses the first `num_segments[b]` entries of `[B, W, ...]`; later entries are arbitrary."""
    places = (num_segments[:, None] - 1 - jnp.arange(x.shape[1])[None]) % x.shape[1]
    return jnp.take_along_axis(x, places.reshape(*places.shape, *[1] * (x.ndim - 2)), axis=1)


class RecurrentTime(nn.Module):
    """A bidirectional LSTM: `[B, W, 20]`, `num_segments` `[B]` -> `[B, W, 256]`, the forward direction first."""

    @nn.compact
    def __call__(self, x, num_segments):
        directions = zip(('forward', 'backward'), (x, reverse(x, num_segments)), strict=True)
        weights = {name: (x, LstmWeights(x.shape[-1], LSTM_UNITS, name=name)()) for name, x in directions}
        projected = jnp.stack([layers.along_last(jnp.add, x @ kernel, bias)
                               for x, (kernel, _, bias) in weights.values()])
        recurrent = jnp.stack([recurrent for _, (_, recurrent, _) in weights.values()])
        zeros = jnp.zeros((2, len(x), LSTM_UNITS), projected.dtype)
        outputs, _ = lstm(projected.transpose(2, 0, 1, 3), recurrent, (zeros, zeros))
        forward, backward = outputs.transpose(1, 2, 0, 3)
        return jnp.concatenate([forward, reverse(backward, num_segments)], axis=-1)


class LastPool(nn.Module):
    """A score from the last output of each direction: `[B, W, 2 H]`, `num_segments` `[B]` -> `[B, 1]`."""

    @nn.compact
    def __call__(self, x, num_segments):
        last = jnp.take_along_axis(x, (num_segments - 1)[:, None, None], axis=1)[:, 0]
        half = x.shape[-1] // 2
        return Dense(1, name='score')(jnp.concatenate([last[:, :half], x[:, 0, half:]], axis=-1))


class Nisqa(nn.Module):
    """Predicts quality scores, 1 to 5, of padded batches of files."""

    config: NisqaConfig

    def setup(self):
        self.cnn = Cnn(self.config.recurrent)
        if self.config.recurrent:
            self.time, self.pools = RecurrentTime(), [LastPool() for _ in range(self.config.heads)]
        else:
            self.time, self.pools = AttentionTime(), [AttentionPool() for _ in range(self.config.heads)]

    def __call__(self, segments, num_segments):
        """Segments in dB `[B, W, 15, 48]` -> scores `[B, heads]`.

        Segments beyond `num_segments` `[B]`, 1 or more, have no influence.
        """
        features = self.features(segments.reshape(-1, *segments.shape[2:]))
        return self.rate(features.reshape(*segments.shape[:2], -1), num_segments)

    def features(self, segments):
        """The CNN's features of each segment: `[S, 15, 48]` -> `[S, D]`."""
        return self.cnn(segments)

    def rate(self, features, num_segments):
        """The scores `[B, heads]` from features `[B, W, D]`."""
        real = jnp.arange(features.shape[1])[None] < num_segments[:, None]
        where = num_segments if self.config.recurrent else real
        x = self.time(features, where)
        return jnp.concatenate([pool(x, where) for pool in self.pools], axis=-1)
