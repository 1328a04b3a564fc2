"""Convolutions that several networks share. Arrays are channels last: `[B, T, F, C]` or `[B, T, C]`.

On CPUs XLA's transposed convolutions, and its kernel gradients of few examples or with a stride, are up to several
times slower than matrix products over shifted copies, so CPU programs use products there. The forms of `conv` and
`conv_same` for CPUs and for accelerators differ in their gradients only, so a program for several platforms, which is
an export and contains no gradients, uses XLA's. Programs for TPUs alone use forms that fill their registers, see
`folding` and `conv_same`.
"""

import functools

import jax
import jax.numpy as jnp

from jax_diffse import platforms
from jax_diffse.networks.folding import LANES, Fold, Folds, over_rows
from jax_diffse.networks.layers import product

PRODUCT_ROWS = 1024  # of the products that make up a kernel's gradient
MANY = 4  # examples from which on XLA's own gradient of a kernel is faster on CPUs, and compiled sooner
SUBLANES = 8  # rows of a TPU's register
_AXES = ('NHWC', 'HWIO', 'NHWC')


def conv(x: jax.Array, kernel: jax.Array, padding: int = 0, folds: Folds | None = None) -> jax.Array:
    """Convolution with stride 2 over frequency, causal if the caller puts kt - 1 frames before the first one.

    Args:
      x: `[B, T + kt - 1, F, C]`.
      kernel: `[kt, kf, C, D]`.
      padding: zeros at both ends of the frequency axis.
      folds: how the bins of `x` and of the result lie in rows; default: one bin in each.

    Returns:
      `[B, T, (F + 2 padding - kf) // 2 + 1, D]`.
    """
    if folds and folds[0].group > 1:
        return by_rows(x, kernel, padding, folds)
    return (_conv if platforms.cpu_only() else _native)(x, kernel, padding)


def conv_transpose(x: jax.Array, kernel: jax.Array, padding: int = 0, extra: int = 0,
                   folds: Folds | None = None, parts: int = 1) -> jax.Array:
    """The adjoint of `conv`: stride 2 over frequency, y[t] made of x[t] and the kt - 1 frames before it.

    PyTorch's `ConvTranspose2d(kernel, stride=(1, 2), padding=(0, padding), output_padding=(0, extra))` on the frames
    that lie within `x`.

    Args:
      x: `[B, T + kt - 1, F, C]`, already padded at the start of time.
      kernel: `[kt, kf, C, D]`.
      padding: bins left out at both ends.
      extra: bins, 0 or 1, that are kept at the upper end.
      folds: how the bins of `x` and of the result lie in rows; default: one bin in each.
      parts: `x` is so many arrays of rows side by side, each with its share of the channels C.

    Returns:
      `[B, T, 2 (F - 1) + kf - 2 padding + extra, D]`.
    """
    if folds and folds[1].group > 1:
        return _by_rows_transpose(x, kernel, padding, folds, parts)
    bins = 2 * (x.shape[2] - 1) + kernel.shape[1] - 2 * padding + extra
    return platforms.per_platform(lambda x, kernel: _transpose(x, kernel, padding, bins),
                                  lambda x, kernel: _native_transpose(x, kernel, padding, bins), x, kernel)


def by_rows(x: jax.Array, kernel: jax.Array, padding: int, folds: Folds) -> jax.Array:
    """`conv` in rows, whose stride over bins is that by which the result's rows have fewer bins."""
    before, after = folds
    kernel, first = over_rows(kernel, before.group, padding, before.group // after.group)
    x = before.mask(x) if padding else x  # without padding no real bin of the result is made of those beyond the end
    return _slid(x, kernel, -first, after.rows)


def _by_rows_transpose(x, kernel, padding, folds, parts):
    before, after = folds
    own = [over_rows(part, after.group, padding, transposed=True) for part in jnp.split(kernel, parts, axis=2)]
    kernel, first = jnp.concatenate([rows for rows, _ in own], axis=2), own[0][1]
    return _slid(before.mask(x, parts), kernel, kernel.shape[1] - 1 + first, after.rows)


def _slid(x, kernel, before, rows):
    """Convolution with `before` rows of zeros in front and as many behind as `rows` of the result need."""
    # Padded here: with padding of its own, the compiler reverses whole arrays in the gradient of a convolution.
    pads = (before, rows - 1 + kernel.shape[1] - before - x.shape[2], 0)
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), pads, (0, 0, 0)))
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'VALID', dimension_numbers=_AXES)


def _native(x, kernel, padding):
    pads = ((0, 0), (padding, padding))
    return jax.lax.conv_general_dilated(x, kernel, (1, 2), pads, dimension_numbers=_AXES)


def _native_transpose(x, kernel, padding, bins):
    before = kernel.shape[1] - 1 - padding
    pads = ((0, 0), (before, bins - 2 * x.shape[2] + 1 + padding))
    return jax.lax.conv_general_dilated(x, kernel[::-1, ::-1], (1, 1), pads, (1, 2), dimension_numbers=_AXES)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, kernel, padding):
    return _native(x, kernel, padding)


