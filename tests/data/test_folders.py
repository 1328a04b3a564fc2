import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from ml_collections import ConfigDict

from jax_diffse.data import DataConfig, folders, open_source, tfds_source
from jax_diffse.data.config import Folders
from jax_diffse.errors import UserError
from tests.data.corpora import RATE, wave, wave_snr, write

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
