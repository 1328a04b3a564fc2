"""Noise schedules: against the original PyTorch code, and their alignment."""

import numpy as np
import pytest

from jax_diffse.diffusion.schedule import (
    FAST_BETA,
    Schedule,
    align,
    fast,
    from_alpha_bar,
    guided,
    linear,
    respaced,
    spaced,
)
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
    training = linear(len(golden['full_beta']), *golden['full_beta'][[0, -1]])
    for name, ours in (('fast', align(golden['fast_beta'], training)), ('full', training)):
        check_released(golden, f'{name}_', ours)
    np.testing.assert_allclose(training.alpha_bar, golden['train_noise_level'], rtol=1e-5)


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


# -------------------------------------------------------------------------------------------------- guided diffusion


def series(levels: Schedule) -> dict[str, np.ndarray]:
    """What guided diffusion tabulates, by its names: our numbers, and what follows from them (Ho et al., eq. 7)."""
    variance, below, level = levels.sigma**2, levels.alpha_bar_previous, levels.alpha_bar
    return {'betas': levels.beta, 'alphas_cumprod': level, 'alphas_cumprod_prev': below, 'posterior_variance': variance,
            'posterior_log_variance_clipped': np.log(np.append(variance[1], variance[1:])),
            'posterior_mean_coef1': np.sqrt(below) * levels.beta / (1 - level),
            'posterior_mean_coef2': np.sqrt(levels.alpha) * (1 - below) / (1 - level)}


def relative(name: str) -> float:
    return 1e-12 if name == 'betas' else 1e-10


@pytest.mark.parametrize('name', ['linear', 'cosine'])
@pytest.mark.parity
def test_named_schedules_of_guided_diffusion(name):
    np.testing.assert_allclose(guided(name, 50).beta, reference.load('diffiner')[f'schedule/{name}_50'], rtol=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize('respacing', ['ddim200', 'ddim50', 'ddim10', '100', '10,5,5', '1,20,7', ''])
def test_respacings_of_guided_diffusion(respacing):
    """Long series by their first and last five values and by their fingerprints."""
    fixture, levels, key = reference.load('diffiner'), spaced(guided(), respacing), f'respacing/{respacing or "none"}'
    assert respacing in fixture.json('config')['respacings']
    ours, steps = series(levels), {'timesteps': levels.t}
    if f'{key}/timesteps' in fixture:
        np.testing.assert_array_equal(levels.t, fixture[f'{key}/timesteps'])
        for name, values in ours.items():
            np.testing.assert_allclose(values, fixture[f'{key}/{name}'], rtol=relative(name), err_msg=name)
        return
    np.testing.assert_array_equal(levels.t[[*range(5), *range(-5, 0)]], fixture[f'{key}/timesteps/ends'][0])
    fixture.check_table(f'{key}/timesteps', steps, relative=1e-12)
    for name, ends in zip(fixture.names(f'{key}/table'), fixture[f'{key}/table/ends'], strict=True):
        np.testing.assert_allclose(ours[name][[*range(5), *range(-5, 0)]], ends, rtol=relative(name), err_msg=name)
    fixture.check_table(f'{key}/table', ours, relative=1e-10)


@pytest.mark.parity
def test_golden_respacings():
    golden = reference.load_golden('diffiner/respacing.npz')
    for key in golden.keys():
        name, respacing = key.split('/')
        if name == 'named_beta_schedule':
            kind, num_steps = respacing.split('_')
            np.testing.assert_allclose(guided(kind, int(num_steps)).beta, golden[key], rtol=1e-12)
            continue
        levels = spaced(guided(num_steps=len(golden['use_timesteps/none'])), respacing.replace('none', ''))
        ours = series(levels) | {'use_timesteps': levels.t, 'timestep_map': levels.t}
        np.testing.assert_allclose(ours[name], golden[key], rtol=relative(name), err_msg=key)


def test_guided_schedules():
    """Linear: 1e-4 to 0.02 in 1000 steps (Ho et al.), a quarter of that in 4000. Cosine: Nichol & Dhariwal, eq. 17."""
    training = guided()
    assert len(training) == 4000 and training.beta[[0, -1]] == pytest.approx([2.5e-5, 5e-3], rel=1e-12)
    cosine = guided('cosine', 50)
    level = np.cos((np.arange(51) / 50 + 0.008) / 1.008 * np.pi / 2)**2
    np.testing.assert_allclose(cosine.alpha_bar[:-1], level[1:-1] / level[0], rtol=1e-10)
    assert cosine.beta[-1] == 0.999
    with pytest.raises(ValueError, match="schedule must be 'linear' or 'cosine', got 'sine'"):
        guided('sine')


@pytest.mark.parametrize('respacing, kept', [
    ('ddim3', [0, 4, 8]), ('ddim6', [0, 2, 4, 6, 8, 10]), ('ddim5', [0, 2, 4, 7, 9]), ('ddim7', [0, 1, 3, 5, 6, 8, 10]),
    ('ddim1', [0]), ('ddim12', range(12)), ('1', [0]), ('2', [0, 11]), ('4', [0, 4, 7, 11]), ('2,3', [0, 5, 6, 8, 11]),
    ('3,1,2', [0, 2, 3, 4, 8, 11]), ('12', range(12)), ('', range(12))])
def test_kept_steps_of_twelve(respacing, kept):
    """By hand: whole distances, or rounded down where none fits; sections from their first to their last step."""
    twelve, levels = linear(12), spaced(linear(12), respacing)
    np.testing.assert_array_equal(levels.t, kept)
    np.testing.assert_allclose(levels.alpha_bar, twelve.alpha_bar[list(kept)], rtol=1e-12)


@pytest.mark.parametrize('respacing', ['ddim', 'ddim0', 'ddim2,3', '0', '3,', 'three', '-1', '2.5'])
def test_respacings_of_another_form_are_refused(respacing):
    with pytest.raises(ValueError, match=f"expected 'ddimN', 'N' or 'A,B,...' with whole numbers, got '{respacing}'"):
        spaced(linear(12), respacing)


@pytest.mark.parametrize('respacing', ['ddim13', '13', '7,1', '1,7'])
def test_more_steps_than_there_are_are_refused(respacing):
    with pytest.raises(ValueError, match=f"respacing '{respacing}': more steps than the 12 of training"):
        spaced(linear(12), respacing)
