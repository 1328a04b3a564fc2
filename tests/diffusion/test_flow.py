"""Sampling by differential equations: the authors' steps, closed forms of Gaussian targets, orders of convergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.diffusion import flow
from jax_diffse.diffusion.flow import Solver
from jax_diffse.diffusion.processes import Bbed, FlowPath, Ouve
from jax_diffse.diffusion.time_grid import TimeGrid
from tests.diffusion import closed_form, gaussian
from tests.diffusion.released import check_rows, turned

NOISY, MEAN, VARIANCE = 1.0, 0.4, 0.3
HEUN = Solver(TimeGrid(200), 'heun')


@pytest.mark.parity
@pytest.mark.parametrize('case', ['flow', 'flow_many', 'flow_short', 'flow_one'])
def test_every_step_of_the_released_sampler(case):
    fixture = closed_form.fixture()
    config = fixture.json('config')['flow'][case]
    solver = Solver(TimeGrid(config['N'], config.get('t_eps', 0.03), config.get('T_rev', 1.0)))
    draw = closed_form.draw(case)

    def sample(velocity, trajectory=False):
        return flow.sample(velocity, closed_form.noisy(), FlowPath(), solver, lambda level, which: draw(0, which),
                           trajectory=trajectory)

    out, states = jax.jit(lambda: sample(closed_form.velocity, True))()
    fixture.check(f'{case}/out', turned(out))
    check_rows(fixture, f'{case}/x_t', states)
    times = closed_form.count(sample, closed_form.velocity)
    assert len(times) == solver.evaluations == fixture[f'{case}/nfe']
    fixture.check(f'{case}/times', times[:, 1])


@pytest.mark.parity
@pytest.mark.parametrize('case', ['flow_ode', 'ode'])
def test_small_steps_solve_the_equations_that_the_authors_solve_adaptively(case):
    """Down to t_eps, where their solver of fourth order stops, with its tolerance of 1e-5 per step."""
    fixture, noisy = closed_form.fixture(), closed_form.noisy()
    noise = closed_form.draw(case)(0, 0)
    if case == 'ode':
        _, states = jax.jit(lambda: flow.probability_flow(closed_form.score, noisy, Ouve(), HEUN,
                                                          lambda level, which: noise, trajectory=True))()
    else:
        _, states = jax.jit(lambda: flow.sample(closed_form.velocity, noisy, FlowPath(), HEUN,
                                                lambda level, which: noise, trajectory=True))()
    np.testing.assert_allclose(turned(states[-1]), fixture[f'{case}/out'], atol=1e-4)


def transported(process, noise, start, t):
    """Where the exact flow takes `noise` by time t: at the same quantile of each marginal."""
    centre, spread = gaussian.marginal(process, start, NOISY, MEAN, VARIANCE)
    x = NOISY + process.std(start) * noise
    aim, width = gaussian.marginal(process, t, NOISY, MEAN, VARIANCE)
    return aim + np.sqrt(width / spread) * (x - centre)


def of_parts(normal):
    return np.sqrt(0.5) * np.asarray(normal, np.float64)


NOISE = np.random.default_rng(0).standard_normal((1, 4, 3, 2)).astype(np.float32)


def orders(errors):
    return np.log2(np.divide(errors[:-1], errors[1:]))


@pytest.mark.parametrize('path', [FlowPath(), FlowPath(0.1, 0.6)], ids=repr)
@pytest.mark.parametrize('method, order', [('euler', 1), ('heun', 2)])
def test_the_flow_ends_at_the_target(path, method, order):
    """The exact velocity takes the prior to N(mean, variance + sigma_min^2), to first and second order in the step."""
    expected, errors = transported(path, of_parts(NOISE), 1.0, 0.0), []
    velocity = gaussian.velocity(path, NOISY, MEAN, VARIANCE)
    for num_steps in (8, 16, 32):
        solver = Solver(TimeGrid(num_steps, 1 / num_steps), method)
        out = jax.jit(lambda s=solver: flow.sample(velocity, jnp.full(NOISE.shape, NOISY), path, s,
                                                   lambda level, which: NOISE))()
        errors.append(np.max(np.abs(out - expected)))
    assert errors[-1] < 0.05 / order
    np.testing.assert_allclose(orders(errors), order, atol=0.35)


@pytest.mark.parametrize('process, t_max', [(Ouve(), 1.0), (Bbed(), 0.9)], ids=repr)
@pytest.mark.parametrize('method, order', [('euler', 1), ('heun', 2)])
def test_the_probability_flow_keeps_the_marginals(process, t_max, method, order):
    """Down to t = 0.1, where the last step starts."""
    expected, errors = transported(process, of_parts(NOISE), t_max, 0.1), []
    score = gaussian.score(process, NOISY, MEAN, VARIANCE)
    for num_steps in (41, 81, 161):
        solver = Solver(TimeGrid(num_steps, 0.1, t_max), method)
        _, states = jax.jit(lambda s=solver: flow.probability_flow(
            score, jnp.full(NOISE.shape, NOISY), process, s, lambda level, which: NOISE, trajectory=True))()
        errors.append(np.max(np.abs(states[-1] - expected)))
    assert errors[-1] < 0.02 / order
    np.testing.assert_allclose(orders(errors), order, atol=0.35)


@pytest.mark.parametrize('method', flow.METHODS)
def test_the_last_step_is_that_of_reverse_diffusion(method):
    """Without noise: x - pull (y - x) h + g^2 score h with h = t_eps, by hand in float64."""
    process, solver = Ouve(), Solver(TimeGrid(4, 0.1), method)
    score = gaussian.score(process, NOISY, MEAN, VARIANCE)
    out, states = jax.jit(lambda: flow.probability_flow(score, jnp.full(NOISE.shape, NOISY), process, solver,
                                                        lambda level, which: NOISE, trajectory=True))()
    x = np.asarray(states[-1], np.float64)
    centre, spread = gaussian.marginal(process, 0.1, NOISY, MEAN, VARIANCE)
    expected = x - 1.5 * (NOISY - x) * 0.1 + process.diffusion(0.1)**2 * 0.1 * (centre - x) / spread
    np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize('num_steps', [1, 3])
@pytest.mark.parametrize('method', flow.METHODS)
def test_a_model_that_knows_the_clean_speech_ends_there(method, num_steps):
    """Without noise on the path the velocity is y - x_0, and every method is exact."""
    clean, noisy = np.random.default_rng(1).standard_normal((2, 2, 3, 4, 2)).astype(np.float32)
    path = FlowPath(0.0, 1e-9)
    out = jax.jit(lambda: flow.sample(lambda x, t: noisy - clean, noisy, path, Solver(TimeGrid(num_steps), method),
                                      lambda level, which: np.ones_like(noisy)))()
    np.testing.assert_allclose(out, clean, atol=1e-6)


@pytest.mark.parametrize('method, evaluations', [('euler', [1.0, 0.55, 0.1]), ('heun', [1.0, 0.55, 0.55, 0.1, 0.1])])
def test_evaluations(method, evaluations):
    solver = Solver(TimeGrid(3, 0.1), method)
    noisy, draw = jnp.ones((1, 2, 3, 2)), lambda level, which: jnp.ones((1, 2, 3, 2))
    for sample in (lambda model: flow.sample(model, noisy, FlowPath(), solver, draw),
                   lambda model: flow.probability_flow(model, noisy, Ouve(), solver, draw)):
        times = closed_form.count(sample, lambda x, t: x)
        assert len(times) == solver.evaluations
        np.testing.assert_allclose(times[:, 0], evaluations, rtol=1e-6)


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="method must be one of .*, got 'rk45'"):
        Solver(method='rk45')
