"""The noise U-Net: the authors' code through the converter, and what enhancement and training must do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import resample

from jax_diffse import config, conversion, systems
from jax_diffse.networks.noise_unet import NoiseUNetConfig
from jax_diffse.spectral import magnitude
from jax_diffse.systems import noise_unet
from jax_diffse.systems.noise_unet import NoiseUnet
from jax_diffse.training import state as state_lib
from jax_diffse.training.parallel import Parallel
from tests import reference
from tests.networks.test_noise_unet import from_keras, in_keras_layout, released

jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
TINY = NoiseUnet(network=NoiseUNetConfig((2, 4, 4)))
RELEASED = NoiseUnet(released=True, overlap=0, amplify=True)
ZERO_MODEL = np.arctanh(-noise_unet.OUTPUT_DB[0] / noise_unet.OUTPUT_DB[1])  # what gives a noise model of 0 dB


@functools.cache
def tiny(system=TINY):
    return system.init(jax.random.key(0))


@functools.cache
def enhancer(system):
    return jit(lambda variables, noisy, num_samples: system.enhance(variables, noisy, num_samples, None))


def constant(value, system=TINY):
    """Variables of a network that returns a noise model of `value` dB everywhere."""
    scaled = (value - noise_unet.OUTPUT_DB[0]) / noise_unet.OUTPUT_DB[1]
    variables = jax.tree.map(jnp.zeros_like, tiny(system))
    variables['params']['unet']['out']['bias'] = jnp.full(1, np.arctanh(scaled))
    return variables


def speech(length, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(length) * np.abs(np.sin(np.arange(length) / 900))).astype(np.float32)


def windows(wave):
    """Whole windows of 8064 samples, as the authors cut them."""
    return np.stack([wave[i:i + 8064] for i in range(0, len(wave) - 8063, 8064)])


def spectrum(wave):
    system = NoiseUnet()
    return system.front_end.analyze(jnp.asarray(wave), jnp.full(len(wave), 8064))


# ----------------------------------------------------------------------------------------------------------- parity


@pytest.mark.parity
def test_levels_phases_and_the_short_inverse_of_the_released_code():
    fixture = reference.load('noise_unet')
    waves = {name: windows(fixture.inputs[name]) for name in ('noisy', 'pause', 'faint')}
    for name, wave in waves.items():
        spec = spectrum(wave)
        level = noise_unet.own_level(magnitude(spec)**2)
        fixture.check(f'{name}/db', from_keras(level))
        power = jnp.sum(spec**2, axis=-1, keepdims=True)
        phase = np.where(power == 0, np.array([1.0, 0.0]), spec / np.sqrt(np.maximum(power, 1e-30)))
        fixture.check(f'{name}/phase', phase.transpose(0, 3, 2, 1))
        if name != 'faint':
            fixture.check(f'{name}/wave', RELEASED.synthesize_released(level, spec))
    level = noise_unet.own_level(magnitude(spectrum(waves['noisy']))**2)
    fixture.check('input', from_keras(np.asarray(level + 46) / 50)[..., None])


@pytest.mark.parity
def test_prediction_of_the_released_code():
    fixture = reference.load('noise_unet')
    variables = {'params': {'unet': released()['params']}, 'batch_stats': {}}
    noisy = np.stack([fixture.inputs['noisy'], np.pad(fixture.inputs['silent'], (0, 12_096))])
    lengths = jnp.array([20_160, 8064])
    out = jax.jit(lambda *args: RELEASED.enhance(*args, None))(variables, jnp.asarray(noisy), lengths)
    fixture.check('predict/out', out[0, :16_128])
    assert not np.any(out[0, 16_128:])  # the last part of a window is dropped
    fixture.check('silent/out', out[1, :8064])  # not silent

    def parts(variables, spec):
        level = noise_unet.own_level(magnitude(spec)**2)
        noise_model = RELEASED.noise_model(variables, level)
        return noise_model, level - noise_model, RELEASED.synthesize_released(level - noise_model, spec)

    noise_model, level, wave = jit(parts)(variables, spectrum(windows(noisy[0])))
    fixture.check('predict/noise_model', from_keras(noise_model))
    fixture.check('predict/db', from_keras(level))
    fixture.check('predict/wave', wave)


def released_mixtures(fixture):
    """The authors' mixing: noise windows every 5000 samples, times a factor."""
    inputs = fixture.inputs
    voice = windows(inputs['voice'])[inputs['id_voice']]
    noise = np.stack([inputs['noise'][5000 * i:5000 * i + 8064] for i in inputs['id_noise']])
    noise = (noise * inputs['level'][:, None]).astype(np.float32)
    return voice, noise, voice + noise


