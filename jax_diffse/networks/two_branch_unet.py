"""The two-branch U-Net of DR-DiffuSE (Tai et al., AAAI 2023): condition generator, refiner and, conditioned, denoiser.

A causal gated convolutional encoder over compressed complex spectrograms, a stack of dilated temporal convolution
modules, and two gated decoders, one for the real and one for the imaginary part.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from jax_diffse import platforms
from jax_diffse.networks import convolutions, layers
from jax_diffse.networks.folding import Fold, halving
from jax_diffse.networks.layers import BatchNorm, Dense, PReLU
from jax_diffse.spectral import mask_frames

ENCODER_WIDTHS = (5, 3, 3, 3, 3)  # kernel sizes over frequency, blocks 1 to 5
BOTTLENECK = 32  # channels of the gated convolutions
DILATIONS = (1, 2, 4, 8, 16, 32)
EMBEDDING = 128  # width of the step embedding


class Features(NamedTuple):
    """The intermediate features that another network may use."""

    output: jax.Array  # [B, T, F, 2]
    # Bins F_i are in rows, see `folding`.
    encoder: list[jax.Array]  # blocks 1 to 5, [B, T, F_i, C]
    decoders: list[jax.Array]  # real and imaginary: their blocks 5 to 1, [2, B, T, F_i, C]; the last has C = 1


class Conditioning(NamedTuple):
    """What conditions every block of a denoiser's U-Net."""

    embedding: jax.Array  # [B, EMBEDDING], of the diffusion step
    features: Features | None = None  # of the condition, averaged with the blocks' outputs


def _gated_conv(arrays, params, transposed, folds):
    """BiConvGLU: two convolutions of a bottleneck that gate each other; transposed: BiConvTransGLU."""
    (inputs, step), (kernels, biases) = arrays, params
    # The zero frame comes before the step and the biased 1 x 1 convolution, as in the released code.
    pads = ((0, 0), (0 if transposed else 1, 0), (0, 0), (0, 0))
    inputs = [jnp.pad(x, pads) for x in inputs]
    places = np.cumsum([x.shape[-1] // folds[0].group for x in inputs])[:-1]
    if step is not None:
        inputs = [x + jnp.tile(part, folds[0].group)[:, None, None]
                  for x, part in zip(inputs, jnp.split(step, places, axis=-1), strict=True)]
    own = zip(inputs, jnp.split(kernels['in'], places), strict=True)  # each input with its rows of the matrix
    x = layers.along_last(jnp.add, sum(layers.product(x, kernel) for x, kernel in own), biases['in'])

    def dense(x, name):
        return layers.along_last(jnp.add, layers.product(x, kernels[name]), biases[name])

    if transposed:  # here it comes after the 1 x 1 convolution
        x = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))
    conv = convolutions.conv_transpose if transposed else convolutions.conv
    left, right = (layers.along_last(jnp.add, conv(x, kernels[name], folds=folds), biases[name])
                   for name in ('left', 'right'))
    return dense(left * nn.sigmoid(dense(right, 'right_gate')) + right * nn.sigmoid(dense(left, 'left_gate')), 'out')


class GatedConv(nn.Module):
    """A gated convolution, or its transposed twin, with a bottleneck of 32 channels.

    `inputs` count as one array with all their channels, to which `step` `[B, C]`, of a diffusion step, is added.
    `folds`: how the bins of input and result lie in rows.
    """

    features: int
    width: int  # kernel size over frequency
    transposed: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs, folds, step=None):
        channels, c = sum(x.shape[-1] for x in inputs) // folds[0].group, BOTTLENECK
        shapes = {'in': (channels, c), 'left': (2, self.width, c, c), 'left_gate': (c, c),
                  'right': (2, self.width, c, c), 'right_gate': (c, c), 'out': (c, self.features)}
        params = {name: layers.ConvParams(shape, self.dtype, name=name)() for name, shape in shapes.items()}
        kernels, biases = ({name: pair[i] for name, pair in params.items()} for i in range(2))
        run = layers.recompute(functools.partial(_gated_conv, transposed=self.transposed, folds=folds))
        return run((inputs, step), (kernels, biases))


class NormAct(nn.Module):
    """Batch normalisation, then PReLU."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train, num_frames, fold):
        return PReLU(name='act')(BatchNorm(self.axis_name, name='norm')(x, train, num_frames, fold))


def _average(x, features, i):
    """Averages with the condition's features of block i (its place in the list), if there are any."""
    return x if features is None else (x + features[i]) / 2


