"""The train step: devices, mappers, accumulation, optimiser, non-finite values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from jax_diffse.errors import UserError
from jax_diffse.systems.base import LossOutput
from jax_diffse.systems.dccrn import Dccrn, LossWeights
from jax_diffse.systems.dr_diffuse import DrDiffuse
from jax_diffse.training import state as state_lib
from jax_diffse.training.parallel import AXIS, MAPPERS, Parallel
from jax_diffse.training.state import OptimizerConfig
from jax_diffse.training.vector import Vector
from tests import reference
from tests.reference import random_variables
from tests.toys import Toy, Trainable

SYSTEM = Trainable()
LENGTHS = np.array([4000, 2400, 3000, 4000, 1700, 4000, 2000, 900], np.int32)


def make_batch(seed: int = 0, batch_size: int = 8, dummies: int = 0):
    rng = np.random.default_rng(seed)
    num_samples = LENGTHS[:batch_size].copy()
    if dummies:
        num_samples[-dummies:] = 0
    frames = SYSTEM.front_end.num_frames(4000)
    spec = rng.standard_normal((2, batch_size, frames, 161, 2)).astype(np.float32)
    return {'clean_spec': spec[0], 'noisy_spec': spec[1], 'num_samples': num_samples,
            'index': np.arange(batch_size)}


def create(system, config, ema_decay: float, seed: int):
    return state_lib.create(system, config, ema_decay, system.init(jax.random.key(seed)))


def run(devices: int = 1, mapper: str = 'shard_map', steps: int = 3, accumulate: int = 1, config=None, system=SYSTEM,
        **options):
    """Losses and final state of a few steps on `devices` devices."""
    config = config or OptimizerConfig(learning_rate=1e-4)
    parallel = Parallel(mapper, jax.devices()[:devices])
    step = parallel.map(
        state_lib.make_train_step(system, config, steps=steps, seed=0, accumulate=accumulate, **options))
    state = parallel.replicate(create(system, config, options.get('ema_decay', 0.0), seed=0))
    history = []
    for i in range(steps):
        state, metrics = step(state, parallel.shard(make_batch(i)))
        history.append(jax.device_get(jax.block_until_ready(metrics)))
    return history, jax.device_get(state)


@pytest.fixture(scope='module')
def one_device():
    return run()


@pytest.mark.parametrize('devices, mapper', [(2, 'shard_map'), (4, 'shard_map'), (1, 'pmap'), (4, 'pmap')])
def test_devices_and_mappers_give_the_same_run(one_device, devices, mapper):
    history, state = run(devices, mapper)
    for ours, theirs in zip(history, one_device[0]):
        assert ours['toy/loss'] == pytest.approx(theirs['toy/loss'], rel=1e-4)
        assert ours['toy/gradient_norm'] == pytest.approx(theirs['toy/gradient_norm'], rel=1e-4)
    # Statistics of the whole batch, although no device saw all of it.
    for ours, theirs in zip(jax.tree.leaves(state.batch_stats), jax.tree.leaves(one_device[1].batch_stats)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.parametrize('mapper', MAPPERS)
def test_a_donated_state_gives_its_memory_to_the_next_one(mapper):
    parallel, config = Parallel(mapper, jax.devices()[:2]), OptimizerConfig()
    step = parallel.map(state_lib.make_train_step(SYSTEM, config, steps=1, seed=0), donate=True)
    state, batch = parallel.replicate(create(SYSTEM, config, 0.9, seed=0)), parallel.shard(make_batch())
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert step.lower(state, batch).compile().memory_analysis().alias_size_in_bytes == size
    following, _ = step(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    step(following, batch)  # the output can be donated in turn
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(following))


@pytest.mark.parametrize('system', [
    DrDiffuse(channels=4, temporal_groups=1),
    Dccrn(channels=(4, 8), lstm_units=4, norm='complex', loss=LossWeights(si_snr=1.0, si_sdr=1.0),
          released_losses=True),  # whose SI-SDR is of the batch
], ids=['dr_diffuse', 'dccrn'])
def test_devices_give_the_same_loss_and_statistics_of_a_real_system(system):
    """In training, every normalisation layer averages over the devices."""
    waves, lengths = 0.1 * np.random.default_rng(0).standard_normal((2, 8, 4000)), jnp.asarray(LENGTHS)
    waves = jnp.asarray(waves * (np.arange(4000) < LENGTHS[:, None]), jnp.float32)
    specs = [system.front_end.analyze(x, lengths) for x in waves]
    batch = {'clean': waves[0], 'noisy': waves[1], 'clean_spec': specs[0], 'noisy_spec': specs[1],
             'num_samples': LENGTHS, 'index': np.arange(8)}
    variables = random_variables(jax.eval_shape(system.init, jax.random.key(0)))
    loss, = system.losses.values()

    def forward(variables, batch):
        out = loss(variables, batch, None)
        sums = jax.lax.psum((jnp.sum(out.weight * out.loss), jnp.sum(out.weight)), AXIS)
        return None, (sums, out.batch_stats)

    one, four = (jax.device_get(parallel.map(forward)(variables, parallel.shard(batch))[1])
                 for parallel in (Parallel(devices=jax.devices()[:count]) for count in (1, 4)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), four, one)


def test_gradient_is_that_of_the_weighted_mean_loss():
    """Against a finite difference of the mean over all real frames of the batch, through the batch statistics."""
    batch, params = make_batch(), SYSTEM.init(jax.random.key(1))['params']
    stats = SYSTEM.init(jax.random.key(1))['batch_stats']
    direction = jax.tree.map(
        lambda p: np.random.default_rng(p.size).standard_normal(p.shape).astype(np.float32), params)

    def gradient(_, batch):
        keys = state_lib.example_keys(jax.random.key(0), batch['num_samples'].shape[0])
        variables = {'params': params, 'batch_stats': stats}
        return None, state_lib.group_gradient(SYSTEM.losses['toy'], 'toy', variables, batch, keys, 1)

    parallel = Parallel(devices=jax.devices()[:4])
    _, (found, _, means) = parallel.map(gradient)(None, parallel.shard(batch))
    one = Parallel(devices=jax.devices()[:1])

    @jax.jit
    def loss(scale):
        moved = jax.tree.map(lambda p, d: p + scale * d, params, direction)

        def inner(_, batch):
            out = SYSTEM.losses['toy']({'params': moved, 'batch_stats': stats}, batch, None)
            return None, jnp.sum(out.loss * out.weight) / jnp.sum(out.weight)

        return one.map(inner)(None, one.shard(batch))[1]

    assert means['loss'] == pytest.approx(float(loss(0.0)), rel=1e-5)
    numeric = (float(loss(1e-3)) - float(loss(-1e-3))) / 2e-3
    assert optax.tree.vdot(found.tree(), direction['toy']) == pytest.approx(numeric, rel=2e-2)


def test_accumulation_averages_the_gradients_of_its_parts():
    """Two equal halves have the statistics of the whole, so the step is the same as without accumulation."""
    half = make_batch(batch_size=4)
    batch = jax.tree.map(lambda x: np.concatenate([x, x]), half)
    results = []
    for accumulate in (1, 2):
        parallel = Parallel(devices=jax.devices()[:1])
        step = parallel.map(
            state_lib.make_train_step(SYSTEM, OptimizerConfig(), steps=1, seed=0, accumulate=accumulate))
        state = parallel.replicate(create(SYSTEM, OptimizerConfig(), 0.0, seed=0))
        results.append(step(state, parallel.shard(batch))[1])
    for name in ('toy/loss', 'toy/gradient_norm'):
        assert float(results[1][name]) == pytest.approx(float(results[0][name]), rel=1e-4)


def test_clipping_bounds_what_the_optimiser_sees():
    gradient = {'w': jnp.full(4, 10.0)}
    optimizer = state_lib.make_optimizer(OptimizerConfig(clip_norm=1.0, l2=0.0))
    _, (_, _, adam) = optimizer.update(gradient, optimizer.init(gradient), gradient)
    # The first moment after one step is 0.1 of the gradient, which has norm 1 after clipping.
    np.testing.assert_allclose(np.linalg.norm(adam.mu['w']), 0.1, rtol=1e-5)


def test_ema_follows_the_weights(one_device):
    _, state = run(ema_decay=0.5)
    for ema, params in zip(jax.tree.leaves(state.ema), jax.tree.leaves(state.params)):
        assert np.linalg.norm(ema - params) <= 0.05 * np.linalg.norm(params) + 1e-2
    assert any(np.any(e != p) for e, p in zip(jax.tree.leaves(state.ema), jax.tree.leaves(state.params)))
    assert one_device[1].ema == {}


class Linear(Toy):
    """Losses whose gradient is given by the batch."""

    def init(self, key):
        return {'params': {'toy': {'w': jnp.asarray(reference.load('sgmse_training').inputs['adam/param'])}}}

    @property
    def losses(self):
        return {'toy': lambda variables, batch, key: LossOutput(
            batch['gradient'] @ variables['params']['toy']['w'], jnp.ones(len(key)), {}, {})}


@pytest.mark.parity
@pytest.mark.parametrize('key, first', [('adam/ema', 0), ('adam/ema_late', 20_000)])
def test_weights_and_averages_of_torch_adam_and_torch_ema(key, first):
    """Three steps with gradients so small that Adam's epsilon matters; averages near the start and after 20 000."""
    fixture, parallel = reference.load('sgmse_training'), Parallel(devices=jax.devices()[:1])
    config = OptimizerConfig(learning_rate=fixture.json('config')['adam_lr'], l2=0.0)
    step = parallel.map(state_lib.make_train_step(Linear(), config, steps=3, seed=0,
                                                  ema_decay=fixture.json('config')['ema_decay']))
    state = create(Linear(), config, 0.999, seed=0).replace(step=jnp.int32(first))
    state, params, averages = parallel.replicate(state), [], []
    for i in range(3):
        batch = {'gradient': fixture.inputs[f'adam/grad{i}'][None], 'num_samples': np.ones(1, np.int32)}
        state, _ = step(state, parallel.shard(batch))
        params.append(np.asarray(state.variables['params']['toy']['w']))
        averages.append(np.asarray(state.averaged['params']['toy']['w']))
    fixture.check('adam/params', params)
    fixture.check(key, averages)


