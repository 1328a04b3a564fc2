"""SEGAN's networks against the notebook's PyTorch code, through the converter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse import conversion
from jax_diffse.networks.segan import Discriminator, Generator
from tests import reference

jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 1})
KINDS = {'generator': 'segan', 'discriminator': 'segan-discriminator'}


def converted(group, state_dict):
    variables = conversion.from_weights(KINDS[group], state_dict)
    return {collection: groups[group] for collection, groups in variables.items()}


@functools.cache
def released():
    fixture = reference.load('segan')
    return {group: converted(group, fixture.state_dict(f'{group}.')) for group in KINDS}


@functools.cache
def run(network):
    """The output, and what each convolution returned, in torch's layout."""
    def call(variables, *waves):
        y, state = network.apply(variables, *waves, mutable=['intermediates'], capture_intermediates=(
            lambda module, name: name == '__call__' and type(module).__name__ == 'Resample'))
        return y, {name: found['__call__'][0][:, 0].swapaxes(1, 2) for name, found in state['intermediates'].items()}

    return jit(call)


def waves(fixture, *names):
    return [jnp.asarray(fixture.inputs[name][:, 0]) for name in names]


def by_their_names(features, names):
    found = {}
    for name, x in features.items():
        layer, i = name.rsplit('_', 1)
        found[f'{names[layer]}{int(i) + 1}'] = np.asarray(x)
    return found


def num_parameters(variables):
    return sum(np.size(leaf) for leaf in jax.tree.leaves(variables['params']))


@pytest.mark.parity
def test_the_released_networks():
    fixture = reference.load('segan')
    generator, discriminator = released().values()
    counts = fixture.json('config')['parameter_count']
    assert {group: num_parameters(variables) for group, variables in released().items()} == counts
    noisy, clean = waves(fixture, 'noisy', 'clean')
    out, features = run(Generator())(generator, noisy)
    fixture.check('generator/out', out[:, None])
    features = by_their_names(features, {'encoder': 'enc', 'decoder': 'dec'})
    fixture.check_table('generator/features', features)
    for name in ('enc1', 'enc6', 'dec1', 'dec5'):
        fixture.check(f'generator/{name}', features[name])
    real, features = run(Discriminator())(discriminator, noisy, clean)
    fixture.check('d_real', real[:, None])
    fixture.check_table('discriminator/features', by_their_names(features, {'conv': 'conv'}))
    fixture.check('d_fake', run(Discriminator())(discriminator, noisy, out)[0][:, None])


@pytest.mark.parity
def test_golden_networks():
    golden = reference.load_golden('segan_diffiner_nb/segan.npz')
    weights = {group: conversion.read_state_dict(reference.golden(f'segan_diffiner_nb/{group}.pt')) for group in KINDS}
    channels = conversion.describe({KINDS[group]: weights[group] for group in KINDS})[1]['channels']
    generator, discriminator = (converted(group, weights[group]) for group in KINDS)
    noisy, clean = (jnp.asarray(golden[name][:, 0]) for name in ('noisy', 'clean'))
    out, _ = run(Generator(channels))(generator, noisy)
    golden.check('enhanced', out[:, None])
    for key, candidate in (('d_real_eval', clean), ('d_fake_eval', out)):
        golden.check(key, run(Discriminator(channels))(discriminator, noisy, candidate)[0][:, None])


def test_the_discriminator_judges_patches():
    """A patch sees 1891 samples (six kernels of 31 at strides of 2, 4 ... 64), centred on it, and no others."""
    network = Discriminator(channels=(2, 2, 2, 2, 2, 2))
    noisy, candidate = (jnp.asarray(np.random.default_rng(i).standard_normal((1, 4096)), jnp.float32) for i in (0, 1))
    variables = network.init(jax.random.key(0), noisy, candidate)
    sensitivity = jit(jax.grad(lambda x: network.apply(variables, noisy, x)[0, 32]))(candidate)[0]
    seen = np.flatnonzero(sensitivity)
    assert (seen[0], seen[-1]) == (32 * 64 - 945, 32 * 64 + 945)
