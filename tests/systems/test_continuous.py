"""SGMSE+, the Schroedinger bridge and FlowSE as systems, against the authors' losses, gradients and enhancement."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse import config, systems
from jax_diffse.conversion import layouts
from jax_diffse.conversion import ncsnpp as conversion
from jax_diffse.diffusion import ddpm
from jax_diffse.diffusion.preconditioning import Preconditioning
from jax_diffse.diffusion.processes import Ouve
from jax_diffse.errors import UserError
from jax_diffse.inference.enhancer import Enhancer
from jax_diffse.networks.ncsnpp import NcsnppConfig
from jax_diffse.runs import Run
from jax_diffse.systems import continuous
from jax_diffse.systems.base import LossOutput, System, shapes
from jax_diffse.systems.bridge import SchroedingerBridge
from jax_diffse.systems.continuous import GROUP
from jax_diffse.systems.flowse import FlowSe
from jax_diffse.systems.sgmse import Sgmse
from jax_diffse.training import state as state_lib
from jax_diffse.training.parallel import Parallel
from tests import reference
from tests.diffusion.released import turned
from tests.systems.continuous import Compiled, jit, system_of, training, variables_of

CASES = ('score', 'score_v2', 'score_t', 'score_edm', 'denoiser', 'denoiser_sigma', 'denoiser_edm', 'bridge',
         'bridge_l1', 'bridge_one', 'bridge_edm', 'bridge_sigma', 'flow', 'flow_mae')
GRADIENTS = ('score', 'bridge_l1', 'flow', *(pytest.param(case, marks=pytest.mark.slow) for case in (
    'score_edm', 'denoiser_edm', 'bridge_one')))


@functools.cache
def losses(case, gradient=False):
    """Losses `[B]`, and the gradient of their mean. Only the network is compiled, once for all cases."""
    system, variables, batch, t, noise = training(case)

    def mean(params):
        found = system.terms({'params': {GROUP: params}, 'batch_stats': {}}, batch, t, noise)['loss']
        return jnp.mean(found), found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(continuous, 'Ncsnpp', Compiled)
        if not gradient:
            return mean(variables['params'][GROUP])[1], None
        (_, found), slope = jax.value_and_grad(mean, has_aux=True)(variables['params'][GROUP])
    return found, slope


@pytest.mark.parity
@pytest.mark.parametrize('case', CASES)
def test_released_losses(case):
    fixture = reference.load('sgmse_training')
    fixture.check(f'{case}/loss', jnp.mean(losses(case)[0]))


@pytest.mark.parity
@pytest.mark.parametrize('case', GRADIENTS)
def test_released_gradients(case):
    fixture = reference.load('sgmse_training')
    system = training(case)[0]
    entries = conversion.entries(system.network, system.front_end.num_bins)
    found = layouts.to_torch(entries, {'params': losses(case, True)[1]})
    np.testing.assert_array_equal(found.pop(conversion.FROZEN), 0)
    fixture.check_table(f'grad/{case}', found, of_largest=1e-6)


class Linear(System):
    """A loss whose gradient is that of a fixture's case, times a factor in the batch."""

    sample_rate, front_end = 16_000, None

    def __init__(self, params, gradient):
        self.params, self.gradient = params, gradient

    def init(self, key):
        return {'params': {GROUP: self.params}}

    @property
    def losses(self):
        def loss(variables, batch, key):
            products = jax.tree.map(lambda p, g: jnp.sum(p * g), variables['params'][GROUP], self.gradient)
            return LossOutput(batch['factor'] * sum(jax.tree.leaves(products)), jnp.ones(len(key)), {}, {})

        return {GROUP: loss}

    def gain(self, noisy, num_samples):
        return jnp.ones(len(noisy))

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        return {'enhanced': noisy}


