"""DR-DiffuSE as a system: the training of every stage against the original PyTorch code, and its contract."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_diffse import convert
from jax_diffse.convert import layouts
from jax_diffse.diffusion import ddpm
from jax_diffse.systems.dr_diffuse import TRAINING, VALIDATION_GRID, DrDiffuse
from jax_diffse.training import state as training
from tests import reference

LEARNING_RATE = 1e-3  # of the released code, as the L2 of OptimizerConfig's default
# As the released code: padding frames take part, the released guidance, and the training stages of the fixtures.
RELEASED = {'mask_padding': False, 'guidance': 'released'}
SYSTEMS = {
    'base_train': DrDiffuse(**RELEASED),
    'diffuse_train': DrDiffuse('diffusion', **RELEASED),
    'diffusec_train': DrDiffuse('diffusion', denoiser='diffusec', condition='noisy', **RELEASED),
    'refiner_train': DrDiffuse('refiner', **RELEASED),
}


def to_jax(x):
    return jnp.moveaxis(jnp.asarray(x), 1, -1)


def to_torch(x):
    return np.moveaxis(np.asarray(x), -1, 1)


def make_batch(feats, labels, frames):
    """A batch whose waveforms have so many frames, with the spectra as they are."""
    return {'noisy_spec': to_jax(feats), 'clean_spec': to_jax(labels), 'num_samples': (jnp.asarray(frames) - 1) * 160}


@dataclasses.dataclass(frozen=True)
class Step:
    """One training step of a stage with everything random given, and what came of it."""

    system: DrDiffuse
    group: str
    variables: Any
    batch: Any
    random: tuple  # of the loss: (t, noise), the draws, or nothing
    gradient: Any
    batch_stats: Any
    metrics: Any

    def in_torch(self, collection: str, tree) -> dict[str, np.ndarray]:
        kind = 'dr-diffuse-diffusec' if self.system.denoiser == 'diffusec' else 'dr-diffuse-diffuse'
        kind = {'c_gen': 'dr-diffuse-base', 'refiner': 'dr-diffuse-refiner'}.get(self.group, kind)
        return layouts.to_torch(convert.KINDS[kind].entries(), {collection: {self.group: tree}})


def loss_of(system: DrDiffuse, random: tuple) -> Callable:
    """The loss of the system's stage with its random numbers given."""
    if system.stage == 'c_gen':
        return system.losses['c_gen']
    if system.stage == 'diffusion':
        return lambda variables, batch, key: system.denoiser_loss(variables, batch, *random)
    return lambda variables, batch, key: system.refiner_loss(variables, batch, recorded(random[0], system.steps))


def recorded(noise, steps: int) -> ddpm.Draw:
    """The draws `[2 S - 1, B, ...]` in the order of the released code: the start, then two per step but the last."""
    def draw(level, which):
        return noise[0 if which == ddpm.START else 1 + 2 * (steps - 1 - level) + (which == ddpm.GUIDANCE)]

    return draw


def take_step(system: DrDiffuse, variables, batch, random: tuple = ()) -> Step:
    """One replica's gradient, statistics and metrics."""
    group = next(iter(system.losses))

    @jax.jit
    def gradient(variables, batch, random):
        keys = jax.random.split(jax.random.key(0), 2)

        def replica(batch, random):
            return training.group_gradient(loss_of(system, random), group, variables, batch, keys, accumulate=1)

        given = jax.tree.map(lambda x: x[None], (batch, random))
        result = jax.vmap(replica, axis_name=training.AXIS)(*given)
        return jax.tree.map(lambda x: x[0], result)

    random = jax.tree.map(jnp.asarray, random)
    return Step(system, group, variables, batch, random, *gradient(variables, batch, random))


@functools.partial(jax.jit, static_argnums=(0, 1))
def train_output(system, group, variables, *inputs):
    own = {collection: groups[group] for collection, groups in variables.items()}
    return system._network(group).apply(own, *inputs, train=True, mutable=['batch_stats'])[0]


def merge(*trees):
    """Converted groups -> one variables tree."""
    return {collection: functools.reduce(dict.__or__, (tree[collection] for tree in trees)) for collection in trees[0]}


def adam_step(params, gradient):
    """The difference that the first step makes."""
    optimizer = training.make_optimizer(training.OptimizerConfig())
    direction, _ = optimizer.update(gradient, optimizer.init(params), params)
    return jax.tree.map(lambda d: -LEARNING_RATE * d, direction)


