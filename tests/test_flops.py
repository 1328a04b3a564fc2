"""Counts of operations against counts by hand, and against XLA's own for programs without loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse import flops
from jax_diffse.training import parallel


def counted(function, *args):
    return flops.count(jax.jit(function).trace(*args).jaxpr)


def product(x, y):
    return x @ y


X, Y = np.ones((3, 4), np.float32), np.ones((4, 5), np.float32)
PRODUCT = 2 * 3 * 4 * 5


def test_products():
    assert counted(product, X, Y) == PRODUCT
    assert counted(lambda x, y: jnp.einsum('bij,bkj->bik', x, y), np.ones((7, 3, 4)), np.ones((7, 5, 4))) == 7 * PRODUCT
    assert counted(lambda x: jnp.tanh(x) + x**2, X) == 0


def test_the_gradient_of_a_product_is_two_more():
    gradient = jax.grad(lambda x, y: jnp.sum(jnp.tanh(x @ y)), argnums=(0, 1))
    assert counted(gradient, X, Y) == 3 * PRODUCT


def test_loops_and_branches():
    def loop(x, y):
        return jax.lax.scan(lambda carry, _: (carry @ y @ y.T, None), x, length=6)[0]

    def nested(x, y):
        return jax.lax.scan(lambda carry, _: (loop(carry, y), None), x, length=2)[0]

    def until(x, y):
        return jax.lax.while_loop(lambda x: jnp.sum(x @ y) < 9, lambda x: x @ y @ y.T, x)

    def branch(x, y):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ y, lambda: x @ y @ y.T @ y)

    assert counted(loop, X, Y) == 6 * 2 * PRODUCT
    assert counted(nested, X, Y) == 2 * 6 * 2 * PRODUCT
    assert counted(until, X, Y) == (1 + 2) * PRODUCT
    assert counted(branch, X, Y) == 3 * PRODUCT


def test_the_program_within_an_operation_counts():
    @jax.custom_vjp
    def custom(x, y):
        return x @ y

    custom.defvjp(lambda x, y: (x @ y, (x, y)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))
    assert counted(custom, X, Y) == PRODUCT
    assert counted(jax.jit(product), X, Y) == PRODUCT
    kept = jax.grad(lambda x, y: jnp.sum(jax.checkpoint(lambda x: jnp.tanh(jnp.tanh(x @ y) @ y.T))(x)))
    assert counted(kept, X, Y) == (2 + 2 + 2) * PRODUCT  # forward; again, for both tanh; the gradient for x


@pytest.mark.parametrize('mapper', parallel.MAPPERS)
def test_a_mapped_program_counts_as_that_of_one_device(mapper):
    mapping = parallel.Parallel(mapper)
    step = mapping.map(lambda weights, rows: rows @ weights, sharded=True)
    rows = mapping.shard(np.ones((2 * len(mapping.devices), 4), np.float32))
    assert flops.count(jax.make_jaxpr(step)(Y, rows)) == 2 * 2 * 4 * 5


CONVOLUTIONS = {
    'valid': {},
    'padded': {'padding': [(2, 1), (0, 3)]},
    'strided': {'strides': (2, 3), 'padding': [(1, 1), (2, 0)]},
    'transposed': {'input_dilation': (2, 3), 'padding': [(2, 2), (1, 3)]},
    'dilated': {'kernel_dilation': (3, 2), 'padding': [(4, 2), (3, 3)]},
    'cropped': {'padding': [(-1, 2), (0, -2)], 'input_dilation': (1, 2)},
    'all': {'strides': (2, 1), 'padding': [(3, 4), (5, 2)], 'input_dilation': (3, 2), 'kernel_dilation': (2, 3)},
    'groups': {'groups': 2, 'padding': [(1, 1), (1, 1)]},
    'batch groups': {'batch_groups': 2, 'padding': [(1, 1), (1, 1)]},
}


def convolution(strides=(1, 1), padding=((0, 0), (0, 0)), input_dilation=(1, 1), kernel_dilation=(1, 1), groups=1,
                batch_groups=1):
    return functools.partial(
        jax.lax.conv_general_dilated, window_strides=strides, padding=padding, lhs_dilation=input_dilation,
        rhs_dilation=kernel_dilation, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups,
        batch_group_count=batch_groups)


@pytest.mark.parametrize('options', CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_convolutions_count_the_taps_that_meet_the_input(options):
    """Against XLA's own count, and against a convolution of ones, whose outputs are the numbers of taps."""
    apply, groups = convolution(**options), options.get('groups', 1)
    x, kernel = np.ones((4, 9, 8, 6), np.float32), np.ones((3, 2, 6 // groups, 10), np.float32)
    found = counted(apply, x, kernel)
    assert found == 2 * float(jnp.sum(apply(x, kernel)))
    assert found == jax.jit(apply).lower(x, kernel).cost_analysis()['flops']


def test_the_gradient_of_a_convolution():
    """Each product of an input and a weight has one with the gradient for the input and one for the weight."""
    apply = convolution(strides=(2, 1), padding=((2, 2), (1, 0)))
    x, kernel = np.ones((4, 9, 8, 6), np.float32), np.ones((3, 2, 6, 10), np.float32)
    gradient = jax.grad(lambda x, kernel: jnp.sum(jnp.tanh(apply(x, kernel))), argnums=(0, 1))
    assert counted(gradient, x, kernel) == 3 * counted(apply, x, kernel)
