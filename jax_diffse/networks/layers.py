"""Layers that several networks share. Arrays are channels last: `[B, T, F, C]` or `[B, T, C]`.

Convolutions are written as matrix products over shifted copies of the input. On CPUs this is several times faster than
XLA's native kernel gradient and transposed convolution, and on accelerators it costs nothing.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jax_diffse.spectral import mask_frames


class Dense(nn.Module):
    """A 1 x 1 convolution: `[..., C]` -> `[..., features]`, initialised as PyTorch does (uniform, 1 / sqrt(fan in))."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        kernel, bias = conv_params(self, (x.shape[-1], self.features))
        return along_last(jnp.add, x.astype(self.dtype) @ kernel, bias)


def along_last(operation, x: jax.Array, vector: jax.Array) -> jax.Array:
    """`operation(x, vector)` with the vector `[C]` along the last axis of `x`."""
    return operation(x, vector.reshape((1,) * (x.ndim - 1) + vector.shape))


def conv_params(module: nn.Module, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Declares `kernel` of `shape` `[..., in, out]` and `bias` `[out]`, cast to the module's dtype."""
    fan_in = 1
    for size in shape[:-1]:
        fan_in *= size
    uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform', in_axis=tuple(range(len(shape) - 1)))

    def bias_init(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -1, 1) / jnp.sqrt(fan_in).astype(dtype)

    kernel = module.param('kernel', uniform, shape, jnp.float32)
    bias = module.param('bias', bias_init, shape[-1:], jnp.float32)
    return kernel.astype(module.dtype), bias.astype(module.dtype)


class ConvParams(nn.Module):
    """Only the parameters of a convolution, for callers that run several of them as one product."""

    shape: tuple[int, ...]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self):
        return conv_params(self, self.shape)


def causal_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution, causal in time, stride 2 over frequency without padding.

    Args:
      x: `[B, T + kt - 1, F, C]`, already padded at the start of time.
      kernel: `[kt, kf, C, D]`.

    Returns:
      `[B, T, (F - kf) // 2 + 1, D]`.
    """
    kt, kf, channels, features = kernel.shape
    frames, bins = x.shape[1] - kt + 1, (x.shape[2] - kf) // 2 + 1
    taps = [x[:, i:i + frames, j:j + 2 * bins - 1:2] for i in range(kt) for j in range(kf)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(kt * kf * channels, features)


def causal_conv_transpose(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution, stride 2 over frequency, its last frames (those past the input's end) dropped.

    Polyphase form: even and odd output bins are two stride-1 convolutions of the same input, computed as one product
    and interleaved. PyTorch's `ConvTranspose2d(kernel, stride=(1, 2))` followed by cutting time to T.

    Args:
      x: `[B, T, F, C]`.
      kernel: `[kt, kf, C, D]`, kf odd.

    Returns:
      `[B, T, 2 F + kf - 2, D]`.
    """
    kt, kf, channels, features = kernel.shape
    batch, frames, bins, _ = x.shape
    half = (kf + 1) // 2  # shifts needed for the even bins; the odd ones need one less
    kernel = jnp.pad(kernel, ((0, 0), (0, 1), (0, 0), (0, 0))).reshape(kt, half, 2, channels, features)
    kernel = kernel.transpose(0, 1, 3, 2, 4).reshape(kt * half * channels, 2 * features)
    x = jnp.pad(x, ((0, 0), (kt - 1, 0), (half - 1, half - 1), (0, 0)))
    out_bins = bins + half - 1
    taps = [x[:, kt - 1 - i:kt - 1 - i + frames, half - 1 - j:half - 1 - j + out_bins]
            for i in range(kt) for j in range(half)]
    y = jnp.concatenate(taps, axis=-1) @ kernel
    return y.reshape(batch, frames, 2 * out_bins, features)[:, :, :-1]


def dilated_conv(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """Dilated convolution over time that keeps the length. `[B, T, C]`, kernel `[k, C, D]`, k odd -> `[B, T, D]`."""
    size, channels, features = kernel.shape
    frames, reach = x.shape[1], dilation * (size // 2)
    x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
    taps = [x[:, i * dilation:i * dilation + frames] for i in range(size)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(size * channels, features)


def recompute(function: Callable) -> Callable:
    """`function(arrays, params)`, its gradient computed on CPUs from the arguments alone, one example after the other.

    There, temporaries are what a training step costs: kept for the gradient, and faulted in page by page. This keeps
    none, and those of one example fit the cache better. (`jax.checkpoint` does not help: on CPUs XLA merges the second
    computation with the first.) On accelerators it is `function` itself.

    Args:
      function: (tree of `[B, ...]` or None, tree of parameters) -> `[B, ...]`, each example for itself.
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
    return lambda arrays, params: (wrapped if jax.default_backend() == 'cpu' else function)(arrays, params)


class PReLU(nn.Module):
    """x where positive, a x elsewhere, with one learnt slope a (He et al., 2015)."""

    @nn.compact
    def __call__(self, x):
        slope = self.param('slope', nn.initializers.constant(0.25), (), jnp.float32)
        return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with PyTorch's conventions (momentum 0.1, unbiased variance).

    Statistics are in float32, over real frames only where `num_frames` is given, and averaged over `axis_name` when
    the axis is bound.
    """

    axis_name: str | None = None
    epsilon: float = 1e-5
    momentum: float = 0.1

    @nn.compact
    def __call__(self, x, train: bool, num_frames=None):
        channels = x.shape[-1:]
        scale = self.param('scale', nn.initializers.ones, channels, jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, channels, jnp.float32)
        mean = self.variable('batch_stats', 'mean', jnp.zeros, channels, jnp.float32)
        var = self.variable('batch_stats', 'var', jnp.ones, channels, jnp.float32)
        if train:
            batch_mean, batch_var, count = self._moments(x.astype(jnp.float32), num_frames)
            if not self.is_initializing():
                unbiased = batch_var * (count / jnp.maximum(count - 1, 1))
                mean.value = (1 - self.momentum) * mean.value + self.momentum * batch_mean
                var.value = (1 - self.momentum) * var.value + self.momentum * unbiased
        else:
            batch_mean, batch_var = mean.value, var.value
        gain = scale * jax.lax.rsqrt(batch_var + self.epsilon)
        x = along_last(jnp.multiply, x, gain.astype(x.dtype))
        return along_last(jnp.add, x, (bias - batch_mean * gain).astype(x.dtype))

    def _moments(self, x, num_frames):
        per_frame = x.size / (x.shape[0] * x.shape[1] * x.shape[-1])
        axes = tuple(range(x.ndim - 1))
        if num_frames is None:
            count = jnp.float32(x.shape[0] * x.shape[1] * per_frame)
        else:
            count = jnp.sum(jnp.minimum(num_frames, x.shape[1])) * per_frame
            x = mask_frames(x, num_frames)
        total, squares = jnp.sum(x, axes), jnp.sum(x**2, axes)
        if self.axis_name is not None and not self.is_initializing():
            total, squares, count = jax.lax.psum((total, squares, count), self.axis_name)
        mean = total / count
        return mean, jnp.maximum(squares / count - mean**2, 0.0), count