def _conv_backward(padding, saved, gradient):
    x, kernel = saved
    to_x = _transpose(_pad_time(gradient, kernel), kernel.swapaxes(2, 3), padding, x.shape[2])
    return to_x, _kernel_gradient(x, gradient, kernel.shape, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _transpose(x, kernel, padding, bins):
    """One product with all taps over frequency, whose outputs are shifted and added: even and odd bins, interleaved."""
    kt, kf, channels, features = kernel.shape
    batch, frames, width = x.shape[0], x.shape[1] - kt + 1, x.shape[2]
    x = jnp.concatenate([x[:, kt - 1 - i:kt - 1 - i + frames] for i in range(kt)], axis=-1)
    products = x @ kernel.transpose(0, 2, 1, 3).reshape(kt * channels, kf * features)
    pairs = -(-bins // 2)

    def shifted(j, shift):
        """What tap j adds to bins whose pair is `shift` below the input bin."""
        along_frequency = (-shift, pairs + shift - width, 0)
        return jax.lax.pad(products[..., j * features:(j + 1) * features], jnp.zeros((), x.dtype),
                           ((0, 0, 0), (0, 0, 0), along_frequency, (0, 0, 0)))

    phases = [sum(shifted(j, (phase + padding - j) // 2) for j in range((phase + padding) % 2, kf, 2))
              for phase in range(2)]
    return jnp.stack(phases, axis=3).reshape(batch, frames, 2 * pairs, features)[:, :, :bins]


def _transpose_backward(padding, bins, saved, gradient):
    del bins
    x, kernel = saved
    gradient = _pad_time(gradient, kernel)
    to_kernel = _kernel_gradient(gradient, x, kernel.swapaxes(2, 3).shape, padding)
    return _conv(gradient, kernel.swapaxes(2, 3), padding), to_kernel.swapaxes(2, 3)


def _pad_time(x, kernel):
    return jnp.pad(x, ((0, 0), (kernel.shape[0] - 1,) * 2, (0, 0), (0, 0)))


def _kernel_gradient(fine, coarse, shape, padding):
    """The gradient of the kernel `shape` `[kt, kf, C, D]` of `conv`, of its input `fine` and its output `coarse`."""
    return _sum_of_products(jnp.pad(fine, ((0, 0), (0, 0), (padding, padding + 1), (0, 0))), coarse, shape, (1, 2))


def _sum_of_products(fine, coarse, shape, strides):
    """Sum over frames and bins of the products of `coarse` with each tap on `fine`: `shape` `[kt, kf, C, D]`.

    It takes a few frames at a time, so that the gathered taps stay in the cache.

    Args:
      fine: `[B, st (T - 1) + kt or more, sf (F - 1) + kf or more, C]`.
      coarse: `[B, T, F, D]`.
      strides: st, sf.
    """
    (kt, kf, channels, features), (over_time, over_bins) = shape, strides
    batch, frames, bins, _ = coarse.shape
    size = min(frames, max(1, PRODUCT_ROWS // bins))  # frames
    parts = -(-frames // size)
    height, reach = over_time * (size - 1) + kt, over_bins * (bins - 1) + 1
    missing = over_time * (parts * size - 1) + kt - fine.shape[1]
    fine = jnp.pad(fine, ((0, 0), (0, max(missing, 0)), (0, 0), (0, 0)))
    coarse = jnp.pad(coarse, ((0, 0), (0, parts * size - frames), (0, 0), (0, 0)))

    def add_part(total, place):
        example, start = place // parts, place % parts * size
        band = jax.lax.dynamic_slice(fine, (example, over_time * start, 0, 0), (1, height, *fine.shape[2:]))[0]
        taps = [band[i:i + height - kt + 1:over_time, j:j + reach:over_bins] for i in range(kt) for j in range(kf)]
        taps = jnp.concatenate(taps, axis=-1).reshape(size * bins, kt * kf * channels)
        own = jax.lax.dynamic_slice(coarse, (example, start, 0, 0), (1, size, bins, features))
        own = own.reshape(size * bins, features).T
        return total + jnp.matmul(own, taps, preferred_element_type=jnp.float32), None

    zeros = jnp.zeros((features, kt * kf * channels), jnp.float32)  # whatever the type of the many terms
    total = jax.lax.scan(add_part, zeros, jnp.arange(batch * parts))[0]
    return total.T.reshape(shape).astype(coarse.dtype)


_conv.defvjp(lambda x, kernel, *static: (_conv(x, kernel, *static), (x, kernel)), _conv_backward)
_transpose.defvjp(lambda x, kernel, *static: (_transpose(x, kernel, *static), (x, kernel)), _transpose_backward)


def conv_same(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolution over both axes with zeros around: `[B, T, F, C]` -> `[B, ceil(T / stride), ceil(F / stride), D]`.

    PyTorch's `Conv2d(kernel, stride, padding=kernel // 2)`; kernel `[kt, kf, C, D]`, kt and kf odd. At stride 1 `x` may
    be in full rows of G bins, `[B, T, F / G, G C]`, and so is the result then.
    """
    group = x.shape[-1] // kernel.shape[2]
    if group > 1:
        fold = Fold(group * x.shape[2], group)
        x = jnp.pad(x, ((0, 0), (kernel.shape[0] // 2,) * 2, (0, 0), (0, 0)))
        return by_rows(x, kernel, kernel.shape[1] // 2, (fold, fold))
    if platforms.cpu_only():
        return _same(x, kernel, stride)
    small = x.shape[0] < SUBLANES or max(kernel.shape[2:]) < LANES  # where XLA's layout leaves registers empty
    by_bins = platforms.tpu_only() and small and x.shape[2] >= SUBLANES
    return (_by_bins if by_bins else _native_same)(x, kernel, stride)


def _by_bins(x, kernel, stride):
    """Convolves over time with the bins as the batch, all taps over bins at once, and adds what they give."""
    (kt, kf, channels, features), bins = kernel.shape, x.shape[2]
    kernel = kernel.swapaxes(1, 2).reshape(1, kt, channels, kf * features)
    y = jax.lax.conv_general_dilated(x, kernel, (1, stride), ((0, 0), (kt // 2,) * 2),
                                     dimension_numbers=('HWNC', 'HWIO', 'HWNC'))
    y = jnp.pad(y, ((0, 0), (0, 0), (kf // 2,) * 2, (0, 0)))
    return sum(y[:, :, j:j + bins:stride, j * features:(j + 1) * features] for j in range(kf))


def _native_same(x, kernel, stride):
    pads = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_AXES)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _same(x, kernel, stride):
    return _native_same(x, kernel, stride)


def _same_backward(stride, saved, gradient):
    x, kernel = saved
    (frames, bins), (rows, columns) = x.shape[1:3], gradient.shape[1:3]
    # Zeros in place of the rows and columns that the stride skipped; XLA's own form is slow.
    spread = jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), (
        (0, 0, 0), (0, frames - stride * (rows - 1) - 1, stride - 1),
        (0, bins - stride * (columns - 1) - 1, stride - 1), (0, 0, 0)))
    to_x = _native_same(spread, kernel[::-1, ::-1].swapaxes(2, 3), 1)
    if stride == 1 and len(x) >= MANY:
        return to_x, jax.vjp(lambda kernel: _native_same(x, kernel, 1), kernel)[1](gradient)[0]
    x = jnp.pad(x, ((0, 0), (kernel.shape[0] // 2,) * 2, (kernel.shape[1] // 2,) * 2, (0, 0)))
    return to_x, _sum_of_products(x, gradient, kernel.shape, (stride, stride))


_same.defvjp(lambda x, kernel, stride: (_same(x, kernel, stride), (x, kernel)), _same_backward)


def dilated_conv(x: jax.Array, kernel: jax.Array, dilation: int | jax.Array, largest: int) -> jax.Array:
    """Dilated convolution over time that keeps the length. `[B, T, C]`, kernel `[k, C, D]`, k odd -> `[B, T, D]`.

    The dilation may be a traced value up to `largest`, so that one loop can run several.
    """
    size, channels, features = kernel.shape
    frames, reach = x.shape[1], largest * (size // 2)
    x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
    taps = [jax.lax.dynamic_slice_in_dim(x, reach + (i - size // 2) * dilation, frames, axis=1) for i in range(size)]
    if platforms.tpu_only():  # joined taps would be copied into another layout
        return sum(map(product, taps, kernel))
    return product(jnp.concatenate(taps, axis=-1), kernel.reshape(size * channels, features))


def upsampled_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Repeats every frame and bin, then convolves with zeros behind: `[B, T, F, C]` -> `[B, 2 T, F, 2 D]`.

    Keras's `UpSampling2D` and `Conv2D` of size 2 with padding 'same'; kernel `[2, 2, C, D]`. It is one product at the
    rate of `x`: an even output is made of one input, where the two taps add up, and an odd one of two. They come as
    rows of two bins.
    """
    batch, frames, bins, _ = x.shape
    features = kernel.shape[-1]
    taps = jnp.array([[[1, 1], [0, 0]], [[1, 0], [0, 1]]], kernel.dtype)  # [phase, shift of the input, tap]
    kernel = jnp.einsum('ask,btl,klcd->stcabd', taps, taps, kernel, precision='highest')
    padded = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    x = jnp.concatenate([padded[:, s:s + frames, t:t + bins] for s in range(2) for t in range(2)], axis=-1)
    y = product(x, kernel.reshape(x.shape[-1], 4 * features))  # the two phases of time, of each those of frequency
    return jnp.stack(jnp.split(y, 2, axis=-1), axis=2).reshape(batch, 2 * frames, bins, 2 * features)
