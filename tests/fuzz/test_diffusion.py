"""Schedules of any size, and samplers with an exact denoiser."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_diffse.diffusion import ddim, ddpm, ddrm, gmm, step_sampling
from jax_diffse.diffusion.ddpm import Guidance
from jax_diffse.diffusion.schedule import Schedule, align, fast, guided, linear, respaced, spaced
from jax_diffse.systems.diffiner import Diffiner

TRAINING = linear()
seeds = st.integers(0, 2**31 - 1)


# ---------------------------------------------------------------------------------------------------- schedules


def check(levels: Schedule, training: Schedule | None = None):
    """What every schedule is: its own definition, taken apart."""
    assert len(levels) == len(levels.t) >= 1
    assert np.all(levels.beta > 0) and np.all(levels.alpha > 0) and np.all(levels.alpha <= 1)
    product, products = 1.0, []
    for beta in levels.beta:
        product *= 1 - beta
        products.append(product)
    np.testing.assert_allclose(levels.alpha_bar, products, rtol=1e-12)
    assert np.all(np.diff(levels.alpha_bar) < 0) and 0 < levels.alpha_bar[-1] and levels.alpha_bar[0] < 1
    np.testing.assert_array_equal(levels.alpha_bar_previous[1:], levels.alpha_bar[:-1])
    assert levels.sigma[0] == 0 and np.all(levels.sigma[1:] > 0) and np.all(levels.sigma**2 <= levels.beta)
    assert np.all(np.diff(levels.t) > 0)
    if training is not None:
        assert 0 <= levels.t[0] and levels.t[-1] <= len(training) - 1
        assert training.alpha_bar[-1] * (1 - 1e-9) <= levels.alpha_bar[-1]


@settings(max_examples=100)
@given(st.sampled_from([fast, respaced]), st.integers(-2, 205))
def test_any_number_of_sampling_steps_is_a_schedule_or_refused(make, num_steps):
    if 1 <= num_steps <= 200:
        levels = make(TRAINING, num_steps)
        assert len(levels) == num_steps
        check(levels, TRAINING)
    else:
        with pytest.raises(ValueError, match='expected 1 to 200 sampling steps'):
            make(TRAINING, num_steps)


@settings(max_examples=100)
@given(st.sampled_from(['linear', 'cosine']), st.integers(-3, 3000), st.data())
def test_any_respacing_of_guided_diffusion_is_a_schedule_or_refused(name, training_steps, data):
    least = 21 if name == 'linear' else 1
    if training_steps < least:
        with pytest.raises(ValueError, match='training steps'):
            guided(name, training_steps)
        return
    training = guided(name, training_steps)
    check(training)
    parts = data.draw(st.lists(st.integers(0, training_steps + 2), min_size=1, max_size=4))
    prefix = data.draw(st.sampled_from(['', 'ddim']))
    respacing = prefix + ','.join(map(str, parts))
    sections = [training_steps // len(parts) + (i < training_steps % len(parts)) for i in range(len(parts))]
    if min(parts) < 1 or prefix and len(parts) > 1 or any(part > size for part, size in zip(parts, sections)):
        with pytest.raises(ValueError, match='respacing'):
            spaced(training, respacing)
    else:
        levels = spaced(training, respacing)
        assert len(levels) == sum(parts)
        check(levels, training)
        np.testing.assert_allclose(levels.alpha_bar, training.alpha_bar[levels.t.astype(int)], rtol=1e-9)


@given(st.text(max_size=12))
def test_any_text_is_a_respacing_or_refused(text):
    try:
        check(spaced(TRAINING, text), TRAINING)
    except ValueError as error:
        assert 'respacing' in str(error)


@settings(max_examples=100)
@given(st.lists(st.floats(-0.1, 1.1) | st.just(np.nan), max_size=8))
def test_any_betas_are_a_schedule_or_refused(beta):
    try:
        levels = align(beta, TRAINING)
    except ValueError:
        return
    check(levels, TRAINING)
    np.testing.assert_allclose(np.interp(levels.t, TRAINING.t, np.sqrt(TRAINING.alpha_bar)), np.sqrt(levels.alpha_bar),
                               atol=1e-9)


@settings(max_examples=100)
@given(st.integers(-2, 300), st.floats(-1, 5), st.floats(-0.1, 2), st.integers(-2, 305))
def test_any_chain_of_a_mixture_leads_from_clean_to_noisy_or_is_refused(whole, power, noise_scale, num_steps):
    valid = whole >= 1 and power > 0 and noise_scale >= 0
    if not (valid and 1 <= num_steps <= whole):
        with pytest.raises(ValueError, match='expected'):
            gmm.respaced(gmm.chain(whole, power, noise_scale), num_steps)
        return
    levels = gmm.respaced(gmm.chain(whole, power, noise_scale), num_steps)
    assert len(levels) == num_steps and levels.shift[-1] == 1 and levels.previous[0] == 0
    assert np.all(np.diff(levels.shift) >= 0) and np.all(levels.shift > 0)
    assert np.all((0 <= levels.ratio) & (levels.ratio <= 1)) and np.all(levels.variance >= 0)


@given(st.integers(1, 5000), st.integers(1, 64), st.lists(st.integers(0, 10**6), min_size=8, max_size=8))
def test_validation_steps_exist(num_steps, size, index):
    t = step_sampling.grid(np.array(index), num_steps, size)
    assert t.min() >= 0 and t.max() < num_steps


# ----------------------------------------------------------------------------------------------------- samplers

SHAPE = (3, 4)
STEPS = (1, 2, 7)


def knowing(schedule, x_0):
    """The noise in x_t, computed from x_0 (Ho et al., eq. 4, solved for the noise)."""
    mean, std = (jnp.asarray(f, jnp.float32) for f in (np.sqrt(schedule.alpha_bar), np.sqrt(1 - schedule.alpha_bar)))

    def denoise(x, t):
        s = jnp.argmin(jnp.abs(jnp.asarray(schedule.t, jnp.float32) - t[0]))
        return (x - mean[s] * x_0) / std[s]

    return denoise


RULE = ddpm.Ancestral()


def ancestral(make, rule=RULE):
    def sample(num_steps, x_0, x, other, draw):
        levels = make(TRAINING, num_steps)
        condition = None if rule.guidance.mode == 'none' else other
        return ddpm.sample(knowing(levels, x_0), x, levels, draw, rule=rule, condition=condition)

    return sample


def implicit(eta):
    def sample(num_steps, x_0, x, other, draw):
        levels = spaced(guided('cosine', 50), f'ddim{num_steps}')
        return ddim.sample(knowing(levels, x_0), x, levels, draw, eta=eta)

    return sample


def restored(rule, schedule):
    def sample(num_steps, x_0, x, other, draw):
        levels = spaced(schedule, f'ddim{num_steps}')
        sigma_hat = jnp.abs(jnp.roll(other, 1, axis=1))
        return ddrm.sample(knowing(levels, x_0), x, levels, ddrm.Observation(other, sigma_hat), rule, draw)

    return sample


def mixture(num_steps, x_0, x, other, draw):
    def estimate(x, level):
        return gmm.Mixture(jnp.zeros((1, *x.shape)), (other - x_0)[None], jnp.ones((1, *x.shape)))

    return gmm.sample(estimate, x, other, gmm.respaced(gmm.chain(10, 1.5, 0.3), num_steps), draw)


SAMPLERS = {
    'ddpm': ancestral(respaced), 'ddpm, beta': ancestral(respaced, ddpm.Ancestral(variance='beta')),
    'fast': ancestral(fast),
    **{f'fast, {mode}': ancestral(fast, ddpm.Ancestral(Guidance(mode))) for mode in ('released', 'x0', 'gradient')},
    'ddim': implicit(0.0), 'ddim, eta': implicit(0.7), 'diffiner': restored(ddrm.Diffiner(), guided('cosine', 50)),
    'diffiner+': restored(ddrm.DiffinerPlus(), Diffiner().training),
    'diffiner+, eta_c': restored(ddrm.DiffinerPlus(0.5, 0.6, 0.4), guided('linear', 50)), 'gmm': mixture}


@functools.cache
def program(name, num_steps):
    def run(x_0, x, other, keys):
        return SAMPLERS[name](num_steps, x_0, x, other, ddpm.draws(keys, SHAPE[1:]))

    return jax.jit(run)


@pytest.mark.parametrize('num_steps', STEPS)
@pytest.mark.parametrize('name', SAMPLERS)
@settings(max_examples=10)
@given(seeds, st.floats(-3, 2))
def test_an_exact_denoiser_samples_its_target(name, num_steps, seed, level):
    """At any number of steps, from anywhere and with any noise: the last step returns the estimate of x_0."""
    rng = np.random.default_rng(seed)
    x_0, x, other = (jnp.asarray(scale * rng.standard_normal(SHAPE), jnp.float32) for scale in (10**level, 1, 1))
    keys, sample = jax.random.split(jax.random.key(seed), len(x)), program(name, num_steps)
    found = np.asarray(sample(x_0, x, other, keys))
    np.testing.assert_allclose(found, x_0, rtol=0, atol=1e-4 * max(np.max(np.abs(x_0)), 1.0))
    np.testing.assert_array_equal(sample(x_0, x, other, keys), found)


@pytest.mark.parametrize('name', SAMPLERS)
@settings(max_examples=5)
@given(seeds, st.integers(0, SHAPE[0] - 1))
def test_an_example_depends_on_itself_alone(name, seed, row):
    """The others, their keys and what is observed of them are changed; the network's estimates are of each for itself.

    What it estimates is wrong here, so that the noise drawn counts.
    """
    rng = np.random.default_rng(seed)
    rows, others = (list(rng.standard_normal((2, 3, *SHAPE)).astype(np.float32)))
    mine = (np.arange(SHAPE[0]) == row)[:, None]
    keys, other_keys = jax.random.split(jax.random.key(seed), (2, SHAPE[0]))
    mixed = [np.where(mine, a, b) for a, b in zip(rows, others)]
    mixed_keys = jnp.where(mine[:, 0], keys, other_keys)
    sample = program(name, STEPS[-1])
    np.testing.assert_array_equal(sample(*mixed, mixed_keys)[row], sample(*rows, keys)[row])
