"""Weights of Keras in HDF5, in the layouts of Keras 1 to 3, written here with h5py as Keras writes them."""

import os

import h5py
import jax
import numpy as np
import pytest

from jax_diffse import cli, conversion, runs
from jax_diffse.conversion import keras, writing
from jax_diffse.conversion import noise_unet as names
from jax_diffse.errors import UserError
from jax_diffse.systems.base import shapes
from jax_diffse.systems.noise_unet import NoiseUnet

WIDTHS = (2, 3, 4)


def weights_of(widths=WIDTHS):
    """Random weights under Keras's names, in its layout."""
    inputs, rng, found = 1, np.random.default_rng(0), {}
    sizes = [(3, width) for width in widths for _ in range(2)]
    for width in reversed(widths[:-1]):
        sizes += [(2, width), (3, width), (3, width)]
    skips = iter(reversed(widths[:-1]))
    for i, (size, width) in enumerate([*sizes, (3, 2), (1, 1)]):
        if i > 2 * len(widths) and sizes[i - 1:i] and sizes[i - 1][0] == 2 and i < len(sizes):
            inputs += next(skips)
        name = f'conv2d_{i}' if i else 'conv2d'
        found[f'{name}/kernel'] = rng.standard_normal((size, size, inputs, width)).astype(np.float32)
        found[f'{name}/bias'] = rng.standard_normal(width).astype(np.float32)
        inputs = width
    return found


def write_keras_2(path, weights, first=48, root=''):
    """`save_weights` of Keras 1 and 2: names and order are attributes; `root` as in a file of `save`."""
    with h5py.File(path, 'w') as file:
        group = file.create_group(root) if root else file
        layers = [name.partition('/')[0] for name in weights if name.endswith('kernel')]
        theirs = {name: f'conv2d_{first + i}' for i, name in enumerate(layers)}
        order = ['input_1']
        for name in layers:
            order += [theirs[name], f'leaky_re_lu_{theirs[name]}']
        group.attrs['layer_names'] = [name.encode() for name in order]
        for name in order:
            group.create_group(name).attrs['weight_names'] = []
        for name, own in theirs.items():
            parts = [f'{own}/{part}:0' for part in ('kernel', 'bias')]
            group[own].attrs['weight_names'] = [part.encode() for part in parts]
            for part in parts:
                group[own].create_dataset(part, data=weights[f'{name}/{part.rpartition("/")[2][:-2]}'])


