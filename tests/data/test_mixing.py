"""Mixtures of speech and noise: at an SNR, by kind of noise, and at a factor of the amplitude."""

import collections
import dataclasses
import pathlib

import numpy as np
import pytest
import soundfile

from jax_diffse.data import DataConfig, mixing, mixtures, open_source
from jax_diffse.data.config import Folders
from jax_diffse.data.facts import Rules
from jax_diffse.data.scan import survey
from jax_diffse.errors import UserError
from tests.data.corpora import RATE, wave, wave_snr, write

# ---------------------------------------------------------------------------------------------------------------- mix


@pytest.mark.parametrize('snr_db', [-5.0, 0.0, 12.5])
def test_mix_has_the_snr_and_stays_in_range(snr_db):
    clean, noisy = mixing.mix(wave(0, level=0.3).astype(np.float32), wave(1).astype(np.float32), snr_db)
    assert wave_snr(clean, noisy) == pytest.approx(snr_db, abs=1e-3)
    assert np.abs(noisy).max() <= 1 + 1e-6


def test_mix_keeps_the_level_of_the_speech_unless_it_would_clip():
    speech = wave(0, level=0.01).astype(np.float32)
    assert np.array_equal(mixing.mix(speech, speech[::-1], 5.0)[0], speech)


def test_drawn_examples_are_crops_of_the_speech_at_the_listed_snrs(mix_folders):
    source = open_source(DataConfig(train=mix_folders, validation=mix_folders, snr_db=(0.0, 10.0)), 'train')
    seen = set()
    for i in range(len(source)):
        clean, noisy = source.draw(i, 4000, np.random.default_rng(i))
        assert clean.shape == noisy.shape == (4000,)
        seen.add(round(wave_snr(clean, noisy), 2))
        whole = source.read(i)[0]
        start = np.correlate(whole, clean, 'valid').argmax()
        np.testing.assert_array_equal(clean, whole[start:start + 4000])
    assert seen == {0.0, 10.0}


