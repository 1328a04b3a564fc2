import collections
import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from ml_collections import ConfigDict

from jax_diffse import audio
from jax_diffse.data import DataConfig, folders, mixing, open_source, tfds_source
from jax_diffse.data.config import Folders
from jax_diffse.errors import UserError

RATE = 16_000


def wave(seed, seconds=0.5, level=0.1):
    return level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def write(path, samples, rate=RATE, subtype=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.fixture
def mix_folders(tmp_path):
    for speaker in range(6):
        for k in range(2):
            write(tmp_path / 'speech' / f'spk{speaker}' / f'{k}.flac', wave(10 * speaker + k))
    for c, kind in enumerate(('rain', 'wind', 'fan')):
        for k in range(4):
            write(tmp_path / 'noise' / kind / f'{k}.wav', wave(100 + 10 * c + k, 0.3 + 0.2 * k, 0.02))
    return Folders(speech=str(tmp_path / 'speech'), noise=str(tmp_path / 'noise'))


@pytest.fixture
def pair_folders(tmp_path):
    for k in range(5):
        clean = wave(k, 0.5 + 0.1 * k)
        write(tmp_path / 'clean' / f'{k}.wav', clean)
        write(tmp_path / 'noisy' / f'{k}.flac', clean + wave(100 + k, 0.5 + 0.1 * k, 0.01))
    return Folders(clean=str(tmp_path / 'clean'), noisy=str(tmp_path / 'noisy'))


@pytest.fixture
def speech_folder(mix_folders):
    return Folders(speech=mix_folders.speech)


def wave_snr(clean, noisy):
    """SNR in dB from its definition."""
    noise = noisy.astype(np.float64) - clean
    return 10 * np.log10(np.sum(clean.astype(np.float64)**2) / np.sum(noise**2))


# ------------------------------------------------------------------------------------------------------------- config


def test_config_takes_lists_and_nested_dictionaries():
    config = DataConfig.from_config_dict(ConfigDict({'train': {'speech': 'a', 'noise': 'b'}, 'snr_db': [0, 5.0]}))
    assert config.train == Folders(speech='a', noise='b')
    assert config.snr_db == (0, 5.0)


@pytest.mark.parametrize('values, names', [
    ({'trian': {}}, 'config.data.trian'),
    ({'train': {'speach': 'a'}}, 'config.data.train.speach'),
    ({'skip_bad': 'yes'}, 'config.data.skip_bad'),
    ({'resample': 1}, 'config.data.resample'),
    ({'test': {'clean': 3}}, 'config.data.test.clean'),
    ({'snr_db': ['loud']}, 'config.data.snr_db'),
    ({'snr_db': []}, 'config.data.snr_db'),
    ({'name': 'voicebank'}, 'config.data.name'),
    ({'held_out': 1.5}, 'config.data.held_out'),
    ({'clip_seconds': 0.1}, 'config.data.clip_seconds'),
    ({'pad_seconds': -1.0}, 'config.data.pad_seconds'),
    ({'pad_seconds': float('nan')}, 'config.data.pad_seconds'),
    ({'pad_seconds': 4.0, 'clip_seconds': 3.0}, 'config.data.pad_seconds .*--pad-seconds.*--clip-seconds.*4 and 3'),
    ({'clip_seconds': -1.0}, 'config.data.clip_seconds'),
    ({'clip_seconds': float('nan')}, 'config.data.clip_seconds'),
])
def test_config_errors_name_the_key(values, names):
    with pytest.raises(UserError, match=names):
        DataConfig.from_config_dict(ConfigDict(values))


@pytest.mark.parametrize(('train', 'problem'), [
    (Folders(), 'no folders named'), (Folders(clean='a'), 'clean set'), (Folders(noisy='a'), 'noisy set'),
    (Folders(noise='a'), 'noise set'), (Folders(clean='a', noise='b'), 'clean and noise set'),
    (Folders(clean='a', speech='b'), 'clean and speech set'),
    (Folders('a', 'b', 'c', 'd'), 'clean and noisy and speech and noise set')])
def test_folders_that_are_no_pair_no_mix_and_no_speech_are_refused(train, problem):
    with pytest.raises(UserError) as error:
        open_source(DataConfig(train=train), 'train')
    message = str(error.value)
    assert message.startswith(f'config.data.train: {problem}, expected ') and '\n' not in message
    assert 'alone' in message


@pytest.mark.parametrize('split', ['train', 'validation', 'test'])
def test_folders_beside_a_data_set_are_refused_before_it_is_prepared(split, monkeypatch):
    monkeypatch.setattr(tfds_source, 'open_tfds', None)  # a call would be an error of another kind
    with pytest.raises(UserError, match=f"^config.data.{split}.speech: would not be used.*'voicebank_demand'"):
        open_source(DataConfig('voicebank_demand', **{split: Folders(speech='a', noise='b')}), 'train')


@pytest.mark.parametrize(('train', 'said'), [('pair_folders', True), ('mix_folders', False)])
def test_keys_of_mixtures_are_said_to_be_without_effect_on_pairs(request, caplog, train, said):
    open_source(DataConfig(train=request.getfixturevalue(train), noise_gain=(0.2, 0.8)), 'train')
    assert ('config.data.noise_gain: without effect, as the data are not mixed' in caplog.text) == said


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
    found, _ = folders.survey(str(tmp_path), RATE, 0.25)
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
    speech, noise = [mixture.speech for mixture in source.mixtures], source.noise
    counts = collections.Counter((mixture.noise.folder, mixture.snr_db)
                                 for mixture in mixing.list_mixtures(speech, noise, source.levels, 20))
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
    found, _ = folders.survey(pairs_at_other_rates.clean, RATE, 0.25, resample=True)
    for file in found.values():
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


# -------------------------------------------------------------------------------------------------------------- pairs


def test_pairs_are_matched_by_name_and_cropped_together(pair_folders, tmp_path):
    source = open_source(DataConfig(test=pair_folders), 'test')
    assert [source.info(i)['id'] for i in range(len(source))] == list('01234')
    for i in range(5):
        for part, read, suffix in zip(('clean', 'noisy'), source.read(i), ('wav', 'flac'), strict=True):
            np.testing.assert_array_equal(read, soundfile.read(tmp_path / part / f'{i}.{suffix}', dtype='float32')[0])
        clean, noisy = source.draw(i, 2000, np.random.default_rng(i))
        assert len(clean) == 2000 and wave_snr(clean, noisy) == pytest.approx(20, abs=1)
    assert len(source.draw(0, 10**6, np.random.default_rng(0))[0]) == 8000


# ---------------------------------------------------------------------------------------------------------- resampled


@pytest.fixture
def pairs_at_other_rates(tmp_path):
    """Pairs of half a second, named by their rate, and one of two rates."""
    for name, rates in {'48': (48_000, 48_000), '44': (44_100, 44_100), '16': (16_000, 16_000),
                        'both': (16_000, 48_000)}.items():
        for seed, (part, rate) in enumerate(zip(('clean', 'noisy'), rates, strict=True)):
            write(tmp_path / part / f'{name}.wav', wave(seed, 0.5005 * rate / RATE), rate)
    return Folders(str(tmp_path / 'clean'), str(tmp_path / 'noisy'))


def test_files_at_another_rate_are_resampled_as_they_are_read(pairs_at_other_rates):
    source = open_source(DataConfig(test=pairs_at_other_rates, resample=True), 'test')
    assert {source.info(i)['id'] for i in range(4)} == {'48', '44', '16', 'both'}
    for i in range(4):
        whole = []
        for file in (source.clean[i], source.noisy[i]):
            samples, rate = soundfile.read(file.path, dtype='float32')
            whole.append(audio.resample(samples, rate, RATE))
            np.testing.assert_allclose(file.read(), whole[-1], atol=1e-6)
        assert source.info(i)['num_samples'] == len(whole[0]) == len(whole[1])
        drawn = source.draw(i, 2000, np.random.default_rng(i))
        start = np.correlate(whole[0], drawn[0], 'valid').argmax()
        np.testing.assert_allclose(drawn, [samples[start:start + 2000] for samples in whole], atol=1e-6)


def test_a_tone_has_its_frequency_whatever_the_rate_of_its_file(tmp_path):
    for rate in (44_100, 48_000):
        write(tmp_path / f'{rate}.wav', 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate // 2) / rate), rate)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE // 2) / RATE)
    found, bad = folders.survey(str(tmp_path), RATE, 0.25, resample=True)
    assert len(found) == 2 and not bad
    for file in found.values():
        np.testing.assert_allclose(file.read(2000, 6000), expected[2000:6000], atol=1e-3)


def test_what_cannot_be_used_is_found_at_the_rate_that_is_read(pairs_at_other_rates, tmp_path):
    clean, noisy = tmp_path / 'clean', tmp_path / 'noisy'
    hiss = np.sin(2 * np.pi * 20_000 * np.arange(24_000) / 48_000)
    bad = {}
    for name, samples, reason in (
            ('length', wave(1, 1.6), '8534 samples, but 8000'), ('stereo', np.ones((24_000, 2)), '2 channels'),
            ('nan', np.full(24_000, np.nan), 'NaN'), ('short', wave(1, 0.7), 'too short: 0.233 s'),
            ('hiss', hiss * np.hanning(24_000), 'silent at 16000 Hz')):
        write(clean / f'{name}.wav', wave(0))
        bad[str(write(noisy / f'{name}.wav', samples, 48_000, 'FLOAT'))] = reason
    with pytest.raises(UserError) as error:
        open_source(DataConfig(test=pairs_at_other_rates, resample=True), 'test')
    listed = dict(line.strip().split(': ', 1) for line in str(error.value).splitlines()[1:])
    assert listed.keys() == bad.keys() and all(reason in listed[path] for path, reason in bad.items())


def test_the_setting_counts_for_files_seen_before(pairs_at_other_rates):
    config = DataConfig(test=pairs_at_other_rates)
    for _ in range(2):
        with pytest.raises(UserError, match='5 of 8 .*\n.*44100 Hz.*--config.data.resample=True .*\n'):
            open_source(config, 'test')
        assert len(open_source(dataclasses.replace(config, resample=True), 'test')) == 4


# ------------------------------------------------------------------------------------------------------- speech alone


def test_speech_alone_stands_in_for_its_noisy_counterpart(speech_folder, tmp_path):
    source = open_source(DataConfig(train=speech_folder, validation=speech_folder), 'train')
    assert {source.info(i)['id'] for i in range(len(source))} == {
        f'spk{speaker}/{k}' for speaker in range(6) for k in range(2)}
    for i in range(len(source)):
        info = source.info(i)
        expected = soundfile.read(tmp_path / 'speech' / f'{info["id"]}.flac', dtype='float32')[0]
        assert info.keys() == {'id', 'num_samples'} and info['num_samples'] == len(expected)
        for read in source.read(i):
            np.testing.assert_array_equal(read, expected)


def test_speech_alone_is_cropped_at_random_places(speech_folder):
    source = open_source(DataConfig(test=speech_folder), 'test')
    whole, starts = source.read(3)[0], set()
    for seed in range(5):
        clean, noisy = source.draw(3, 2000, np.random.default_rng(seed))
        np.testing.assert_array_equal(clean, noisy)
        start = np.correlate(whole, clean, 'valid').argmax()
        np.testing.assert_array_equal(clean, whole[start:start + 2000])
        starts.add(start)
    assert len(starts) > 1
    np.testing.assert_array_equal(source.draw(3, 2000, np.random.default_rng(4)), (clean, noisy))
    assert sorted(source.draw(3, 10**6, np.random.default_rng(0))[0]) == sorted(whole)  # shorter: all of it


def test_crops_of_speech_alone_are_not_silent(tmp_path):
    samples = np.zeros(RATE)
    samples[12_000] = 0.5
    write(tmp_path / 'speech' / 'sparse.wav', samples)
    source = open_source(DataConfig(test=Folders(speech=str(tmp_path / 'speech'))), 'test')
    assert all(source.draw(0, 100, np.random.default_rng(seed))[0].any() for seed in range(10))


@pytest.mark.parametrize(('suffix', 'kind'), [
    ('mp3', {}), ('ogg', {}), ('opus', {'format': 'OGG', 'subtype': 'OPUS'}), ('wav', {'subtype': 'MS_ADPCM'})])
def test_crops_of_lossy_files_are_those_of_the_whole_file(tmp_path, suffix, kind):
    """Decoders give other samples behind a seek. The whole file is decoded in one call of libsndfile's."""
    path = tmp_path / f'a.{suffix}'
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE), RATE, **kind)
    whole, _ = soundfile.read(path, dtype='float32')
    source = open_source(DataConfig(test=Folders(speech=str(tmp_path))), 'test')
    np.testing.assert_allclose(source.read(0)[0], whole, atol=1e-6)  # soundfile seeks to the start first
    for seed in range(3):
        found, _ = source.draw(0, 5000, np.random.default_rng(seed))
        start = int(np.random.default_rng(seed).integers(len(whole) - 5000 + 1))
        np.testing.assert_allclose(found, whole[start:start + 5000], atol=1e-6)


