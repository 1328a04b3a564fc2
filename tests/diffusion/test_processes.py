"""Processes in continuous time: the authors' values, the moment equations, and float32 against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from jax_diffse.diffusion.processes import Bbed, FlowPath, Ouve, SbVe, complex_noise, random_times
from jax_diffse.diffusion.time_grid import TimeGrid
from tests import reference
from tests.diffusion.released import turned

OUVE_48K = Ouve(2.0, 0.1, 1.0)
SDES = [Ouve(), OUVE_48K, Bbed(), Bbed(k=10.0, c=0.08)]
PROCESSES = [*SDES, SbVe(), SbVe(released=True), FlowPath(), FlowPath(0.1, 0.6)]


def inputs(fixture):
    return [jnp.asarray(turned(fixture.inputs[name])) for name in 'xyz']


def check_marginals(fixture, case, process, t):
    """Mean, standard deviation and state of a fixture, in float32."""
    x, y, z = inputs(fixture)
    fixture.check(f'{case}/mean', turned(process.mean(x, y, t)))
    fixture.check(f'{case}/std', process.std(t))
    fixture.check(f'{case}/x_t', turned(process.diffuse(x, y, complex_noise(z), t)))


@pytest.mark.parity
@pytest.mark.parametrize('case', ['ouve', 'ouve_48k'])
def test_released_values_of_the_ouve_process(case):
    fixture = reference.load('sgmse_sampling')
    process, (x, y, _) = Ouve(**fixture.json('config')[case]), inputs(fixture)
    t = jnp.asarray(fixture.inputs['t'])
    check_marginals(fixture, case, process, t)
    drift, diffusion, step = process.drift(x, y, t), process.diffusion(t), 1 / 30
    score = (0.8 * y - x) / (0.1 + t.reshape(-1, 1, 1, 1))
    squared = (diffusion**2).reshape(-1, 1, 1, 1)
    fixture.check(f'{case}/drift', turned(drift))
    fixture.check(f'{case}/diffusion', diffusion)
    fixture.check(f'{case}/f', turned(step * drift))
    fixture.check(f'{case}/G', np.sqrt(step) * diffusion)
    fixture.check(f'{case}/reverse_f', turned(step * (drift - squared * score)))
    fixture.check(f'{case}/reverse_G', np.sqrt(step) * diffusion)
    fixture.check(f'{case}/probability_flow', turned(drift - 0.5 * squared * score))


@pytest.mark.parity
@pytest.mark.parametrize('released', [True, False])
def test_released_values_of_the_bridge(released):
    """The authors' eps makes no difference but at t = 1, where it is all that is left."""
    fixture, process = reference.load('sgmse_sampling'), SbVe(released=released)
    for key, t in (('schedule', fixture.inputs['t_bridge']), ('schedule_at_one', np.float32([1.0]))):
        if key == 'schedule' or released:
            t, one = jnp.asarray(t), jnp.ones(len(t))
            fixture.check(f'sbve/{key}', jnp.stack([process.sigma(t), process.sigma(one), process.sigma_bar(t), one,
                                                    one, one]))
    t = jnp.asarray(fixture.inputs['t_bridge'])
    check_marginals(fixture, 'sbve', process, t)
    fixture.check('sbve/g', process.diffusion(t))


@pytest.mark.parity
@pytest.mark.parametrize('case, process', [('flow_path', FlowPath()), ('flow_path_sigma', FlowPath(0.1, 0.6))])
def test_released_values_of_the_flow_path(case, process):
    fixture = reference.load('sgmse_sampling')
    x, y, z = inputs(fixture)
    check_marginals(fixture, case, process, jnp.asarray(fixture.inputs['t']))
    fixture.check(f'{case}/target', turned(process.velocity(x, y, complex_noise(z))))


@pytest.mark.parametrize('process', SDES, ids=repr)
def test_marginals_solve_the_moment_equations(process):
    """da/dt = -pull a, db/dt = pull (1 - b), dV/dt = -2 pull V + g^2, integrated by SciPy from x_0 on."""
    def slope(t, moments):
        a, b, variance = moments
        pull = process.pull(t)
        return [-pull * a, pull * (1 - b), -2 * pull * variance + process.diffusion(t)**2]

    t = np.linspace(0.01, 0.99, 25)
    solved = integrate.solve_ivp(slope, (0, 0.99), [1.0, 0.0, 0.0], t_eval=t, rtol=1e-10, atol=1e-14).y
    np.testing.assert_allclose([*process.weights(t), process.std(t)**2], solved, rtol=1e-7)


