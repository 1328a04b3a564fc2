"""Convolutions against PyTorch's, values and gradients, in the forms for CPUs and for accelerators."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jax_diffse.networks import convolutions
from jax_diffse.networks.folding import Fold

jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})  # programs that run once


def with_rows(group):
    """`conv` and `conv_transpose` over rows; bins beyond the real ones are not zero."""
    def rows(x, fold):
        x = fold.pack(x)
        return x + 7 * (1 - fold.mask(jnp.ones(x.shape)))

    def conv(x, kernel, padding):
        folds = Fold(x.shape[2], group), Fold((x.shape[2] + 2 * padding - kernel.shape[1]) // 2 + 1, group // 2)
        return folds[1].unpack(convolutions.conv(rows(x, folds[0]), kernel, padding, folds))

    def transpose(x, kernel, padding, bins):
        folds = Fold(x.shape[2], group // 2), Fold(bins, group)
        return folds[1].unpack(convolutions.conv_transpose(rows(x, folds[0]), kernel, padding, folds=folds))

    return conv, transpose


FORMS = {'cpu': (convolutions._conv, convolutions._transpose),
         'accelerator': (convolutions._native, convolutions._native_transpose),
         'rows of 2': with_rows(2), 'rows of 8': with_rows(8)}
SAME_FORMS = {'cpu': convolutions._same, 'accelerator': convolutions._native_same, 'by bins': convolutions._by_bins}


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def with_gradients(function, x, kernel):
    """Value, and gradients of its product with a fixed array."""
    @jit
    def run(x, kernel):
        y, pull = jax.vjp(function, x, kernel)
        return y, *pull(jnp.asarray(random(*y.shape)))

    return run(x, kernel)


def torch_with_gradients(function, x, kernel, axes):
    """The same by PyTorch, whose kernels have the `axes` of ours; time is cut as ours is.

    In float64: how precise its float32 sums are depends on the number of threads.
    """
    x = torch.tensor(x, dtype=torch.float64).movedim(-1, 1).requires_grad_()
    kernel = torch.tensor(kernel.transpose(axes), dtype=torch.float64).requires_grad_()
    y = function(x, kernel)
    y.backward(torch.tensor(random(*y.movedim(1, -1).shape), dtype=torch.float64).movedim(-1, 1))
    back = np.argsort(axes)
    return y.detach().movedim(1, -1), x.grad.movedim(1, -1), kernel.grad.permute(*back)


def assert_all_close(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=3e-6 * np.abs(e).max())


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(('kernel', 'bins', 'padding'), [((2, 5), 16, 2), ((2, 5), 17, 0), ((2, 3), 9, 0),
                                                         ((1, 3), 9, 1),
                                                         ((2, 3), 1023, 0)])  # the kernel's gradient: of three parts
def test_conv_equals_torch(form, kernel, bins, padding):
    x, kernel = random(2, 6, bins, 3), random(*kernel, 3, 4)
    expected = torch_with_gradients(
        lambda x, k: torch.nn.functional.conv2d(x, k, stride=(1, 2), padding=(0, padding)), x, kernel, (3, 2, 0, 1))
    assert_all_close(with_gradients(lambda x, k: FORMS[form][0](x, k, padding), x, kernel), expected)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(('kernel', 'padding', 'extra'), [((2, 5), 2, 1), ((2, 5), 0, 0), ((2, 3), 0, 0),
                                                          ((2, 3), 1, 1)])
def test_conv_transpose_equals_torch(form, kernel, padding, extra):
    x, kernel = random(2, 6, 7, 3), random(*kernel, 3, 4)

    def conv_transpose(x, k):  # without the frames at either end that lack one of the taps
        return torch.nn.functional.conv_transpose2d(
            x, k, stride=(1, 2), padding=(kernel.shape[0] - 1, padding), output_padding=(0, extra))

    expected = torch_with_gradients(conv_transpose, x, kernel, (2, 3, 0, 1))
    bins = 2 * 6 + kernel.shape[1] - 2 * padding + extra
    assert_all_close(with_gradients(lambda x, k: FORMS[form][1](x, k, padding, bins), x, kernel), expected)


@pytest.mark.parametrize('form', SAME_FORMS)
@pytest.mark.parametrize(('batch', 'size', 'stride', 'frames', 'bins'), [
    (2, 3, 1, 5, 8), (2, 3, 2, 6, 8), (2, 3, 2, 7, 5), (2, 5, 2, 7, 6), (convolutions.MANY, 3, 1, 5, 8),
    (2, 3, 1, 11, 512), (2, 3, 2, 13, 1024)])  # the kernel's gradient: parts of two frames, one left over
def test_conv_same_equals_torch(form, batch, size, stride, frames, bins):
    x, kernel = random(batch, frames, bins, 3), random(size, size, 3, 4)
    expected = torch_with_gradients(
        lambda x, k: torch.nn.functional.conv2d(x, k, stride=stride, padding=size // 2), x, kernel, (3, 2, 0, 1))
    assert_all_close(with_gradients(lambda x, k: SAME_FORMS[form](x, k, stride), x, kernel), expected)


def test_conv_same_in_bfloat16_sums_gradients_in_float32():
    """Rounding once, at the end, changes a sum by 2**-9 of it; a running sum in bfloat16 is off by several percent."""
    x = jnp.abs(random(64, 3, 8, 2)).astype(jnp.bfloat16)

    @functools.partial(jit, static_argnums=0)
    def kernel_gradient(dtype, x):
        y, pull = jax.vjp(lambda k: convolutions._same(x.astype(dtype), k, 1), jnp.ones((3, 3, 2, 2), dtype))
        return pull(jnp.ones_like(y))[0].astype(jnp.float32)

    np.testing.assert_allclose(kernel_gradient(jnp.bfloat16, x), kernel_gradient(jnp.float32, x), rtol=2**-8)


def test_shapes_that_are_promised():
    x = jnp.zeros((1, 4, 8, 2))
    assert convolutions.conv(x, jnp.zeros((2, 5, 2, 3)), padding=2).shape == (1, 3, 4, 3)
    assert convolutions.conv_transpose(x, jnp.zeros((2, 5, 2, 3)), padding=2, extra=1).shape == (1, 3, 16, 3)
    assert convolutions.conv_transpose(x, jnp.zeros((2, 5, 2, 3))).shape == (1, 3, 19, 3)
    assert convolutions.conv_same(x[:, :3], jnp.zeros((3, 3, 2, 5)), 2).shape == (1, 2, 4, 5)


def test_arrays_side_by_side_are_joined_by_the_kernel():
    """A transposed convolution of two arrays of rows is that of the array with the channels of both."""
    x, kernel, folds = random(2, 6, 7, 4), random(2, 5, 4, 3), (Fold(7, 4), Fold(14, 8))
    rows = jnp.concatenate([folds[0].pack(part) for part in np.split(x, 2, axis=-1)], axis=-1)
    found = convolutions.conv_transpose(rows + 7 * (1 - folds[0].mask(jnp.ones(rows.shape), 2)), kernel, 2,
                                        folds=folds, parts=2)
    expected = convolutions.conv_transpose(x, kernel, 2, extra=1)
    np.testing.assert_allclose(folds[1].unpack(found), expected, rtol=0, atol=1e-5)
