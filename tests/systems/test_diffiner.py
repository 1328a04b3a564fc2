"""Diffiner: its training and its front end against the original PyTorch code, and the contract of a system."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jax_diffse import conversion, systems
from jax_diffse.conversion import layouts
from jax_diffse.diffusion import ddpm, ddrm
from jax_diffse.errors import UserError
from jax_diffse.networks.guided_unet import UNetConfig
from jax_diffse.systems.base import shapes
from jax_diffse.systems.diffiner import Diffiner
from jax_diffse.training import state as state_lib
from jax_diffse.training.parallel import Parallel
from tests import reference
from tests.diffusion.released import golden_network

# Programs that run once: most of their time is their compilation.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 1})
NETWORK = UNetConfig(channels=4, multipliers=(1, 1, 1, 1), blocks=1, attention=(), heads=1, groups=2)
TINY = Diffiner(NETWORK, block_frames=64, respacing='ddim4')


@pytest.fixture(scope='module')
def variables():
    return reference.random_variables(shapes(TINY))


def noise(*shape, seed=0):
    return jnp.asarray(0.1 * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def as_torch(x):
    """Spectrograms `[..., T, F, 2]` in the layout of the reference, `[..., 2, F, T]`."""
    return np.asarray(x).swapaxes(-1, -3)


def from_torch(x):
    return jnp.asarray(np.asarray(x).swapaxes(-1, -3))


# ------------------------------------------------------------------------------------------------------------- parity


@functools.cache
def small():
    """The small network of the reference: system, variables and table of names."""
    weights = reference.load('diffiner').state_dict('model.')
    _, fields = conversion.describe({'diffiner': weights})
    variables = conversion.from_weights('diffiner', weights)
    return systems.build('diffiner', fields), variables, conversion.diffiner.entries(fields)


@functools.partial(jit, static_argnums=0)
def loss_and_gradients(system, params, clean, t, noise):
    """Losses `[B]` of the network, and the gradient of their mean."""
    def objective(params):
        loss = system.prior_loss({'params': params}, clean, t, noise)
        return jnp.mean(loss), loss

    (_, loss), gradients = jax.value_and_grad(objective, has_aux=True)(params)
    return loss, gradients


@pytest.mark.parity
def test_training_step_of_the_released_code():
    fixture, (system, variables, entries) = reference.load('diffiner'), small()
    inputs = fixture.inputs
    alpha_bar = jnp.asarray(system.training.alpha_bar, jnp.float32)[jnp.asarray(inputs['t_train'])]
    x_t = ddpm.diffuse(from_torch(inputs['x_start']), from_torch(inputs['noise_train']), alpha_bar)
    fixture.check('train/x_t', as_torch(x_t))
    loss, gradients = loss_and_gradients(system, variables['params'], from_torch(inputs['x_start']),
                                         jnp.asarray(inputs['t_train']), from_torch(inputs['noise_train']))
    fixture.check('train/loss', loss)
    gradients = layouts.to_torch(entries, {'params': gradients})
    rounding = {str(name) for name in fixture['grad/rounding']}
    largest = max(np.linalg.norm(gradient) for gradient in gradients.values())
    for name in rounding:  # zero in exact arithmetic
        assert np.linalg.norm(gradients[name]) < 1e-5 * largest, name
    kept = [name for name in fixture.names('grad') if name not in rounding]
    rows = {name: row for name, row in zip(fixture.names('grad'), fixture['grad/fingerprint'], strict=True)}
    factor = 20 * fixture.noise['grad/fingerprint'][0]
    for name in kept:
        found = reference.fingerprint(name, gradients[name])
        assert np.all(np.abs(found - rows[name]) <= max(factor, 1e-5) * rows[name][0]), (name, found, rows[name])
    assert set(gradients) == {*kept, *rounding}


@pytest.mark.parity
def test_golden_training_step():
    golden = reference.load_golden('diffiner/training_losses.npz')
    weights, fields = golden_network()
    loss, gradients = loss_and_gradients(
        systems.build('diffiner', fields), conversion.from_weights('diffiner', weights)['params'],
        from_torch(golden['x_start']), jnp.asarray(golden['t']), from_torch(golden['noise']))
    golden.check('loss', loss)
    gradients = layouts.to_torch(conversion.diffiner.entries(fields), {'params': gradients})
    for name in golden.after('grad/'):
        golden.check(f'grad/{name}', gradients[name])


@pytest.mark.parity
def test_front_end_of_the_released_code():
    """Its loader's spectrograms, padded with zeros or cut to 256 frames, and its waveforms made of them."""
    fixture, system = reference.load('diffiner'), Diffiner(released=True)
    specs = []
    for name in ('short', 'long'):
        wave = fixture.inputs[f'wav_{name}']
        spec = system.analyze(jnp.asarray(wave)[None], jnp.array([len(wave)]))[:, :256, 1:]
        specs.append(jnp.pad(spec, ((0, 0), (0, 256 - spec.shape[1]), (0, 0), (0, 0))))
        fixture.check(f'frontend/{name}', as_torch(specs[-1])[0])
    spec = jnp.pad(jnp.concatenate(specs), ((0, 0), (0, 0), (1, 0), (0, 0)))
    fixture.check('frontend/wav', system.synthesize(spec, jnp.array([65_280, 65_280]), 65_280))


