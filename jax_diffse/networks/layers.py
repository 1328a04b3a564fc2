"""Layers that several networks share. Arrays are channels last: `[B, T, F, C]` or `[B, T, C]`."""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from jax_diffse import platforms
from jax_diffse.networks.folding import Fold
from jax_diffse.spectral import mask_frames


class Dense(nn.Module):
    """A 1 x 1 convolution: `[..., C]` -> `[..., features]`, initialised as PyTorch does (uniform, 1 / sqrt(fan in)).

    `zero` initialises it with zeros, for the end of a residual branch. As in `by_parts`, the input may be a tuple; with
    a group G it is in rows, `[..., G C]` -> `[..., G features]`.
    """

    features: int
    dtype: Dtype = jnp.float32
    zero: bool = False

    @nn.compact
    def __call__(self, x, group=1):
        kernel, bias = conv_params(self, (channels_of(x, group), self.features), self.zero)
        x = jax.tree.map(lambda part: part.astype(self.dtype), x)
        return along_last(jnp.add, by_parts(product, x, kernel), bias)


def channels_of(x: jax.Array | tuple[jax.Array, ...], group: int = 1) -> int:
    """The channels of an array in rows of `group` bins, or of a tuple of them together."""
    return sum(part.shape[-1] for part in jax.tree.leaves(x)) // group


def by_parts(operation, x: jax.Array | tuple[jax.Array, ...], kernel: jax.Array) -> jax.Array:
    """`operation(x, kernel)`; of arrays not yet joined along the channels, the sum of each one's with its share.

    Args:
      operation: linear in both, over the last axis of x and the last but one of the kernel.
      x: `[..., C]`, or a tuple of such arrays, all in rows of as many bins.
      kernel: `[..., C, D]`, C being the channels of all.
    """
    if not isinstance(x, tuple):
        return operation(x, kernel)
    group = channels_of(x) // kernel.shape[-2]
    places = np.cumsum([part.shape[-1] // group for part in x])[:-1]
    return sum(map(operation, x, jnp.split(kernel, places, axis=-2)))


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`[..., C]` times `[C, D]`; in rows of G bins, `[..., G C]` -> `[..., G D]`, bin by bin (see `folding`).

    On CPUs it is one product of two matrices, whose gradients are up to twice as fast.
    """
    kernel = repeated(kernel, x.shape[-1] // kernel.shape[0])
    if not platforms.cpu_only():
        return x @ kernel  # on TPUs, a reshape would copy x into another layout
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def repeated(kernel: jax.Array, times: int) -> jax.Array:
    """`kernel` `[C, D]` that many times along the diagonal of an otherwise empty matrix."""
    if times == 1:
        return kernel
    diagonal = jnp.eye(times, dtype=kernel.dtype)[:, None, :, None] * kernel[None, :, None]
    return diagonal.reshape(times * kernel.shape[0], times * kernel.shape[1])


def along_last(operation, x: jax.Array, vector: jax.Array) -> jax.Array:
    """`operation(x, vector)` with the vector `[C]` along the last axis of `x`, once for each bin of a row `[G C]`."""
    vector = jnp.tile(vector, x.shape[-1] // vector.shape[0])
    return operation(x, vector.reshape((1,) * (x.ndim - 1) + vector.shape))


def conv_params(module: nn.Module, shape: tuple[int, ...], zero: bool = False) -> tuple[jax.Array, jax.Array]:
    """Declares `kernel` of `shape` `[..., in, out]` and `bias` `[out]`, cast to the module's dtype; random, or zero."""
    fan_in = 1
    for size in shape[:-1]:
        fan_in *= size
    uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform', in_axis=tuple(range(len(shape) - 1)))

    def bias_init(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -1, 1) / jnp.sqrt(fan_in).astype(dtype)

    inits = (nn.initializers.zeros, nn.initializers.zeros) if zero else (uniform, bias_init)
    kernel = module.param('kernel', inits[0], shape, jnp.float32)
    bias = module.param('bias', inits[1], shape[-1:], jnp.float32)
    return kernel.astype(module.dtype), bias.astype(module.dtype)


class ConvParams(nn.Module):
    """Only the parameters of a convolution, for callers that run several of them as one product."""

    shape: tuple[int, ...]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self):
        return conv_params(self, self.shape)


def recompute(function: Callable) -> Callable:
    """`function(arrays, params)`, whose gradient is recomputed on CPUs from the arguments, one example at a time.

    On CPUs the cost of a training step is temporary memory, which is kept for the gradient and page-faulted in. This
    keeps none, and that of one example fits the cache better. (`jax.checkpoint` does not help: on CPUs XLA merges the
    second computation with the first.) On accelerators the result is `function` itself.

    Args:
      function: (tree of `[B, ...]` or None, tree of parameters) -> `[B, ...]`, independent for each example.
    """
    @jax.custom_vjp
    def wrapped(arrays, params):
        return function(arrays, params)

    def forward(arrays, params):
        return function(arrays, params), (arrays, params)

    def backward(saved, gradient):
        arrays, params = saved

        def add_one(total, example):
            arrays, gradient = jax.tree.map(lambda x: x[None], example)
            to_arrays, to_params = jax.vjp(function, arrays, params)[1](gradient)
            return jax.tree.map(jnp.add, total, to_params), jax.tree.map(lambda x: x[0], to_arrays)

        to_params, to_arrays = jax.lax.scan(add_one, jax.tree.map(jnp.zeros_like, params), (arrays, gradient))
        return to_arrays, to_params

    wrapped.defvjp(forward, backward)
    return lambda arrays, params: (wrapped if platforms.cpu_only() else function)(arrays, params)


def dropped(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
    """Dropout of `[B, ...]` with a key `[B]` per example, so that it does not depend on the number of devices."""
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), jnp.zeros((), x.dtype))