@pytest.mark.parity
def test_released_steps_of_adam_and_of_the_averages():
    """With gradients so small that Adam's epsilon matters, half of them in the second step."""
    fixture = reference.load('sgmse_training')
    given, (system, variables, *_) = fixture.json('config'), training('score')
    params = jax.device_get(variables['params'][GROUP])
    linear = Linear(params, jax.device_get(losses('score', True)[1]))
    optimizer = state_lib.OptimizerConfig(learning_rate=given['adam_lr'], l2=0.0)
    parallel = Parallel(devices=jax.devices()[:1])
    step = parallel.map(state_lib.make_train_step(linear, optimizer, steps=2, seed=0, ema_decay=given['ema_decay']))
    state = parallel.replicate(state_lib.create(linear, optimizer, given['ema_decay'], linear.init(None)))
    for factor in (1.0, 0.5):
        batch = {'factor': np.float32([given['gradient_scale'] * factor]), 'num_samples': np.ones(1, np.int32)}
        state, _ = step(state, parallel.shard(batch))
    entries = conversion.entries(system.network, system.front_end.num_bins)
    for key, variables in (('step/update', state.variables), ('step/ema', state.averaged)):
        change = jax.tree.map(np.subtract, jax.device_get(variables['params'][GROUP]), params)
        found = layouts.to_torch(entries, {'params': change})
        np.testing.assert_array_equal(found[conversion.FROZEN], 0)  # averages too, to the last bit
        fixture.check_table(key, {name: found[name] for name in fixture.names(key)}, of_largest=1e-5)


ENHANCED = {'ouve': ('sgmse', 'ncsnpp', 'tiny'), 'sb': ('bridge', 'ncsnpp_v2', 'tiny_v2'),
            'flow': ('flowse', 'ncsnpp', 'tiny')}


@pytest.mark.parity
@pytest.mark.parametrize('case', ENHANCED)
def test_released_enhancement(case, monkeypatch):
    """From wave to wave, with the recorded draws in their order of use: that of falling levels."""
    fixture, (kind, backbone, prefix) = reference.load('sgmse_sampling'), ENHANCED[case]
    given = fixture.json('config')
    sizes = {name: value for name, value in given['tiny'].items() if name != 'image_size'}
    loss = {'sb': {'loss_type': 'data_prediction'}}.get(case, {})
    changes = {'padding': 'zeros'} | ({'released': True} if case == 'sb' else {})
    system = system_of(kind, {'backbone': backbone, 'N': given['enhance'][case], **sizes, **loss}, **changes)
    if f'draws/enhance_{case}' in fixture.inputs:
        noise = jnp.asarray(turned(fixture.inputs[f'draws/enhance_{case}']))[::-1]
        monkeypatch.setattr(ddpm, 'frame_draws', lambda key, shape: lambda level, which: noise[level % len(noise)])
    noisy = jnp.asarray(fixture.inputs['wave_short'])[None]
    out = jit(lambda variables: system.enhance(variables, noisy, jnp.array([noisy.shape[1]]), None))(
        variables_of(system, fixture.state_dict(f'{prefix}.')))
    fixture.check(f'enhance/{case}', out[0])


def test_default_hyper_parameters_make_the_published_systems():
    """What a checkpoint leaves out is what the configs and the systems' own defaults have."""
    for kind, backbone, loss in (('sgmse', 'ncsnpp', {}), ('bridge', 'ncsnpp_v2', {'loss_type': 'data_prediction'}),
                                 ('flowse', 'ncsnpp', {})):
        assert system_of(kind, {'backbone': backbone, **loss}) == built(kind) == type(built(kind))()
    assert system_of('sgmse', {'backbone': 'ncsnpp_48k'}) == built('sgmse:48k')


def built(name):
    loaded = config.load(name)
    return systems.build(loaded.system, loaded.model)


# ------------------------------------------------------------------------------------------------------ enhancement

SIZES = {'network': NcsnppConfig(8, (1, 1), 1, ()), 'n_fft': 62, 'hop': 16}
V2 = {**SIZES, 'network': dataclasses.replace(SIZES['network'], division='none')}
SYSTEMS = {'sgmse': Sgmse(**SIZES, steps=2), 'sgmse, langevin': Sgmse(**SIZES, steps=2, corrector='langevin'),
           'sgmse, bbed': Sgmse(**SIZES, steps=2, process='bbed', t_max=0.999),
           'sgmse, flow': Sgmse(**SIZES, steps=2, sampler='heun'), 'bridge': SchroedingerBridge(**V2, steps=2),
           'bridge, sde': SchroedingerBridge(**V2, steps=2, sampler='sde'), 'flowse': FlowSe(**SIZES, steps=2),
           'flowse, heun': FlowSe(**SIZES, steps=2, sampler='heun')}