@functools.cache
def fixture_step(case: str) -> tuple[reference.Fixture, Step]:
    """The step of a case of the fixtures."""
    fixture = reference.load('dr_diffuse_sampling' if case == 'refiner_train' else 'dr_diffuse_nets')
    batch = make_batch(*(fixture.inputs[f'{case}/{key}'] for key in ('feats', 'labels', 'frame_list')))
    parts = {'base_train': {'dr-diffuse-base': 'base_train/'},
             'diffuse_train': {'dr-diffuse-base': 'c_gen/', 'dr-diffuse-diffuse': 'diffuse_train/'},
             'diffusec_train': {'dr-diffuse-diffusec': 'diffusec_train/'},
             'refiner_train': {'dr-diffuse-base': 'c_gen/', 'dr-diffuse-diffuse': 'diffuse/',
                               'dr-diffuse-refiner': 'refiner_train/'}}[case]
    variables = merge(*(convert.from_torch(kind, fixture.state_dict(prefix)) for kind, prefix in parts.items()))
    random = ()
    if f'{case}/t' in fixture.inputs:
        random = (fixture.inputs[f'{case}/t'], to_jax(fixture.inputs[f'{case}/noise'][0]))
    elif f'{case}/noise' in fixture.inputs:
        random = (np.stack([to_jax(draw) for draw in fixture.inputs[f'{case}/noise']]),)
    return fixture, take_step(SYSTEMS[case], variables, batch, random)


@pytest.mark.parity
@pytest.mark.parametrize('case', SYSTEMS)
def test_training_loss_gradient_and_statistics(case):
    fixture, step = fixture_step(case)
    fixture.check(f'{case}/loss', step.metrics['loss'])
    fixture.check_table(f'{case}/bn', step.in_torch('batch_stats', step.batch_stats[step.group]))
    gradient = step.in_torch('params', step.gradient)
    unused = set(gradient) - set(fixture.names(f'{case}/grad'))
    assert unused == {name for name in gradient if name.startswith('c_deliver.de_') and '.de1.' in name}
    assert not any(np.any(gradient.pop(name)) for name in unused)
    fixture.check_table(f'{case}/grad', gradient, relative=1e-2, of_largest=1e-6)
    # Single slopes may differ where an input crosses zero between two correct computations; the rest agrees.
    norms = dict(zip(fixture.names(f'{case}/grad'), fixture[f'{case}/grad/fingerprint'][:, 0], strict=True))
    errors = [abs(np.linalg.norm(gradient[name]) - norm) / norm for name, norm in norms.items()
              if norm > 1e-6 * max(norms.values())]
    assert np.quantile(errors, 0.98) < 1e-3


@pytest.mark.parity
def test_training_output_of_c_gen():
    fixture, step = fixture_step('base_train')
    output = train_output(step.system, step.group, step.variables, step.batch['noisy_spec'])
    fixture.check('base_train/est_comp', to_torch(output))


@pytest.mark.parity
@pytest.mark.parametrize('case', ['diffuse_train', 'diffusec_train'])
def test_training_input_and_output_of_the_denoisers(case):
    fixture, step = fixture_step(case)
    t, noise = step.random
    x_t = ddpm.diffuse(step.batch['clean_spec'], noise, jnp.asarray(TRAINING.alpha_bar, jnp.float32)[t])
    fixture.check(f'{case}/x_t', to_torch(x_t))
    condition = step.batch['noisy_spec']
    if case == 'diffuse_train':
        condition = jax.jit(step.system._condition)(step.variables, condition, None)
        fixture.check(f'{case}/condition', to_torch(condition))
    output = train_output(step.system, step.group, step.variables, x_t, condition, t)
    fixture.check(f'{case}/est_noise', to_torch(output))


@pytest.mark.parity
def test_training_input_and_output_of_the_refiner():
    fixture, step = fixture_step('refiner_train')
    system, spec = step.system, step.batch['noisy_spec']

    @jax.jit
    def refiner_input(variables, spec, noise):
        condition = system._condition(variables, spec, None)
        x = system._sample(variables, condition, None, recorded(noise, system.steps))
        return system._refiner_input(x, spec)

    x = refiner_input(step.variables, spec, step.random[0])
    fixture.check('refiner_train/refiner_in', to_torch(x))
    fixture.check('refiner_train/est_comp', to_torch(train_output(system, step.group, step.variables, x)))


@pytest.mark.parity
def test_optimizer_step():
    """With small gradients, where gradient, L2 and epsilon all count and the step is a smooth function."""
    fixture, step = fixture_step('base_train')
    update = adam_step(step.variables['params']['c_gen'], jax.tree.map(lambda g: 1e-5 * g, step.gradient))
    fixture.check_table('base_train/update', step.in_torch('params', update), relative=1e-4)


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
def test_golden_training_step_of_c_gen():
    golden = reference.load_golden('dr_diffuse/train_base.npz')
    variables = golden_variables('dr-diffuse-base=base.pth')
    step = take_step(SYSTEMS['base_train'], variables, golden_batch(golden))
    golden.check('loss', step.metrics['loss'])
    output = train_output(step.system, step.group, step.variables, step.batch['noisy_spec'])
    golden.check('est_comp_train', to_torch(output))
    for name, value in step.in_torch('batch_stats', step.batch_stats['c_gen']).items():
        golden.check(f'buffer/{name}', value)
    after = optax.apply_updates(variables['params']['c_gen'], adam_step(variables['params']['c_gen'], step.gradient))
    check_golden_gradient(golden, step.in_torch('params', step.gradient))
    check_golden_step(golden, step.in_torch('params', step.gradient), step.in_torch('params', after))