def test_a_dummy_example_changes_nothing_in_evaluation():
    state = create(SYSTEM, OptimizerConfig(), 0.0, seed=0)
    parallel = Parallel(devices=jax.devices()[:2])
    step = parallel.map(state_lib.make_eval_step(SYSTEM, 0))
    full, short = make_batch(batch_size=8, dummies=4), make_batch(batch_size=8)
    short = jax.tree.map(lambda x: x[:4], short)
    for name in ('clean_spec', 'noisy_spec'):
        short[name] = full[name][:4]
    values = [np.divide(*step(state.variables, parallel.shard(batch))['toy/loss']) for batch in (full, short)]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_a_non_finite_loss_leaves_the_state_and_is_named():
    config = OptimizerConfig()
    parallel = Parallel(devices=jax.devices()[:2])
    step = parallel.map(state_lib.make_train_step(SYSTEM, config, steps=2, seed=0))
    state = parallel.replicate(create(SYSTEM, config, 0.0, seed=0))
    batch = make_batch()
    batch['clean_spec'][2, 3] = np.nan
    after, metrics = step(state, parallel.shard(batch))
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state)):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(UserError, match=r'toy/\w+ is nan at step 7.*checkpoint of step 5 is kept'):
        state_lib.check_finite({k: float(v) for k, v in metrics.items()}, 7, 5)


