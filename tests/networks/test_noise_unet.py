"""The U-Net of the noise model against the authors' Keras code, through the converter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse import conversion
from jax_diffse.conversion import noise_unet as names
from jax_diffse.losses.regression import huber
from jax_diffse.networks import noise_unet
from jax_diffse.networks.convolutions import upsampled_conv
from jax_diffse.networks.folding import regrouped
from jax_diffse.networks.noise_unet import NoiseUNet, NoiseUNetConfig
from tests import reference
from tests.numerics import precision

jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 1})
TINY = NoiseUNetConfig((2, 4, 8))


@functools.cache
def released():
    """Variables of the published network, with the weights of the fixture."""
    state_dict = reference.load('noise_unet').state_dict()
    return {'params': conversion.from_weights('noise-unet', state_dict)['params']['unet']}


def from_keras(x):
    """`[B, F, T, C]` -> `[B, T, F, C]`, and back."""
    return np.swapaxes(x, 1, 2)


def in_keras_layout(params):
    """Our arrays `{layer: {kernel, bias}}` under Keras's names, in its layout."""
    return {name: np.swapaxes(params[layer][part], 0, 1) if part == 'kernel' else params[layer][part]
            for i, layer in enumerate(names.layers(5)) for part in ('kernel', 'bias')
            for name in [f'conv2d{f"_{i}" if i else ""}/{part}']}


@pytest.mark.parity
def test_the_released_network_layer_by_layer():
    """Convolutions as they are; what lies between them follows from them, and is what the next one was given."""
    fixture = reference.load('noise_unet')
    assert sum(np.size(x) for x in jax.tree.leaves(released())) == fixture.json('config')['parameter_count'] == 1941093
    assert fixture.json('config')['negative_slope'] == noise_unet.SLOPE

    def run(variables, x):
        out, state = NoiseUNet().apply(variables, x, mutable=['intermediates'], capture_intermediates=(
            lambda module, name: name == '__call__' and type(module).__name__ == 'Conv'))
        found = {name: found['__call__'][0] for name, found in state['intermediates'].items()}
        return out, {name: regrouped(x, 2, 1) if 'resample' in name else x for name, x in found.items()}  # its rows

    out, convolved = jit(run)(released(), jnp.asarray(from_keras(layer_input(fixture))))
    fixture.check('out', from_keras(out))
    conv = [from_keras(np.asarray(convolved[layer])) for layer in names.layers(5)]
    leaky = [np.where(x > 0, x, 0.3 * x) for x in conv[:23]]
    kinds = {
        'conv2d': [*conv[:23], from_keras(np.asarray(out))],
        'leaky_re_lu': leaky,
        'max_pooling2d': [np.maximum.reduce([leaky[i][:, a::2, b::2] for a in range(2) for b in range(2)])
                          for i in (1, 3, 5, 7)],
        'up_sampling2d': [leaky[i].repeat(2, axis=1).repeat(2, axis=2) for i in (9, 12, 15, 18)],
        'concatenate': [np.concatenate([leaky[skip], leaky[up]], axis=-1)
                        for skip, up in ((7, 10), (5, 13), (3, 16), (1, 19))]}
    given = {f'{kind}{f"_{i}" if i else ""}': x for kind, arrays in kinds.items() for i, x in enumerate(arrays)}
    fixture.check_table('features', given)
    for name in fixture.json('config')['shown']:
        fixture.check(f'features/{name}', given[name])


def layer_input(fixture):
    """The scaled level of the fixture's noisy waveform, from librosa: independent of our front end."""
    import librosa

    windows = fixture.inputs['noisy'][:2 * 8064].reshape(2, 8064)
    spec = librosa.stft(windows, n_fft=255, hop_length=63, pad_mode='reflect')
    level = np.stack([librosa.amplitude_to_db(np.abs(x), ref=np.max) for x in spec])
    return ((level + 46) / 50)[..., None].astype(np.float32)


@pytest.mark.parity
@pytest.mark.parametrize('prefix', ['small', 'dropout'])
def test_gradients(monkeypatch, prefix):
    """At another size, with errors beyond 1, and with the recorded masks of the dropout.

    In double precision, so that no processor's rounding decides on which side of a kink an entry lies.
    """
    fixture = reference.load('noise_unet')
    masks = {128: fixture.inputs['keep_4'], 256: fixture.inputs['keep_5']}
    monkeypatch.setattr(noise_unet, 'dropped', lambda x, keys, rate: x * from_keras(masks[x.shape[-1]]) / (1 - rate))

    def loss(params, x, target):
        keys = jax.random.split(jax.random.key(0), 2) if prefix == 'dropout' else None
        out = NoiseUNet().apply({'params': params}, x, keys)
        return jnp.mean(huber(out, target)), out

    inputs = released()['params'], *(from_keras(fixture.inputs[name]) for name in ('small_x', 'small_target'))
    with precision.double():
        (loss, out), gradient = jax.device_get(jit(jax.value_and_grad(loss, has_aux=True))(*precision.wide(inputs)))
    fixture.check(f'{prefix}/out', from_keras(out))
    expected = fixture[f'{prefix}/loss'].ravel()[0]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    fixture.check_table(f'{prefix}/grad', in_keras_layout(gradient))


def test_upsampled_convolution_is_that_of_the_repeated_array():
    rng = np.random.default_rng(0)
    x, kernel = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 5, 4), (2, 2, 4, 6)))
    expected = jax.lax.conv_general_dilated(np.repeat(np.repeat(x, 2, 1), 2, 2), kernel, (1, 1), 'SAME',
                                            dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    np.testing.assert_allclose(upsampled_conv(x, kernel).reshape(expected.shape), expected, atol=1e-5)


def test_dropout_acts_on_the_lowest_levels_and_depends_on_the_example_s_key_alone():
    network, x = NoiseUNet(TINY), jax.random.normal(jax.random.key(0), (3, 8, 4, 1))
    variables = network.init(jax.random.key(1), x)
    keys = jax.random.split(jax.random.key(2), 3)
    run = jit(network.apply)
    dropped, order = run(variables, x, keys), np.array([2, 0, 1])
    assert np.max(np.abs(dropped - run(variables, x))) > 1e-3
    np.testing.assert_allclose(run(variables, x[order], keys[order]), dropped[order], atol=1e-6)
    without = NoiseUNet(NoiseUNetConfig((2, 4, 8), dropout=0.0))
    np.testing.assert_allclose(without.apply(variables, x, keys), run(variables, x), atol=1e-6)


def test_initial_weights_are_those_of_keras():
    """He: truncated at 2 sigma, of standard deviation sqrt(2 / fan in); the last layer: Glorot's uniform."""
    network = NoiseUNet(NoiseUNetConfig((64, 64)))
    params = network.init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)))['params']
    kernel = params['down1_second']['kernel']
    sigma = np.sqrt(2 / (9 * 64))
    assert np.std(kernel) == pytest.approx(sigma, rel=0.02)
    assert np.abs(kernel).max() < 2.3 * sigma  # 2 sigma, rescaled by 1 / 0.8796
    assert np.abs(params['out']['kernel']).max() <= np.sqrt(6 / 3)
    assert not any(np.any(layer['bias']) for layer in params.values())


@pytest.mark.parametrize('fields', [{'widths': (4,)}, {'widths': (4, 0)}, {'dropout': 1.0}])
def test_sizes_that_make_no_network_are_refused(fields):
    with pytest.raises(ValueError, match='expected two or more widths'):
        NoiseUNetConfig(**fields)
