"""The two-branch U-Net and its denoisers: against the original PyTorch code through the converter, and masking."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse import conversion
from jax_diffse.networks.two_branch_unet import EMBEDDING, ConditionalUNet, StepEmbedding, TwoBranchUNet, step_table
from tests import reference

# The released code's lists of features, taken from ours.
LISTS = {'en': lambda result: result.encoder, 'de_real': lambda result: [both[0] for both in result.decoders],
         'de_imag': lambda result: [both[1] for both in result.decoders]}


@jax.jit
def features(variables, x):
    return TwoBranchUNet().apply(variables, x, method='features')


def converted(kind, state_dict):
    """Variables of the network alone."""
    variables = conversion.from_weights(kind, state_dict)
    return {collection: tree for collection, groups in variables.items() for tree in groups.values()}


def to_jax(x):
    return jnp.moveaxis(jnp.asarray(x), 1, -1)


def to_torch(x):
    return np.moveaxis(np.asarray(x), -1, 1)


@pytest.mark.parity
def test_outputs_and_features_of_the_released_network():
    fixture = reference.load('dr_diffuse_nets')
    result = features(converted('dr-diffuse-base', fixture.state_dict('c_gen/')), to_jax(fixture.inputs['c_gen/x']))
    fixture.check('c_gen/est_comp', to_torch(result.output))
    for theirs, ours in LISTS.items():
        for i, feature in enumerate(ours(result)):
            fixture.check(f'c_gen/{theirs}{i}', to_torch(feature))


@pytest.mark.parity
def test_golden_outputs_and_features():
    golden = reference.load_golden('dr_diffuse/forward.npz')
    for name in ('base', 'refiner'):
        variables = converted('dr-diffuse-base', conversion.read_state_dict(reference.golden(f'dr_diffuse/{name}.pth')))
        golden.check(f'{name}_est_comp', to_torch(features(variables, to_jax(golden['base_x'])).output))
        if name == 'base':
            result = features(variables, to_jax(golden['base_lists_x']))
            golden.check('base_lists_est_comp', to_torch(result.output))
            for theirs, ours in LISTS.items():
                for i, feature in enumerate(ours(result)):
                    golden.check(f'base_{theirs}_list_{i}', to_torch(feature))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_parameter_counts_of_the_paper():
    shapes = jax.eval_shape(TwoBranchUNet().init, jax.random.key(0), jnp.zeros((1, 2, 161, 2)))['params']
    assert count(shapes) == 1_662_565
    assert count(shapes['encoder']) == 100_133
    assert count(shapes['decoders']) == 2 * 110_149
    assert count(shapes['temporal']) == 1_342_134


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


# ------------------------------------------------------------------------------------------------------- denoisers

DENOISERS = {'diffuse': True, 'diffusec': False}  # names in the reference: is it the two-branch one?


@functools.partial(jax.jit, static_argnames='two_branch')
def denoiser_features(variables, x, c, t, num_frames, two_branch):
    """Features of the denoiser, and the step's embedding `[B, 128]`."""
    network = ConditionalUNet(two_branch)
    embedding = network.apply(variables, t, method=lambda network, t: network.embedding(t))
    return network.apply(variables, x, c, t, num_frames, method='features'), embedding


def run_denoiser(name, variables, x, c, t):
    """In and out in torch's layout. Zero frames are appended, so that inputs of up to 67 frames share a program."""
    frames = x.shape[2]
    x, c = (np.pad(to_jax(v), ((0, 0), (0, -frames % 67), (0, 0), (0, 0))) for v in (x, c))
    result, embedding = denoiser_features(variables, x, c, jnp.asarray(t, jnp.float32), jnp.full(len(x), frames),
                                          DENOISERS[name])
    return jax.tree.map(lambda v: np.moveaxis(np.asarray(v), -1, -3)[..., :frames, :], result), embedding


@pytest.mark.parity
@pytest.mark.parametrize('name', DENOISERS)
def test_outputs_and_features_of_the_released_denoisers(name):
    fixture = reference.load('dr_diffuse_nets')
    variables = converted(f'dr-diffuse-{name}', fixture.state_dict(f'{name}/'))
    x, c = fixture.inputs['denoiser/x'], fixture.inputs['denoiser/c']
    for kind in ('int', 'float'):
        result, embedding = run_denoiser(name, variables, x, c, fixture.inputs[f'denoiser/t_{kind}'])
        fixture.check(f'{name}/{kind}/est_noise', result.output)
        fixture.check(f'{name}/{kind}/time_embedding', embedding)
    for theirs, ours in LISTS.items():
        for i, feature in enumerate(ours(result)):
            fixture.check(f'{name}/float/{theirs}{i}', feature)


@pytest.mark.parity
@pytest.mark.parametrize('name', DENOISERS)
def test_golden_outputs_of_the_denoisers(name):
    golden = reference.load_golden('dr_diffuse/forward.npz')
    variables = converted(f'dr-diffuse-{name}', conversion.read_state_dict(reference.golden(f'dr_diffuse/{name}.pth')))
    for kind in ('int', 'float'):
        result, embedding = run_denoiser(name, variables, golden['diff_x'], golden['diff_c'], golden[f'diff_t_{kind}'])
        golden.check(f'{name}_{kind}_est_noise', result.output)
        golden.check(f'{name}_temb_{kind}', embedding)