def rates(losses, config):
    """The learning rate and the state after each validation."""
    state = create(SYSTEM, config, 0.0, seed=0)
    for loss in losses:
        state = state_lib.after_validation(state, loss, config)
        yield config.learning_rate * float(state.plateau.scale), state


def test_plateau_halves_the_rate_and_counts_stale_validations():
    """By hand: two validations without improvement are tolerated; the third in a row halves the rate."""
    after = list(rates((1.0, 0.5, 0.6, 0.6, 0.6, 0.4, 0.4, 0.4, 0.4), OptimizerConfig(plateau_patience=2)))
    assert [rate for rate, _ in after] == pytest.approx([1e-3] * 4 + [5e-4] * 3 + [5e-4, 2.5e-4])
    assert [int(state.stale) for _, state in after] == [0, 0, 1, 2, 3, 0, 1, 2, 3]
    assert float(after[-1][1].best) == pytest.approx(0.4)


# Numbers that float32 holds exactly, as losses are kept in it.
LOSSES = {
    'walk': np.round(2**20 * (1 + np.cumsum(0.02 * np.random.default_rng(0).standard_normal(300)) / 4)) / 2**20,
    'equal': np.ones(60),
    'creeping': 1 - np.arange(60) / 2**14,  # each a little better than the last, below the threshold
    'rising': 1 + np.arange(120) / 2**6,
    'below zero': -1 - np.arange(60) / 2**8,  # a ratio in dB; torch's threshold then lies on the other side
    'not a number': np.array([1.0, np.nan, np.nan, 0.5, np.nan, np.inf, 0.25, *[np.nan] * 9]),
}