# -------------------------------------------------------------------------------------------------------- enhancement


def refine(system=TINY, steps=None):
    return jit(lambda variables, noisy, lengths, key, processed: system.enhance(
        variables, noisy, lengths, key, steps=steps, processed=processed))


@pytest.fixture
def simple(monkeypatch):
    """A denoiser that compiles in no time, where what is done with its estimates matters."""
    monkeypatch.setattr(Diffiner, '_denoise', lambda self, variables, frames: lambda x, t: 0.3 * jnp.roll(x, 1, axis=2))


def test_padding_batch_and_blocks_beyond_the_end_change_nothing(variables):
    """Files of two blocks and of one, together with room for four blocks, and alone with as little as they need."""
    lengths = (24_000, 9_000)  # 95 and 37 frames, of blocks of 64 that share 32
    noisy, processed = noise(2, 40_000), noise(2, 40_000, seed=1)
    real = jnp.arange(40_000)[None] < jnp.array(lengths)[:, None]
    noisy, processed = jnp.where(real, noisy, 0), jnp.where(real, processed, 0)
    run = refine()
    together = run(variables, noisy, jnp.array(lengths), keys(2), processed)
    for i, length in enumerate(lengths):
        room = -(-length // 8000) * 8000
        alone = run(variables, noisy[i:i + 1, :room], jnp.array([length]), keys(2)[i:i + 1], processed[i:i + 1, :room])
        assert np.std(alone[0, :length]) > 0.01
        np.testing.assert_allclose(together[i, :length], alone[0, :length], atol=1e-5)
        assert not np.any(together[i, length:])


def test_where_nothing_is_refined_every_sample_of_the_preceding_one_comes_back(monkeypatch):
    """The DC bin and the end included; the released script, here in PyTorch, drops the one and fades the other."""
    monkeypatch.setattr(Diffiner, '_refine', lambda self, variables, noisy, processed, *rest: processed)
    length = 64 * 256 - 56  # 63 whole hops and 200 samples
    processed = 0.5 + noise(1, length)
    arguments = (None, noise(1, length), jnp.array([length]), keys(1))
    ours = Diffiner().enhance(*arguments, processed=processed)
    np.testing.assert_allclose(ours, processed, atol=1e-5)
    released = Diffiner(released=True).enhance(*arguments, processed=processed)
    window = torch.hann_window(512)
    spec = torch.stft(torch.tensor(np.asarray(processed)), 512, 256, window=window, return_complex=True)
    spec[:, 0] = 0
    expected = torch.istft(torch.nn.functional.pad(spec, (0, 4)), 512, 256, window=window)
    np.testing.assert_allclose(released, expected[:, :length], atol=1e-5)


def test_steps_are_network_evaluations(monkeypatch):
    seen = []

    def counted(self, variables, frames):
        def denoise(x, t):
            jax.debug.callback(lambda t: seen.append(float(t)), t[0])
            return 0.3 * x

        return denoise

    monkeypatch.setattr(Diffiner, '_denoise', counted)
    x = noise(1, 16_000)
    for system, steps, expected in ((TINY, None, [3000, 2000, 1000, 0]), (TINY, 2, [2000, 0]),
                                    (dataclasses.replace(TINY, respacing='5'), 3, [3999, 2000, 0])):
        seen.clear()
        jax.block_until_ready(refine(system, steps)(None, x, jnp.array([16_000]), keys(1), x / 2))
        assert sorted(seen, reverse=True) == expected
    assert TINY.default_steps == 4 and Diffiner().default_steps == 200


def test_above_observed_below_the_observation_counts_nothing(simple):
    system = dataclasses.replace(TINY, observed_below=4000.0)
    noisy, processed = noise(1, 64, 256, 2), noise(1, 64, 256, 2, seed=1)
    run = jit(lambda noisy, processed: system._refine(None, noisy, processed, jnp.array([64]), keys(1), None))
    expected = run(noisy, processed)
    high = np.arange(1, 257)[None, None, :, None] * 31.25 >= 4000
    np.testing.assert_array_equal(run(noisy + 5 * high, processed - 3 * high), expected)
    low = run(noisy + 5 * ~high, processed)
    assert np.abs(low - expected)[:, :, :120].mean() > 0.1


def test_the_sampler_is_chosen_by_name(simple):
    """One prior serves all: with the same draws, their results differ."""
    noisy, lengths = noise(1, 8000), jnp.array([8000])
    found = [refine(dataclasses.replace(TINY, **fields))(None, noisy, lengths, keys(1), noisy / 2) for fields in (
        {}, {'diffiner_plus': ddrm.DiffinerPlus(eta_b=0.4)}, {'sampler': 'diffiner'}, {'sigma_hat': 'component'},
        {'floor': 0.5}, {'ceiling': 0.1})]
    for i, one in enumerate(found):
        assert all(np.abs(one - other).max() > 1e-4 for other in found[:i])


def test_scale_is_a_unit(simple):
    """A system that doubles its spectrograms does with halved waveforms what the other does with whole ones."""
    noisy, processed, lengths = noise(1, 8000), noise(1, 8000, seed=1), jnp.array([8000])
    expected = refine()(None, noisy, lengths, keys(1), processed)
    found = refine(dataclasses.replace(TINY, scale=2.0))(None, noisy / 2, lengths, keys(1), processed / 2)
    np.testing.assert_allclose(2 * found, expected, atol=1e-5)


def test_a_prior_can_be_listened_to(variables):
    generate = jit(functools.partial(TINY.generate, num_samples=20_000, steps=3))
    first = generate(variables, keys(2))
    assert first.shape == (2, 20_000) and np.std(first[0] - first[1]) > 1e-3
    np.testing.assert_allclose(generate(variables, keys(2)[::-1])[0], first[1], atol=1e-6)


def test_it_needs_steps_that_exist(variables):
    x, lengths = noise(1, 8000), jnp.array([8000])
    for steps in (0, 4001):
        with pytest.raises(ValueError, match=f'respacing.*ddim{steps}'):
            TINY.enhance(variables, x, lengths, keys(1), processed=x, steps=steps)


@pytest.mark.parametrize(('fields', 'message'), [
    ({'sampler': 'ddrm'}, "config.model: sampler must be one of .*, got 'ddrm'"),
    ({'diffiner_plus': {'eta_a': 0.7, 'eta_c': 0.5}},
     r'config.model.diffiner_plus: eta_a \+ eta_c must not exceed 1.* got 0.7 \+ 0.5'),
    ({'diffiner': {'eta_b': 1.5}}, 'config.model.diffiner: eta_b must be between 0 and 1, got 1.5'),
    ({'sampler': 'diffiner', 'observed_below': 4000.0}, "observed_below needs the sampler 'diffiner\\+'"),
    ({'floor': -0.1}, 'floor: expected 0 or more, got -0.1'),
    ({'block_frames': 100}, 'block_frames: expected a multiple of 32, .* and at least 64, got 100'),
    ({'respacing': 'ddim5000'}, "respacing 'ddim5000': more steps than the 4000 of training"),
    ({'respacing': 'fast'}, "respacing: expected 'ddimN', 'N' or 'A,B,...' with whole numbers, got 'fast'"),
    ({'scale': 0.0}, 'scale: expected a positive number, got 0'),
    ({'network': {'channels': 48}}, 'config.model.network: 48 channels are not divisible by 32 groups'),
    ({'network': {'widths': 3}}, 'config.model.network.widths: unknown key, expected one of channels'),
])
def test_fields_that_do_not_fit_are_named(fields, message):
    with pytest.raises(UserError, match=message):
        systems.build('diffiner', fields)


# ----------------------------------------------------------------------------------------------------------- training


def make_batch(count, frames=70):
    return {'clean_spec': noise(count, frames, 257, 2), 'num_samples': jnp.full(count, 256 * (frames - 1)),
            'index': jnp.arange(count)}


@pytest.fixture
def simple_loss(monkeypatch):
    """A loss that compiles in no time, where what is done with it matters."""
    def prior_loss(self, variables, clean, t, noise, keys=None):
        bias = variables['params']['prior']['out']['bias'][None, None, None]
        return jnp.mean((clean + bias - noise)**2, axis=(1, 2, 3)) * (1 + t)

    monkeypatch.setattr(Diffiner, 'prior_loss', prior_loss)


def test_training_takes_the_start_of_a_crop_and_shorter_ones_with_their_silence(variables):
    """Up to a block, in whole multiples of what the network halves; never DC."""
    seen = []

    class Spy(Diffiner):
        def prior_loss(self, variables, clean, t, noise, keys=None):
            seen.append(clean)
            return jnp.zeros(len(t))

    spy = Spy(**{field.name: getattr(TINY, field.name) for field in dataclasses.fields(TINY)})
    for frames, expected in ((70, 64), (63, 56), (5, 8)):
        batch = make_batch(2, frames)
        out = spy.losses['prior']({'params': None, 'batch_stats': {}}, batch, keys(2))
        assert seen[-1].shape == (2, expected, 256, 2)
        kept = min(frames, expected)
        np.testing.assert_array_equal(seen[-1][:, :kept], batch['clean_spec'][:, :kept, 1:])
        assert not np.any(seen[-1][:, kept:])
        np.testing.assert_array_equal(out.weight, [1, 1])
    dummy = make_batch(2) | {'num_samples': jnp.array([9000, 0])}
    np.testing.assert_array_equal(
        spy.losses['prior']({'params': None, 'batch_stats': {}}, dummy, keys(2), train=False).weight, [1, 0])


def test_validation_is_at_fixed_steps(variables, simple_loss):
    validate = jit(lambda batch, key: TINY.losses['prior'](variables, batch, key, train=False).loss)
    batch, draws = make_batch(2), keys(2)
    expected = [TINY.prior_loss(variables, batch['clean_spec'][i:i + 1, :64, 1:], jnp.array([t]), jax.random.normal(
        jax.random.split(draws[i], 3)[1], (64, 256, 2))[None]) for i, t in enumerate((250, 750))]
    np.testing.assert_allclose(validate(batch, draws), np.concatenate(expected), rtol=1e-4)


def test_loss_second_moment_on_four_devices_is_that_on_one(variables, simple_loss):
    """What is seen of all examples enters, in the order of the batch; losses are weighted by 1 / (T p)."""
    system = dataclasses.replace(TINY, step_sampling='loss_second_moment', training_steps=4,
                                 schedule='cosine')
    batch, found = make_batch(4), []
    sampler = system._step_sampler
    losses = jnp.asarray(np.random.default_rng(0).uniform(0.5, 2, (4, 10)), jnp.float32)
    start = {'losses': losses, 'counts': jnp.array([10, 10, 10, 10])}
    params = {'prior': {'out': variables['params']['prior']['out']}}
    for devices in (1, 4):
        state = state_lib.create(system, state_lib.OptimizerConfig(l2=0.0), 0.0,
                                 {'params': params, 'batch_stats': {'prior': start}})
        parallel = Parallel(devices=jax.devices()[:devices])
        step = parallel.map(state_lib.make_train_step(system, state_lib.OptimizerConfig(l2=0.0), steps=1, seed=0))
        found.append(jax.device_get(step(parallel.replicate(state), parallel.shard(batch))))
    (one, metrics), (four, spread) = found
    for name, value in metrics.items():
        np.testing.assert_allclose(spread[name], value, rtol=2e-4, err_msg=name)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), four.batch_stats, one.batch_stats)
    own = jax.vmap(lambda key: jax.random.split(key, 3)[0])(jax.vmap(functools.partial(
        jax.random.fold_in, jax.random.fold_in(jax.random.key(0), 0)))(jnp.arange(4)))
    t, weight = sampler.draw(start, own)
    changed = one.batch_stats['prior']['losses'] != np.asarray(losses)
    assert {int(i) for i in np.flatnonzero(changed.any(axis=1))} == {int(i) for i in t}
    last = [float(one.batch_stats['prior']['losses'][i, -1 - np.sum(t[k + 1:] == i)]) for k, i in enumerate(t)]
    np.testing.assert_allclose(np.mean(last), metrics['prior/mse'], rtol=1e-5)
    np.testing.assert_allclose(np.mean(weight * np.array(last)), metrics['prior/loss'], rtol=1e-5)


def test_init_has_statistics_only_where_steps_are_weighted():
    assert shapes(TINY)['batch_stats'] == {}
    weighted = dataclasses.replace(TINY, step_sampling='loss_second_moment')
    found = shapes(weighted)['batch_stats']['prior']
    assert found['losses'].shape == (4000, 10) and found['counts'].shape == (4000,)