@pytest.mark.parity
@pytest.mark.parametrize(('name', 'case', 'files'), [
    ('train_ddpm_diffuse', 'diffuse_train', ('dr-diffuse-base=base.pth', 'dr-diffuse-diffuse=diffuse.pth')),
    ('train_ddpm_diffusec', 'diffusec_train', ('dr-diffuse-diffusec=diffusec.pth',)),
    ('train_refiner', 'refiner_train',
     ('dr-diffuse-base=base.pth', 'dr-diffuse-diffuse=diffuse.pth', 'dr-diffuse-refiner=refiner.pth')),
])
def test_golden_training_step_of_the_later_stages(name, case, files):
    golden = reference.load_golden(f'dr_diffuse/{name}.npz')
    if 't' in golden:
        random = (golden['t'], to_jax(golden['noise']))
    else:
        random = (np.moveaxis(golden['noise'], 2, -1),)
    step = take_step(SYSTEMS[case], golden_variables(*files), golden_batch(golden), random)
    golden.check('loss', step.metrics['loss'])
    gradient = step.in_torch('params', step.gradient)
    statistics = step.in_torch('batch_stats', step.batch_stats[step.group])
    for key in golden.keys():
        what, _, weight = key.partition('/')
        if what == 'grad':
            stored = golden[key]
            reference.assert_close(gradient[weight], stored, 1e-2 * np.max(np.abs(stored)), key)
        elif what == 'buffer' and weight in statistics:
            golden.check(key, statistics[weight])


def golden_variables(*files: str):
    pairs = [file.split('=') for file in files]
    return merge(*(convert.from_torch(kind, convert.read_state_dict(reference.golden(f'dr_diffuse/{name}')))
                   for kind, name in pairs))


def golden_batch(golden):
    return make_batch(golden['feats'], golden['labels'], golden['frame_list'])


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


def test_enhance_refuses_what_it_does_not_do():
    noisy, lengths = random_waves(*LENGTHS)
    with pytest.raises(ValueError, match='stage c_gen does not take sampling steps'):
        SMALL.enhance({}, noisy, lengths, None, steps=6)
    with pytest.raises(ValueError, match='stage refiner does not take a preceding enhancement'):
        CHAIN.enhance({}, noisy, lengths, None, processed=noisy)


CHAIN = DrDiffuse('refiner', channels=4, temporal_groups=1, steps=2)


@pytest.fixture(scope='module')
def chain_variables():
    return reference.random_variables(jax.eval_shape(CHAIN.init, jax.random.key(0)))


@functools.partial(jax.jit, static_argnames=('system', 'steps'))
def enhance_stages(system, variables, noisy, num_samples, seeds, steps=None):
    return system.enhance_stages(variables, noisy, num_samples, jax.vmap(jax.random.key)(seeds), steps=steps)


def test_stages_of_the_chain_do_not_see_padding_or_neighbours(chain_variables):
    """Also the noise of the sampler: it follows from a waveform's own key, whatever the padded length."""
    noisy, lengths = random_waves(*LENGTHS)
    together = enhance_stages(CHAIN, chain_variables, noisy, lengths, jnp.array([1, 2]))
    assert set(together) == {'condition', 'diffusion', 'refined'}
    alone = enhance_stages(CHAIN, chain_variables, noisy[1:, :960], lengths[1:], jnp.array([2]))
    other = enhance_stages(CHAIN, chain_variables, noisy[1:, :960], lengths[1:], jnp.array([3]))
    for name, waveform in together.items():
        assert waveform.shape == noisy.shape and not np.any(waveform[1, 960:])
        assert np.std(waveform[1]) > 1e-3  # the comparison means something
        np.testing.assert_allclose(waveform[1, :960], alone[name][0], atol=1e-4)
        assert np.any(np.abs(alone[name] - other[name]) > 1e-4) == (name != 'condition')


