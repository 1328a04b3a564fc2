import numpy as np
import pytest
import soundfile
from numpy.testing import assert_allclose, assert_array_equal

from jax_diffse.errors import UserError
from jax_diffse.evaluation.signals import Reading, Signal, headers

RATE = 16_000
CLEAN = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) / 8


def write(path, samples, rate=RATE, subtype='FLOAT'):
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.mark.parametrize('excess', [0, 100, -100, RATE // 4])
def test_the_longer_signal_is_cut_within_the_tolerance(excess):
    samples = np.concatenate([CLEAN, CLEAN])[:RATE + excess]
    found = Reading(RATE).compared(samples, CLEAN)
    count = min(RATE, RATE + excess)
    assert (found.offset, found.excess, found.reason) == (0, excess, '')
    assert_array_equal(found.samples, samples[:count])
    assert_array_equal(found.clean, CLEAN[:count])


@pytest.mark.parametrize(('excess', 'tolerance'), [(RATE // 4 + 1, 0.25), (-RATE // 2, 0.25), (1, 0)])
def test_beyond_the_tolerance_there_is_no_clean_speech_to_compare_with(excess, tolerance):
    found = Reading(RATE, tolerance=tolerance).compared(np.concatenate([CLEAN, CLEAN])[:RATE + excess], CLEAN)
    assert found.clean is None and len(found.samples) == RATE + excess and found.excess == excess
    assert f'{RATE + excess} samples, but {RATE} in the clean speech' in found.reason


@pytest.mark.parametrize('late', [160, -160])
def test_an_offset_is_reported_and_removed_on_request(late):
    samples = np.roll(CLEAN, late)
    kept, removed = (Reading(RATE, align=align).compared(samples, CLEAN) for align in (False, True))
    assert kept.offset == removed.offset == late and len(kept.samples) == RATE
    assert len(removed.samples) == RATE - 160
    assert_array_equal(removed.samples, removed.clean)


@pytest.mark.parametrize(('late', 'align', 'known'), [
    (160, True, slice(0, -160)), (-160, True, slice(160, None)), (0, False, slice(0, -100))])
def test_noisy_speech_is_put_at_the_time_of_the_clean_speech(tmp_path, late, align, known):
    noise = np.random.default_rng(1).standard_normal(RATE).astype(np.float32) / 16
    path = write(tmp_path / 'a.wav', np.roll(CLEAN + noise, late)[:RATE if align else RATE - 100])
    found = Reading(RATE, align=align).in_time(path, CLEAN)
    expected = CLEAN.copy()
    expected[known] += noise[known]
    assert_array_equal(found, expected)


def test_noisy_speech_of_another_length_or_that_is_no_audio_is_none(tmp_path):
    (tmp_path / 'b.wav').write_text('once upon a time')
    assert Reading(RATE).in_time(write(tmp_path / 'a.wav', CLEAN[:RATE // 2]), CLEAN) is None
    assert Reading(RATE).in_time(tmp_path / 'b.wav', CLEAN) is None


def test_an_offset_that_is_removed_does_not_count_as_length():
    late = np.concatenate([np.zeros(RATE // 2, np.float32), CLEAN])
    assert Reading(RATE).compared(late, CLEAN).clean is None
    assert_array_equal(Reading(RATE, align=True).compared(late, CLEAN).samples, CLEAN)


def test_files_of_any_encoding_rate_and_channel_are_read(tmp_path):
    quiet = (CLEAN / 8).astype(np.float32)
    for subtype in ('PCM_16', 'PCM_24', 'FLOAT', 'DOUBLE'):
        path = write(tmp_path / f'{subtype}.wav', quiet, subtype=subtype)
        assert_allclose(Reading(RATE).read(path), quiet, atol=2**-15)
    stereo = write(tmp_path / 'stereo.wav', np.stack([quiet, 2 * quiet], 1))
    assert_array_equal(Reading(RATE, channel=2).read(stereo), 2 * quiet)
    assert_array_equal(Reading(RATE, channel=2).read(tmp_path / 'FLOAT.wav'), quiet)
    t = np.arange(3 * RATE) / 48_000
    fast = write(tmp_path / 'fast.wav', np.sin(2 * np.pi * 440 * t), 48_000)
    found = Reading(RATE, resample=True).read(fast)
    assert_allclose(found[1000:-1000], np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)[1000:-1000], atol=1e-3)


@pytest.mark.parametrize(('reading', 'rate', 'channels', 'message'), [
    (Reading(RATE), 8000, 1, r'a.wav: 8000 Hz, expected 16000 Hz; --resample resamples to 16000 Hz'),
    (Reading(RATE), RATE, 2, r'a.wav: 2 channels, expected 1; take the first one \(score: --channel 1\)'),
    (Reading(RATE, channel=3), RATE, 2, r'a.wav: 2 channels, but channel=3')])
def test_files_that_the_options_do_not_allow_are_refused(tmp_path, reading, rate, channels, message):
    path = write(tmp_path / 'a.wav', np.zeros((100, channels)), rate)
    with pytest.raises(UserError, match=message):
        reading.check(headers([path]))


@pytest.mark.parametrize(('options', 'message'), [
    ({'sample_rate': 0}, 'sample_rate=0'), ({'sample_rate': RATE, 'channel': 0}, 'channel=0: expected 1'),
    ({'sample_rate': RATE, 'tolerance': -0.1}, 'tolerance=-0.1'),
    ({'sample_rate': RATE, 'tolerance': float('nan')}, 'tolerance=nan')])
def test_options_have_ranges(options, message):
    with pytest.raises(UserError, match=message):
        Reading(**options)


def test_an_unreadable_file_is_a_signal_with_a_reason(tmp_path):
    path = tmp_path / 'a.wav'
    path.write_text('once upon a time')
    assert headers([path]) == {}
    found = Reading(RATE).signal(path, CLEAN)
    assert found.samples is None and found.reason.startswith('not readable as audio')


def test_keys_tell_signals_apart():
    found = [Signal(CLEAN), Signal(CLEAN, CLEAN), Signal(CLEAN[:-1], CLEAN), Signal(CLEAN, CLEAN[:-1]),
             Signal(CLEAN[1:], CLEAN[:0]), Signal(CLEAN[:0], CLEAN[1:])]
    assert len({signal.key for signal in found}) == len(found)
    assert Signal(CLEAN.copy(), CLEAN.copy(), 'x', 3, 4).key == found[1].key
