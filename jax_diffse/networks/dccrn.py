"""DCCRN: deep complex convolution recurrent network (Hu et al., Interspeech 2020), as used in the study of its losses
(Lee et al., "DCCRN with various loss functions", JASK 40(2), 2021).

A causal complex convolutional encoder, recurrent layers over time, and a decoder of transposed complex convolutions,
each of which looks one frame ahead. Complex arrays are pairs of real ones, (real, imaginary); channels are counted with
both parts, all real ones before all imaginary ones.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jax_diffse import platforms
from jax_diffse.networks import layers
from jax_diffse.networks.convolutions import conv, conv_transpose
from jax_diffse.networks.folding import Fold, Folds, halving
from jax_diffse.networks.layers import BatchNorm, PReLU
from jax_diffse.spectral import magnitude, mask_frames

KERNEL = (2, 5)  # time, frequency
MASKINGS = ('E', 'C', 'R')
UNROLL = 8  # frames in one iteration of a recurrent layer's loop, on accelerators
MANY_FRAMES = 16  # from here on three products are faster than four, measured on CPUs

Pair = tuple[jax.Array, jax.Array]


class Streaming(NamedTuple):
    """The state of a stream: convolutions keep their last input frame."""

    encoder: list[Pair]
    decoder: list[Pair]
    skips: list[Pair]  # encoder outputs, which decoder block i uses i frames later
    recurrent: list[Any]  # per layer: (h, c)


def apply_mask(mask: jax.Array, spec: jax.Array, masking: str) -> jax.Array:
    """Applies a complex mask `[B, T, F, 2]` to a spectrogram of that shape.

    'E': tanh of the mask's magnitude scales that of the spectrogram, floored at 1e-4, and the phases add up.
    'C': complex product. 'R': real times real and imaginary times imaginary parts.
    It consists of products only, so gradients are finite where mask or spectrogram are zero, and silence stays silent.
    """
    if masking == 'R':
        return mask * spec
    if masking == 'E':
        size = magnitude(mask)
        mask = mask * _ratio(jnp.tanh(size), size)[..., None]
        size = magnitude(spec)
        spec = spec * _ratio(jnp.sqrt(size**2 + 1e-8), size)[..., None]
    (a, b), (c, d) = (jnp.moveaxis(x, -1, 0) for x in (mask, spec))
    return jnp.stack([a * c - b * d, a * d + b * c], axis=-1)


def _ratio(x, size):
    """x / size, 1 where size is zero."""
    zero = size == 0
    return jnp.where(zero, 1.0, x / jnp.where(zero, 1.0, size))


def _both(function, *pairs):
    """Applies a function to the real parts and to the imaginary parts."""
    return tuple(function(*parts) for parts in zip(*pairs, strict=True))


def _join(x: Pair, skip: Pair) -> Pair:
    return _both(lambda *parts: jnp.concatenate(parts, axis=-1), x, skip)


def _pad(x: Pair, before: int = 0, after: int = 0) -> Pair:
    """Adds frames of zeros."""
    return _both(lambda part: jnp.pad(part, ((0, 0), (before, after), (0, 0), (0, 0))), x)


def _complex(linear, x: Pair, kernel: Pair) -> Pair:
    """A complex linear map from a real one, `linear(x, kernel)`.

    With many frames the products are the cost: there are three in place of four (Gauss). With few frames, in
    streaming, reading the kernels is the cost: each is read once.
    """
    (x_real, x_imag), (real, imag) = x, kernel
    if x_real.shape[1] >= MANY_FRAMES or platforms.tpu_only():  # rows of bins cannot be split as below
        both = linear(x_real + x_imag, real)
        return both - linear(x_imag, real + imag), both + linear(x_real, imag - real)
    y = linear(jnp.concatenate(x), jnp.concatenate(kernel, axis=-1))
    (a, b), (c, d) = (jnp.split(part, 2, axis=-1) for part in jnp.split(y, 2))
    return a - d, b + c


class _Weights(nn.Module):
    """Kernel `[kt, kf, C, D]` and bias of one real convolution."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self):
        kernel = self.param('kernel', nn.initializers.normal(0.05), self.shape, jnp.float32)
        return kernel, self.param('bias', nn.initializers.zeros, self.shape[-1:], jnp.float32)