EVALUATIONS = {'sgmse': 4, 'sgmse, langevin': 4, 'sgmse, bbed': 4, 'sgmse, flow': 3, 'bridge': 2, 'bridge, sde': 2,
               'flowse': 2, 'flowse, heun': 3}


@functools.cache
def variables_for(name):
    return reference.random_variables(shapes(SYSTEMS[name]))


@functools.cache
def enhancer(name):
    system = SYSTEMS[name]
    return jit(lambda noisy, lengths, keys: system.enhance(variables_for(name), noisy, lengths, keys))


def speech(length, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(length) * np.abs(np.sin(np.arange(length) / 200))).astype(np.float32)


def keys(*seeds):
    return jnp.stack([jax.random.key(seed) for seed in seeds])


LENGTHS = np.array([500, 300, 20])


def recordings(length=600, first_seed=0):
    noisy = np.zeros((3, length), np.float32)
    for i, own in enumerate(LENGTHS):
        noisy[i, :own] = speech(own, seed=first_seed + i)
    return noisy


@pytest.mark.parametrize('name', SYSTEMS)
def test_output_scales_with_the_input(name):
    noisy, lengths = recordings(), jnp.asarray(LENGTHS)
    out = np.asarray(enhancer(name)(noisy, lengths, keys(0, 1, 2)))
    assert np.std(out[0]) > 1e-3
    for scale in (1e-4, 3.0):
        scaled = enhancer(name)(np.float32(scale) * noisy, lengths, keys(0, 1, 2))
        np.testing.assert_allclose(scaled, scale * out, rtol=0, atol=1e-4 * scale * np.max(np.abs(out)))


@pytest.mark.parametrize('name', SYSTEMS)
def test_a_recording_does_not_depend_on_the_rest_of_its_batch(name):
    out = np.asarray(enhancer(name)(recordings(), jnp.asarray(LENGTHS), keys(0, 1, 2)))
    other = recordings(first_seed=5) * np.float32(3)
    other[1] = recordings()[1]
    found = enhancer(name)(other, jnp.array([600, LENGTHS[1], 1]), keys(7, 1, 8))
    np.testing.assert_allclose(found[1], out[1], rtol=0, atol=1e-4 * np.max(np.abs(out[1])))
    for i, length in enumerate(LENGTHS):
        assert not np.any(out[i, length:])


@pytest.mark.parametrize('name', ['sgmse', 'bridge, sde', 'flowse'])
def test_a_recording_does_not_depend_on_padding(name):
    out = np.asarray(enhancer(name)(recordings(), jnp.asarray(LENGTHS), keys(0, 1, 2)))
    alone = enhancer(name)(recordings()[1:2, :LENGTHS[1]], jnp.asarray(LENGTHS[1:2]), keys(1))
    np.testing.assert_allclose(out[1, :LENGTHS[1]], alone[0], rtol=0, atol=1e-4 * np.max(np.abs(alone)))


@pytest.mark.parametrize('name', SYSTEMS)
def test_steps_are_evaluations_of_the_network(name):
    """Those of the system's rule, and those that a run makes; with a line in place of the network."""
    system, seen = SYSTEMS[name], []
    assert system.evaluations(2) == EVALUATIONS[name]

    class Counting(type(system)):
        def apply(self, variables, num_frames):
            def counted(x, noisy, t):
                jax.debug.callback(lambda t: seen.append(t), t, ordered=True)
                return noisy - x

            return counted

    counting = Counting(**{field.name: getattr(system, field.name) for field in dataclasses.fields(system)})
    jit(lambda: counting.enhance({}, speech(100)[None], jnp.array([100]), keys(0)))()
    jax.effects_barrier()
    assert len(seen) == EVALUATIONS[name]