@pytest.mark.parity
def test_target_and_loss_of_the_released_code():
    fixture = reference.load('noise_unet')
    voice, noise, noisy = released_mixtures(fixture)
    fixture.check('data/noise', noise)
    fixture.check('data/noisy', noisy)
    batch = {'clean_spec': spectrum(voice), 'noisy_spec': spectrum(noisy), 'num_samples': jnp.full(2, 8064)}
    clean, level = RELEASED.levels(batch['clean_spec'], batch['noisy_spec'])
    fixture.check('data/input', from_keras(np.asarray(level + 46) / 50)[..., None])
    fixture.check('data/target', from_keras(np.asarray(level - clean - 6) / 82)[..., None])
    variables = {'params': {'unet': released()['params']}, 'batch_stats': {}}
    out = jax.jit(lambda *args: RELEASED.losses['unet'](*args, train=False))(variables, batch, None)
    np.testing.assert_allclose(np.mean(out.loss), fixture['data/loss'], rtol=1e-5)
    np.testing.assert_array_equal(out.weight, 128)


@pytest.mark.parity
def test_two_steps_of_keras_s_adam():
    """On the fixture's batch of another size, through the optimiser of the train step."""
    from jax_diffse.losses.regression import huber
    from jax_diffse.networks.noise_unet import NoiseUNet

    fixture = reference.load('noise_unet')
    x, target = (jnp.asarray(from_keras(fixture.inputs[name])) for name in ('small_x', 'small_target'))
    optimizer = state_lib.make_optimizer(state_lib.OptimizerConfig(l2=0.0, keras=True))
    params = released()['params']
    state = optimizer.init(params)

    @functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 1})
    def step(params, state):
        loss, gradient = jax.value_and_grad(
            lambda own: jnp.mean(huber(NoiseUNet().apply({'params': own}, x), target)))(params)
        updates, state = optimizer.update(gradient, state, params)
        return loss, jax.tree.map(lambda p, u: p - np.float32(1e-3) * u, params, updates), state

    losses = []
    for number in (1, 2):
        loss, new, state = step(params, state)
        change = jax.tree.map(np.subtract, jax.device_get(new), jax.device_get(params))
        fixture.check_table(f'step/update_{number}', in_keras_layout(change), relative=2e-3)
        losses.append(loss)
        params = new
    np.testing.assert_allclose([*losses, step(params, state)[0]], fixture['small/loss'], rtol=2e-5)


def test_converted_weights_make_the_released_system():
    name, fields = conversion.describe({'noise-unet': reference.load('noise_unet').state_dict()})
    trained = config.load('noise_unet:released')
    assert systems.build(name, fields) == systems.build(trained.system, trained.model) == RELEASED


# ------------------------------------------------------------------------------------------------------ enhancement


@pytest.mark.parametrize('system', [TINY, NoiseUnet(16_000, 511, 126, network=NoiseUNetConfig((2, 4, 4)))])
@pytest.mark.parametrize('length', [1, 77, 8064, 20_000])
def test_a_noise_model_of_zero_returns_the_input(system, length):
    noisy = speech(length)[None]
    out = enhancer(system)(constant(0.0, system), noisy, jnp.array([length]))
    np.testing.assert_allclose(out, noisy, atol=2e-6)


def test_the_released_inverse_runs_half_a_sample_early():
    """Against the input resampled to twice the rate; 14.8 dB without the shift (measured on speech by the authors)."""
    wave = resample(np.random.default_rng(0).standard_normal(2016), 8064).astype(np.float32)  # below 1 kHz
    spec = spectrum(wave[None])
    level = noise_unet.own_level(magnitude(spec)**2)
    out = np.asarray(RELEASED.synthesize_released(level, spec))[0]
    early = resample(wave, 2 * len(wave))[1::2]  # the signal half a sample later, which is what comes early
    errors = [np.linalg.norm((out / np.std(out) - x / np.std(x))[200:-200]) for x in (wave, early)]
    assert errors[1] < 0.25 * errors[0]


def test_a_file_alone_and_in_a_batch_gives_the_same():
    lengths = np.array([20_000, 9000, 100])
    noisy = np.zeros((3, 30_000), np.float32)
    for row, length in zip(noisy, lengths, strict=True):
        row[:length] = speech(length, seed=length)
    together = np.asarray(enhancer(TINY)(tiny(), noisy, jnp.asarray(lengths)))
    for row, out, length in zip(noisy, together, lengths, strict=True):
        alone = enhancer(TINY)(tiny(), row[None, :length], jnp.array([length]))
        np.testing.assert_allclose(out[:length], alone[0], atol=1e-5)
        assert not np.any(out[length:])


def test_output_scales_with_the_input_and_silence_stays_silent():
    noisy, lengths = np.stack([speech(10_000), np.zeros(10_000, np.float32)]), jnp.array([10_000, 10_000])
    out = np.asarray(enhancer(TINY)(tiny(), noisy, lengths))
    for scale in (1e-4, 3.0):
        scaled = enhancer(TINY)(tiny(), np.float32(scale) * noisy, lengths)
        np.testing.assert_allclose(scaled, scale * out, atol=2e-5 * scale * np.abs(out).max())
    assert np.any(out[0]) and not np.any(out[1])


