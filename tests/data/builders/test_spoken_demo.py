import pathlib
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jax_diffse.data.builders import noises, spoken_demo
from jax_diffse.data.builders.espeak import Synthesizer
from jax_diffse.data.builders.spoken_demo import SpokenDemoConfig, generate, plan
from jax_diffse.errors import UserError

SPLITS = ('train', 'validation', 'test')
STANDARD = spoken_demo.SpokenDemo.BUILDER_CONFIGS[0]


@pytest.fixture
def espeak():
    pytest.importorskip('espeakng_loader')


class TestBuilder(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = spoken_demo.SpokenDemo
    BUILDER_CONFIG_NAMES_TO_TEST = [SpokenDemoConfig(name='dummy', description='a few', train=4, validation=2, test=6)]
    SPLITS = {'train': 4, 'validation': 2, 'test': 6}
    EXAMPLE_DIR = str(pathlib.Path(__file__).parent)  # it reads nothing

    @classmethod
    def setUpClass(cls):
        pytest.importorskip('espeakng_loader')
        super().setUpClass()


def whole(split):
    return plan(split, getattr(STANDARD, split), STANDARD.seed)


def test_splits_share_no_voice_and_no_sentence():
    spoken = {split: [utterance.speech for utterance in whole(split)] for split in SPLITS}
    # 'en-us+m1': the variant, after the plus, is the vocal tract; accents may recur.
    variants = {split: {speech.voice.partition('+')[2] for speech in spoken[split]} for split in SPLITS}
    texts = {split: {speech.sentence for speech in spoken[split]} for split in SPLITS}
    for a, b in (('train', 'validation'), ('train', 'test'), ('validation', 'test')):
        assert not variants[a] & variants[b] and not texts[a] & texts[b]
    assert len(variants['train']) >= 12 and len(texts['train']) >= 40 and len(variants['test']) == 4
    for setting in ('rate', 'pitch'):
        assert len({getattr(speech, setting) for speech in spoken['train']}) > 20


def test_some_kinds_of_noise_are_in_the_test_set_alone():
    kinds = {split: {utterance.noise for utterance in whole(split)} for split in SPLITS}
    assert kinds['train'] == kinds['validation'] == {'white', 'pink', 'hum', 'impulsive'}
    assert kinds['test'] - kinds['train'] == {'modulated', 'babble'}


def test_the_test_list_is_balanced_and_its_names_carry_the_condition():
    listed = whole('test')
    conditions = [(utterance.noise, utterance.snr_db) for utterance in listed]
    assert {conditions.count(condition) for condition in conditions} == {2} and len(set(conditions)) == 18
    assert all(u.name == f'test_{i:03d}_{u.noise}_{u.snr_db:g}dB' for i, u in enumerate(listed))
    voices = [utterance.speech.voice for utterance in listed]
    assert {voices.count(voice) for voice in voices} == {9}


def test_training_utterances_differ_and_their_snrs_fill_the_range():
    drawn = whole('train')
    assert len({(u.speech.voice, u.speech.sentence) for u in drawn}) == len(drawn) == 480
    snrs = np.array([utterance.snr_db for utterance in drawn])
    low, high = spoken_demo.TRAIN_SNR_DB
    assert low <= snrs.min() < low + 1 and high - 1 < snrs.max() <= high
    np.testing.assert_allclose(snrs.mean(), (low + high) / 2, atol=1)


def test_babble_is_of_other_voices_with_other_words():
    babble = [utterance for utterance in whole('test') if utterance.noise == 'babble']
    for utterance in babble:
        voices = {talker.voice for talker in utterance.talkers}
        assert len(voices) == 6 and not voices & set(spoken_demo.VOICES['test'])
        assert utterance.speech.sentence not in {talker.sentence for talker in utterance.talkers}


def test_the_seed_decides_everything(espeak):
    first, again, other = (dict(generate('test', plan('test', 6, seed), seed)) for seed in (3, 3, 4))
    assert list(first) == list(again)
    for name in first:
        np.testing.assert_array_equal(first[name]['noisy'], again[name]['noisy'])
        assert name not in other or not np.array_equal(first[name]['noisy'], other[name]['noisy'])


@pytest.mark.parametrize('split', ['train', 'test'])
def test_the_stated_snr_is_the_ratio_of_energies(espeak, split):
    for name, example in generate(split, plan(split, 6, 0), 0):
        clean, noisy = example['clean'].astype(np.float64), example['noisy'].astype(np.float64)
        measured = 10 * np.log10(np.sum(clean**2) / np.sum((noisy - clean) ** 2))
        np.testing.assert_allclose(measured, example['snr_db'], atol=0.1, err_msg=name)
        assert 1.5 < len(clean) / 16_000 < 6
        assert 0.001 < np.sqrt(np.mean((clean / 32_768) ** 2)) < 0.2
        assert np.abs(noisy).max() < 32_767  # not clipped


def test_every_voice_is_heard_at_its_own_rate_and_pitch(espeak):
    synthesizer = Synthesizer()
    for voice in (voice for voices in spoken_demo.VOICES.values() for voice in voices):
        fast, slow = (synthesizer.speak('Nine brown horses ran ashore.', voice, rate, 50) for rate in (200, 140))
        assert len(slow) > 1.15 * len(fast)
        assert 0.01 < np.sqrt(np.mean(slow**2)) < 0.5

    def fundamental(pitch):
        speech = synthesizer.speak('Nine brown horses ran ashore.', 'en-us+m3', 140, pitch)
        lags = np.fft.irfft(np.abs(np.fft.rfft(speech, 2 * len(speech))) ** 2)
        return synthesizer.sample_rate / (90 + np.argmax(lags[90:400]))  # Hz, between 55 and 245

    assert fundamental(70) > 1.1 * fundamental(30)


def test_what_was_spoken_elsewhere_changes_nothing(espeak):
    sentence = ('A plain sentence.', 'en-us+f4', 170, 50)
    fresh = Synthesizer().speak(*sentence)
    busy = Synthesizer()
    busy.speak('Something else altogether.', 'en-gb-x-rp+m7', 150, 40)
    np.testing.assert_array_equal(Synthesizer().speak(*sentence), fresh)


def test_an_unknown_voice_is_named(espeak):
    with pytest.raises(UserError, match="no voice 'xx-nowhere'"):
        Synthesizer().speak('Hello.', 'xx-nowhere', 170, 50)


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'espeakng_loader', None)  # Python's way to make an import fail
    with pytest.raises(UserError, match='pip install espeakng-loader'):
        next(generate('train', plan('train', 1, 0), 0))