def test_chunks_of_a_recording_have_its_peak():
    """The first chunk depends on the peak of the second, and on nothing else of it."""
    system = dataclasses.replace(SYSTEMS['sgmse'], sample_rate=1000)
    run = Run(system, variables_for('sgmse'), None, 0, '', 'none')
    enhance = Enhancer(run, chunk_seconds=1.0, overlap_seconds=0.0)
    noisy = np.concatenate([0.01 * speech(1000, 1), speech(1000, 2)])
    whole = enhance(noisy, 1000)
    assert system.level == 'peak'
    found = {}
    for name, peak in (('of the whole', np.max(np.abs(noisy))), ('of the chunk', np.max(np.abs(noisy[:1000])))):
        levelled = np.concatenate([noisy[:1000], np.full(1000, peak, np.float32)])  # another second half
        found[name] = enhance(levelled, 1000)
    scale = np.max(np.abs(whole[:1000]))
    np.testing.assert_allclose(found['of the whole'][:1000], whole[:1000], rtol=0, atol=1e-5 * scale)
    assert np.max(np.abs(found['of the chunk'][:1000] - whole[:1000])) > 0.05 * scale


@pytest.mark.parametrize('name', ['sgmse', 'bridge', 'flowse'])
def test_silence_stays_silent(name):
    run = Run(SYSTEMS[name], variables_for(name), None, 0, '', 'none')
    assert not np.any(Enhancer(run)(np.zeros(2000, np.float32), 16_000))


def test_the_output_of_a_preceding_enhancer_can_take_the_place_of_noisy_speech():
    """One after the other is the same as both at once."""
    follower = dataclasses.replace(SYSTEMS['flowse'], condition='preceding')
    alone, run = (Run(system, variables_for('flowse'), None, 0, '', 'none') for system in (SYSTEMS['flowse'], follower))
    first = Run(SYSTEMS['bridge'], variables_for('bridge'), None, 0, '', 'none')
    noisy = speech(2000)
    expected = Enhancer(alone)(Enhancer(first)(noisy, 16_000), 16_000)
    found = Enhancer(run, preceding=first)(noisy, 16_000)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.max(np.abs(expected)))
    with pytest.raises(UserError, match='FlowSe refines the output of another enhancer'):
        Enhancer(run)(noisy, 16_000)
    with pytest.raises(UserError, match='refines the output of another enhancer itself'):
        Enhancer(run, preceding=run)


def test_bfloat16_is_close_to_float32():
    system = SYSTEMS['flowse']
    low = dataclasses.replace(system, network=dataclasses.replace(system.network, dtype='bfloat16'))
    args = recordings(), jnp.asarray(LENGTHS), keys(0, 1, 2)
    out = np.asarray(enhancer('flowse')(*args))
    found = np.asarray(jit(lambda: low.enhance(variables_for('flowse'), *args))())
    assert found.dtype == np.float32
    assert 0 < np.sqrt(np.mean((found - out)**2)) < 0.1 * np.std(out)


def test_padding_by_reflection_changes_the_end_alone():
    """The frames behind the last one meet the last half window."""
    zeros, reflected = SchroedingerBridge(**V2, steps=1, padding='zeros'), SchroedingerBridge(**V2, steps=1)
    noisy, lengths = speech(992)[None], jnp.array([992])  # 63 frames
    variables = jax.tree.map(jnp.zeros_like, variables_for('bridge'))
    zero = dataclasses.replace(zeros, t_min=0.5), dataclasses.replace(reflected, t_min=0.5)  # part of y is left
    a, b = (np.asarray(jit(lambda system=system: system.enhance(variables, noisy, lengths, keys(0)))())[0]
            for system in zero)
    np.testing.assert_allclose(a[:-31], b[:-31], rtol=0, atol=1e-6)
    assert np.max(np.abs(a[-31:] - b[-31:])) > 1e-4


# --------------------------------------------------------------------------------------------------------- training