class PReLU(nn.Module):
    """x where positive, a x elsewhere, with one learnt slope a (He et al., 2015)."""

    @nn.compact
    def __call__(self, x):
        slope = self.param('slope', nn.initializers.constant(0.25), (), jnp.float32)
        return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


def frame_means(arrays: Sequence[jax.Array], num_frames: jax.Array | None, axis_name: str | None,
                fold: Fold | None = None):
    """Means of arrays `[B, T, ..., C]` over all but the last axis, over real frames only.

    Args:
      num_frames: `[B]`, or None where all frames are real.
      axis_name: mapped axis that the means also run over, if any.
      fold: how bins lie in arrays `[B, T, M, G C]`; the means are over real bins.

    Returns:
      The means, `[C]` each, and the number of entries in each.
    """
    shape = arrays[0].shape
    per_frame = fold.bins if fold else arrays[0].size / (shape[0] * shape[1] * shape[-1])
    frames = jnp.float32(shape[0] * shape[1]) if num_frames is None else jnp.sum(jnp.minimum(num_frames, shape[1]))
    if fold:
        arrays = [fold.mask(x) for x in arrays]
    totals = [jnp.sum(mask_frames(x, num_frames), axis=tuple(range(x.ndim - 1))) for x in arrays]
    if fold:
        totals = [jnp.sum(total.reshape(fold.group, -1), axis=0) for total in totals]
    count = frames * per_frame
    if axis_name is not None:
        totals, count = jax.lax.psum((totals, count), axis_name)
    return [total / count for total in totals], count