def test_a_pause_stays_quieter_than_speech():
    """The released level of each window is its own; a window of faint noise becomes as loud as one of speech."""
    noisy = speech(16_128)
    noisy[8064:] *= 1e-3
    variables = constant(0.0, RELEASED)
    ours, theirs = (np.asarray(enhancer(system)(variables, noisy[None], jnp.array([16_128])))[0]
                    for system in (NoiseUnet(), RELEASED))
    assert np.std(ours[9000:]) < 2e-3 * np.std(ours[:7000])
    assert np.std(theirs[9000:]) > 0.5 * np.std(theirs[:7000])


def test_nothing_is_amplified_unless_asked_for_and_never_above_the_loudest_bin():
    noisy, lengths = speech(8064)[None], jnp.array([8064])
    louder = constant(-40.0)
    np.testing.assert_allclose(enhancer(TINY)(louder, noisy, lengths), noisy, atol=2e-6)
    amplifying, spec = NoiseUnet(network=TINY.network, amplify=True), spectrum(noisy)
    before, after = magnitude(spec), magnitude(jit(amplifying._subtract)(louder, spec))
    assert np.median(after) > 3 * np.median(before)
    np.testing.assert_allclose(np.max(after), np.max(before), rtol=1e-5)


def test_a_known_noise_model_removes_the_noise():
    """6.02 dB halve every bin."""
    noisy = speech(12_000)[None]
    out = enhancer(TINY)(constant(20 * np.log10(2)), noisy, jnp.array([12_000]))
    np.testing.assert_allclose(out, 0.5 * noisy, atol=2e-6)


# --------------------------------------------------------------------------------------------------------- training


def batch_of(length, count=2):
    clean = np.stack([speech(length, seed) for seed in range(count)])
    noisy = clean + 0.05 * np.random.default_rng(9).standard_normal(clean.shape).astype(np.float32)
    lengths = jnp.full(count, length)
    front_end = TINY.front_end
    return {'clean': clean, 'noisy': noisy, 'num_samples': lengths, 'index': jnp.arange(count),
            'clean_spec': front_end.analyze(jnp.asarray(clean), lengths),
            'noisy_spec': front_end.analyze(jnp.asarray(noisy), lengths)}


def test_the_target_has_one_reference_and_lies_within_the_range():
    """20 log10(|Y| / |S|), where neither lies 80 dB below the loudest noisy bin."""
    batch = batch_of(8064)
    clean, noisy = (np.asarray(x) for x in TINY.levels(batch['clean_spec'], batch['noisy_spec']))
    ratio = 20 * np.log10(np.asarray(magnitude(batch['noisy_spec']) / magnitude(batch['clean_spec'])))
    inside = (clean > -80) & (noisy > -80)
    np.testing.assert_allclose((noisy - clean)[inside], ratio[inside], atol=1e-3)
    assert noisy.max() == pytest.approx(0, abs=1e-5) and min(noisy.min(), clean.min()) >= -80.0001


def test_a_long_utterance_has_the_loss_of_its_windows_and_dummies_count_nothing():
    loss = jit(lambda *args: TINY.losses['unet'](*args, None, train=False))
    batch = batch_of(8064 * 2 + 630)
    out = loss(tiny(), batch)
    np.testing.assert_array_equal(out.weight, 128 * 2 + 10)
    total = 0.0
    for start, frames in ((0, 128), (128, 128), (256, 10)):
        part = {name: x[:, start:start + frames] for name, x in batch.items() if name.endswith('spec')}
        part['num_samples'] = jnp.full(2, 63 * frames)
        part = loss(tiny(), part)
        assert np.all(part.weight == frames)
        total += frames * part.loss
    np.testing.assert_allclose(out.loss, total / 266, rtol=1e-5)
    assert np.all(out.metrics['error_db'] > 0)
    silent = {**batch, 'num_samples': jnp.array([8064, 0])}
    assert loss(tiny(), silent).weight[1] == 0


def test_one_batch_is_learnt_by_heart():
    system = NoiseUnet(network=NoiseUNetConfig((4, 8, 16), dropout=0.0))
    parallel = Parallel('shard_map', jax.devices()[:1])
    config = state_lib.OptimizerConfig(learning_rate=3e-3, l2=0.0, decay='constant', keras=True)
    step = parallel.map(state_lib.make_train_step(system, config, steps=40, seed=0))
    state = parallel.replicate(state_lib.create(system, config, 0.0, tiny(system)))
    batch, losses = batch_of(8064), []
    for _ in range(40):
        state, metrics = step(state, parallel.shard(batch))
        losses.append(float(jax.block_until_ready(metrics)['unet/loss']))
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize(('fields', 'message'), [
    ({'n_fft': 257}, 'expected bins and frames that are multiples of 16'),
    ({'frames': 100}, 'multiples of 16, as network.widths has 5 levels, got 128 bins .* and 100 frames'),
    ({'overlap': 65}, 'overlap: expected 0 to 64 frames .* got 65'),
    ({'hop': 64}, 'expected a hop of 1 to n_fft / 4')])
def test_sizes_that_do_not_fit_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        NoiseUnet(**fields)
