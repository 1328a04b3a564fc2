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

    `zero` initialises it with zeros, for the end of a residual branch.
    """

    features: int
    dtype: Dtype = jnp.float32
    zero: bool = False

    @nn.compact
    def __call__(self, x):
        kernel, bias = conv_params(self, (x.shape[-1], self.features), self.zero)
        return along_last(jnp.add, product(x.astype(self.dtype), kernel), bias)


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
    normalised (1 + scale) + shift. An optional SiLU follows.
    """

    groups: int = 32
    silu: bool = True
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x, scale=None, shift=None, num_frames=None):
        batch, channels = x.shape[0], x.shape[-1]
        gain = self.param('scale', nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
        wide, per_channel = x.astype(jnp.float32), (batch,) + (1,) * (x.ndim - 2) + (channels,)
        means, variances = _moments(wide, num_frames)
        mean = self._over_groups(means)
        var = self._over_groups(variances + (means - mean)**2)
        gain = gain[None] * jax.lax.rsqrt(var + self.epsilon)
        bias = jnp.broadcast_to(bias[None], (batch, channels)) - mean * gain
        if scale is not None:
            gain, bias = gain * (1 + scale), bias * (1 + scale) + shift
        y = wide * gain.reshape(per_channel) + bias.reshape(per_channel)
        return (nn.silu(y) if self.silu else y).astype(x.dtype)

    def _over_groups(self, means):
        """Means per channel `[B, C]` -> means per group, for each of its channels."""
        size = means.shape[1] // self.groups
        return jnp.repeat(jnp.mean(means.reshape(-1, self.groups, size), axis=2), size, axis=1)


def _moments(x, num_frames):
    """Means and variances per example and channel, `[B, T, ..., C]` -> `[B, C]` each, in one pass over x."""
    batch, channels, axes = x.shape[0], x.shape[-1], tuple(range(1, x.ndim - 1))
    # Without one value of the channel, squares are not much larger than the variance and do not cancel.
    # It is taken from a reshaped array, which keeps TPUs from laying out x with the examples innermost.
    start = jax.lax.stop_gradient(x.reshape(batch, -1, channels)[:, 0])
    x = mask_frames(x - start.reshape((batch,) + (1,) * len(axes) + (channels,)), num_frames)
    count = math.prod(x.shape[1:-1])
    if num_frames is not None:
        count = (jnp.maximum(num_frames, 1) * (count // x.shape[1]))[:, None]
    mean, square = (jnp.sum(y, axis=axes) / count for y in (x, x**2))
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
