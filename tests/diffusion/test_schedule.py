"""Noise schedules: against the original PyTorch code, and their alignment."""

import numpy as np
import pytest

from jax_diffse.diffusion.schedule import FAST_BETA, Schedule, align, fast, from_alpha_bar, linear, respaced
from tests import reference

TRAINING = linear()
SCHEDULES = {'fast': fast(TRAINING), 'full': TRAINING}


def check_released(data, prefix: str, ours: Schedule):
    """The released arrays. Their sigmas[0] wraps around to the last alpha_bar; it is never used."""
    for theirs, values in (('alpha', ours.alpha), ('beta', ours.beta), ('alpha_cum', ours.alpha_bar)):
        np.testing.assert_allclose(values, data[prefix + theirs], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.sigma[1:], data[f'{prefix}sigmas'][1:], rtol=0, atol=1e-12)
    assert ours.sigma[0] == 0
    np.testing.assert_allclose(ours.t, data[f'{prefix}T'], rtol=np.finfo(np.float32).eps, atol=1e-9)  # float32 there


@pytest.mark.parity
@pytest.mark.parametrize('name', SCHEDULES)
def test_released_schedules(name):
    check_released(reference.load('dr_diffuse_sampling'), f'schedule/{name}/', SCHEDULES[name])


@pytest.mark.parity
def test_released_noise_levels_of_training():
    expected = reference.load('dr_diffuse_sampling')['schedule/train/noise_level']  # a float32 product of 200
    np.testing.assert_allclose(TRAINING.alpha_bar, expected, rtol=1e-5)


@pytest.mark.parity
def test_golden_schedules():
    golden = reference.load_golden('dr_diffuse/schedule.npz')
    for name, ours in SCHEDULES.items():
        check_released(golden, f'{name}_', ours)
    np.testing.assert_allclose(TRAINING.alpha_bar, golden['train_noise_level'], rtol=1e-5)


def test_six_steps():
    """Rounded values of the definitions, computed apart from this code."""
    six = SCHEDULES['fast']
    np.testing.assert_array_equal(six.beta, FAST_BETA)
    np.testing.assert_allclose(six.alpha_bar, [0.999900, 0.998900, 0.988911, 0.939466, 0.751572, 0.488522], atol=6e-7)
    np.testing.assert_allclose(np.sqrt(six.alpha_bar), [0.99995, 0.99945, 0.99444, 0.96926, 0.86693, 0.69894],
                               atol=6e-6)
    np.testing.assert_allclose(six.sigma, [0, 0.009535, 0.031494, 0.095704, 0.220758, 0.412307], atol=6e-7)
    np.testing.assert_allclose(six.t, [0, 2.056304, 8.515639, 21.392657, 46.731194, 74.450902], atol=6e-7)


def test_training_ends_in_noise():
    assert len(TRAINING) == 200 and TRAINING.beta[0] == 1e-4 and TRAINING.beta[-1] == 0.05
    assert TRAINING.alpha_bar[-1] == pytest.approx(0.00612, abs=5e-6)
    np.testing.assert_array_equal(TRAINING.t, np.arange(200))


def check_aligned(levels: Schedule):
    """Levels fall, and the step of each is where training has that level."""
    assert np.all(np.diff(levels.alpha_bar) < 0) and np.all(levels.beta > 0)
    assert np.all(np.diff(levels.t) > 0)
    low = np.floor(levels.t).astype(int)
    high = np.ceil(levels.t).astype(int)
    known = np.sqrt(TRAINING.alpha_bar)
    expected = known[low] + (known[high] - known[low]) * (levels.t - low)
    np.testing.assert_allclose(np.sqrt(levels.alpha_bar), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('num_steps', [2, 3, 5, 6, 12, 25, 50, 199])
def test_any_number_of_fast_steps_spans_the_levels_of_the_six(num_steps):
    levels, six = fast(TRAINING, num_steps), SCHEDULES['fast']
    assert len(levels) == num_steps
    np.testing.assert_allclose(levels.alpha_bar[[0, -1]], six.alpha_bar[[0, -1]], rtol=1e-12)
    check_aligned(levels)


def test_twice_as_fine_fast_steps_hold_the_six_and_their_geometric_means():
    """Halfway between two steps the signal-to-noise ratio is the geometric mean of theirs."""
    levels, six = fast(TRAINING, 11), SCHEDULES['fast']
    snr = levels.alpha_bar / (1 - levels.alpha_bar)
    np.testing.assert_allclose(levels.alpha_bar[::2], six.alpha_bar, rtol=1e-10)
    np.testing.assert_allclose(levels.t[::2], six.t, atol=1e-8)
    np.testing.assert_allclose(snr[1::2]**2, snr[:-1:2] * snr[2::2], rtol=1e-10)


def test_fast_schedules_with_a_meaning_of_their_own():
    assert fast(TRAINING, 200) is TRAINING
    one = fast(TRAINING, 1)
    assert len(one) == 1
    np.testing.assert_allclose(one.alpha_bar, SCHEDULES['fast'].alpha_bar[-1:], rtol=1e-12)
    np.testing.assert_allclose(one.t, SCHEDULES['fast'].t[-1:], atol=1e-8)


def test_respaced_keeps_levels_of_training():
    """Three of five steps; betas by hand, one minus the product of the alphas in between."""
    five = linear(5)
    three = respaced(five, 3)
    np.testing.assert_allclose(five.beta, [1e-4, 0.012575, 0.02505, 0.037525, 0.05], rtol=1e-12)
    np.testing.assert_allclose(three.alpha_bar, five.alpha_bar[[0, 2, 4]], rtol=1e-12)
    np.testing.assert_allclose(three.t, [0, 2, 4], atol=1e-9)
    np.testing.assert_allclose(three.beta, [1e-4, 1 - 0.987425 * 0.97495, 1 - 0.962475 * 0.95], rtol=1e-10)


@pytest.mark.parametrize('num_steps', [2, 6, 12, 50, 199])
def test_respaced_spans_training_at_equal_distances(num_steps):
    levels = respaced(TRAINING, num_steps)
    np.testing.assert_allclose(levels.t, np.linspace(0, 199, num_steps), atol=1e-9)
    check_aligned(levels)


def test_respaced_ends():
    full, one = respaced(TRAINING, 200), respaced(TRAINING, 1)
    np.testing.assert_array_equal(full.beta, TRAINING.beta)
    np.testing.assert_array_equal(full.t, TRAINING.t)
    np.testing.assert_allclose(one.alpha_bar, TRAINING.alpha_bar[-1:], rtol=1e-12)
    np.testing.assert_allclose(one.t, [199])


def test_levels_of_training_align_with_themselves():
    levels = from_alpha_bar(TRAINING.alpha_bar, TRAINING)
    np.testing.assert_allclose(levels.beta, TRAINING.beta, rtol=0, atol=1e-12)
    np.testing.assert_allclose(levels.t, TRAINING.t, atol=1e-9)


@pytest.mark.parametrize('beta', [[5e-5, 0.1], [1e-4, 0.995]])
def test_levels_outside_those_of_training_are_refused(beta):
    with pytest.raises(ValueError, match='lie outside those of training, 0.9999 to 0.0782'):
        align(beta, TRAINING)


@pytest.mark.parametrize('make', [fast, respaced])
@pytest.mark.parametrize('num_steps', [0, 201])
def test_numbers_of_steps_out_of_range_are_refused(make, num_steps):
    with pytest.raises(ValueError, match=f'expected 1 to 200 sampling steps, got {num_steps}'):
        make(TRAINING, num_steps)