def write_keras_3(path, weights, first=0):
    """`save_weights` of Keras 3; groups come out of the file in alphabetic order."""
    with h5py.File(path, 'w') as file:
        layers = file.create_group('layers')
        layers.create_group('input_layer').create_group('vars')
        for i in range(len(weights) // 2):
            name = f'conv2d_{i}' if i else 'conv2d'
            own = layers.create_group(f'conv2d_{first + i}' if first + i else 'conv2d').create_group('vars')
            for number, part in enumerate(('kernel', 'bias')):
                own.create_dataset(str(number), data=weights[f'{name}/{part}'])


WRITERS = {
    'keras 2': write_keras_2,
    'whole model': lambda path, weights: write_keras_2(path, weights, root='model_weights'),
    'keras 3': write_keras_3,
    'numbered from 30': lambda path, weights: write_keras_3(path, weights, first=30),
}


@pytest.mark.parametrize('layout', WRITERS)
def test_weights_are_read_in_the_order_of_the_network(tmp_path, layout):
    weights = weights_of()
    WRITERS[layout](tmp_path / 'a.h5', weights)
    found = keras.read_weights(tmp_path / 'a.h5')
    assert list(found) == list(weights)
    jax.tree.map(np.testing.assert_array_equal, found, weights)


def test_a_file_becomes_a_run_of_its_size(tmp_path):
    weights = weights_of()
    write_keras_3(tmp_path / 'unet.weights.h5', weights)
    cli.run(['convert', f'noise-unet={tmp_path / "unet.weights.h5"}', '--workdir', str(tmp_path / 'run')])
    run = runs.load(tmp_path / 'run')
    assert run.system.network.widths == WIDTHS and run.system.released
    kernel = run.variables['params']['unet'][names.layers(3)[4]]['kernel']  # the first of the lowest level
    np.testing.assert_array_equal(kernel, weights['conv2d_4/kernel'].swapaxes(0, 1))  # time before frequency
    assert jax.tree.map(np.shape, run.variables['params']) == jax.tree.map(
        lambda leaf: leaf.shape, shapes(run.system)['params'])


def test_the_published_size_is_the_default():
    weights = weights_of(NoiseUnet().network.widths)
    assert sum(map(np.size, weights.values())) == 1_941_093
    assert conversion.describe({'noise-unet': weights})[1]['network'] == {'widths': NoiseUnet().network.widths}


def link_out(file):
    file['layers']['conv2d/vars'].move('0', 'old')
    file['layers/conv2d/vars/0'] = h5py.ExternalLink('other.h5', '/secret')


def virtual(file):
    del file['layers/conv2d/vars/0']
    layout = h5py.VirtualLayout((3, 3, 1, 2), 'f4')
    layout[:] = h5py.VirtualSource('other.h5', 'secret', (3, 3, 1, 2))
    file['layers/conv2d/vars'].create_virtual_dataset('0', layout)


def elsewhere(file):
    del file['layers/conv2d/vars/0']
    file['layers/conv2d/vars'].create_dataset('0', (3, 3, 1, 2), 'f4', external=[('other.raw', 0, 72)])


def huge(file):
    del file['layers/conv2d/vars/0']
    file['layers/conv2d/vars'].create_dataset('0', (3, 3, 1, 10**9), 'f4', chunks=True)


def text(file):
    del file['layers/conv2d/vars/0']
    file['layers/conv2d/vars'].create_dataset('0', data=np.array(['os.system'], object), dtype=h5py.string_dtype())


def missing(file):
    del file['layers/conv2d_3']


def more(file):
    file['layers'].create_group('batch_normalization').create_group('vars').create_dataset('0', data=np.ones(3, 'f4'))


def not_finite(file):
    file['layers/conv2d/vars/1'][0] = np.nan


def cut_off(path):
    os.truncate(path, 3000)


@pytest.mark.parametrize(('change', 'message'), [
    (link_out, r"refused, its entry '0' is missing or a link"),
    (virtual, 'refused, .* is no array of floating-point numbers in this file'),
    (elsewhere, 'refused, .* is no array of floating-point numbers in this file'),
    (huge, 'or is larger than 1 GiB'),
    (text, 'refused, .* is no array of floating-point numbers'),
    (missing, 'not the weights of this network; '),
    (more, 'not expected: batch_normalization/kernel'),
    (not_finite, 'weights that are NaN or infinite: conv2d/bias'),
    (cut_off, 'damaged, or not a file of Keras weights'),
    (lambda path: path.write_bytes(b'PK' + bytes(100)), r'expected a file of Keras weights in HDF5 \(.weights.h5 or'),
    (lambda path: path.unlink(), 'cannot be read'),
])
def test_what_is_no_file_of_these_weights_is_refused_in_one_line(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'a.weights.h5'
    write_keras_3(path, weights_of())
    with h5py.File('other.h5', 'w') as file:
        file['secret'] = np.ones((3, 3, 1, 2), 'f4')
    (tmp_path / 'other.raw').write_bytes(bytes(72))
    if change in (link_out, virtual, elsewhere, huge, text, missing, more, not_finite):
        with h5py.File(path, 'r+') as file:
            change(file)
    else:
        change(path)
    with pytest.raises(UserError, match=message) as caught:
        writing.to_run({'noise-unet': path}, tmp_path / 'run')
    assert 'a.weights.h5' in str(caught.value) and '\n' not in str(caught.value)
    assert not (tmp_path / 'run').exists()


def test_a_file_without_weights_is_named(tmp_path):
    h5py.File(tmp_path / 'empty.h5', 'w').close()
    with pytest.raises(UserError, match=r'empty.h5: expected the weights of a Keras model \(.weights.h5 or .h5\)'):
        keras.read_weights(tmp_path / 'empty.h5')