class GroupNorm(nn.Module):
    """Group normalisation over all axes between the first and the last, and the channels of a group, in float32.

    With `num_frames` `[B]`, statistics cover real frames only. Optional `scale` and `shift` `[B, C]` give
    normalised (1 + scale) + shift. An optional SiLU follows. A tuple of arrays is treated as one array with all their
    channels, and returned as a tuple. Arrays may be in full rows of `group` bins (with `num_frames`: of frames).
    """

    groups: int = 32
    silu: bool = True
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x, scale=None, shift=None, num_frames=None, group=1):
        arrays = x if isinstance(x, tuple) else (x,)
        places = np.cumsum([array.shape[-1] // group for array in arrays])
        batch, channels = arrays[0].shape[0], places[-1]
        gain = self.param('scale', nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
        moments = [_moments(array.astype(jnp.float32), num_frames, group) for array in arrays]
        means, variances = (jnp.concatenate(parts, axis=1) for parts in zip(*moments, strict=True))
        mean = self._over_groups(means)
        var = self._over_groups(variances + (means - mean)**2)
        gain = gain[None] * jax.lax.rsqrt(var + self.epsilon)
        bias = jnp.broadcast_to(bias[None], (batch, channels)) - mean * gain
        if scale is not None:
            gain, bias = gain * (1 + scale), bias * (1 + scale) + shift
        parts = zip(arrays, *(jnp.split(vector, places[:-1], axis=1) for vector in (gain, bias)), strict=True)
        y = tuple(self._affine(*part, group) for part in parts)
        return y if isinstance(x, tuple) else y[0]

    def _affine(self, x, gain, bias, group):
        shape = (len(x),) + (1,) * (x.ndim - 2) + (-1,)
        gain, bias = (jnp.tile(vector, group).reshape(shape) for vector in (gain, bias))
        y = x.astype(jnp.float32) * gain + bias
        return (nn.silu(y) if self.silu else y).astype(x.dtype)

    def _over_groups(self, means):
        """Means per channel `[B, C]` -> means per group, for each of its channels."""
        size = means.shape[1] // self.groups
        return jnp.repeat(jnp.mean(means.reshape(-1, self.groups, size), axis=2), size, axis=1)


def _moments(x, num_frames, group):
    """Means and variances per example and channel, `[B, T, ..., G C]` -> `[B, C]` each, in one pass over x."""
    batch, width, axes = x.shape[0], x.shape[-1], tuple(range(1, x.ndim - 1))
    # Without one value of the channel, squares are not much larger than the variance and do not cancel.
    # It is taken from a reshaped array, which keeps TPUs from laying out x with the examples innermost.
    start = jax.lax.stop_gradient(x.reshape(batch, -1, width)[:, 0, :width // group])
    x = mask_frames(x - jnp.tile(start, group).reshape((batch,) + (1,) * len(axes) + (width,)), num_frames, group)
    count = group * math.prod(x.shape[1:-1])
    if num_frames is not None:
        count = (jnp.maximum(num_frames, 1) * (count // (group * x.shape[1])))[:, None]
    sums = (jnp.sum(y, axis=axes).reshape(batch, group, -1) for y in (x, x**2))
    mean, square = (jnp.sum(total, axis=1) / count for total in sums)
    return mean + start, jnp.maximum(square - mean**2, 0.0)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with PyTorch's conventions (momentum 0.1, unbiased variance).

    Statistics are in float32, over real frames only where `num_frames` is given, and averaged over `axis_name` when
    the axis is bound. A tuple of arrays is treated as one array with all their channels, and returned as a tuple.
    `fold` tells how bins lie in arrays `[B, T, M, G C]`.
    """

    axis_name: str | None = None
    epsilon: float = 1e-5
    momentum: float = 0.1

    @nn.compact
    def __call__(self, x, train: bool, num_frames=None, fold: Fold | None = None):
        arrays = x if isinstance(x, tuple) else (x,)
        group = fold.group if fold else 1
        channels = (sum(array.shape[-1] // group for array in arrays),)
        scale = self.param('scale', nn.initializers.ones, channels, jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, channels, jnp.float32)
        mean = self.variable('batch_stats', 'mean', jnp.zeros, channels, jnp.float32)
        var = self.variable('batch_stats', 'var', jnp.ones, channels, jnp.float32)
        if train:
            batch_mean, batch_var, count = self._moments(arrays, num_frames, fold)
            if not self.is_initializing():
                unbiased = batch_var * (count / jnp.maximum(count - 1, 1))
                mean.value = (1 - self.momentum) * mean.value + self.momentum * batch_mean
                var.value = (1 - self.momentum) * var.value + self.momentum * unbiased
        else:
            batch_mean, batch_var = mean.value, var.value
        gain = scale * jax.lax.rsqrt(batch_var + self.epsilon)
        return self._affine(x, arrays, gain, bias - batch_mean * gain, group)

    def _moments(self, arrays, num_frames, fold):
        axis_name = None if self.is_initializing() else self.axis_name
        wide = [array.astype(jnp.float32) for array in arrays]
        means, count = frame_means([*wide, *(array**2 for array in wide)], num_frames, axis_name, fold)
        mean, square = (jnp.concatenate(half) for half in (means[:len(arrays)], means[len(arrays):]))
        return mean, jnp.maximum(square - mean**2, 0.0), count

    def _affine(self, x, arrays, gain, offset, group):
        places = np.cumsum([array.shape[-1] // group for array in arrays])[:-1]
        parts = zip(arrays, jnp.split(gain, places), jnp.split(offset, places), strict=True)
        y = tuple(along_last(jnp.add, along_last(jnp.multiply, array, g.astype(array.dtype)), o.astype(array.dtype))
                  for array, g, o in parts)
        return y if isinstance(x, tuple) else y[0]
