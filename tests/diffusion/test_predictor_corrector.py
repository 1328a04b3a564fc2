"""The predictor-corrector sampler: every step of the authors' code, and Gaussian targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.diffusion import ddpm, predictor_corrector
from jax_diffse.diffusion.predictor_corrector import PredictorCorrector
from jax_diffse.diffusion.processes import Bbed, Ouve
from jax_diffse.diffusion.time_grid import TimeGrid
from tests.diffusion import closed_form, gaussian
from tests.diffusion.released import check_rows, turned

CASES = ('pc', 'pc_few', 'pc_two', 'pc_langevin', 'pc_none', 'pc_eps')


def released_rule(case):
    config = closed_form.fixture().json('config')['pc'][case]
    return PredictorCorrector(TimeGrid(config['N'], config.get('eps', 0.03)), config['corrector'],
                              config['corrector_steps'], config['snr'], released=True)


@pytest.mark.parity
@pytest.mark.parametrize('case', CASES)
def test_every_step_of_the_released_sampler(case):
    """The state after the last prediction is not compared: its noise is drawn and discarded."""
    fixture, rule = closed_form.fixture(), released_rule(case)
    out, before, means = jax.jit(lambda: predictor_corrector.sample(
        closed_form.score, closed_form.noisy(), Ouve(), rule, closed_form.draw(case), trajectory=True))()
    fixture.check(f'{case}/out', turned(out))
    fixture.check(f'{case}/x_T', turned(before[0]))
    which, after = np.arange(rule.evaluations) % (rule.corrections + 1), before[1:]
    predicted, corrected = which == rule.corrections, which == rule.corrections - 1  # by the last correction of a time
    rows = {'predictor_mean': means[predicted], 'predictor': after[predicted[:-1]]}
    if rule.corrections:
        rows |= {'corrector_mean': means[corrected], 'corrector': after[corrected[:-1]]}
    for name, states in rows.items():
        check_rows(fixture, f'{case}/{name}', states, missing=int(name == 'predictor'))
        if case == 'pc_few':
            fixture.check(f'{case}/{name}/first', turned(states[0]))


@pytest.mark.parity
@pytest.mark.parametrize('case', CASES)
def test_released_times_and_number_of_evaluations(case):
    fixture, rule = closed_form.fixture(), released_rule(case)
    times = closed_form.count(lambda score: predictor_corrector.sample(
        score, closed_form.noisy(), Ouve(), rule, closed_form.draw(case)), closed_form.score)
    assert len(times) == rule.evaluations == fixture[f'{case}/nfe']
    for column in times.T:
        fixture.check(f'{case}/times', column)


# ------------------------------------------------------------------------------------------------- Gaussian targets

NOISY, MEAN, VARIANCE = 1.0, 0.4, 0.3


def moments(process, rule):
    """Mean and variance of each part of the samples."""
    def visit(draw):
        noisy = jnp.full((2 + 3 * rule.evaluations + 2, 1, 1, 2), NOISY)
        return predictor_corrector.sample(gaussian.score(process, NOISY, MEAN, VARIANCE), noisy, process, rule,
                                          draw)[None]

    mean, variance = gaussian.moments(visit, rule.evaluations + 1, 3, (1, 1, 2))
    np.testing.assert_allclose(mean[..., 0], mean[..., 1])
    return mean.flat[0], variance.flat[0]


def limit(process, t_max):
    """Mean and total variance at t = 0 of the reverse equation, solved from the sampler's start on.

    The equation keeps the marginals. With spread C and pull p, a distance from their mean obeys
    d' / d = -p + g^2 / C = p + C' / C, as C' = -2 p C + g^2. So d(0) = d(t) a(t) C(0) / C(t), with a' / a = -p; a
    distance from their variance goes with the square.
    """
    centre, spread = gaussian.marginal(process, t_max, NOISY, MEAN, VARIANCE)
    factor = process.weights(t_max)[0] * VARIANCE / spread
    return MEAN + factor * (NOISY - centre), VARIANCE + factor**2 * (process.std(t_max)**2 - spread)


@pytest.mark.parametrize('process, t_max', [(Ouve(), 1.0), (Ouve(2.0, 0.1, 1.0), 1.0), (Bbed(), 0.999)], ids=repr)
def test_predictions_converge_to_the_reverse_equation(process, t_max):
    """In mean and variance, to first order in the step; BBED starts where its marginals are, and ends at the target."""
    mean, variance = limit(process, t_max)
    if isinstance(process, Bbed):
        np.testing.assert_allclose([mean, variance], [MEAN, VARIANCE], atol=2e-3)
    errors = []
    for num_steps in (50, 100, 200):
        grid = TimeGrid(num_steps, t_max / num_steps, t_max)
        found = moments(process, PredictorCorrector(grid, 'none'))
        errors.append(np.subtract(found, (mean, variance / 2)))
    assert np.max(np.abs(errors[-1])) < 0.02
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.2)


def test_corrections_lead_to_the_target_from_a_wrong_start():
    """The prior of OUVE lacks 0.223 x_0. Small Langevin steps remove that, and what they leave vanishes with N."""
    found = moments(Ouve(), PredictorCorrector(TimeGrid(150, 1 / 150), snr=0.2, corrector_steps=2))
    np.testing.assert_allclose(found, [MEAN, VARIANCE / 2], rtol=0.03)


def test_a_few_steps_by_hand():
    """The recursion of mean and variance, in float64, with two corrections per time."""
    process, (mean, variance) = Ouve(), (NOISY, Ouve().std(1.0)**2)
    t, snr = [1.0, 0.7, 0.4, 0.1], 0.4
    for time, step in zip(t, [0.3, 0.3, 0.3, 0.1]):
        centre, spread = gaussian.marginal(process, time, NOISY, MEAN, VARIANCE)
        e = 2 * (snr * process.std(time))**2
        for _ in range(2):
            mean = mean + e * (centre - mean) / spread
            variance = (1 - e / spread)**2 * variance + 2 * e
        squared = process.diffusion(time)**2 * step
        mean = mean - 1.5 * (NOISY - mean) * step + squared * (centre - mean) / spread
        variance = (1 + 1.5 * step - squared / spread)**2 * variance + (squared if time > 0.2 else 0)
    rule = PredictorCorrector(TimeGrid(4, 0.1), snr=snr, corrector_steps=2)
    np.testing.assert_allclose(moments(process, rule), [mean, variance / 2], rtol=1e-5)


# ------------------------------------------------------------------------------------------------- Langevin dynamics


def run_langevin(noisy, num_frames=None, released=False):
    """Two steps with draws per frame, and a score that is zero beyond the real frames' influence."""
    keys = jax.random.split(jax.random.key(1), len(noisy))
    draw = ddpm.frame_draws(keys, noisy.shape[1:])
    rule = PredictorCorrector(TimeGrid(2), 'langevin', snr=0.3, released=released)
    return jax.jit(lambda: predictor_corrector.sample(lambda x, t: (0.8 * noisy - x) / (0.1 + t[:, None, None, None]),
                                                      noisy, Ouve(), rule, draw, num_frames=num_frames))()