@pytest.mark.parametrize('losses', LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize('rule', [
    {'patience': 4, 'threshold': 1e-3, 'min_rate': 1e-6},  # of the notebook
    {'patience': 2, 'threshold': 0.0}, {'patience': 0}, {'patience': 3, 'factor': 0.1, 'min_rate': 5e-5},
    {'patience': 1, 'min_rate': 2e-3},  # above the learning rate, which stays
], ids=str)
def test_plateau_is_that_of_torch(losses, rule):
    """Against torch.optim.lr_scheduler.ReduceLROnPlateau: threshold, patience, the floor, the smallest fall."""
    config = OptimizerConfig(learning_rate=1e-3, **{f'plateau_{name}': value for name, value in rule.items()})
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate)
    expected = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=rule.get('factor', 0.5), patience=rule['patience'], threshold=rule.get('threshold', 1e-4),
        min_lr=rule.get('min_rate', 0.0))
    for i, (loss, (rate, _)) in enumerate(zip(losses, rates(losses, config), strict=True)):
        expected.step(loss)
        assert rate == pytest.approx(optimizer.param_groups[0]['lr'], rel=1e-5), f'validation {i}'


@pytest.mark.parametrize(('field', 'value'), [
    ('plateau_patience', -1), ('plateau_threshold', 1.0), ('plateau_threshold', float('nan')), ('plateau_factor', 0.0),
    ('plateau_factor', 1.0), ('plateau_min_rate', -1e-6)])
def test_invalid_plateau_settings_are_named(field, value):
    with pytest.raises(ValueError, match=f'{field}: expected .*, got {value}'):
        OptimizerConfig(**{field: value})


@pytest.mark.parametrize('decay, expected', [('constant', [0.0, 0.5, 1.0, 1.0]), ('cosine', [0.0, 0.5, 1.0, 0.5])])
def test_schedule(decay, expected):
    config = OptimizerConfig(learning_rate=1.0, decay=decay, warmup_steps=10)
    schedule = state_lib.make_schedule(config, 110)
    np.testing.assert_allclose([schedule(step) for step in (0, 5, 10, 60)], expected, atol=1e-6)
    assert state_lib.make_schedule(OptimizerConfig(learning_rate=1.0), 5)(0) == 1.0


def test_batch_size_must_be_divisible_by_devices_and_parts():
    with pytest.raises(UserError, match='batch_size: 6 is not a multiple of 4'):
        Parallel(devices=jax.devices()[:2]).check_batch_size(6, accumulate=2)


def test_frozen_groups_stay_as_they_are_and_have_no_optimiser_or_average():
    """Bit for bit, including batch statistics."""
    system = Trainable(stage='late')
    before = create(system, OptimizerConfig(), 0.9, seed=0)
    assert set(before.opt_state) == set(before.ema) == {'late'}
    _, after = run(2, system=system, ema_decay=0.9)
    for collection in ('params', 'batch_stats'):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, collection)['toy'],
                     getattr(before, collection)['toy'])
        first, last = (jax.tree.leaves(getattr(state, collection)['late'])[0] for state in (before, after))
        assert not np.array_equal(first, last)
    assert set(after.averaged['params']) == {'toy', 'late'}


def test_l2_leaves_parameters_without_gradient_alone():
    """As in torch's Adam, which skips such a parameter; Adam would turn the decay into full steps."""
    params = Vector.of({'used': jnp.array([1.0, 2.0]), 'unused': jnp.array([3.0, 4.0])})
    optimizer = state_lib.make_optimizer(OptimizerConfig(l2=1e-7))
    gradient = Vector.of({'used': jnp.array([0.0, 1e-3]), 'unused': jnp.zeros(2)})
    update = optimizer.update(gradient, optimizer.init(params), params)[0].tree()
    np.testing.assert_array_equal(update['unused'], 0)
    # l2 * 1 / (l2 * 1 + eps), with eps 1e-8: one entry of a used parameter may well have no gradient.
    np.testing.assert_allclose(update['used'][0], 1e-7 / (1e-7 + 1e-8), rtol=1e-4)
