"""The mathematics of the chain from clean to noisy speech and of its reverse process, by Monte Carlo and in closed
form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

from jax_diffse.diffusion import ddpm, gmm

CLEAN, NOISY = 0.3, -0.5  # one sample each
MIX = gmm.Mixture(jnp.log(jnp.array([0.2, 0.5, 0.3])), jnp.array([-1.0, 0.1, 0.8]), jnp.array([0.3, 0.1, 0.5]))


def spread(mix, shape):
    """The same mixture for each entry of `shape`."""
    return gmm.Mixture(*(jnp.broadcast_to(x.reshape((-1,) + (1,) * len(shape)), (len(x), *shape)) for x in mix))


def test_levels_of_the_chain():
    chain = gmm.chain(10, 1.5, 0.1)
    np.testing.assert_allclose(chain.shift, [(t / 10)**1.5 for t in range(1, 11)], rtol=1e-15)
    assert chain.shift[-1] == 1 and chain.previous[0] == 0 == chain.ratio[0] == chain.variance[0]


@pytest.mark.parametrize(('steps', 'expected'), [
    (1, [10]), (2, [5, 10]), (4, [3, 5, 8, 10]), (6, [2, 3, 5, 7, 8, 10]), (10, range(1, 11))])
def test_fewer_steps_are_levels_of_training(steps, expected):
    levels = gmm.respaced(gmm.chain(10, 2.0, 0.1), steps)
    np.testing.assert_allclose(levels.shift, [(t / 10)**2 for t in expected], rtol=1e-15)
    assert levels.noise_scale == 0.1 and len(levels) == steps


@pytest.mark.parametrize('call', [
    lambda: gmm.chain(0), lambda: gmm.chain(3, 0.0), lambda: gmm.chain(3, 1.0, -0.1),
    lambda: gmm.respaced(gmm.chain(10), 0), lambda: gmm.respaced(gmm.chain(10), 11)])
def test_impossible_chains_are_refused(call):
    with pytest.raises(ValueError, match='expected'):
        call()


@pytest.mark.parametrize('noise_scale', [0.0, 0.4])
def test_forward_moments_are_those_of_the_chain_step_by_step(noise_scale):
    """200 000 walks x_t = x_{t-1} + (a_t - a_{t-1}) n + kappa sqrt(a_t - a_{t-1}) z in float64."""
    chain, rng = gmm.chain(4, 1.5, noise_scale), np.random.default_rng(0)
    x, noise = np.full(200_000, CLEAN), rng.standard_normal((4, 200_000))
    keys = jnp.asarray(rng.standard_normal((1, 200_000)), jnp.float32)
    for t in range(4):
        step = chain.shift[t] - chain.previous[t]
        x = x + step * (NOISY - CLEAN) + noise_scale * np.sqrt(step) * noise[t]
        ours = gmm.diffuse(jnp.full((1, 1), CLEAN), jnp.full((1, 1), NOISY), keys, jnp.float32(chain.shift[t]),
                           noise_scale)
        assert float(jnp.mean(ours)) == pytest.approx(np.mean(x), abs=5e-3)
        assert float(jnp.var(ours)) == pytest.approx(np.var(x), abs=2e-3)


@pytest.mark.parametrize('t', [0, 1, 3])
def test_posterior_is_the_regression_of_one_level_on_the_next(t):
    """Gaussian and linear: the least-squares line through walks, and what is left around it."""
    chain, rng = gmm.chain(4, 1.5, 0.4), np.random.default_rng(1)
    z = rng.standard_normal((2, 400_000))
    before = CLEAN + chain.previous[t] * (NOISY - CLEAN) + 0.4 * np.sqrt(chain.previous[t]) * z[0]
    step = chain.shift[t] - chain.previous[t]
    after = before + step * (NOISY - CLEAN) + 0.4 * np.sqrt(step) * z[1]
    slope, offset = np.polyfit(after, before, 1)
    assert chain.ratio[t] == pytest.approx(slope, abs=5e-3)
    assert float(gmm.posterior_mean(jnp.float32(0.7), jnp.float32(CLEAN), jnp.float32(chain.ratio[t]))) == (
        pytest.approx(slope * 0.7 + offset, abs=5e-3))
    assert chain.variance[t] == pytest.approx(np.var(before - slope * after - offset), abs=1e-3)


def test_levels_left_out_leave_the_marginals_as_they_were():
    """From x_4 down to x_2 in one posterior step: its mean and variance are those of `diffuse` at level 2."""
    chain, rng = gmm.chain(4, 1.5, 0.4), np.random.default_rng(2)
    two = gmm.respaced(chain, 2)
    x = NOISY + 0.4 * rng.standard_normal(400_000)
    x = two.ratio[1] * x + (1 - two.ratio[1]) * CLEAN + np.sqrt(two.variance[1]) * rng.standard_normal(400_000)
    assert np.mean(x) == pytest.approx(CLEAN + chain.shift[1] * (NOISY - CLEAN), abs=2e-3)
    assert np.var(x) == pytest.approx(0.16 * chain.shift[1], abs=1e-3)


def test_reverse_kernel_is_the_posterior_with_the_noise_drawn_from_the_mixture():
    """A million draws: a component, n of it, then x_{t-1} of q(. | x_t, x - n)."""
    rng, (x, ratio, variance) = np.random.default_rng(3), (0.4, 0.35, 0.02)
    kernel = gmm.reverse(spread(MIX, (1, 1)), jnp.full((1, 1), x), jnp.full((1, 1), NOISY), jnp.array([ratio]),
                         jnp.array([variance]))
    weight, mean, sigma = (np.asarray(part, np.float64) for part in MIX)
    k = rng.choice(3, 1_000_000, p=np.exp(weight) / np.exp(weight).sum())
    noise = mean[k] + sigma[k] * rng.standard_normal(len(k))
    drawn = ratio * x + (1 - ratio) * (NOISY - noise) + np.sqrt(variance) * rng.standard_normal(len(k))
    assert float(gmm.expectation(kernel)[0, 0]) == pytest.approx(np.mean(drawn), abs=3e-3)
    assert float(gmm.variance(kernel)[0, 0]) == pytest.approx(np.var(drawn), abs=3e-3)
    places = np.linspace(-2, 2, 81)
    shares = np.histogram(drawn, places)[0] / len(k)
    centres = jnp.asarray((places[1:] + places[:-1]) / 2, jnp.float32)[None]
    density = jnp.exp(gmm.log_density(gmm.Mixture(*(part[:, 0] for part in kernel)), centres[0]))
    np.testing.assert_allclose(density * 0.05, shares, atol=1.5e-3)


@pytest.mark.parametrize('components', [1, 2, 5, 8])
def test_densities_are_those_of_scipy_and_integrate_to_one(components):
    parameters = np.random.default_rng(components).standard_normal((3, components))
    mix = gmm.mixture(jnp.asarray(parameters, jnp.float32))
    weight = scipy.special.softmax(parameters[0])
    places = np.linspace(-60, 60, 60_001)
    expected = sum(w * scipy.stats.norm.pdf(places, mean, sigma)
                   for w, mean, sigma in zip(weight, parameters[1], np.asarray(mix.sigma, np.float64)))
    found = jnp.exp(gmm.log_density(spread(mix, (1,)), jnp.asarray(places, jnp.float32)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert float(np.trapezoid(np.asarray(found, np.float64), places)) == pytest.approx(1, abs=1e-5)


def test_reverse_kernel_of_one_component_is_gaussian():
    """K = 1: N(rho x_t + (1 - rho)(x - mu), v + (1 - rho)^2 sigma^2)."""
    mix = gmm.Mixture(jnp.zeros((1, 1, 1)), jnp.full((1, 1, 1), 0.2), jnp.full((1, 1, 1), 0.5))
    kernel = gmm.reverse(mix, jnp.full((1, 1), 0.4), jnp.full((1, 1), NOISY), jnp.array([0.3]), jnp.array([0.01]))
    expected = scipy.stats.norm.logpdf(0.1, 0.3 * 0.4 + 0.7 * (NOISY - 0.2), np.sqrt(0.01 + 0.49 * 0.25))
    assert float(gmm.log_density(kernel, jnp.full((1, 1), 0.1))[0, 0]) == pytest.approx(expected, rel=1e-5)


def test_deviations_are_clamped_softly():
    """Within the bounds, at most off by ln 2 near them; the slope is positive everywhere that float32 can tell."""
    raw = jnp.linspace(-14.0, 8.0, 45)
    log_sigma, slope = jax.vmap(jax.value_and_grad(
        lambda r: jnp.log(gmm.mixture(jnp.stack([jnp.zeros(1), jnp.zeros(1), r[None]])).sigma[0])))(raw)
    low, high = gmm.LOG_SIGMA
    assert (log_sigma >= low).all() and (log_sigma <= high + 1e-3).all() and (slope > 0).all()
    inside = (raw > low + 3) & (raw < high - 3)
    np.testing.assert_allclose(log_sigma[inside], raw[inside], atol=0.06)


@pytest.mark.parametrize('raw', [1e4, -1e4])
@pytest.mark.parametrize('value', [0.0, 1e3])
def test_likelihood_and_its_gradient_are_finite_at_extremes(raw, value):
    """Also at level 0 of a chain without noise_scale, where nothing but the mixture's own sigma is left."""
    def loss(parameters):
        kernel = gmm.reverse(gmm.mixture(parameters), jnp.zeros((1, 1)), jnp.full((1, 1), value), jnp.zeros(1),
                             jnp.zeros(1))
        return -gmm.log_density(kernel, jnp.zeros((1, 1)))[0, 0]

    parameters = jnp.array([[raw, -raw], [0.0, 1.0], [raw, raw]])[:, :, None, None]
    found, gradient = jax.value_and_grad(loss)(parameters)
    assert np.isfinite(found) and np.isfinite(gradient).all()


