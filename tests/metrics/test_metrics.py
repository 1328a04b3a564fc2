"""Metrics against the values of the reference implementation and their formulas, and undefined metrics."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest

from jax_diffse.errors import UserError
from jax_diffse.metrics import COMPARING, DEFAULT, METRICS, Pool, distortion, perceptual, score
from tests import reference

RATE = 16000
FIXTURE_NAMES = {'pesq_wb': 'pesq'}  # our name -> the reference's, if different
GOLDEN_NAMES = {'pesq_wb': 'pesq', 'si_sdr': 'si_sdr_torchmetrics_nozeromean'}


def speech(seconds=1.0, snr=10.0, rate=RATE, salt='test'):
    """A speech-like signal with a noise floor, and the same with noise at an SNR in dB."""
    n = int(seconds * rate)
    clean = reference.waveform(salt, 'speech', n, rate) + 0.002 * reference.array(salt, 'floor', [n])
    noise = reference.array(salt, 'noise', [n])
    gain = 10 ** (-snr / 20) * np.linalg.norm(clean) / np.linalg.norm(noise)
    return clean, (clean + gain * noise).astype(np.float32)


def assert_all_undefined(scores, names=DEFAULT):
    assert list(scores.values) == list(names)
    assert all(np.isnan(value) for value in scores.values.values())
    assert set(scores.reasons) == set(names) and all(scores.reasons.values())


# ---------------------------------------------------------------- parity


@pytest.fixture(scope='module')
def fixture():
    return reference.load('metrics')


@pytest.fixture(scope='module')
def fixture_scores(fixture):
    names = fixture['names']
    return [score(fixture.inputs[f'{name}/clean'], fixture.inputs[f'{name}/degraded'], RATE) for name in names]


@pytest.mark.parity
@pytest.mark.parametrize('name', DEFAULT)
def test_equals_the_reference(name, fixture, fixture_scores):
    expected = fixture[f'score/{FIXTURE_NAMES.get(name, name)}']
    np.testing.assert_allclose([scores.values[name] for scores in fixture_scores], expected, atol=1e-3, rtol=0)
    for scores, value in zip(fixture_scores, expected, strict=True):
        assert np.isnan(value) == (name in scores.reasons)


@pytest.mark.parity
def test_linear_prediction_equals_the_reference(fixture):
    filters, lags = distortion.lpc(fixture.inputs['lpc/frame'].astype(np.float64)[None], 16)
    np.testing.assert_allclose(filters[0], fixture['lpc/coefficients'], atol=fixture.tolerance('lpc/coefficients'))
    np.testing.assert_allclose(lags[0], fixture['lpc/autocorrelation'], atol=fixture.tolerance('lpc/autocorrelation'))


@pytest.mark.parity
def test_spectral_peaks_equal_the_reference(fixture):
    energies = fixture.inputs['peaks/energy'][None]
    peaks = distortion.nearest_peaks(np.diff(energies), energies)
    np.testing.assert_array_equal(peaks[0], fixture['peaks/loc_peaks'])


@pytest.mark.parity
def test_pairs_that_pesq_refuses_are_undefined(fixture):
    for pair in fixture['failure/names']:
        scores = score(fixture.inputs[f'{pair}/clean'], fixture.inputs[f'{pair}/degraded'], RATE, ('pesq_wb', 'covl'))
        assert_all_undefined(scores, ('pesq_wb', 'covl'))


@pytest.mark.parity
@pytest.mark.parametrize('name', [name for name in DEFAULT if name != 'pesq_nb'])
def test_equals_the_reference_on_real_speech(name):
    golden = reference.load_golden('metrics.npz')
    actual = [score(golden[f'clean_{clean}'], golden[f'deg_{pair}'], RATE, (name,)).values[name]
              for pair, clean in enumerate(golden['clean_index'])]
    np.testing.assert_allclose(actual, golden[f'score_{GOLDEN_NAMES.get(name, name)}'], atol=1e-3, rtol=0)


# ---------------------------------------------------------------- the mathematics


def test_sdr_counts_a_wrong_level_as_distortion():
    clean = np.tile([1.0, 1.0], 400)
    noise = np.tile([0.1, -0.1], 400)  # orthogonal, a hundredth of the energy: 20 dB
    assert distortion.sdr(clean, clean + noise, RATE) == pytest.approx(20.0, abs=1e-9)
    for scale in (0.9, -3.0):  # of the signal (scale - 1) is distortion
        assert distortion.sdr(clean, scale * clean, RATE) == pytest.approx(-20 * np.log10(abs(1 - scale)), abs=1e-9)
        energies = (1 - scale) ** 2 + scale ** 2 / 100  # of the two distortions, which are orthogonal
        assert distortion.sdr(clean, scale * (clean + noise), RATE) == pytest.approx(-10 * np.log10(energies), abs=1e-9)


def test_sdr_is_computed_where_it_is_named_alone():
    assert 'sdr' not in score(*speech(0.1), RATE).values
    clean, degraded = speech(snr=7.0)
    assert score(clean, degraded, RATE, ('sdr',)).values['sdr'] == pytest.approx(7.0, abs=1e-3)


def test_si_sdr_of_orthogonal_noise_is_the_energy_ratio():
    clean = np.tile([1.0, 1.0], 400)
    noise = np.tile([0.1, -0.1], 400)  # orthogonal, a hundredth of the energy: 20 dB
    assert distortion.si_sdr(clean, clean + noise, RATE) == pytest.approx(20.0, abs=1e-9)


def test_si_sdr_ignores_scale_and_sign_but_not_the_mean():
    clean, degraded = (x.astype(np.float64) for x in speech())
    value = distortion.si_sdr(clean, degraded, RATE)
    assert distortion.si_sdr(3.0 * clean, -0.2 * degraded, RATE) == pytest.approx(value, abs=1e-9)
    assert distortion.si_sdr(clean, degraded + 1.0, RATE) < value - 10


@pytest.mark.parametrize('error, expected', [(0.1, 20.0), (1e-9, 35.0), (100.0, -10.0)])
def test_ssnr_of_a_proportional_error(error, expected):
    clean = reference.array('test', 'ssnr', [4000]).astype(np.float64)
    assert distortion.ssnr(clean, (1 + error) * clean, RATE) == pytest.approx(expected, abs=1e-6)


def test_ssnr_is_the_mean_over_frames_but_the_last():
    clean = np.ones(480 + 3 * 120)  # four frames
    degraded = clean.copy()
    degraded[-120:] += 1.0  # in the last frame alone: not counted
    assert distortion.ssnr(clean, degraded, RATE) == pytest.approx(35.0)


def test_frames_drop_an_incomplete_last_frame():
    assert distortion.frames(np.ones(480 + 120 + 119), RATE).shape == (2, 480)
    assert distortion.frames(np.ones(240 + 60), 8000).shape == (2, 240)


def test_linear_prediction_solves_the_normal_equations():
    windowed = distortion.frames(speech(0.2)[0].astype(np.float64), RATE)
    filters, lags = distortion.lpc(windowed, 10)
    index = np.abs(np.arange(10)[:, None] - np.arange(10))
    for a, r in zip(filters, lags, strict=True):
        np.testing.assert_allclose(a[1:], np.linalg.solve(r[index].astype(np.float64), -r[1:]), atol=1e-3)


def test_equal_signals_have_no_distortion():
    clean, _ = speech()
    scores = score(clean, clean, RATE, COMPARING)
    assert scores.values['llr'] == scores.values['wss'] == 0.0
    assert scores.values['stoi'] == pytest.approx(1.0) and scores.values['ssnr'] == 35.0
    for name in ('sdr', 'si_sdr'):
        assert np.isnan(scores.values[name]) and 'inf' in scores.reasons[name]


def test_wss_grows_with_noise_and_ignores_level():
    clean, noisy = speech(snr=20)
    _, noisier = speech(snr=0)
    values = [score(clean, x, RATE, ('wss',)).values['wss'] for x in (noisy, 0.1 * noisy, noisier)]
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    assert values[2] > values[0] > 0


def test_nearest_peak_of_one_hill():
    energies = np.array([[0.0, 1.0, 5.0, 2.0, 1.0]])  # rises to band 2, falls after it
    peaks = distortion.nearest_peaks(np.diff(energies), energies)
    np.testing.assert_array_equal(peaks, [[1.0, 1.0, 5.0, 5.0]])


def test_composites_are_the_published_formulas():
    clean, degraded = speech(snr=15)
    v = types.SimpleNamespace(**score(clean, degraded, RATE).values)
    assert 1 < v.csig < 5 and 1 < v.cbak < 5 and 1 < v.covl < 5
    assert v.csig == pytest.approx(3.093 - 1.029 * v.llr + 0.603 * v.pesq_wb - 0.009 * v.wss)
    assert v.cbak == pytest.approx(1.634 + 0.478 * v.pesq_wb - 0.007 * v.wss + 0.063 * v.ssnr)
    assert v.covl == pytest.approx(1.594 + 0.805 * v.pesq_wb - 0.512 * v.llr - 0.007 * v.wss)
    assert perceptual.csig(4.6, 0.0, 0.0) == 5.0 and perceptual.covl(1.0, 3.0, 200.0) == 1.0


# ---------------------------------------------------------------- undefined scores


def test_names_choose_and_order_the_metrics():
    clean, degraded = speech()
    scores = score(clean, degraded, RATE, ('covl', 'ssnr'))
    assert list(scores.values) == ['covl', 'ssnr'] and not scores.reasons


def test_each_metric_is_computed_once(monkeypatch):
    calls = []
    monkeypatch.setitem(METRICS, 'pesq_wb', METRICS['pesq_wb']._replace(function=lambda *_: calls.append(1) or 2.0))
    score(*speech(), RATE, ('csig', 'cbak', 'pesq_wb', 'covl'))
    assert len(calls) == 1


@pytest.mark.parametrize('spoil, reason', [
    (lambda clean, x: (clean, np.where(np.arange(len(x)) == 7, np.nan, x)), 'degraded signal has NaN'),
    (lambda clean, x: (np.where(np.arange(len(x)) == 7, np.inf, x), x), 'clean signal has NaN or infinite'),
    (lambda clean, x: (clean, 0 * x), 'degraded signal is all zero'),
    (lambda clean, x: (0 * clean, x), 'clean signal is all zero'),
    (lambda clean, x: (clean[:0], x[:0]), 'clean signal is all zero'),
    (lambda clean, x: (clean, x[:-1]), 'must have one shape'),
    (lambda clean, x: (clean[:, None], x[:, None]), 'must have one shape'),
])
def test_unusable_signals_are_undefined_with_the_reason(spoil, reason):
    scores = score(*spoil(*speech(0.3)), RATE)
    assert_all_undefined(scores)
    assert all(reason in text for text in scores.reasons.values())


def test_too_short_for_some_metrics():
    scores = score(*speech(0.03), RATE)
    assert set(scores.reasons) == set(DEFAULT) - {'si_sdr'}
    assert 'two frames' in scores.reasons['ssnr'] and '0.4 s' in scores.reasons['stoi']
    assert scores.reasons['csig'].startswith('needs pesq_wb: ')


def test_a_few_silent_frames_do_not_spoil_llr():
    clean, degraded = speech(2.0)
    clean[8000:8700] = 0  # two or three of 263 frames
    assert np.isfinite(score(clean, degraded, RATE, ('llr',)).values['llr'])


def test_pesq_is_undefined_where_its_code_would_fail():
    clean, degraded = speech()
    assert 'silent' in score(1e-7 * clean, degraded, RATE, ('pesq_wb',)).reasons['pesq_wb']
    long = np.tile(clean, 51)
    assert 'limited to 50 s' in score(long, long, RATE, ('pesq_nb',)).reasons['pesq_nb']


def test_telephone_rate_has_no_wideband_pesq():
    scores = score(*speech(rate=8000), 8000)
    assert set(scores.reasons) == {'pesq_wb', 'csig', 'cbak', 'covl'}
    assert '16000' in scores.reasons['pesq_wb'] and 1 < scores.values['pesq_nb'] < 4.6


def test_an_unexpected_failure_is_a_reason(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError('no luck')
    monkeypatch.setitem(METRICS, 'wss', METRICS['wss']._replace(function=broken))
    scores = score(*speech(), RATE, ('wss', 'si_sdr'))
    assert scores.reasons == {'wss': 'ZeroDivisionError: no luck'} and np.isfinite(scores.values['si_sdr'])


def test_wrong_requests_are_user_errors():
    pair = speech(0.1)
    with pytest.raises(UserError, match="'pesq' does not exist.*pesq_wb"):
        score(*pair, RATE, ('pesq',))
    with pytest.raises(UserError, match='44100: resample'):
        Pool(0).score_all([pair], 44100)
    with pytest.raises(UserError, match='workers is -1'):
        Pool(-1)


# ---------------------------------------------------------------- the pool

QUICK = ('si_sdr', 'ssnr', 'llr', 'wss')


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (3,)


def test_the_pool_gives_the_same_scores_in_order():
    jobs = [speech(0.2 + 0.1 * (5 - k), snr=3.0 * k) for k in range(6)]
    expected = [score(*job, RATE, QUICK) for job in jobs]
    for workers in (2, 0):
        with Pool(workers) as pool:
            for _ in range(2):  # a pool serves several calls
                for scores, (values, _) in zip(pool.score_all(jobs, RATE, QUICK), expected, strict=True):
                    assert list(scores.values) == list(QUICK) and not scores.reasons
                    assert scores.values == pytest.approx(values, rel=1e-9)


def test_a_dying_worker_costs_its_own_pair_only():
    jobs = [speech(0.2, snr=3.0 * k) for k in range(4)]
    jobs[1] = (Deadly(), jobs[1][1])
    with Pool(1) as pool:
        results = list(pool.score_all(jobs, RATE, QUICK))
    assert_all_undefined(results[1], QUICK)
    assert 'exit status 3' in results[1].reasons['llr']
    assert [not result.reasons for result in results] == [True, False, True, True]


def test_jobs_are_consumed_as_results_are():
    taken = []

    def jobs():
        for k in range(100):
            taken.append(k)
            yield speech(0.1)

    with Pool(1) as pool:
        results = pool.score_all(jobs(), RATE, ('si_sdr',))
        next(results)
        results.close()
    assert len(taken) == 3


def test_workers_import_nothing_heavy():
    code = 'import sys, jax_diffse.metrics; print(sorted({"jax", "tensorflow", "scipy"} & set(sys.modules)))'
    output = subprocess.check_output([sys.executable, '-c', code], text=True, cwd=reference.ROOT)
    assert output.strip() == '[]'