def test_drawing_is_a_function_of_the_generator(mix_folders):
    source = open_source(DataConfig(train=mix_folders, validation=mix_folders, snr_uniform=True), 'train')
    first, again, other = (source.draw(3, 4000, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_uniform_snrs_cover_the_range(mix_folders):
    source = open_source(DataConfig(train=mix_folders, validation=mix_folders, snr_db=(0.0, 10.0), snr_uniform=True),
                         'train')
    snrs = [wave_snr(*source.draw(0, 4000, np.random.default_rng(seed))) for seed in range(50)]
    assert min(snrs) >= -0.01 and max(snrs) <= 10.01
    assert np.count_nonzero((np.array(snrs) > 2) & (np.array(snrs) < 8)) > 10


def test_short_noise_is_repeated_and_silent_places_are_avoided(tmp_path):
    write(tmp_path / 'short.wav', np.arange(1, 5001) / 8000)
    sparse = np.zeros(RATE)
    sparse[12_000] = 0.5
    write(tmp_path / 'sparse.wav', sparse)
    found, _ = survey(Rules(RATE, 0.25), str(tmp_path))
    found = {file.name: file for file in found}
    looped, start = mixing.crop(found['short'], 12_000, np.random.default_rng(0))
    expected = np.arange(start, start + 12_000) % 5000
    np.testing.assert_allclose(looped * 8000 - 1, expected, atol=0.3)
    for seed in range(10):
        assert mixing.crop(found['sparse'], 100, np.random.default_rng(seed))[0].any()


def test_test_mixtures_cover_every_condition_and_are_fixed(mix_folders, tmp_path):
    config = DataConfig(test=mix_folders, test_snr_db=(0.0, 5.0, 10.0, 15.0, 20.0))
    source = open_source(config, 'test')
    infos = [source.info(i) for i in range(len(source))]
    assert len(source) == 15  # 3 classes x 5 levels, more than the 12 utterances
    assert {(info['noise'], info['snr_db']) for info in infos} == {
        (noise, snr) for noise in ('rain', 'wind', 'fan') for snr in config.test_snr_db}
    assert len({info['id'] for info in infos}) == 15
    for i, info in enumerate(infos):
        assert wave_snr(*source.read(i)) == pytest.approx(info['snr_db'], abs=0.01)
        assert len(source.read(i)[0]) == info['num_samples']
    again = open_source(config, 'test')
    assert all(np.array_equal(source.read(i), again.read(i)) for i in range(15))


def test_conditions_are_filled_evenly(mix_folders):
    source = open_source(DataConfig(test=mix_folders, test_snr_db=(-10.0, 20.0)), 'test')  # 12 utterances, 6 conditions
    counts = collections.Counter((source.info(i)['noise'], source.info(i)['snr_db']) for i in range(len(source)))
    assert set(counts.values()) == {2} and len(counts) == 6
    speech, noise = open_source(DataConfig(test=Folders(speech=mix_folders.speech)), 'test').clean, source.noise
    counts = collections.Counter((mixture.noise.folder, mixture.snr_db)
                                 for mixture in mixtures.Mixtures(speech, noise, source.levels, 20))
    assert sorted(counts.values()) == [3, 3, 3, 3, 4, 4]
    twice = open_source(DataConfig(test=mix_folders, test_snr_db=(-10.0, 20.0, 20.0, 20.0, 20.0, 20.0)), 'test')
    assert [twice.info(i) for i in range(len(twice))] == [source.info(i) for i in range(len(source))]


def test_listed_mixtures_are_cut_to_their_middle(mix_folders, tmp_path):
    write(tmp_path / 'speech' / 'spk0' / 'long.wav', np.arange(12_000) / 32_768)
    config = DataConfig(test=mix_folders, clip_seconds=0.6)
    source = open_source(config, 'test')
    for i, mixture in enumerate(source.mixtures):
        clean, noisy = source.read(i)
        assert len(clean) == len(noisy) == source.info(i)['num_samples'] == (
            9_600 if mixture.speech.name == 'spk0/long' else 8_000)  # the others are shorter, and whole
        assert wave_snr(clean, noisy) == pytest.approx(mixture.snr_db, abs=0.01)
        if mixture.speech.name == 'spk0/long':  # 12 000 samples: 1200 go on either side
            np.testing.assert_allclose(clean / clean[0] * 1200, np.arange(1200, 10_800), rtol=1e-4)
    assert len(open_source(dataclasses.replace(config, train=mix_folders, validation=mix_folders), 'train').draw(
        [mixture.speech.name for mixture in source.mixtures].index('spk0/long'), 12_000,
        np.random.default_rng(0))[0]) >= 8_000


@pytest.mark.parametrize('split', ['test', 'validation'])
def test_shorter_utterances_are_extended_before_mixing(mix_folders, tmp_path, split):
    write(tmp_path / 'speech' / 'spk0' / 'long.wav', wave(1, 0.9))
    config = DataConfig(train=mix_folders, validation=mix_folders, test=mix_folders, clip_seconds=0.7, pad_seconds=0.7)
    source = open_source(config, split)
    for i, mixture in enumerate(source.mixtures):
        clean, noisy = source.read(i)
        assert len(clean) == len(noisy) == source.info(i)['num_samples'] == 11_200
        assert wave_snr(clean, noisy) == pytest.approx(mixture.snr_db, abs=0.01)  # of the whole clip
        if mixture.speech.name != 'spk0/long':
            file = soundfile.read(tmp_path / 'speech' / f'{mixture.speech.name}.flac', dtype='float32')[0]
            gain = np.dot(clean[:8000], file) / np.dot(file, file)  # below 1 where the sum would clip
            np.testing.assert_allclose(clean, gain * np.pad(file, (0, 3200)), atol=1e-6)
            assert np.abs(noisy[-100:]).max() > 1e-4  # noise to the end
    assert len(open_source(config, 'train').draw(0, 11_200, np.random.default_rng(0))[0]) in (8000, 11_200)
    assert config.describe('test').endswith(', cut to 0.7 s, zero-padded to 0.7 s')
    assert 'padded' not in config.describe('train')


def test_pairs_are_extended_as_they_are(pair_folders):
    source = open_source(DataConfig(test=pair_folders, pad_seconds=0.75), 'test')
    whole = open_source(DataConfig(test=pair_folders), 'test')
    for i, length in enumerate((12_000, 12_000, 12_000, 12_800, 14_400)):  # of 8000, 9600, 11200, 12800, 14400
        assert source.info(i) == whole.info(i) | {'num_samples': length}
        for extended, file in zip(source.read(i), whole.read(i)):
            np.testing.assert_array_equal(extended, np.pad(file, (0, length - len(file))))


def test_a_resampled_file_is_extended_after_resampling(pairs_at_other_rates):
    found, _ = survey(Rules(RATE, 0.25, resample=True), pairs_at_other_rates.clean)
    for file in found:
        extended = file.extended(9000)
        assert extended.num_samples == 9000 and file.extended(100) == file
        np.testing.assert_array_equal(extended.read(), np.pad(file.read(), (0, 9000 - file.num_samples)))
        np.testing.assert_array_equal(extended.read(7900, 8100), extended.read()[7900:8100])


def test_manifest_says_how_to_make_the_mixtures(mix_folders, tmp_path):
    source = open_source(DataConfig(test=mix_folders, clip_seconds=0.4), 'test')
    source.write_manifest(tmp_path / 'list.tsv')
    header, *rows = [line.split('\t') for line in (tmp_path / 'list.tsv').read_text().splitlines()]
    assert header == ['id', 'speech', 'noise', 'noise_start', 'noise_class', 'snr_db', 'speech_start', 'num_samples']
    assert len(rows) == len(source)
    for i, (name, speech, noise, start, noise_class, snr_db, speech_start, num_samples) in enumerate(rows):
        assert (name, noise_class) == (source.info(i)['id'], source.info(i)['noise'])
        speech = soundfile.read(speech)[0][int(speech_start):][:int(num_samples)]
        noise = soundfile.read(noise)[0]
        noise = noise[np.arange(int(start), int(start) + len(speech)) % len(noise)]
        noise *= np.linalg.norm(speech) / np.linalg.norm(noise) / 10 ** (float(snr_db) / 20)
        np.testing.assert_allclose(source.read(i)[1], speech + noise, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ['list.tsv']


# --------------------------------------------------------------------------------------------------------- noise kinds


@pytest.fixture
def kinds_config(mix_folders, tmp_path):
    """Tests with the noises rain, wind and fan, of which rain and wind (one file) were trained on, and bells."""
    for name in ('rain/a', 'rain/b', 'wind/c', 'bells/d', 'bells/e'):
        write(tmp_path / 'trained' / f'{name}.wav', wave(0))
    train = dataclasses.replace(mix_folders, noise=str(tmp_path / 'trained'))
    return DataConfig(train=train, validation=mix_folders, test=mix_folders)


def kinds_of(config):
    source = open_source(config, 'test')
    return {source.info(i)['noise']: source.info(i).get('noise_kind') for i in range(len(source))}


def test_test_mixtures_know_whether_their_noise_was_seen(kinds_config):
    assert kinds_of(kinds_config) == {'rain': 'seen', 'wind': 'seen', 'fan': 'unseen'}
    assert 'noise_kind' not in open_source(kinds_config, 'validation').info(0)


def test_noise_held_out_of_training_is_unseen(kinds_config):
    """At a share of 60 %, three of the five files are held out."""
    config = dataclasses.replace(kinds_config, validation=Folders(), held_out=0.6)
    trained = {file.folder for file in open_source(config, 'train').noise}
    assert trained != {'rain', 'wind', 'bells'}
    assert kinds_of(config) == {name: 'seen' if name in trained else 'unseen' for name in ('rain', 'wind', 'fan')}


@pytest.mark.parametrize('change, reason', [
    ('none', 'config.data.train.noise names no directory'),
    ('gone', 'gone: no such directory'),
    ('flat', 'trained: has files outside class folders'),
    ('flat_test', 'noise: has files outside class folders'),
])
def test_where_the_noise_of_training_is_not_known_one_line_says_why(kinds_config, tmp_path, caplog, change, reason):
    noise = {'none': '', 'gone': str(tmp_path / 'gone')}.get(change, kinds_config.train.noise)
    if change.startswith('flat'):
        write(tmp_path / ('noise' if change == 'flat_test' else 'trained') / 'loose.wav', wave(0))
    train = Folders() if change == 'none' else dataclasses.replace(kinds_config.train, noise=noise)
    assert set(kinds_of(dataclasses.replace(kinds_config, train=train)).values()) == {None}
    line, = caplog.messages
    assert line.endswith(reason) and '\n' not in line


# --------------------------------------------------------------------------------------------- factors of the amplitude


def white(seed, level, size=8000):
    return level * np.random.default_rng(seed).standard_normal(size)


@pytest.fixture
def corpus(tmp_path):
    """Six utterances at -20 dBFS and two classes of noise at -30 dBFS."""
    for k in range(6):
        for folder, seed, level in (('speech', k, 0.1), (f'noise/{"rain" if k % 2 else "wind"}', 100 + k, 10**-1.5)):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / folder / f'{k}.wav', white(seed, level), RATE, subtype='FLOAT')
    return Folders(speech=str(tmp_path / 'speech'), noise=str(tmp_path / 'noise'))


def opened(folders, split, **settings):
    return open_source(DataConfig(train=folders, validation=folders, test=folders, **settings), split)


def factor(folders, clean, noisy):
    """The factor of the noise, found by comparison with each file of noise at each place."""
    best = (0.0, 0.0)
    for path in pathlib.Path(folders.noise).rglob('*.wav'):
        noise = soundfile.read(path)[0]
        match = np.correlate(np.concatenate([noise, noise[:len(clean)]]), noisy - clean, 'valid')
        start = int(np.abs(match).argmax())
        piece = np.concatenate([noise, noise])[start:start + len(clean)]
        best = max(best, (abs(match[start]), np.dot(noisy - clean, piece) / np.dot(piece, piece)))
    return best[1]


def test_noise_is_added_at_a_factor_in_the_range_and_the_speech_is_untouched(corpus):
    source = opened(corpus, 'train', noise_gain=(0.2, 0.8))
    factors = []
    for seed in range(60):
        clean, noisy = source.draw(seed % 6, 2000, np.random.default_rng(seed))
        whole = soundfile.read(source.mixtures[seed % 6].speech.path, dtype='float32')[0]
        start = np.correlate(whole, clean, 'valid').argmax()
        np.testing.assert_array_equal(clean, whole[start:start + 2000])
        factors.append(factor(corpus, clean, noisy))
    assert 0.2 <= min(factors) < 0.3 and 0.7 < max(factors) <= 0.8  # uniform: 10 of 60 in each sixth
    counts, _ = np.histogram(factors, bins=3, range=(0.2, 0.8))
    assert min(counts) >= 10


def test_listed_mixtures_have_fixed_factors_and_tell_their_actual_snr(corpus, tmp_path):
    """The levels of speech and noise differ by 10 dB, so that the SNR is 10 - 20 log10(factor) dB."""
    source, again = (opened(corpus, 'validation', noise_gain=(0.2, 0.8)) for _ in range(2))
    source.write_manifest(tmp_path / 'list.tsv')
    rows = [line.split('\t') for line in (tmp_path / 'list.tsv').read_text().splitlines()[1:]]
    factors = []
    for i, row in enumerate(rows):
        clean, noisy = source.read(i)
        np.testing.assert_array_equal(noisy, again.read(i)[1])
        factors.append(factor(corpus, clean, noisy))
        assert 0.2 <= factors[-1] <= 0.8
        snr_db = 10 * np.log10(np.sum(clean**2) / np.sum((noisy - clean)**2))
        assert snr_db == pytest.approx(10 - 20 * np.log10(factors[-1]), abs=0.5)
        assert source.info(i)['snr_db'] == np.round(snr_db) and float(row[5]) == pytest.approx(snr_db, abs=1e-3)
    assert len(source) == 6 and len(set(np.round(factors, 6))) == 6
    assert len({source.info(i)['id'] for i in range(6)}) == 6


def test_tests_keep_their_snrs(corpus):
    source = opened(corpus, 'test', noise_gain=(0.2, 0.8), test_snr_db=(3.0,))
    clean, noisy = source.read(0)
    assert 10 * np.log10(np.sum(clean**2) / np.sum((noisy - clean)**2)) == pytest.approx(3, abs=1e-3)


def test_a_mixture_that_would_clip_is_scaled_down_with_its_speech():
    clean, noisy = mixing.blend(np.full(4, 0.9, np.float32), np.full(4, 0.5, np.float32), 0.8)
    np.testing.assert_allclose((clean, noisy), ([0.9 / 1.3] * 4, [1.0] * 4), rtol=1e-6)


def test_silent_speech_gets_its_noise_at_a_factor_and_none_at_an_snr():
    silence, noise = np.zeros(100, np.float32), white(0, 0.1, 100).astype(np.float32)
    rng = np.random.default_rng(0)
    gain, none = (levels.draw(rng).gain(silence, noise) for levels in (
        mixing.Levels((0.0,), gain=(0.5, 0.5)), mixing.Levels((0.0,))))
    clean, noisy = mixing.blend(silence, noise, gain)
    assert not clean.any()
    np.testing.assert_allclose(noisy, 0.5 * noise)
    assert not np.any(mixing.blend(silence, noise, none))


@pytest.mark.parametrize('value', [(0.5,), (0.2, 0.5, 0.8), (0.8, 0.2), (-0.2, 0.8), (0.0, 0.0), (float('nan'), 1.0),
                                   (0.2, float('inf'))])
def test_what_is_no_range_of_factors_is_refused(value):
    with pytest.raises(UserError, match='config.data.noise_gain: expected '):
        DataConfig(noise_gain=value)


def test_a_clip_that_is_mostly_zeros_is_used_where_it_sounds(tmp_path):
    """As in ESC-50: 5 s, of which the last 4.8 s are zeros. Training draws and listed mixtures keep their SNR."""
    noise = np.zeros(5 * RATE)
    noise[:3200] = white(1, 0.1, 3200)
    for folder, x in (('speech', white(0, 0.1, RATE)), ('noise/bark', noise)):
        (tmp_path / folder).mkdir(parents=True)
        soundfile.write(tmp_path / folder / 'a.wav', x, RATE)
    folders = Folders(speech=str(tmp_path / 'speech'), noise=str(tmp_path / 'noise'))
    source = opened(folders, 'train', snr_db=(5.0,))
    listed = opened(folders, 'test', test_snr_db=(5.0,))
    for clean, noisy in [listed.read(0), *(source.draw(0, 8000, np.random.default_rng(k)) for k in range(20))]:
        assert 10 * np.log10(np.sum(clean**2) / np.sum((noisy - clean)**2)) == pytest.approx(5, abs=1e-2)