def test_two_components_beat_one_on_bimodal_noise_by_the_analytic_margin():
    """n = +-1 + 0.1 z. One component: ln(2 pi e 1.01) / 2 nats. Two: ln(2 pi e 0.01) / 2 + ln 2, modes apart."""
    rng = np.random.default_rng(4)
    noise = jnp.asarray(rng.choice([-1.0, 1.0], 4096) + 0.1 * rng.standard_normal(4096), jnp.float32)

    def fitted(components):
        def loss(parameters):
            return -jnp.mean(gmm.log_density(spread(gmm.mixture(parameters), noise.shape), noise))

        optimizer, start = optax.adam(0.05), 0.3 * rng.standard_normal((3, components))

        def step(carry, _):
            update, opt_state = optimizer.update(jax.grad(loss)(carry[0]), carry[1])
            return (optax.apply_updates(carry[0], update), opt_state), None

        start = jnp.asarray(start, jnp.float32)
        return float(loss(jax.lax.scan(step, (start, optimizer.init(start)), None, 600)[0][0]))

    one, two = fitted(1), fitted(2)
    assert one == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 1.01), abs=0.03)
    assert one - two == pytest.approx(0.5 * np.log(101) - np.log(2), abs=0.03)


@pytest.mark.parametrize('steps', [1, 2, 4, 6, 10])
@pytest.mark.parametrize('noise_scale', [0.0, 0.3])
def test_the_true_noise_leads_back_to_clean_speech(steps, noise_scale):
    """And without noise_scale, past y + a_t n at every level."""
    rng = np.random.default_rng(5)
    clean, noisy = (jnp.asarray(rng.standard_normal((2, 500)), jnp.float32) for _ in range(2))
    levels, told = gmm.respaced(gmm.chain(10, 1.5, noise_scale), steps), []

    def oracle(x, level):
        jax.debug.callback(lambda value: told.append(float(value)), level[0])
        return gmm.Mixture(jnp.zeros((1, *x.shape)), (noisy - clean)[None], jnp.ones((1, *x.shape)))

    draw = ddpm.draws(jax.random.split(jax.random.key(0), 2), (500,))
    found, visited, noise = gmm.sample(oracle, noisy, noisy, levels, draw, trajectory=True)
    np.testing.assert_allclose(found, clean, atol=1e-5)
    np.testing.assert_allclose(noise, jnp.broadcast_to((noisy - clean)[None], (steps, 2, 500)), atol=1e-6)
    np.testing.assert_allclose(told, levels.shift[::-1], rtol=1e-6)  # each level once, the noisiest first
    if not noise_scale:
        for x, shift in zip(visited, levels.previous[::-1]):
            np.testing.assert_allclose(x, clean + np.float32(shift) * (noisy - clean), atol=1e-5)


