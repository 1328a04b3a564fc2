"""DiffGMM as a system: its loss against SciPy, its warm-up, and what enhancement must do."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jax_diffse.diffusion import gmm
from jax_diffse.losses.multi_resolution import multi_resolution
from jax_diffse.networks.gmm_unet import GmmUNetConfig
from jax_diffse.systems.base import shapes
from jax_diffse.systems.diffgmm import GROUP, DiffGmm
from jax_diffse.training import state as state_lib
from jax_diffse.training.parallel import Parallel
from tests import reference

jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
NETWORK = GmmUNetConfig(components=2, widths=(4, 8), blocks=1, kernel=5, groups=2)
TINY = DiffGmm(network=NETWORK, training_steps=4, steps=3, noise_scale=0.3, nll_warmup=12)
REGRESSION = dataclasses.replace(TINY, network=dataclasses.replace(NETWORK, components=1), training_steps=1, steps=1)


@functools.cache
def variables(system):
    return reference.random_variables(shapes(system))


def batch(size=2, length=3000, seed=0):
    rng = np.random.default_rng(seed)
    clean = 0.05 * rng.standard_normal((size, length)).astype(np.float32)
    noisy = clean + 0.05 * rng.standard_normal((size, length)).astype(np.float32)
    num_samples = np.full(size, length, np.int32)
    num_samples[0] -= 500
    real = np.arange(length) < num_samples[:, None]
    return {'clean': clean * real, 'noisy': noisy * real, 'num_samples': num_samples, 'index': np.arange(size)}


@functools.cache
def losses(system):
    return jit(system.mixture_losses)


@functools.cache
def mixture(system):
    return jit(functools.partial(system.mixture, variables(system)))


def normals(size=2, length=3000):
    return jax.random.normal(jax.random.key(5), (2, size, length))


def at_unit_rms(data):
    """Clean and noisy, in float64."""
    noisy, count = data['noisy'].astype(np.float64), data['num_samples'][:, None]
    gain = np.sqrt(count / np.sum(noisy**2, axis=1, keepdims=True))
    return data['clean'] * gain, noisy * gain


# ----------------------------------------------------------------------------------------------------------- losses


def test_one_component_and_one_level_are_the_regression_of_the_noise():
    """K = 1, T = 1: the likelihood is that of n under N(mu, sigma^2), the prediction the distance of x - mu."""
    data, (before, step) = batch(), normals()
    terms = losses(REGRESSION)(variables(REGRESSION), data, jnp.zeros(2, jnp.int32), before, step)
    clean, noisy = at_unit_rms(data)
    single = jnp.asarray(noisy, jnp.float32)
    mix = mixture(REGRESSION)(single + 0.3 * step, single, jnp.ones(2), data['num_samples'])  # all noise in one step
    mean, sigma = (np.asarray(part[0], np.float64) for part in (mix.mean, mix.sigma))
    for i, length in enumerate(data['num_samples']):
        real = (i, slice(length))
        noise = (noisy - clean)[real]
        log_density = scipy.stats.norm.logpdf(noise, mean[real], sigma[real])
        assert float(terms['nll'][i]) == pytest.approx(-np.mean(log_density), rel=1e-4)
        assert float(terms['l1'][i]) == pytest.approx(np.mean(np.abs(noise - mean[real])), rel=1e-4)
    expected = multi_resolution(jnp.asarray(noisy - mean, jnp.float32), jnp.asarray(clean, jnp.float32),
                                data['num_samples'])
    np.testing.assert_allclose(terms['stft'], expected, rtol=1e-4)


def test_likelihood_is_that_of_the_level_below_under_the_reverse_kernel():
    """-log sum_k pi_k N(x_{t-1}; rho x_t + (1 - rho)(x - mu_k), v + (1 - rho)^2 sigma_k^2), with SciPy."""
    data, (z, step) = batch(), normals()
    t, chain = jnp.array([3, 1]), TINY.chain
    terms = losses(TINY)(variables(TINY), data, t, z, step)
    clean, noisy = at_unit_rms(data)
    for i, level in enumerate(t):
        a, b = chain.shift[level], chain.previous[level]
        before = clean[i] + b * (noisy[i] - clean[i]) + 0.3 * np.sqrt(b) * z[i]
        x = before + (a - b) * (noisy[i] - clean[i]) + 0.3 * np.sqrt(a - b) * step[i]
        mix = mixture(TINY)(jnp.asarray(x, jnp.float32)[None], jnp.asarray(noisy[i:i + 1], jnp.float32),
                            jnp.array([a], jnp.float32), data['num_samples'][i:i + 1])
        log_weight, mu, sigma = (np.asarray(part[:, 0], np.float64) for part in mix)
        rho = b / a
        each = np.exp(log_weight) * scipy.stats.norm.pdf(
            before[None], rho * x[None] + (1 - rho) * (noisy[i][None] - mu),
            np.sqrt(0.09 * rho * (a - b) + (1 - rho)**2 * sigma**2))
        expected = -np.mean(np.log(np.sum(each, axis=0))[:data['num_samples'][i]])
        assert float(terms['nll'][i]) == pytest.approx(expected, rel=1e-3)


@functools.cache
def train_step(system, accumulate=1, devices=1):
    optimizer = state_lib.OptimizerConfig(learning_rate=3e-3, l2=0.0, decay='constant')
    step = state_lib.make_train_step(system, optimizer, steps=100, seed=0, accumulate=accumulate)
    mapping = Parallel('shard_map', jax.devices()[:devices])
    return optimizer, mapping, mapping.map(step)


def trained(system, steps, data, **options):
    optimizer, mapping, step = train_step(system, **options)
    state = mapping.replicate(state_lib.create(system, optimizer, 0.0, system.init(jax.random.key(0))))
    found = []
    for _ in range(steps):
        state, metrics = step(state, mapping.shard(data))
        found.append({name: float(value) for name, value in metrics.items()})
    return state, found


def test_training_learns_to_predict_the_noise():
    data = batch(4, 2048)
    _, metrics = trained(TINY, 40, data)
    first, last = (np.mean([m['noise/prediction'] for m in part]) for part in (metrics[:5], metrics[-5:]))
    assert last < 0.8 * first
    assert all(np.isfinite(list(m.values())).all() for m in metrics)


def test_weight_of_the_likelihood_rises_with_the_examples_seen():
    """From 0 to nll_weight over 12 examples, 4 of them real in each batch; then it stays."""
    data = batch(4, 2048)
    state, metrics = trained(TINY, 5, data)
    weights = [(m['noise/loss'] - m['noise/prediction']) / m['noise/nll'] for m in metrics]
    np.testing.assert_allclose(weights, [0, 0.1 / 3, 0.2 / 3, 0.1, 0.1], atol=1e-4)
    assert int(state.batch_stats[GROUP]['examples']) == 20


@pytest.mark.parametrize('options', [pytest.param({'accumulate': 2}, marks=pytest.mark.slow), {'devices': 2}])
def test_parts_and_devices_count_examples_alike(options):
    state, _ = trained(TINY, 2, batch(4, 2048), **options)
    assert int(state.batch_stats[GROUP]['examples']) == 8


def test_padding_examples_weigh_and_count_nothing():
    data = batch(2, 2048)
    data['num_samples'][1] = 0
    data = {name: x * (data['num_samples'] > 0).reshape((2,) + (1,) * (x.ndim - 1)).astype(x.dtype)
            for name, x in data.items()}
    state, metrics = trained(TINY, 1, data)
    assert int(state.batch_stats[GROUP]['examples']) == 1 and np.isfinite(metrics[0]['noise/gradient_norm'])


def test_validation_is_repeatable_and_looks_at_every_level_with_full_weight():
    keys = jax.random.split(jax.random.key(0), 4)
    data = batch(4)
    loss = jit(functools.partial(TINY.losses[GROUP], train=False))
    out, again = (loss(variables(TINY), {**data, 'index': data['index'] + k}, keys) for k in (0, 4))
    np.testing.assert_array_equal(out.loss, again.loss)  # four levels: they come round
    np.testing.assert_allclose(out.loss, out.metrics['prediction'] + 0.1 * out.metrics['nll'], rtol=1e-6)
    assert int(out.batch_stats[GROUP]['examples']) == int(variables(TINY)['batch_stats'][GROUP]['examples'])
    assert TINY.criterion == 'noise/prediction'


# ------------------------------------------------------------------------------------------------------ enhancement


@functools.cache
def enhance(system, steps=None):
    return jit(functools.partial(system.enhance_stages, variables(system), steps=steps))


def keys(count=2):
    return jax.random.split(jax.random.key(3), count)


def test_a_single_step_subtracts_the_mean_of_the_mixture():
    data = batch()
    found = enhance(TINY, 1)(data['noisy'], data['num_samples'], keys())
    assert set(found) == {'enhanced'}
    several = enhance(TINY, 3)(data['noisy'], data['num_samples'], keys())
    assert set(several) == {'one_step', 'enhanced'}
    assert float(jnp.max(jnp.abs(several['one_step'] - several['enhanced']))) > 1e-3
    still = dataclasses.replace(TINY, noise_scale=0.0)
    noisy = jnp.asarray(at_unit_rms(data)[1], jnp.float32)
    mix = mixture(TINY)(noisy, noisy, jnp.ones(2), data['num_samples'])
    gain = still.gain(data['noisy'], data['num_samples'])[:, None]
    expected = np.array((noisy - gmm.expectation(mix)) / gain)
    expected[0, 2500:] = 0
    found = enhance(still, 1)(data['noisy'], data['num_samples'], keys())['enhanced']
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_level_of_the_recording_is_kept():
    data = batch()
    once, twice = (enhance(TINY)(c * data['noisy'], data['num_samples'], keys())['enhanced'] for c in (1, 2))
    np.testing.assert_allclose(twice, 2 * once, atol=1e-5)


def test_padding_changes_nothing():
    """Neither that of the network nor that of the draws; and nothing stands behind the end."""
    data = batch(length=9000)
    short = enhance(TINY)(data['noisy'], data['num_samples'], keys())['enhanced']
    long = enhance(TINY)(np.pad(data['noisy'], ((0, 0), (0, 7003))), data['num_samples'], keys())['enhanced']
    np.testing.assert_allclose(long[:, :9000], short, atol=1e-5)
    assert not np.any(long[:, 9000:]) and not np.any(long[0, 8500:]) and np.any(long[0, 8400:8500])


def test_draws_depend_on_the_key_of_the_recording_alone():
    data = batch()
    both = enhance(TINY)(data['noisy'], data['num_samples'], keys())['enhanced']
    alone = enhance(TINY)(data['noisy'][1:], data['num_samples'][1:], keys()[1:])['enhanced']
    other = enhance(TINY)(data['noisy'], data['num_samples'], keys()[::-1])['enhanced']
    np.testing.assert_allclose(alone[0], both[1], atol=1e-5)
    assert float(jnp.max(jnp.abs(other - both))) > 1e-4


def test_temperature_draws_from_the_mixture():
    data, warm = batch(), dataclasses.replace(TINY, noise_scale=0.0, temperature=1.0)
    one, two = (enhance(warm)(data['noisy'], data['num_samples'], keys())['enhanced'] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    other = enhance(warm)(data['noisy'], data['num_samples'], keys()[::-1])['enhanced']
    assert float(jnp.max(jnp.abs(one - other))) > 1e-3  # without noise_scale all of it comes from the mixture
    cold = dataclasses.replace(warm, temperature=0.0)
    means = [enhance(cold)(data['noisy'], data['num_samples'], k)['enhanced'] for k in (keys(), keys()[::-1])]
    np.testing.assert_array_equal(*means)


def test_silence_stays_finite():
    found = enhance(TINY)(np.zeros((1, 3000), np.float32), np.array([3000]), keys(1))['enhanced']
    assert np.isfinite(found).all()


@pytest.mark.parametrize('steps', [0, 5])
def test_number_of_steps_is_checked(steps):
    with pytest.raises(ValueError, match=f'expected 1 to 4 sampling steps, got {steps}'):
        TINY.enhance_stages(variables(TINY), np.zeros((1, 16)), np.array([16]), keys(1), steps=steps)


@pytest.mark.parametrize('fields', [{'temperature': -1.0}, {'steps': 11}, {'power': 0.0}, {'nll_weight': -0.1}])
def test_impossible_fields_are_refused(fields):
    with pytest.raises(ValueError, match='expected'):
        DiffGmm(**fields)