def test_speech_alone_holds_out_whole_speakers(speech_folder):
    train, validation = (open_source(DataConfig(train=speech_folder, held_out=0.3), split)
                         for split in ('train', 'validation'))
    speakers = [{source.info(i)['id'].split('/')[0] for i in range(len(source))} for source in (train, validation)]
    assert not speakers[0] & speakers[1] and [len(names) for names in speakers] == [4, 2]
    assert (len(train), len(validation)) == (8, 4)


def test_bad_files_of_speech_alone_are_listed(speech_folder, tmp_path):
    bad = write(tmp_path / 'speech' / 'spk0' / 'silent.wav', np.zeros(RATE))
    with pytest.raises(UserError, match=f'^{bad}: silent; repair or remove it'):
        open_source(DataConfig(test=speech_folder), 'test')
    assert len(open_source(DataConfig(test=speech_folder, skip_bad=True), 'test')) == 12


# ----------------------------------------------------------------------------------------------------------- held out


def test_validation_holds_out_whole_speakers_and_noise_files(mix_folders):
    config = DataConfig(train=mix_folders, held_out=0.3)
    train, validation = open_source(config, 'train'), open_source(config, 'validation')
    speakers = [{mixture.speech.folder for mixture in source.mixtures} for source in (train, validation)]
    assert not speakers[0] & speakers[1] and len(speakers[0] | speakers[1]) == 6 and len(speakers[1]) == 2
    noises = [{file.path for file in source.noise} for source in (train, validation)]
    assert not noises[0] & noises[1] and len(noises[0] | noises[1]) == 12 and len(noises[1]) == 4
    assert {mixture.noise.path for mixture in train.mixtures} <= noises[0]
    assert {mixture.noise.path for mixture in validation.mixtures} <= noises[1]
    assert len(train) == 8