def test_langevin_steps_couple_examples_only_if_released():
    noisy = jax.random.normal(jax.random.key(0), (2, 5, 3, 2))
    other = noisy.at[1].multiply(3.0)
    np.testing.assert_array_equal(run_langevin(noisy)[0], run_langevin(other)[0])
    assert np.max(np.abs(run_langevin(noisy, released=True)[0] - run_langevin(other, released=True)[0])) > 1e-3


def test_padding_frames_change_no_langevin_step():
    noisy = jax.random.normal(jax.random.key(0), (2, 5, 3, 2))
    padded = jnp.pad(noisy, ((0, 0), (0, 3), (0, 0), (0, 0)), constant_values=7.0)
    found = run_langevin(padded, jnp.array([5, 5]))
    np.testing.assert_allclose(found[:, :5], run_langevin(noisy), atol=1e-5)
    assert np.max(np.abs(run_langevin(padded)[:, :5] - found[:, :5])) > 1e-3


def test_a_score_of_zero_is_not_divided_by():
    rule = PredictorCorrector(TimeGrid(2), 'langevin')
    out = predictor_corrector.sample(lambda x, t: 0 * x, jnp.ones((1, 2, 3, 2)), Ouve(), rule,
                                     lambda level, which: jnp.ones((1, 2, 3, 2)))
    assert np.all(np.isfinite(out))


@pytest.mark.parametrize('fields, message', [
    ({'corrector': 'euler'}, "corrector must be one of .*, got 'euler'"),
    ({'snr': -0.5}, 'snr: expected 0 or more, got -0.5'),
    ({'corrector_steps': 0}, 'corrector_steps: expected 1 or more .*, got 0'),
])
def test_rules_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PredictorCorrector(**fields)
