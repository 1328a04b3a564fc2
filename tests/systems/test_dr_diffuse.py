"""DR-DiffuSE's condition generator as a system: training against the original PyTorch code, and its contract."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_diffse import convert
from jax_diffse.convert import layouts
from jax_diffse.networks.two_branch_unet import TwoBranchUNet
from jax_diffse.systems.dr_diffuse import DrDiffuse
from jax_diffse.training import state as training
from tests import reference

KIND = 'dr-diffuse-base'
ENTRIES = convert.KINDS[KIND].entries()
LEARNING_RATE = 1e-3  # of the released code, as the L2 of OptimizerConfig's default


def to_jax(x):
    return jnp.moveaxis(jnp.asarray(x), 1, -1)


def to_torch(x):
    return np.moveaxis(np.asarray(x), -1, 1)


def make_batch(feats, labels, frames):
    """A batch whose waveforms have so many frames, with the spectra as they are."""
    return {'noisy_spec': to_jax(feats), 'clean_spec': to_jax(labels), 'num_samples': (jnp.asarray(frames) - 1) * 160}


@jax.jit
def train_gradient(variables, batch):
    """One replica's gradient, statistics and metrics, with padding frames taking part, as in the released code."""
    system = DrDiffuse(mask_padding=False)
    keys = jax.random.split(jax.random.key(0), 2)

    def replica(batch):
        return training.group_gradient(system.losses['c_gen'], 'c_gen', variables, batch, keys, accumulate=1)

    result = jax.vmap(replica, axis_name=training.AXIS)(jax.tree.map(lambda x: x[None], batch))
    return jax.tree.map(lambda x: x[0], result)


@jax.jit
def train_output(variables, spec):
    own = {collection: groups['c_gen'] for collection, groups in variables.items()}
    return TwoBranchUNet().apply(own, spec, train=True, mutable=['batch_stats'])[0]


def adam_step(params, gradient):
    """The difference that the first step makes."""
    optimizer = training.make_optimizer(training.OptimizerConfig())
    direction, _ = optimizer.update(gradient, optimizer.init(params), params)
    return jax.tree.map(lambda d: -LEARNING_RATE * d, direction)


def in_torch(collection, tree):
    return layouts.to_torch(ENTRIES, {collection: {'c_gen': tree}})


@pytest.fixture(scope='module')
def base_train():
    fixture = reference.load('dr_diffuse_nets')
    variables = convert.from_torch(KIND, fixture.state_dict('base_train/'))
    batch = make_batch(*(fixture.inputs[f'base_train/{key}'] for key in ('feats', 'labels', 'frame_list')))
    return fixture, variables, batch, train_gradient(variables, batch)


@pytest.mark.parity
def test_training_output_and_loss(base_train):
    fixture, variables, batch, (_, _, metrics) = base_train
    fixture.check('base_train/est_comp', to_torch(train_output(variables, batch['noisy_spec'])))
    fixture.check('base_train/loss', metrics['loss'])


@pytest.mark.parity
def test_training_gradient(base_train):
    fixture, _, _, (gradient, _, _) = base_train
    gradient = in_torch('params', gradient)
    fixture.check_table('base_train/grad', gradient, relative=1e-2, of_largest=1e-6)
    # Single slopes may differ where an input crosses zero between two correct computations; the rest agrees.
    norms = dict(zip(fixture.names('base_train/grad'), fixture['base_train/grad/fingerprint'][:, 0], strict=True))
    errors = [abs(np.linalg.norm(gradient[name]) - norm) / norm for name, norm in norms.items()
              if norm > 1e-6 * max(norms.values())]
    assert np.quantile(errors, 0.98) < 1e-4


@pytest.mark.parity
def test_training_statistics(base_train):
    fixture, _, _, (_, batch_stats, _) = base_train
    fixture.check_table('base_train/bn', in_torch('batch_stats', batch_stats['c_gen']))


@pytest.mark.parity
def test_optimizer_step(base_train):
    """With small gradients, where gradient, L2 and epsilon all count and the step is a smooth function."""
    fixture, variables, _, (gradient, _, _) = base_train
    update = adam_step(variables['params']['c_gen'], jax.tree.map(lambda g: 1e-5 * g, gradient))
    fixture.check_table('base_train/update', in_torch('params', update), relative=1e-4)


@pytest.mark.parity
def test_three_adam_steps():
    fixture = reference.load('dr_diffuse_nets')
    optimizer = training.make_optimizer(training.OptimizerConfig())
    params = jnp.asarray(fixture.inputs['adam/param'])
    state, history = optimizer.init(params), []
    for i in range(3):
        direction, state = optimizer.update(jnp.asarray(fixture.inputs[f'adam/grad{i}']), state, params)
        params = optax.apply_updates(params, -LEARNING_RATE * direction)
        history.append(params)
    fixture.check('adam/params', np.stack(history))