def test_flat_folders_hold_out_single_files(pair_folders):
    config = DataConfig(train=pair_folders)
    train, validation = open_source(config, 'train'), open_source(config, 'validation')
    assert (len(train), len(validation)) == (4, 1)
    assert {train.info(i)['id'] for i in range(4)} | {validation.info(0)['id']} == set('01234')


def test_nothing_is_held_out_where_validation_has_its_own_folders(pair_folders):
    assert len(open_source(DataConfig(train=pair_folders, validation=pair_folders), 'train')) == 5


def test_holding_out_leaves_both_sides_something():
    assert len(folders.held_out({'a/1': 'a', 'a/2': 'a', 'b/1': 'b'}, 0.9)) in (1, 2)
    assert len(folders.held_out(dict(zip('abc', 'abc')), 0.001)) == 1


@pytest.mark.parametrize(('names', 'level', 'said'), [
    ([f'wav48/p{who}/p{who}_{take}' for who in (225, 226, 227) for take in (1, 2)], 0,
     r'using folders of level 2 as speakers; 1 of 3 are held out for validation: p22[567]'),
    ([f'dialect{who % 2}/s{who}/{take}' for who in range(4) for take in (1, 2)], 2,
     r'using folders of level 2 as speakers; 1 of 4 are held out for validation: s[0123]'),
    (['one', 'two', 'three'], 0,
     r'found no folders of speakers; 1 of 3 files are held out .* may also be in training')])
