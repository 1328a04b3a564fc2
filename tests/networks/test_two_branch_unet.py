"""The two-branch U-Net: against the original PyTorch code through the converter, and its masking."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse import convert
from jax_diffse.networks.two_branch_unet import TwoBranchUNet
from tests import reference

# The released code's lists of features: ours.
LISTS = {'en': 'encoder', 'de_real': 'real', 'de_imag': 'imag'}


@jax.jit
def features(variables, x):
    return TwoBranchUNet().apply(variables, x, method='features')


def converted(state_dict):
    """Variables of the network alone."""
    variables = convert.from_torch('dr-diffuse-base', state_dict)
    return {collection: groups['c_gen'] for collection, groups in variables.items()}


def to_jax(x):
    return jnp.moveaxis(jnp.asarray(x), 1, -1)


def to_torch(x):
    return np.moveaxis(np.asarray(x), -1, 1)


@pytest.mark.parity
def test_outputs_and_features_of_the_released_network():
    fixture = reference.load('dr_diffuse_nets')
    result = features(converted(fixture.state_dict('c_gen/')), to_jax(fixture.inputs['c_gen/x']))
    fixture.check('c_gen/est_comp', to_torch(result.output))
    for theirs, ours in LISTS.items():
        for i, feature in enumerate(getattr(result, ours)):
            fixture.check(f'c_gen/{theirs}{i}', to_torch(feature))


@pytest.mark.parity
def test_golden_outputs_and_features():
    golden = reference.load_golden('dr_diffuse/forward.npz')
    for name in ('base', 'refiner'):
        variables = converted(convert.read_state_dict(reference.golden(f'dr_diffuse/{name}.pth')))
        golden.check(f'{name}_est_comp', to_torch(features(variables, to_jax(golden['base_x'])).output))
        if name == 'base':
            result = features(variables, to_jax(golden['base_lists_x']))
            golden.check('base_lists_est_comp', to_torch(result.output))
            for theirs, ours in LISTS.items():
                for i, feature in enumerate(getattr(result, ours)):
                    golden.check(f'base_{theirs}_list_{i}', to_torch(feature))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_parameter_counts_of_the_paper():
    shapes = jax.eval_shape(TwoBranchUNet().init, jax.random.key(0), jnp.zeros((1, 2, 161, 2)))['params']
    assert count(shapes) == 1_662_565
    assert count(shapes['encoder']) == 100_133
    assert count(shapes['decoder_real']) == count(shapes['decoder_imag']) == 110_149
    assert count({name: tree for name, tree in shapes.items() if name.startswith('temporal')}) == 1_342_134


SMALL = TwoBranchUNet(channels=4, temporal_groups=1)


@functools.partial(jax.jit, static_argnames='train')
def apply_small(variables, x, num_frames, train=False):
    """Output and statistics."""
    return SMALL.apply(variables, x, num_frames, train=train, mutable=['batch_stats'])


@pytest.fixture(scope='module')
def small():
    """Variables of the small network, and a batch with 13 and 7 real frames."""
    x = jax.random.normal(jax.random.key(1), (2, 13, 161, 2))
    variables = reference.random_variables(jax.eval_shape(SMALL.init, jax.random.key(0), x))
    return variables, x.at[1, 7:].set(0), jnp.array([13, 7])


def test_padding_changes_no_real_frame(small):
    variables, x, num_frames = small
    together, _ = apply_small(variables, x, num_frames)
    whole, _ = apply_small(variables, x, jnp.array([13, 13]))
    alone, _ = apply_small(variables, x[:, :7], jnp.array([7, 7]))
    np.testing.assert_allclose(together[1, :7], alone[1], atol=1e-5)
    np.testing.assert_allclose(together[0], whole[0], atol=1e-5)
    assert np.max(np.abs(whole[1, :7] - alone[1])) > 1e-3  # without the mask padding is seen


def test_content_of_padding_changes_nothing(small):
    variables, x, num_frames = small
    for train in (False, True):
        expected, expected_stats = apply_small(variables, x, num_frames, train)
        actual, stats = apply_small(variables, x.at[1, 7:].set(100.0), num_frames, train)
        np.testing.assert_allclose(actual[1, :7], expected[1, :7], atol=1e-4)
        np.testing.assert_allclose(actual[0], expected[0], atol=1e-4)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), stats, expected_stats)


def test_statistics_are_those_of_the_real_frames(small):
    variables, x, _ = small
    _, expected = apply_small(variables, x[:, :7], jnp.array([7, 7]), True)
    _, actual = apply_small(variables, x, jnp.array([7, 7]), True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected)
    assert np.max(np.abs(actual['batch_stats']['encoder']['post1']['norm']['mean']
                         - variables['batch_stats']['encoder']['post1']['norm']['mean'])) > 1e-3


def test_bfloat16_stays_close_and_returns_float32(small):
    variables, x, num_frames = small
    high, _ = apply_small(variables, x, num_frames)
    low = jax.jit(SMALL.clone(dtype=jnp.bfloat16).apply)(variables, x, num_frames)
    assert low.dtype == jnp.float32
    error = np.sqrt(np.mean((low[0] - high[0]) ** 2))
    assert 0 < error < 0.05 * np.std(high[0])