def test_the_bridge_is_pinned_at_both_ends():
    """Between, it is the process dx = g dw, given where that starts and ends: Bayes' rule of its Gaussians."""
    process, t = SbVe(), np.linspace(0.05, 0.95, 7)
    before = np.array([integrate.quad(lambda s: process.diffusion(s)**2, 0, end)[0] for end in t])
    after = np.array([integrate.quad(lambda s: process.diffusion(s)**2, start, 1)[0] for start in t])
    np.testing.assert_allclose(process.std(t)**2, 1 / (1 / before + 1 / after), rtol=1e-10)
    np.testing.assert_allclose(process.weights(t), [after / (before + after), before / (before + after)], rtol=1e-10)
    ends = np.array([0.0, 1.0])
    np.testing.assert_array_equal([*process.weights(ends), process.std(ends)], [[1, 0], [0, 1], [0, 0]])


@pytest.mark.parametrize('process', [FlowPath(), FlowPath(0.1, 0.6)], ids=repr)
def test_the_velocity_is_the_slope_of_the_path(process):
    x, y, z = np.random.default_rng(0).standard_normal((3, 2, 3, 4, 2)).astype(np.float32)
    early, late = (process.diffuse(x, y, z, np.full(2, t)) for t in (0.2, 0.7))
    np.testing.assert_allclose((late - early) / 0.5, process.velocity(x, y, z), atol=1e-5)


@pytest.mark.parametrize('process', PROCESSES, ids=repr)
def test_single_precision_suffices(process):
    """The same formulas on the device and on the host, over all times of training."""
    t = np.linspace(0.03, 0.999, 301, dtype=np.float32)
    functions = [process.weights, process.std] + [getattr(process, name) for name in ('pull', 'diffusion')
                                                  if hasattr(process, name)]
    for function in functions:
        host, device = function(t.astype(np.float64)), jax.jit(function)(t)
        assert np.asarray(host).dtype == np.float64 and np.asarray(device).dtype == np.float32
        np.testing.assert_allclose(device, host, rtol=1e-5)


def test_noise_has_unit_variance_in_total():
    z = np.asarray(complex_noise(jax.random.normal(jax.random.key(0), (100_000, 2))), np.float64)
    assert np.mean(np.sum(z**2, axis=-1)) == pytest.approx(1, abs=4 / np.sqrt(100_000))


@pytest.mark.parity
@pytest.mark.parametrize('case', ['score', 'bridge', 'bridge_one', 'flow'])
def test_released_times_and_states_of_training(case):
    fixture = reference.load('sgmse_training')
    uniform = fixture.inputs['u'][:len(fixture[f'{case}/t'])]
    t = random_times(jnp.asarray(1 - uniform if case == 'flow' else uniform))
    fixture.check(f'{case}/t', t)
    process = {'score': Ouve(), 'flow': FlowPath()}.get(case, SbVe())
    clean, noisy, noise = (jnp.asarray(turned(fixture.inputs[name]))[:len(t)] for name in ('clean', 'noisy', 'noise'))
    fixture.check(f'{case}/x_t', turned(process.diffuse(clean, noisy, complex_noise(noise), t)))


def test_random_times_stay_in_range():
    np.testing.assert_allclose(random_times(jnp.array([0.0, 0.5, 1.0]), 0.1, 0.9), [0.1, 0.5, 0.9], rtol=1e-6)
    assert np.max(random_times(jnp.linspace(0.9, 1, 1001), 0.03, 0.999)) <= np.float32(0.999)


def test_grids():
    np.testing.assert_allclose(TimeGrid(4, 0.1).times, [1, 0.7, 0.4, 0.1])
    np.testing.assert_allclose(TimeGrid(4, 0.1).steps, [0.3, 0.3, 0.3, 0.1])
    np.testing.assert_allclose([TimeGrid(1, 0.1, 0.9).times, TimeGrid(1, 0.1, 0.9).steps], [[0.9], [0.9]])


@pytest.mark.parametrize('build, message', [
    (lambda: Ouve(theta=0), 'theta: expected a positive number, got 0'),
    (lambda: Ouve(sigma_min=0.5, sigma_max=0.5), 'sigma_max: expected more than sigma_min = 0.5, got 0.5'),
    (lambda: Bbed(k=1.0), 'k: expected a number above 1, got 1'),
    (lambda: SbVe(c=-1.0), 'c: expected a positive number, got -1'),
    (lambda: FlowPath(0.5, 0.4), 'expected 0 <= sigma_min < sigma_max, got sigma_min=0.5, sigma_max=0.4'),
    (lambda: TimeGrid(0), 'expected one or more sampling steps, got 0'),
    (lambda: TimeGrid(5, 0.5, 0.4), 'expected 0 < t_eps < t_max <= 1, got t_eps=0.5, t_max=0.4'),
])
def test_parameters_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