class Encoder(nn.Module):
    """Five gated blocks that halve the frequency axis: 161 -> 79, 39, 19, 9, 4; each looks one frame back.

    Returns the input of the next stage and every block's output. The outputs, which the decoders use, do not contain
    the condition's features.
    """

    channels: int
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, folds, train, num_frames, given: Conditioning | None = None):
        outputs, channels, x = [], x.shape[-1], folds[0].pack(x)
        for i, width in enumerate(ENCODER_WIDTHS, start=1):
            step = given and Dense(channels, self.dtype, name=f'step{i}')(given.embedding)
            conv, channels = GatedConv(self.channels, width, dtype=self.dtype, name=f'conv{i}'), self.channels
            x = conv((x,), (folds[i - 1], folds[i]), step)
            x = NormAct(self.axis_name, name=f'post{i}')(x, train, num_frames, folds[i])
            outputs.append(x)
            x = _average(x, given and given.features and given.features.encoder, i - 1)
        return x, outputs


class Decoder(nn.Module):
    """Mirror of `Encoder` with skip connections; one output channel, linear."""

    channels: int
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, skips, folds, train, num_frames, given: Conditioning | None = None, features=None):
        outputs = []
        for i, width in reversed(list(enumerate(ENCODER_WIDTHS, start=1))):
            step = given and Dense(2 * self.channels, self.dtype, name=f'step{i}')(given.embedding)
            conv = GatedConv(self.channels if i > 1 else 1, width, True, dtype=self.dtype, name=f'conv{i}')
            x = conv((x, skips[i - 1]), (folds[i], folds[i - 1]), step)
            if i > 1:
                x = NormAct(self.axis_name, name=f'post{i}')(x, train, num_frames, folds[i - 1])
            outputs.append(x)
            if i > 1:
                x = _average(x, features, len(outputs) - 1)
        return outputs


class TemporalUnit(nn.Module):
    """One residual unit of the temporal convolution modules: a dilated convolution times its gate."""

    channels: int = 64
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x, dilation, train, num_frames):
        v = Dense(self.channels, self.dtype, name='in')(x)
        main, gate = (self._branch(name, v, dilation, train, num_frames) for name in ('main', 'gate'))
        y = main * nn.sigmoid(gate)
        y = BatchNorm(self.axis_name, name='out_norm')(PReLU(name='out_act')(y), train, num_frames)
        return x + Dense(x.shape[-1], self.dtype, name='out')(y)

    def _branch(self, name, v, dilation, train, num_frames):
        v = BatchNorm(self.axis_name, name=f'{name}_norm')(PReLU(name=f'{name}_act')(v), train, num_frames)
        # The only place that looks ahead in time: padding frames must be zero here.
        v = mask_frames(v, num_frames)
        kernel, bias = layers.ConvParams((5, self.channels, self.channels), self.dtype, name=name)()
        return layers.along_last(jnp.add, convolutions.dilated_conv(v, kernel, dilation, largest=max(DILATIONS)), bias)