def test_stages_are_what_they_are_said_to_be(chain_variables):
    """The chain's first stages are those of the runs before it, and `enhance` is the last."""
    noisy, lengths = random_waves(*LENGTHS)
    key = jax.vmap(jax.random.key)(jnp.array([1, 2]))
    for stage, names in (('c_gen', ['condition']), ('diffusion', ['condition', 'diffusion']),
                         ('refiner', ['condition', 'diffusion', 'refined'])):
        system = dataclasses.replace(CHAIN, stage=stage)
        shapes = jax.eval_shape(system.enhance_stages, chain_variables, noisy, lengths, key)
        assert set(shapes) == set(names)
        groups = {'c_gen': {'c_gen'}, 'diffusion': {'c_gen', 'denoiser'},
                  'refiner': {'c_gen', 'denoiser', 'refiner'}}[stage]
        assert set(jax.eval_shape(system.init, jax.random.key(0))['params']) == groups
        assert system.default_steps == (None if stage == 'c_gen' else 2)


def test_the_last_stage_is_the_refiner_on_half_sample_half_noisy(chain_variables):
    system = dataclasses.replace(CHAIN, stage='diffusion')
    noisy, lengths = random_waves(1600)
    spec, frames = CHAIN.front_end.analyze(noisy, lengths), jnp.array([11])
    key = jax.vmap(jax.random.key)(jnp.array([1]))
    sample = jax.jit(system._estimates, static_argnums=4)(chain_variables, spec, frames, key, 2)['diffusion']
    expected = jax.jit(CHAIN._apply, static_argnums=0)('refiner', chain_variables, frames, (sample + spec) / 2)
    actual = jax.jit(CHAIN._estimates, static_argnums=4)(chain_variables, spec, frames, key, 2)['refined']
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert np.max(np.abs(sample - spec)) > 0.1


def test_number_of_steps_is_checked(chain_variables):
    noisy, lengths = random_waves(*LENGTHS)
    with pytest.raises(ValueError, match='expected 1 to 200 sampling steps, got 201'):
        CHAIN.enhance_stages(chain_variables, noisy, lengths, jax.random.split(jax.random.key(0), 2), steps=201)


def test_validation_of_the_denoiser_is_fixed(chain_variables, monkeypatch):
    """Steps from a grid over the whole schedule, by the example's index; noise from its key: no draw of its own."""
    system = dataclasses.replace(CHAIN, stage='diffusion')
    seen = {}

    def record(variables, batch, t, noise, train):
        seen.update(t=t, noise=noise, train=train)

    monkeypatch.setattr(DrDiffuse, 'denoiser_loss', lambda self, *args: record(*args))
    batch = {'clean_spec': jnp.zeros((9, 2, 161, 2)), 'index': jnp.arange(9)}
    keys = jax.random.split(jax.random.key(0), 9)
    system.losses['denoiser'](chain_variables, batch, keys, train=False)
    np.testing.assert_array_equal(seen['t'], [12, 37, 62, 87, 112, 137, 162, 187, 12])  # 25 apart, in the middle
    assert VALIDATION_GRID == 8 and not seen['train']
    first = seen['noise']
    system.losses['denoiser'](chain_variables, batch, keys, train=True)
    np.testing.assert_array_equal(seen['noise'], first)
    assert len(set(np.asarray(seen['t']).tolist())) > 4 and np.all((seen['t'] >= 0) & (seen['t'] < 200))


def test_evaluation_loss_uses_stored_statistics_and_weighs_by_frames(variables):
    noisy, _ = random_waves(1600, 1600)
    spec = SMALL.front_end.analyze(noisy, jnp.array([1600, 1600]))
    batch = {'noisy_spec': spec, 'clean_spec': 0.5 * spec, 'num_samples': jnp.array([1600, 0])}
    out = evaluation_loss(variables, batch)
    np.testing.assert_array_equal(out.weight, [11, 0])  # the second one only fills the batch
    jax.tree.map(np.testing.assert_array_equal, out.batch_stats, variables['batch_stats'])
    other = evaluation_loss(variables, {**batch, 'noisy_spec': spec.at[1].set(7.0)})
    np.testing.assert_allclose(out.loss[0], other.loss[0], rtol=1e-5)


@pytest.mark.parametrize(('field', 'value'), [
    ('stage', 'c'), ('dtype', 'float16'), ('compression', 'cube'), ('denoiser', 'unet'), ('condition', 'clean'),
    ('schedule', 'slow'), ('start', 'zero'), ('guidance', 'x')])
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f'{field} must be one of .*{value!r}'):
        DrDiffuse(**{field: value})


@pytest.mark.parametrize(('fields', 'message'), [
    ({'steps': 0}, 'expected 1 to 200 sampling steps, got 0'),
    ({'guidance_weight': 1.5}, 'guidance weight 1.5 is out of range'),
    ({'guidance': 'gradient', 'guidance_weight': 5.0}, '2 w sigma\\^2 reaches 1.70 with 6 steps, expected at most 1'),
    ({'refiner_mix': 2.0}, 'refiner_mix must be between 0 and 1, got 2')])
def test_numbers_out_of_range_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        DrDiffuse(**fields)