@pytest.mark.parity
def test_table_of_the_steps():
    """Sines of angles up to 2e6: to 6e-8, one unit in the last place of float32, only if these are rounded alike."""
    fixture, table = reference.load('dr_diffuse_nets'), step_table()
    fixture.check('time_embedding_table', table)
    np.testing.assert_allclose(table[[1, 2, 57, 123, 199]], fixture['time_embedding_rows'], rtol=0, atol=1.2e-7)


@pytest.mark.parity
def test_golden_table_of_the_steps():
    expected = reference.load_golden('dr_diffuse/forward.npz')['time_embedding_table']
    np.testing.assert_allclose(step_table(), expected, rtol=0, atol=1.2e-7)


def test_fractional_steps_are_interpolated():
    """Up to the first projection, here the identity, embeddings are rows of the table or lie between them."""
    eye = {'kernel': jnp.eye(EMBEDDING), 'bias': jnp.zeros(EMBEDDING)}
    variables = {'params': {'projection1': eye, 'projection2': eye}}

    def silu(x):
        return x / (1 + np.exp(-x))

    table = step_table().astype(np.float64)
    for t, row in ((jnp.array([7, 199]), table[[7, 199]]),
                   (jnp.array([7.25, 0.0]), [0.75 * table[7] + 0.25 * table[8], table[0]])):
        np.testing.assert_allclose(StepEmbedding().apply(variables, t), silu(silu(np.asarray(row))), atol=1e-6)


@pytest.mark.parametrize('two_branch, expected', [(True, 3_556_566), (False, 1_894_001)])
def test_parameter_counts_of_the_denoisers(two_branch, expected):
    x = jnp.zeros((1, 2, 161, 2))
    shapes = jax.eval_shape(ConditionalUNet(two_branch).init, jax.random.key(0), x, x, jnp.zeros(1))['params']
    assert count(shapes) == expected
    assert count(shapes['unet']['encoder']) == 133_415
    assert count(shapes['unet']['decoders']) == 2 * 192_709


SMALL_DENOISER = ConditionalUNet(channels=4, temporal_groups=1)


@functools.partial(jax.jit, static_argnames='train')
def denoise_small(variables, x, c, t, num_frames, train=False):
    """Output and statistics."""
    return SMALL_DENOISER.apply(variables, x, c, t, num_frames, train=train, mutable=['batch_stats'])


@pytest.fixture(scope='module')
def small_denoiser():
    """Variables of the small denoiser, and a batch (x_t, condition, t) of 13 frames."""
    x, c = jax.random.normal(jax.random.key(1), (2, 2, 13, 161, 2))
    t = jnp.array([3.0, 60.5])
    return reference.random_variables(jax.eval_shape(SMALL_DENOISER.init, jax.random.key(0), x, c, t)), x, c, t


def test_padding_changes_no_real_frame_of_the_noise(small_denoiser):
    variables, x, c, t = small_denoiser
    together, _ = denoise_small(variables, x, c, t, jnp.array([13, 7]))
    whole, _ = denoise_small(variables, x, c, t, jnp.array([13, 13]))
    alone, _ = denoise_small(variables, x[:, :7], c[:, :7], t, jnp.array([7, 7]))
    np.testing.assert_allclose(together[1, :7], alone[1], atol=1e-4)
    np.testing.assert_allclose(together[0], whole[0], atol=1e-4)
    assert np.max(np.abs(whole[1, :7] - alone[1])) > 1e-3  # without the mask padding is seen


def test_statistics_of_the_denoiser_are_those_of_the_real_frames(small_denoiser):
    variables, x, c, t = small_denoiser
    output, stats = denoise_small(variables, x, c, t, jnp.array([7, 7]), True)
    expected, expected_stats = denoise_small(variables, x[:, :7], c[:, :7], t, jnp.array([7, 7]), True)
    np.testing.assert_allclose(output[:, :7], expected, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), stats, expected_stats)
    for part in ('unet', 'delivery'):
        mean, before = (tree['batch_stats'][part]['encoder']['post1']['norm']['mean'] for tree in (stats, variables))
        assert np.max(np.abs(mean - before)) > 1e-3


def test_only_the_last_delivery_blocks_have_no_gradient(small_denoiser):
    """Two blocks of twelve parameters, `c_deliver.de_*.de1` of the released network."""
    variables, x, c, t = small_denoiser

    @functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})  # it runs once
    @jax.grad
    def gradient(params):
        return jnp.sum(SMALL_DENOISER.apply(variables | {'params': params}, x[:, :7], c[:, :7], t) ** 2)

    zero = [jax.tree_util.keystr(path, simple=True, separator='/')
            for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables['params'])) if not np.any(leaf)]
    assert len(zero) == 12  # of both decoders each
    assert {name.rsplit('/', 2)[0] for name in zero} == {'delivery/decoders/conv1'}