def batch_of(system, lengths, length=400):
    """A batch of the data pipeline."""
    real = np.arange(length) < np.asarray(lengths)[:, None]
    clean = np.stack([speech(length, seed) for seed in range(len(lengths))]) * real
    noisy = clean + np.float32(0.05) * np.random.default_rng(9).standard_normal(clean.shape).astype(np.float32) * real
    num_samples = jnp.asarray(lengths)
    gain = system.front_end.gain(jnp.asarray(noisy), num_samples)[:, None]
    waves = {'clean': jnp.asarray(clean) * gain, 'noisy': jnp.asarray(noisy) * gain}
    specs = {f'{name}_spec': system.front_end.analyze(wave, num_samples) for name, wave in waves.items()}
    return {**waves, **specs, 'num_samples': num_samples, 'index': jnp.arange(len(lengths))}


@pytest.mark.parametrize('name', ['sgmse', 'bridge', 'flowse'])
def test_the_loss_of_an_example_does_not_depend_on_padding_or_on_the_batch(name, monkeypatch):
    system, variables = SYSTEMS[name], variables_for(name)
    monkeypatch.setattr(continuous, 'Ncsnpp', Compiled)

    def loss(batch, keys):
        return system.losses[GROUP](variables, batch, keys, train=False)

    together = loss(batch_of(system, [400, 300, 0]), keys(0, 1, 2))
    np.testing.assert_array_equal(together.weight, [1, 1, 0])
    assert np.all(np.isfinite(together.loss))
    padded = {key: jnp.pad(value, [(0, 0), (0, {2: 160, 4: 10}[value.ndim])] + [(0, 0)] * (value.ndim - 2))
              if value.ndim > 1 else value for key, value in batch_of(system, [400, 300, 0]).items()}
    np.testing.assert_allclose(loss(padded, keys(0, 1, 2)).loss[:2], together.loss[:2], rtol=1e-5)
    other = {key: jnp.concatenate([value[1:2], value[:1], value[:1]]) for key, value in
             batch_of(system, [400, 300, 0]).items()}
    np.testing.assert_allclose(loss(other, keys(1, 5, 6)).loss[0], together.loss[1], rtol=1e-5)


def test_training_draws_times_over_the_whole_range_and_validation_from_a_grid():
    """The loss of a score that is zero is 0.5 sum |z|^2, so what is seen is the time."""
    seen = []

    class Watching(Sgmse):
        def terms(self, variables, batch, t, noise, axis_name=None):
            seen.append(t)
            return {'loss': jnp.mean(noise**2, axis=(1, 2, 3))}

    system = Watching(**SIZES)
    batch = {name: jnp.repeat(value, 64, axis=0) for name, value in batch_of(system, [400]).items()}
    batch['index'] = jnp.arange(64)
    for train in (True, False):
        out = system.losses[GROUP]({'batch_stats': {}}, batch, keys(*range(64)), train=train)
        np.testing.assert_allclose(np.mean(out.loss), 0.5, rtol=0.02)  # of each part
    drawn, grid = (np.sort(t) for t in seen)
    assert 0.03 <= drawn[0] < 0.09 and 0.94 < drawn[-1] <= 1
    np.testing.assert_allclose(np.unique(grid), 0.03 + 0.97 * (np.arange(8) + 0.5) / 8, rtol=1e-6)


ONE_LEVEL = {**SIZES, 'network': NcsnppConfig(4, (1,), 1, (), division='none')}


@pytest.mark.slow
@pytest.mark.parametrize('system', [
    Sgmse(**ONE_LEVEL, preconditioning=Preconditioning('denoiser'), loss_weighting='edm', released=True),
    SchroedingerBridge(**ONE_LEVEL)], ids=['sgmse', 'bridge'])
def test_several_devices_make_the_same_step_as_one(system):
    """Also where every example meets the weights of all others, as released."""
    optimizer, batch, metrics = state_lib.OptimizerConfig(l2=0.0), batch_of(system, [400, 300, 400, 0]), []
    for count in (1, 4):
        parallel = Parallel(devices=jax.devices()[:count])
        state = state_lib.create(system, optimizer, 0.0, reference.random_variables(shapes(system)))
        step = parallel.map(state_lib.make_train_step(system, optimizer, steps=1, seed=0))
        _, found = step(parallel.replicate(state), parallel.shard(jax.device_get(batch)))
        metrics.append(jax.device_get(found))
    for key in ('loss', 'gradient_norm'):
        np.testing.assert_allclose(metrics[0][f'{GROUP}/{key}'], metrics[1][f'{GROUP}/{key}'], rtol=1e-4)