@pytest.mark.parity
def test_golden_training_step():
    golden = reference.load_golden('dr_diffuse/train_base.npz')
    variables = convert.from_torch(KIND, convert.read_state_dict(reference.golden('dr_diffuse/base.pth')))
    batch = make_batch(golden['feats'], golden['labels'], golden['frame_list'])
    gradient, batch_stats, metrics = train_gradient(variables, batch)
    golden.check('loss', metrics['loss'])
    golden.check('est_comp_train', to_torch(train_output(variables, batch['noisy_spec'])))
    for name, value in in_torch('batch_stats', batch_stats['c_gen']).items():
        golden.check(f'buffer/{name}', value)
    params = variables['params']['c_gen']
    after = optax.apply_updates(params, adam_step(params, gradient))
    check_golden_gradient(golden, in_torch('params', gradient))
    check_golden_step(golden, in_torch('params', gradient), in_torch('params', after))


def check_golden_gradient(golden, gradient):
    norms = dict(zip(map(str, golden['param_names']), golden['grad_norm'], strict=True))
    largest = max(norms.values())
    for name, value in gradient.items():
        stored = golden[f'grad/{name}'] if f'grad/{name}' in golden else golden[f'grad_sub/{name}']
        value = value if value.shape == stored.shape else value.ravel()[::-(-value.size // 1024)]
        atol = 1e-2 * norms[name] + 1e-6 * largest
        reference.assert_close(value, stored, atol, f'gradient of {name}')


def check_golden_step(golden, gradient, after):
    """Parameters after the step, where the gradient is more than rounding noise: else its sign decides."""
    for name, value in after.items():
        stored = golden[f'post/{name}'] if f'post/{name}' in golden else golden[f'post_sub/{name}']
        every = 1 if value.shape == stored.shape else -(-value.size // 256)
        sure = np.abs(gradient[name].ravel()[::every]) > 1e-4
        difference = np.abs(value.ravel()[::every] - stored.ravel())
        assert np.all(difference[sure] <= 1e-6 + 1e-6 * np.abs(stored.ravel()[sure])), name


SMALL = DrDiffuse(channels=4, temporal_groups=1)
LENGTHS = (1777, 960)


@jax.jit
def enhance_at(variables, noisy, num_samples, gain):
    keys = jax.random.split(jax.random.key(1), len(noisy))
    return SMALL.enhance(variables, noisy, num_samples, keys, gain=gain)


def enhance(variables, noisy, num_samples):
    return enhance_at(variables, noisy, num_samples, SMALL.gain(noisy, num_samples))


@jax.jit
def evaluation_loss(variables, batch):
    return SMALL.losses['c_gen'](variables, batch, None, train=False)


@pytest.fixture(scope='module')
def variables():
    return reference.random_variables(jax.eval_shape(SMALL.init, jax.random.key(0)))


def random_waves(*lengths):
    rng = np.random.default_rng(0)
    noisy = np.zeros((len(lengths), max(lengths)), np.float32)
    for row, length in zip(noisy, lengths, strict=True):
        row[:length] = 0.1 * rng.standard_normal(length)
    return jnp.asarray(noisy), jnp.array(lengths)


def test_enhance_keeps_shape_and_does_not_see_padding(variables):
    noisy, lengths = random_waves(*LENGTHS)
    together = enhance(variables, noisy, lengths)
    assert together.shape == noisy.shape
    alone = enhance(variables, noisy[1:, :960], lengths[1:])
    np.testing.assert_allclose(together[1, :960], alone[0], atol=1e-4)
    assert not np.any(together[1, 960:])
    assert np.std(together[1, :960]) > 1e-3  # the comparison means something


def test_enhance_follows_the_level_of_the_input(variables):
    noisy, lengths = random_waves(*LENGTHS)
    enhanced = enhance(variables, noisy, lengths)
    np.testing.assert_allclose(enhance(variables, 8 * noisy, lengths), 8 * enhanced, rtol=1e-4, atol=1e-5)
    assert np.max(np.abs(enhance_at(variables, noisy, lengths, jnp.array([1.0, 1.0])) - enhanced)) > 1e-3


@pytest.mark.parametrize('option', ['steps', 'processed'])
def test_enhance_refuses_what_it_does_not_do(variables, option):
    noisy, lengths = random_waves(*LENGTHS)
    with pytest.raises(ValueError, match='neither sampling steps nor a preceding enhancement'):
        SMALL.enhance(variables, noisy, lengths, None, **{option: 6 if option == 'steps' else noisy})


def test_evaluation_loss_uses_stored_statistics_and_weighs_by_frames(variables):
    noisy, _ = random_waves(1600, 1600)
    spec = SMALL.front_end.analyze(noisy, jnp.array([1600, 1600]))
    batch = {'noisy_spec': spec, 'clean_spec': 0.5 * spec, 'num_samples': jnp.array([1600, 0])}
    out = evaluation_loss(variables, batch)
    np.testing.assert_array_equal(out.weight, [11, 0])  # the second one only fills the batch
    jax.tree.map(np.testing.assert_array_equal, out.batch_stats, variables['batch_stats'])
    other = evaluation_loss(variables, {**batch, 'noisy_spec': spec.at[1].set(7.0)})
    np.testing.assert_allclose(out.loss[0], other.loss[0], rtol=1e-5)


@pytest.mark.parametrize(('field', 'value'), [('stage', 'c'), ('dtype', 'float16'), ('compression', 'cube')])
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f'{field} must be one of .*{value!r}'):
        DrDiffuse(**{field: value})