def test_validation_says_who_is_held_out_and_shares_no_speaker(tmp_path, names, level, said, capsys):
    for k, name in enumerate(names):
        write(tmp_path / f'{name}.wav', np.random.default_rng(k).uniform(-0.1, 0.1, RATE))
    config = DataConfig(train=Folders(speech=str(tmp_path)), speaker_level=level)
    train, validation = (open_source(config, split) for split in ('train', 'validation'))
    ids = [{source.info(i)['id'] for i in range(len(source))} for source in (train, validation)]
    assert ids[0] | ids[1] == set(names) and not ids[0] & ids[1]
    people = [{name.split('/')[-2] for name in side if '/' in name} for side in ids]
    assert not people[0] & people[1]
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if re.fullmatch(f'{tmp_path}: {said}.*', line)]


# ---------------------------------------------------------------------------------------------------------- bad files


@pytest.fixture
def bad_pairs(pair_folders, tmp_path):
    """`pair_folders` with every kind of bad file: path -> what is said of it."""
    clean, noisy = tmp_path / 'clean', tmp_path / 'noisy'
    bad = {}

    def spoil(name, reason, samples, rate=RATE, subtype=None):
        write(clean / f'{name}.wav', wave(0))
        bad[write(noisy / f'{name}.wav', samples, rate, subtype)] = reason

    nan = wave(1)
    nan[100] = np.nan
    spoil('nan', 'NaN', nan, subtype='FLOAT')
    spoil('silent', 'silent', np.zeros(RATE // 2))
    spoil('rate', '8000 Hz, expected 16000 Hz; --config.data.resample=True (evaluate: --resample) resamples it',
          wave(1), rate=8000)
    spoil('short', 'too short', wave(1, 0.1))
    spoil('stereo', '2 channels', np.stack([wave(1), wave(2)], axis=1))
    spoil('length', '9600 samples, but 8000', wave(1, 0.6))
    spoil('no_samples', 'empty', np.zeros(0))
    spoil('no_bytes', 'empty', wave(1))
    (noisy / 'no_bytes.wav').write_bytes(b'')
    spoil('text', 'not readable', wave(1))
    (noisy / 'text.wav').write_text('no audio at all')
    bad[write(clean / 'alone.wav', wave(1))] = 'unpaired'
    bad[write(noisy / 'lonely.wav', wave(1))] = 'unpaired'
    write(clean / '0.flac', wave(1))
    bad[clean / '0.wav'] = 'same name'
    write(noisy / 'cut.flac', wave(1))
    bad[write(clean / 'cut.flac', wave(1))] = 'cut off or damaged, '
    (clean / 'cut.flac').write_bytes((clean / 'cut.flac').read_bytes()[:6000])
    return bad


def test_all_bad_files_are_listed_in_one_error(pair_folders, bad_pairs):
    with pytest.raises(UserError, match='skip_bad') as error:
        open_source(DataConfig(test=pair_folders), 'test')
    first, *lines = str(error.value).splitlines()
    assert first.startswith(f'{len(bad_pairs)} of ')
    listed = dict(line.strip().split(': ', 1) for line in lines)
    assert listed.keys() == {str(path) for path in bad_pairs}
    for path, reason in bad_pairs.items():
        assert reason in listed[str(path)]


def test_bad_files_are_left_out_on_request(pair_folders, bad_pairs, caplog):
    source = open_source(DataConfig(test=pair_folders, skip_bad=True), 'test')
    assert [source.info(i)['id'] for i in range(len(source))] == list('01234')
    assert f'left out {len(bad_pairs)} of ' in caplog.text


def test_nothing_left_is_an_error(tmp_path):
    for part in ('clean', 'noisy'):
        write(tmp_path / part / 'a.wav', np.zeros(RATE))
    with pytest.raises(UserError, match='all audio files are bad'):
        open_source(DataConfig(test=Folders(str(tmp_path / 'clean'), str(tmp_path / 'noisy')), skip_bad=True), 'test')


@pytest.mark.parametrize('make', [False, True])
def test_missing_and_empty_directories_are_named(tmp_path, make, pair_folders):
    root = tmp_path / 'elsewhere'
    if make:
        root.mkdir()
    with pytest.raises(UserError, match='elsewhere'):
        open_source(DataConfig(test=Folders(clean=pair_folders.clean, noisy=str(root))), 'test')


# ------------------------------------------------------------------------------------------------------------ imports


def test_importing_folders_and_systems_loads_neither_tensorflow_nor_torch():
    code = ('import sys, jax_diffse.data.folders, jax_diffse.systems.base\n'
            'print([name for name in ("tensorflow", "tensorflow_datasets", "torch") if name in sys.modules])')
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == '[]'