def _folds(num_bins: int) -> list[Fold]:
    """How the bins of the input and of the encoder's blocks lie in rows."""
    bins = [num_bins]
    for width in ENCODER_WIDTHS:
        bins.append((bins[-1] - width) // 2 + 1)
    return halving(bins, BOTTLENECK)


def _loop(body, length=None, unroll=1):
    """Loops over the leading axis of a module's variables; an unrolled program of many would take long to compile."""
    return nn.scan(body, variable_axes={'params': 0, 'batch_stats': 0}, split_rngs={'params': True}, length=length,
                   unroll=unroll)


class TwoBranchUNet(nn.Module):
    """Maps a compressed complex spectrogram to an enhanced one.

    It is causal except for the temporal modules, which see 378 frames on either side. 161 bins give the paper's
    bottleneck; other numbers work if the decoders return to the same number.
    """

    channels: int = 64
    temporal_groups: int = 3
    axis_name: str | None = None  # batch statistics are averaged over it in training
    dtype: Dtype = jnp.float32  # of activations and products; parameters and statistics stay float32

    def setup(self):
        common = {'axis_name': self.axis_name, 'dtype': self.dtype}
        self.encoder = Encoder(self.channels, **common)
        # These two hold the variables of all units and of both decoders, along a leading axis.
        self.temporal = TemporalUnit(**common)
        self.decoders = Decoder(self.channels, **common)

    def features(self, x, num_frames=None, given=None, *, train=False) -> Features:
        """`__call__` with all intermediate features, before they are averaged with those of a condition."""
        folds = _folds(x.shape[2])
        x, encoded = self.encoder(x.astype(self.dtype), folds, train, num_frames, given)
        x = folds[-1].unpack(x)
        batch, frames, bins, channels = x.shape
        # Channel-major, as the released weights expect.
        x = x.swapaxes(2, 3).reshape(batch, frames, channels * bins)
        x = self._through_time(x, train, num_frames)
        x = folds[-1].pack(x.reshape(batch, frames, channels, bins).swapaxes(2, 3))
        delivered = given and given.features
        decoded = self._decode(x, encoded, folds, train, num_frames, given, delivered and delivered.decoders)
        output = jnp.stack([folds[0].unpack(part)[..., 0] for part in decoded[-1]], axis=-1).astype(jnp.float32)
        return Features(output, encoded, decoded)

    def _through_time(self, x, train, num_frames):
        if not self.temporal_groups:
            return x
        loop = _loop(lambda unit, x, dilation: (unit(x, dilation, train, num_frames), None))
        return loop(self.temporal, x, jnp.array(self.temporal_groups * DILATIONS))[0]

    def _decode(self, x, encoded, folds, train, num_frames, given, features):
        # On accelerators, stacking and slicing the results of a loop costs more than it saves.
        loop = _loop(lambda decoder, _, own: (None, decoder(x, encoded, folds, train, num_frames, given, own)),
                     length=2, unroll=1 if platforms.cpu_only() else 2)
        return loop(self.decoders, None, features)[1]

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


def step_table(num_steps: int = 200) -> np.ndarray:
    """Sines, then cosines of t 10^(4 k / 63), k = 0 to 63, for t = 0 to num_steps - 1: float32 `[num_steps, 128]`.

    The angles reach 2e6, so their last bits matter: exponent, power and product are rounded to float32 as in PyTorch;
    the sines and cosines are exact.
    """
    exponent = np.arange(64, dtype=np.float32) * np.float32(4) / np.float32(63)
    frequency = (10.0 ** exponent.astype(np.float64)).astype(np.float32)
    angle = (np.arange(num_steps, dtype=np.float32)[:, None] * frequency).astype(np.float64)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


class StepEmbedding(nn.Module):
    """Diffusion steps `[B]`, whole or fractional -> `[B, EMBEDDING]` (DiffWave, Kong et al., ICLR 2021, section 3).

    A fractional step gets the linear interpolation of its neighbours' sines and cosines.
    """

    num_steps: int = 200

    @nn.compact
    def __call__(self, t):
        table, t = jnp.asarray(step_table(self.num_steps)), t.astype(jnp.float32)
        low, high = table[jnp.floor(t).astype(int)], table[jnp.ceil(t).astype(int)]
        x = low + (high - low) * (t - jnp.floor(t))[:, None]
        x = nn.silu(Dense(EMBEDDING, name='projection1')(x))
        return nn.silu(Dense(EMBEDDING, name='projection2')(x))


class ConditionalUNet(nn.Module):
    """The denoisers of DR-DiffuSE: estimates the noise in x_t, given a condition and the step.

    DiffuSEC concatenates x_t and the condition. DiffuSE (`two_branch`) also runs a second network, the condition
    delivery network, over the condition and averages its features with those of the same blocks. Its last decoder
    blocks have unused parameters, as released.
    """

    two_branch: bool = True
    channels: int = 64
    temporal_groups: int = 3
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def setup(self):
        fields = (self.channels, self.temporal_groups, self.axis_name, self.dtype)
        self.preprocess = Dense(2, self.dtype)
        self.embedding = StepEmbedding()
        self.unet = TwoBranchUNet(*fields)
        if self.two_branch:
            self.delivery = TwoBranchUNet(*fields)

    def deliver(self, condition, num_frames=None, *, train=False) -> Features | None:
        """Features of the condition, which are the same at every step; None without the second branch."""
        return self.delivery.features(condition, num_frames, train=train) if self.two_branch else None

    def features(self, x_t, condition, t, num_frames=None, delivered=None, *, train=False) -> Features:
        """`__call__` with all intermediate features, before they are averaged with those of the condition."""
        if delivered is None:
            delivered = self.deliver(condition, num_frames, train=train)
        given = Conditioning(self.embedding(t), delivered)
        x = self.preprocess(jnp.concatenate([x_t, condition], axis=-1))
        return self.unet.features(x, num_frames, given, train=train)

    def __call__(self, x_t, condition, t, num_frames=None, delivered=None, *, train=False) -> jax.Array:
        """Estimates noise.

        Args:
          x_t: `[B, T, F, 2]`, diffused spectrograms.
          condition: `[B, T, F, 2]`, noisy or enhanced spectrograms.
          t: `[B]`, steps from 0 to 199, whole or fractional.
          num_frames, train: see `TwoBranchUNet`.
          delivered: the result of `deliver`, which samplers compute once; default: computed here.

        Returns:
          `[B, T, F, 2]` float32.
        """
        return self.features(x_t, condition, t, num_frames, delivered, train=train).output
