"""The U-Net of mixtures: its layers against plain ones, and that a result depends on the recording alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.networks.gmm_unet import Conv, Down, GmmUNet, GmmUNetConfig, Up
from tests import reference

TINY = GmmUNetConfig(components=2, widths=(4, 8, 8), blocks=1, kernel=5, groups=2)


def plain(x, kernel, stride=1, padding=None):
    """XLA's one-dimensional convolution, zeros around."""
    reach = kernel.shape[0] // 2 if padding is None else padding
    return jax.lax.conv_general_dilated(x, kernel, (stride,), [(reach, reach)], dimension_numbers=('NHC', 'HIO', 'NHC'))


def drawn(module, x):
    """The parameters of a module, none of them zero, and what it makes of `x`."""
    params = reference.random_variables(jax.eval_shape(module.init, jax.random.key(0), x))['params']
    return params, module.apply({'params': params}, x)


def waves(length, batch=2, seed=0):
    return jax.random.normal(jax.random.key(seed), (batch, length, 3))


def add_bias(y, params):
    return y + params['bias'][None, None]


def test_convolution():
    params, y = drawn(Conv(4, 7), waves(40))
    np.testing.assert_allclose(y, add_bias(plain(waves(40), params['kernel']), params), atol=1e-5)


def test_gradients_of_a_convolution_over_one_axis():
    """Those that XLA derives of its own convolution."""
    x, weight = waves(4096), jax.random.normal(jax.random.key(1), (2, 4096, 4))
    params, _ = drawn(Conv(4, 7), x)

    def ours(x, params):
        return jnp.sum(weight * Conv(4, 7).apply({'params': params}, x))

    def theirs(x, params):
        return jnp.sum(weight * add_bias(plain(x, params['kernel']), params))

    for found, expected in zip(*(jax.tree.leaves(jax.grad(f, (0, 1))(x, params)) for f in (ours, theirs)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * float(jnp.max(jnp.abs(expected))))


def test_down_is_a_convolution_of_stride_4():
    """PyTorch's `Conv1d(8, stride=4, padding=2)`."""
    params, y = drawn(Down(6, jnp.float32), waves(64))
    assert y.shape == (2, 16, 6)
    np.testing.assert_allclose(y, add_bias(plain(waves(64), params['kernel'], 4, 2), params), atol=1e-5)


@pytest.mark.parametrize('size', [1, 5, 9])
def test_up_is_a_convolution_of_copies(size):
    params, y = drawn(Up(6, size, jnp.float32), waves(16))
    copies = jnp.repeat(waves(16), 4, axis=1)
    np.testing.assert_allclose(y.reshape(2, 64, 6), add_bias(plain(copies, params['kernel']), params), atol=1e-5)


# ---------------------------------------------------------------------------------------------------- the network


@functools.cache
def tiny():
    net, wave = GmmUNet(TINY), jax.ShapeDtypeStruct((1, 16), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), wave, wave, jax.ShapeDtypeStruct((1,), jnp.float32))
    return jax.jit(net.apply), reference.random_variables(shapes)


def inputs(length, seed=0):
    x, noisy = jax.random.normal(jax.random.key(seed), (2, 2, length))
    return x, noisy, jnp.array([0.3, 1.0])


@pytest.mark.parametrize(('config', 'expected'), [
    (GmmUNetConfig(), 34_333_103), (GmmUNetConfig(widths=(24, 48, 96, 192), kernel=5), 3_228_747)])
def test_number_of_parameters(config, expected):
    """Those of the default and of `small`, as the docs say."""
    wave, level = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 64), (1,)))
    shapes = jax.eval_shape(GmmUNet(config).init, jax.random.key(0), wave, wave, level)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == expected


@pytest.mark.parametrize('length', [37, 64])
def test_any_length_is_padded_and_cut_back(length):
    apply, variables = tiny()
    x, noisy, level = inputs(length)
    found = apply(variables, x, noisy, level)
    assert found.shape == (3, 2, 2, length) and found.dtype == jnp.float32
    padding = ((0, 0), (0, -length % 16))
    whole = apply(variables, jnp.pad(x, padding), jnp.pad(noisy, padding), level, jnp.full(2, length))
    np.testing.assert_allclose(whole[..., :length], found, atol=1e-5)


def test_what_lies_beyond_a_recording_changes_nothing():
    """Neither more padding nor what stands in it, whatever the end's place within a stride."""
    apply, variables = tiny()
    (x, noisy, level), num_samples = inputs(160, seed=1), jnp.array([61, 80])
    longer = apply(variables, x, noisy, level, num_samples)
    for i, length in enumerate(num_samples):
        alone = apply(variables, *(value[i:i + 1, :length] for value in (x, noisy)), level[i:i + 1])
        np.testing.assert_allclose(longer[:, :, i, :length], alone[:, :, 0], atol=2e-5)


def test_each_input_matters():
    apply, variables = tiny()
    x, noisy, level = inputs(64)
    found = apply(variables, x, noisy, level)
    for others in ((x + 0.1, noisy, level), (x, noisy + 0.1, level), (x, noisy, level - 0.1)):
        assert float(jnp.max(jnp.abs(apply(variables, *others) - found))) > 1e-3


def test_levels_close_together_are_told_apart():
    """Neighbouring levels of a chain of 200 steps lie 0.0004 apart at its start."""
    apply, variables = tiny()
    x, noisy, _ = inputs(64)
    one, other = (apply(variables, x, noisy, jnp.full(2, level)) for level in (0.0004, 0.0008))
    assert float(jnp.max(jnp.abs(one - other))) > 1e-3


def test_a_new_network_adds_nothing_in_its_blocks():
    """The second convolution of each block starts at zero."""
    params = jax.jit(GmmUNet(TINY).init)(jax.random.key(0), *inputs(16))['params']
    kernels = {name: tree['conv_out']['kernel'] for name, tree in params.items() if 'conv_out' in tree}
    assert len(kernels) == 5 and not any(jnp.any(kernel) for kernel in kernels.values())


def test_bfloat16_stays_near_float32():
    apply, variables = tiny()
    half = GmmUNet(GmmUNetConfig(components=2, widths=(4, 8, 8), blocks=1, kernel=5, groups=2, dtype='bfloat16'))
    found, expected = jax.jit(half.apply)(variables, *inputs(64)), apply(variables, *inputs(64))
    assert found.dtype == jnp.float32
    error = jnp.sqrt(jnp.mean((found - expected)**2) / jnp.mean(expected**2))
    assert 1e-5 < float(error) < 0.05


@pytest.mark.parametrize('fields', [
    {'widths': (12, 20)}, {'widths': ()}, {'components': 0}, {'blocks': 0}, {'kernel': 4}, {'dtype': 'float16'}])
def test_impossible_sizes_are_refused(fields):
    with pytest.raises(ValueError, match='expected|must be'):
        GmmUNetConfig(**fields)