def test_the_corrected_weighting_is_that_of_each_example(monkeypatch):
    """w_i L_i with w = (sigma^2 + s^2) / (sigma s)^2, where the released loss is L_i times the sum of all weights."""
    system, variables, batch, t, noise = training('denoiser_edm')
    monkeypatch.setattr(continuous, 'Ncsnpp', Compiled)
    found = dataclasses.replace(system, released=False).terms(variables, batch, t, noise)['loss']
    sigma = Ouve().std(np.asarray(t, np.float64))
    weight = (sigma**2 + 0.01) / (0.1 * sigma)**2
    np.testing.assert_allclose(found, losses('denoiser_edm')[0] * weight / np.sum(weight), rtol=1e-5)


def test_a_network_of_zeros_has_the_loss_of_its_target(monkeypatch):
    """The bridge then estimates silence: 0.5 mean |x_0|^2 + 1e-3 * 0.5 mean |wave|."""
    system = SYSTEMS['bridge']
    batch = batch_of(system, [400, 320])
    zeros = jax.tree.map(jnp.zeros_like, variables_for('bridge'))
    t, noise = jnp.full(2, 0.5), jnp.ones_like(system.pair(batch)[0])
    monkeypatch.setattr(continuous, 'Ncsnpp', Compiled)
    found = system.terms(zeros, batch, t, noise)
    frames, samples = np.array([26, 22]), np.array([400, 320])  # 26 and 21 frames, padded to whole pairs
    power = np.sum(np.asarray(batch['clean_spec'])**2, axis=(1, 2, 3)) / (32 * frames)
    np.testing.assert_allclose(found['spectral'], 0.5 * power, rtol=1e-4)
    np.testing.assert_allclose(found['l1'], 0.5 * np.sum(np.abs(batch['clean']), axis=1) / samples, rtol=5e-2)
    np.testing.assert_allclose(found['loss'], found['spectral'] + 1e-3 * found['l1'], rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: Sgmse(padding='wrap'), "padding must be one of ('zeros', 'reflection'), got 'wrap'"),
    (lambda: FlowSe(condition='both'), "condition must be one of ('noisy', 'preceding'), got 'both'"),
    (lambda: Sgmse(n_fft=512), 'n_fft: expected a number of bins, n_fft / 2 + 1, that is a multiple of 64, as the '
                               'network halves them, got n_fft 512 with 257 bins'),
    (lambda: Sgmse(t_eps=1.0), 't_eps: expected a time above 0 and below 1, got 1'),
    (lambda: Sgmse(steps=0), 'expected one or more sampling steps, got 0'),
    (lambda: Sgmse(process='ve'), "process must be one of ('ouve', 'bbed'), got 've'"),
    (lambda: Sgmse(process='bbed'), 't_max: expected less than 1 for bbed'),
    (lambda: Sgmse(sampler='rk45'), "sampler must be one of ('predictor_corrector', 'euler', 'heun'), got 'rk45'"),
    (lambda: Sgmse(preconditioning=Preconditioning('data_prediction')), 'preconditioning.objective must be one of'),
    (lambda: SchroedingerBridge(preconditioning=Preconditioning()), "must be 'data_prediction' in a bridge"),
    (lambda: SchroedingerBridge(preconditioning=Preconditioning('data_prediction', '1/sigma')),
     'preconditioning.network_scaling: 1/sigma is infinite at t = 1'),
    (lambda: SchroedingerBridge(sample_rate=48_000, pesq_weight=5e-4),
     'pesq_weight: expected 0, as PESQ needs 16000 Hz'),
    (lambda: SchroedingerBridge(l1_weight=-1.0), 'l1_weight: expected 0 or more, got -1'),
    (lambda: FlowSe(objective='l1'), "objective must be one of ('mse', 'mae'), got 'l1'"),
    (lambda: FlowSe(sigma_min=1.0), 'expected 0 <= sigma_min < sigma_max'),
    (lambda: FlowSe().check_steps(0), 'expected one or more sampling steps, got 0')])
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
