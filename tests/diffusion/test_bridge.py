"""Sampling of the Schroedinger bridge: every step of the authors' code, and its mathematics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.diffusion import bridge
from jax_diffse.diffusion.bridge import BridgeSampler
from jax_diffse.diffusion.processes import SbVe
from tests.diffusion import closed_form, gaussian
from tests.diffusion.released import check_rows, turned

NOISY, MEAN, VARIANCE = 1.0, 0.4, 0.3


def no_draw(level, which):
    raise AssertionError('nothing is to be drawn')


@pytest.mark.parity
@pytest.mark.parametrize('case', ['sb_ode', 'sb_sde', 'sb_ode_few', 'sb_sde_few', 'sb_ode_one'])
def test_every_step_of_the_released_sampler(case):
    """Of 'ode', also the authors' code in float64: in float32 its first step loses three to four digits."""
    fixture = closed_form.fixture()
    config = fixture.json('config')['sb'][case]
    rule = BridgeSampler(config['N'], config['kind'])
    draw = closed_form.draw(case) if rule.kind == 'sde' else no_draw

    def sample(estimate, trajectory=False):
        return bridge.sample(estimate, closed_form.noisy(), SbVe(released=True), rule, draw, trajectory=trajectory)

    out, states, _ = jax.jit(lambda: sample(closed_form.estimate, True))()
    for key in (case, f'{case}64') if rule.kind == 'ode' else (case,):
        fixture.check(f'{key}/out', turned(out))
        check_rows(fixture, f'{key}/x_t', states)
        if 'few' in case:
            fixture.check(f'{key}/second', turned(states[1]))
    times = closed_form.count(sample, closed_form.estimate)
    assert len(times) == rule.evaluations == config['N']
    fixture.check(f'{case}/times', times[:, 1])


@pytest.mark.parametrize('kind', bridge.KINDS)
def test_the_network_is_asked_at_the_time_of_its_state(kind):
    rule, noise = BridgeSampler(4, kind), jnp.ones((2, 5, 3, 2))
    times = closed_form.count(lambda model: bridge.sample(model, noise, SbVe(), rule, lambda level, which: noise),
                              lambda x, t: x)
    assert len(times) == rule.evaluations
    np.testing.assert_allclose(times, np.repeat([[1.0], [0.750025], [0.50005], [0.250075]], 2, axis=1), rtol=1e-6)


@pytest.mark.parametrize('num_steps', [1, 4, 50])
@pytest.mark.parametrize('kind', bridge.KINDS)
def test_a_model_that_knows_the_clean_speech_ends_there(kind, num_steps):
    """Exactly at t_min 0, without a step that float32 or a division could spoil."""
    clean, noisy, noise = np.random.default_rng(0).standard_normal((3, 2, 3, 4, 2)).astype(np.float32)
    out = jax.jit(lambda: bridge.sample(lambda x, t: clean, noisy, SbVe(), BridgeSampler(num_steps, kind, 0.0),
                                        lambda level, which: noise))()
    np.testing.assert_array_equal(out, clean)


@pytest.mark.parametrize('kind, released', [('ode', False), ('sde', False), ('sde', True)])
def test_with_such_a_model_states_have_the_marginals_of_the_bridge(kind, released):
    """The mean of x_t given x_0 and y at every step; its variance too with noise, and none without."""
    process, rule = SbVe(released=released), BridgeSampler(6, kind)

    def visit(draw):
        noisy = jnp.full((7, 1, 1, 2), NOISY)
        return bridge.sample(lambda x, t: jnp.full_like(x, MEAN), noisy, process, rule, draw, trajectory=True)[1]

    mean, variance = gaussian.moments(visit, 6, 1, (1, 1, 2))
    expected, spread = gaussian.marginal(process, rule.times[:-1], NOISY, MEAN, 0.0)
    np.testing.assert_allclose(mean[:, 0, 0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(2 * variance[:, 0, 0, 0], spread if kind == 'sde' else 0 * spread, rtol=1e-4, atol=2e-8)


@pytest.mark.parametrize('released', [True, False])
def test_a_released_first_step_is_too_large(released):
    """Its weights of x = y, the estimate and y add up to 1.0201 (50 steps), computed here with fractions of float64."""
    ones = jnp.ones((1, 2, 3, 2))
    _, states, _ = jax.jit(lambda: bridge.sample(lambda x, t: ones, ones, SbVe(released=released), BridgeSampler(50),
                                                 no_draw, trajectory=True))()
    np.testing.assert_allclose(states[1], 1.0201 if released else 1.0, atol=5e-5 if released else 1e-6)


def test_sde_samples_converge_to_a_gaussian_target():
    """With E[x_0 | x_t] as the model: mean and variance to first order in the step."""
    errors = []
    for num_steps in (25, 50, 100):
        def visit(draw, num_steps=num_steps):
            model = gaussian.estimate(SbVe(), NOISY, MEAN, VARIANCE)
            return bridge.sample(model, jnp.full((1 + num_steps, 1, 1, 2), NOISY), SbVe(),
                                 BridgeSampler(num_steps, 'sde'), draw)[None]

        found = gaussian.moments(visit, num_steps, 1, (1, 1, 2))
        errors.append([value.flat[0] for value in found])
    errors = np.subtract(errors, [MEAN, VARIANCE / 2])
    np.testing.assert_allclose(errors[:, 0], 0, atol=1e-4)  # the mean is exact, but for t_min
    assert np.abs(errors[-1, 1]) < 0.02
    np.testing.assert_allclose(errors[:-1, 1] / errors[1:, 1], 2, rtol=0.2)


def test_the_ode_ends_at_the_mean_of_a_gaussian_target():
    """It is deterministic from y on, a single point, so nothing of the target's variance is left."""
    model = gaussian.estimate(SbVe(), NOISY, MEAN, VARIANCE)
    out = jax.jit(lambda: bridge.sample(model, jnp.full((2, 1, 1, 2), NOISY), SbVe(), BridgeSampler(20), no_draw))()
    np.testing.assert_allclose(out, MEAN, atol=1e-4)


@pytest.mark.parametrize('fields, message', [
    ({'num_steps': 0}, 'expected one or more sampling steps, got 0'),
    ({'kind': 'pc'}, "kind must be one of .*, got 'pc'"),
    ({'t_min': 1.0}, 't_min: expected 0 or more and below 1, got 1'),
])
def test_rules_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        BridgeSampler(**fields)


def test_released_networks_are_not_asked_at_0():
    with pytest.raises(ValueError, match='t_min: expected more than 0 with a released process, got 0'):
        bridge.sample(lambda x, t: x, jnp.ones((1, 2, 3, 2)), SbVe(released=True), BridgeSampler(t_min=0.0), no_draw)