def test_jitter_of_the_reverse_chain_has_the_moments_of_the_forward_one():
    """With the true noise, from x + kappa z: at every level N(y + a n, kappa^2 a)."""
    levels, shape = gmm.chain(5, 1.5, 0.5), (4, 50_000)
    draw = ddpm.draws(jax.random.split(jax.random.key(1), 4), shape[1:])
    mix = gmm.Mixture(jnp.zeros((1, *shape)), jnp.full((1, *shape), NOISY - CLEAN), jnp.ones((1, *shape)))
    noisy = jnp.full(shape, NOISY)
    x = noisy + 0.5 * draw(jnp.int32(5), gmm.START)
    _, visited, _ = gmm.sample(lambda *_: mix, x, noisy, levels, draw, trajectory=True)
    for x, shift in zip(visited, levels.previous[::-1]):
        assert float(jnp.mean(x)) == pytest.approx(CLEAN + shift * (NOISY - CLEAN), abs=5e-3)
        assert float(jnp.var(x)) == pytest.approx(0.25 * shift, abs=3e-3)


@pytest.mark.parametrize('temperature', [1.0, 0.5])
def test_draws_have_the_moments_of_the_mixture(temperature):
    """One sampled step down to level 0 takes x - n for clean: its moments are those of n, cooled down."""
    cooled = MIX._replace(sigma=temperature * MIX.sigma)
    shape = (2, 200_000)
    draw = ddpm.draws(jax.random.split(jax.random.key(2), 2), shape[1:])
    found = gmm.sample(lambda *_: spread(MIX, shape), jnp.zeros(shape), jnp.full(shape, NOISY), gmm.chain(1, 1.5, 0.0),
                       draw, temperature=temperature)
    assert float(jnp.mean(found)) == pytest.approx(NOISY - float(gmm.expectation(cooled)), abs=5e-3)
    assert float(jnp.var(found)) == pytest.approx(float(gmm.variance(cooled)), abs=5e-3)


def test_draws_take_each_component_as_often_as_its_weight_says():
    values = gmm.drawn(spread(MIX, (100_000,)), *jax.random.normal(jax.random.key(3), (2, 100_000)), temperature=0.0)
    shares = [float(jnp.mean(values == mean)) for mean in MIX.mean]
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.3], atol=6e-3)


def test_the_mean_is_what_is_subtracted_by_default():
    mix, shape = spread(MIX, (1, 3)), (1, 3)
    draw = functools.partial(jnp.full, shape)  # not looked at: there is no noise_scale
    found = gmm.sample(lambda *_: mix, jnp.ones(shape), jnp.full(shape, NOISY), gmm.chain(1, 1.5, 0.0), draw)
    np.testing.assert_allclose(found, np.full(shape, NOISY - (0.2 * -1 + 0.5 * 0.1 + 0.3 * 0.8)), rtol=1e-6)
