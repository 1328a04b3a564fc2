"""The log-spectral distance and the parts of SI-SDR against closed forms."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from jax_diffse.metrics import DEFAULT, METRICS, distortion, score

RATE = 16000
WIDTH, HOP = 480, 120  # frames of 30 ms and a hop of a quarter
PLACES = np.array([60, 180, 300, 420])  # of the only impulse in each of four consecutive frames


def window(place):
    """Hann's window of 480 samples whose first and last values are not zero."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * (place + 1) / (WIDTH + 1))


def impulses():
    """One impulse per 30 ms: the spectrum of every frame is flat, the square of the window at its place."""
    signal = np.zeros(WIDTH * 5)
    signal[PLACES[0]::WIDTH] = 1.0
    return signal


# ------------------------------------------------------------------------------------------------------------- LSD


@pytest.mark.parametrize('gain', [0.5, -3.0, 1.0])
def test_lsd_of_a_gain_is_the_gain(gain):
    assert distortion.lsd(impulses(), gain * impulses(), RATE) == pytest.approx(abs(20 * np.log10(abs(gain))))


def test_lsd_of_a_filter_is_the_rms_over_frequency_of_its_response_in_db():
    """Gray and Markel (1976), the discrete form: of the power of two neighbouring impulses, by the law of cosines."""
    first, second = window(PLACES), 0.5 * window(PLACES + 1)
    angle = 2 * np.pi * np.arange(WIDTH // 2 + 1)[:, None] / WIDTH
    response = 10 * np.log10((first ** 2 + second ** 2 + 2 * first * second * np.cos(angle)) / first ** 2)
    filtered = impulses() + 0.5 * np.roll(impulses(), 1)
    found = distortion.lsd(impulses()[:WIDTH + 3 * HOP], filtered[:WIDTH + 3 * HOP], RATE)  # four frames
    assert found == pytest.approx(np.mean(np.sqrt(np.mean(response ** 2, axis=0))))


def test_lsd_ends_50_db_below_the_maximum_of_the_clean_speech():
    clean = impulses()[:WIDTH + 3 * HOP]
    expected = 50 + np.mean(20 * np.log10(window(PLACES) / np.max(window(PLACES))))
    assert distortion.lsd(clean, 1e-9 * clean, RATE) == pytest.approx(expected)
    assert distortion.lsd(1e-9 * clean, clean, RATE) > 170  # the floor is not that of the output


def test_lsd_counts_all_frames_and_needs_two():
    clean, late = np.zeros(WIDTH + HOP), np.zeros(WIDTH + HOP)
    clean[300], late[300], late[-1] = 1, 1, 1
    assert distortion.lsd(clean, clean, RATE) == 0 < distortion.lsd(clean, late, RATE)
    assert 'two frames' in score(clean[100:], late[100:], RATE, ('lsd',)).reasons['lsd']


# -------------------------------------------------------------------------------------------------- SI-SIR and SI-SAR


def test_parts_of_orthogonal_signals_are_ratios_of_energies():
    speech, noise, artefacts = np.eye(3, 600)
    output = 3 * speech + 0.3 * noise - 0.03 * artefacts
    for gain in (1.0, -2.0):  # of the noise, and of the whole
        assert distortion.si_sir(speech, gain * output, gain * noise) == pytest.approx(20)
        assert distortion.si_sar(speech, gain * output, gain * noise) == pytest.approx(40)


def test_the_noise_is_only_what_is_orthogonal_to_speech():
    """By hand: noise (1, 1) beside speech (1, 0) adds to the target what it has of it."""
    speech, noise = np.array([1.0, 0, 0]), np.array([1.0, 1, 0])
    output = np.array([2.0, 0.5, 0.1])
    assert distortion.si_sir(speech, output, noise) == pytest.approx(20 * np.log10(2 / 0.5))
    assert distortion.si_sar(speech, output, noise) == pytest.approx(20 * np.log10(2 / 0.1))


def test_both_parts_together_are_si_sdr():
    """Le Roux et al. (2019): the parts are orthogonal."""
    speech, noise, output = np.random.default_rng(0).standard_normal((3, 1000)) + 0.3
    sdr, sir, sar = (10 ** (-value / 10) for value in (
        distortion.si_sdr(speech, output, RATE), distortion.si_sir(speech, output, noise),
        distortion.si_sar(speech, output, noise)))
    assert_allclose(sdr, sir + sar, rtol=1e-9)
    basis = np.stack([speech, noise], 1)  # the projection on both, by least squares
    artefacts = output - basis @ np.linalg.lstsq(basis, output, rcond=None)[0]
    assert_allclose(sar, np.sum(artefacts ** 2) / np.sum((output @ speech / (speech @ speech) * speech) ** 2))


def test_undefined_parts_have_a_reason():
    rng = np.random.default_rng(0)
    clean, noisy, enhanced = rng.standard_normal((3, 1000))
    names = ('si_sir', 'si_sar')
    found = score(clean, noisy, RATE, names, noisy=noisy)
    assert list(found.reasons) == ['si_sar'] and 'a sum of clean speech and noise' in found.reasons['si_sar']
    assert found.values['si_sir'] == pytest.approx(score(clean, noisy, RATE, ('si_sdr',)).values['si_sdr'])
    assert 'silent or proportional' in score(clean, enhanced, RATE, names, noisy=clean).reasons['si_sir']
    assert 'silent or proportional' in score(clean, enhanced, RATE, names, noisy=2 * clean).reasons['si_sar']
    assert 'no noise is left' in score(clean, clean, RATE, names, noisy=noisy).reasons['si_sir']
    found = score(clean, enhanced, RATE, (*names, 'sdr'), noisy=noisy * np.nan)
    assert 'noisy signal has NaN' in found.reasons['si_sir'] and 'sdr' not in found.reasons
    assert score(clean, enhanced, RATE, names).reasons == dict.fromkeys(names, 'needs the noisy signal')


def test_they_are_computed_only_if_named():
    assert not {'lsd', 'si_sir', 'si_sar'} & set(DEFAULT)
    assert METRICS['lsd'].lower_is_better and not METRICS['si_sir'].lower_is_better