NUM_SAMPLES = 8 * 16_000


def power_slope(x):
    """Slope of log power over log frequency between 100 Hz and 6 kHz."""
    power, hertz = np.abs(np.fft.rfft(x)) ** 2, np.fft.rfftfreq(len(x), 1 / 16_000)
    octaves = 100 * 2.0 ** np.arange(7)
    bands = [power[(hertz >= low) & (hertz < 2 * low)].mean() for low in octaves[:-1]]
    return np.polyfit(np.log(octaves[:-1]), np.log(bands), 1)[0]


def swing_db(x):
    """Range of the level in 20 ms frames, 5th to 95th percentile."""
    level = 10 * np.log10(np.mean(x.reshape(-1, 320) ** 2, 1))
    return np.percentile(level, 95) - np.percentile(level, 5)


def test_noises_have_the_spectra_their_names_promise():
    rng = np.random.default_rng(0)
    assert abs(power_slope(noises.white(rng, NUM_SAMPLES))) < 0.1
    assert -1.6 < power_slope(noises.pink(rng, NUM_SAMPLES)) < -0.6
    power = np.abs(np.fft.rfft(noises.hum(rng, NUM_SAMPLES))) ** 2
    assert np.sort(power)[-200:].sum() > 0.9 * power.sum()  # lines, of 64 000 bins


def test_noises_vary_in_time_as_their_names_promise():
    rng = np.random.default_rng(0)
    assert swing_db(noises.pink(rng, NUM_SAMPLES)) < 6
    assert 14 < swing_db(noises.modulated(rng, NUM_SAMPLES)) < 26
    knocks = noises.impulsive(rng, NUM_SAMPLES)
    kurtosis = np.mean(knocks**4) / np.mean(knocks**2) ** 2  # 3 for Gaussian noise
    assert kurtosis > 8


def test_mix_turns_both_down_rather_than_clip():
    rng = np.random.default_rng(0)
    clean, noisy = noises.mix(noises.white(rng, 16_000), noises.white(rng, 16_000), snr_db=0, level_db=-1)
    np.testing.assert_allclose(np.abs(noisy).max(), 0.99)
    np.testing.assert_allclose(np.mean(clean**2) / np.mean((noisy - clean) ** 2), 1.0)