class ComplexBatchNorm(nn.Module):
    """Whitens real and imaginary part together (Trabelsi et al., "Deep complex networks", ICLR 2018, section 3.5).

    Running statistics hold the biased covariance, as in the released code.
    """

    axis_name: str | None = None
    epsilon: float = 1e-5
    momentum: float = 0.1

    @nn.compact
    def __call__(self, x: Pair, train: bool, num_frames=None, fold: Fold | None = None) -> Pair:
        shape = (x[0].shape[-1] // (fold.group if fold else 1),)
        scale = [self.param(f'scale_{name}', init, shape, jnp.float32) for name, init in (
            ('real', nn.initializers.ones), ('cross', nn.initializers.zeros), ('imag', nn.initializers.ones))]
        bias = [self.param(f'bias_{name}', nn.initializers.zeros, shape, jnp.float32) for name in ('real', 'imag')]
        stats = [self.variable('batch_stats', name, init, shape, jnp.float32) for name, init in (
            ('mean_real', jnp.zeros), ('mean_imag', jnp.zeros),
            ('var_real', jnp.ones), ('cov', jnp.zeros), ('var_imag', jnp.ones))]
        if train:
            moments = self._moments(*(part.astype(jnp.float32) for part in x), num_frames, fold)
            if not self.is_initializing():
                for stat, moment in zip(stats, moments, strict=True):
                    stat.value += self.momentum * (moment - stat.value)
        else:
            moments = [stat.value for stat in stats]
        return self._whiten(x, moments, scale, bias)

    def _moments(self, real, imag, num_frames, fold):
        axis_name = None if self.is_initializing() else self.axis_name
        (r, i, rr, ri, ii), _ = layers.frame_means([real, imag, real**2, real * imag, imag**2], num_frames, axis_name,
                                                   fold)
        return r, i, rr - r * r, ri - r * i, ii - i * i

    def _whiten(self, x, moments, scale, bias):
        """W V^(-1/2) (x - mean) + bias, V^(-1/2) by the closed form for 2 x 2 matrices."""
        mean_real, mean_imag, rr, ri, ii = moments
        rr, ii = rr + self.epsilon, ii + self.epsilon
        root = jnp.sqrt(rr * ii - ri**2)  # of the determinant
        norm = 1 / (root * jnp.sqrt(rr + ii + 2 * root))
        a, b, c = (ii + root) * norm, -ri * norm, (rr + root) * norm  # the inverse root: [[a, b], [b, c]]
        p, q, s = scale
        product = [[p * a + q * b, p * b + q * c], [q * a + s * b, q * b + s * c]]
        centred = _both(lambda part, mean: layers.along_last(jnp.subtract, part, mean.astype(part.dtype)), x,
                        (mean_real, mean_imag))

        def row(factors, offset):
            y = sum(layers.along_last(jnp.multiply, part, factor.astype(part.dtype))
                    for part, factor in zip(centred, factors, strict=True))
            return layers.along_last(jnp.add, y, offset.astype(y.dtype))

        return _both(row, product, bias)


class Block(nn.Module):
    """Complex convolution, halving the frequency axis, or transposed, doubling it; then, unless it is the last,
    normalisation and PReLU.

    The input is `[B, T + 1, F, C]`: the caller adds a frame at the start, or at the end to look ahead. `folds`: how
    the bins of input and result lie in rows. The input of a transposed one is two arrays side by side.
    """

    features: int
    transposed: bool = False
    last: bool = False
    norm: str = 'real'
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Pair, folds: Folds, train, num_frames) -> Pair:
        shape = (*KERNEL, x[0].shape[-1] // folds[0].group, self.features // 2)
        (real, bias_real), (imag, bias_imag) = (_Weights(shape, name=name)() for name in ('real', 'imag'))
        if self.transposed:
            linear = functools.partial(conv_transpose, padding=2, extra=1, folds=folds, parts=2)
        else:
            linear = functools.partial(conv, padding=2, folds=folds)
        x, kernel = (_both(lambda part: part.astype(self.dtype), pair) for pair in (x, (real, imag)))
        # Both real convolutions have a bias, and each is used twice.
        x = _both(lambda part, bias: layers.along_last(jnp.add, part, bias.astype(self.dtype)),
                  _complex(linear, x, kernel), (bias_real - bias_imag, bias_real + bias_imag))
        if self.last:
            return x
        norm = {'real': BatchNorm, 'complex': ComplexBatchNorm}[self.norm]
        x = norm(self.axis_name, name='norm')(x, train, num_frames, folds[1])
        act = PReLU(name='act')
        return _both(act, x)


class _Linear(nn.Module):
    """Kernel `[in, out]` and bias of a dense layer, drawn from +-scale."""

    shape: tuple[int, int]
    scale: float

    @nn.compact
    def __call__(self):
        def uniform(key, shape, dtype):
            return jax.random.uniform(key, shape, dtype, -self.scale, self.scale)

        return (self.param('kernel', uniform, self.shape, jnp.float32),
                self.param('bias', uniform, self.shape[-1:], jnp.float32))


class LstmWeights(nn.Module):
    """The weights of an LSTM layer, gates in the order input, forget, cell, output; two biases, as in PyTorch."""

    features: int
    units: int

    @nn.compact
    def __call__(self):
        scale = self.units ** -0.5
        kernel, bias = _Linear((self.features, 4 * self.units), scale, name='input')()
        recurrent, recurrent_bias = _Linear((self.units, 4 * self.units), scale, name='recurrent')()
        return kernel, recurrent, bias + recurrent_bias


def lstm(projected: jax.Array, recurrent: jax.Array, carry):
    """Runs W LSTM layers side by side (Hochreiter and Schmidhuber, 1997).

    Args:
      projected: `[T, W, B, 4 H]`, inputs times input kernel, plus both biases.
      recurrent: `[W, H, 4 H]`.
      carry: (h, c) `[W, B, H]` each.

    Returns:
      Outputs `[T, W, B, H]` and the last (h, c).
    """
    def step(carry, gates):
        h, c = carry
        i, f, g, o = jnp.split(gates + jnp.matmul(h, recurrent), 4, axis=-1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        h = nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    carry, outputs = jax.lax.scan(step, carry, projected, unroll=1 if platforms.cpu_only() else UNROLL)
    return outputs, carry


class Recurrent(nn.Module):
    """LSTM layers over time, then a dense layer back to the width of the input.

    'complex': each layer is two LSTMs, LSTM_r and LSTM_i, that both see real and imaginary part;
    real = LSTM_r(x_r) - LSTM_i(x_i), imag = LSTM_r(x_i) + LSTM_i(x_r); the dense layers are separate for the parts.
    'real': ordinary LSTMs over real and imaginary parts side by side.
    """

    kind: str
    units: int  # real and imaginary parts together
    num_layers: int

    @nn.compact
    def __call__(self, x, carries):
        """`[P, B, T, D]` (P parts: 2 for complex, else 1), per layer (h, c) -> the same."""
        parts, width, new = x.shape[0], x.shape[-1], []
        for i in range(self.num_layers):
            x, carry = self._layer(x, i, carries[i])
            new.append(carry)
        projections = [_Linear((x.shape[-1], width), x.shape[-1] ** -0.5, name=f'project_{name}')()
                       for name in self._names(parts)]
        return jnp.stack([layers.along_last(jnp.add, layers.product(part, kernel), bias)
                          for part, (kernel, bias) in zip(x, projections, strict=True)]), new

    def _names(self, parts):
        return ('real', 'imag')[:parts]

    def _layer(self, x, i, carry):
        parts, batch, frames, width = x.shape
        weights = [LstmWeights(width, self.units // parts, name=f'layer{i}_{name}')() for name in self._names(parts)]
        rows = x.reshape(parts * batch, frames, width)
        # Products with the inputs of all frames at once, outside the recurrence: [T, W, P B, 4 H].
        projected = jnp.stack([layers.along_last(jnp.add, layers.product(rows, kernel), bias)
                               for kernel, _, bias in weights])
        outputs, carry = lstm(projected.transpose(2, 0, 1, 3), jnp.stack([w[1] for w in weights]), carry)
        outputs = outputs.reshape(frames, parts, parts, batch, -1).transpose(1, 2, 3, 0, 4)  # [W, P, B, T, H]
        if parts == 1:
            return outputs[0], carry
        return jnp.stack([outputs[0, 0] - outputs[1, 1], outputs[0, 1] + outputs[1, 0]]), carry


class Dccrn(nn.Module):
    """Estimates a complex mask from a spectrogram; the DC bin is not read, and its mask is zero.

    The look-ahead is one frame per decoder block.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256, 256, 256)  # of the encoder, real and imaginary parts together
    lstm: str = 'complex'
    lstm_units: int = 256  # real and imaginary parts together
    lstm_layers: int = 2
    norm: str = 'real'
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def setup(self):
        options = {'norm': self.norm, 'axis_name': self.axis_name, 'dtype': self.dtype}
        outputs = (*self.channels[-2::-1], 2)
        self.encoder = [Block(c, **options) for c in self.channels]
        self.decoder = [Block(c, transposed=True, last=i == len(outputs) - 1, **options)
                        for i, c in enumerate(outputs)]
        self.recurrent = Recurrent(self.lstm, self.lstm_units, self.lstm_layers)

    def __call__(self, spec, num_frames=None, train=False):
        """`[B, T, F, 2]` -> mask `[B, T, F, 2]`; frames beyond `num_frames` `[B]` (default: T) influence no others."""
        folds = self._folds(spec.shape[2])
        x, skips = _both(folds[0].pack, _from_spec(spec)), []
        for i, block in enumerate(self.encoder):
            x = block(_pad(x, before=1), folds[i:i + 2], train, num_frames)
            skips.append(x)
        x, _ = self._over_time(x, folds[-1], self._carries(len(spec)))
        early = int(train)  # a frame before the first one enters the statistics only, as in the released code
        for i, (block, skip) in enumerate(zip(self.decoder, reversed(skips), strict=True)):
            own = (folds[-1 - i], folds[-2 - i])
            x = _both(lambda part: mask_frames(part, num_frames), _join(x, skip))
            x = block(_pad(x, before=early, after=1), own, train, None if num_frames is None else num_frames + early)
            x = _both(lambda part: part[:, early:], x)
        return _to_mask(_both(folds[0].unpack, x))

    def _folds(self, num_bins) -> list[Fold]:
        """How the bins of the input and of the encoder's blocks lie in rows."""
        return halving([(num_bins - 1) >> i for i in range(len(self.channels) + 1)], max(1, self.channels[0] // 2))

    def start(self, batch: int, num_bins: int) -> Streaming:
        """The state before the first frame."""
        depth, folds = len(self.channels), self._folds(num_bins)
        inputs = (2, *self.channels)

        def zeros(frames, i, channels):
            return (jnp.zeros((batch, frames, folds[i].rows, folds[i].group * channels // 2), self.dtype),) * 2

        return Streaming(
            encoder=[zeros(1, i, inputs[i]) for i in range(depth)],
            decoder=[zeros(1, depth - i, 2 * inputs[depth - i]) for i in range(depth)],
            skips=[zeros(i, depth - i, inputs[depth - i]) for i in range(depth)],
            recurrent=self._carries(batch))

    def step(self, spec, state: Streaming, first, num_frames):
        """Continues with the next frames.

        Args:
          spec: `[B, T, F, 2]`, frames from `first` on; where the signal has ended, anything.
          state: after the frames before them.
          first: `[B]`, the number of the first of these frames.
          num_frames: `[B]`, frames of the whole signal; while its end is unknown, any larger number.

        Returns:
          The mask of the frames from `first - D` on, D blocks of the decoder, and the state.
        """
        folds, count = self._folds(spec.shape[2]), spec.shape[1]
        x, skips, new = _both(folds[0].pack, _from_spec(spec)), [], Streaming([], [], [], [])

        def extend(x, held, kept):
            """Puts the held frames before `x`, and keeps as many last ones."""
            x = _both(lambda *parts: jnp.concatenate(parts, axis=1), held, x)
            kept.append(_both(lambda part, old: part[:, part.shape[1] - old.shape[1]:], x, held))
            return x

        for i, (block, held) in enumerate(zip(self.encoder, state.encoder, strict=True)):
            x = block(extend(x, held, new.encoder), folds[i:i + 2], False, None)
            skips.append(x)
        x, carries = self._over_time(x, folds[-1], state.recurrent)
        for i, (block, skip) in enumerate(zip(self.decoder, reversed(skips), strict=True)):
            skip = _both(lambda part: part[:, :count], extend(skip, state.skips[i], new.skips))
            x = _both(lambda part, left=num_frames - (first - i): mask_frames(part, left), _join(x, skip))
            x = block(extend(x, state.decoder[i], new.decoder), (folds[-1 - i], folds[-2 - i]), False, None)
        return _to_mask(_both(folds[0].unpack, x)), new._replace(recurrent=carries)

    def _parts(self):
        return 2 if self.lstm == 'complex' else 1

    def _carries(self, batch):
        parts = self._parts()
        zeros = jnp.zeros((parts, parts * batch, self.lstm_units // parts))
        return [(zeros, zeros)] * self.lstm_layers

    def _over_time(self, x: Pair, fold, carries):
        """Runs the recurrent layers in float32 on `[B, T, F, C]`; features are ordered channel before frequency."""
        x = _both(fold.unpack, x)
        batch, frames, bins, channels = x[0].shape
        features = [part.astype(jnp.float32).transpose(0, 1, 3, 2).reshape(batch, frames, -1) for part in x]
        features = jnp.stack(features) if self._parts() == 2 else jnp.concatenate(features, axis=-1)[None]
        features, carries = self.recurrent(features, carries)
        features = features if self._parts() == 2 else jnp.split(features[0], 2, axis=-1)
        return tuple(fold.pack(part.reshape(batch, frames, channels, bins).transpose(0, 1, 3, 2))
                     for part in features), carries


def _from_spec(spec) -> Pair:
    """Both parts without the DC bin."""
    return spec[:, :, 1:, :1], spec[:, :, 1:, 1:]


def _to_mask(x: Pair):
    """The mask, zero in the DC bin."""
    return jnp.pad(jnp.concatenate(x, axis=-1).astype(jnp.float32), ((0, 0), (0, 0), (1, 0), (0, 0)))
