"""The DNS challenge's data in its published layout, with the names of a few of its files."""

import numpy as np
import pytest
import soundfile

from jax_diffse import config
from jax_diffse.data import DataConfig, open_source
from jax_diffse.data.config import Folders
from jax_diffse.errors import UserError
from tests.data.corpora import RATE, wave, wave_snr, write

READ = ['book_00000_chp_0009_reader_06709_11', 'book_00000_chp_0009_reader_06709_15',
        'book_00002_chp_0005_reader_11980_10', 'book_00007_chp_0008_reader_01326_1']
NOISY = {0: 'clnsp126_3Wjw0nadnM4_snr15_tl-22_fileid_0', 1: 'clnsp16_traffic_248091_1_snr11_tl-22_fileid_1',
         10: 'clnsp146_baby_416657_0_snr9_tl-25_fileid_10'}
SYNTHETIC = 'datasets/test_set/synthetic'


@pytest.fixture
def challenge(tmp_path, monkeypatch):
    """The folder that holds `datasets` is the current one."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(READ):
        write(tmp_path / 'datasets/clean' / f'{name}.wav', wave(k))
    for k, name in enumerate(('-0vPFx-wRRI', 'door_Freesound_validated_100032_0', '0a5ghmwnw7Q')):
        write(tmp_path / 'datasets/noise' / f'{name}.wav', wave(10 + k))
    for folder, channels in (('SLR26/simulated_rirs_16k/smallroom/Room001', 1),
                             ('SLR28/RIRS_NOISES/real_rirs_isotropic_noises', 8)):
        for k in range(2):
            rir = 0.05 * rng.standard_normal((2000, channels)) * np.exp(-np.arange(2000) / 400)[:, None]
            rir[10] = 0.9
            write(tmp_path / 'datasets/impulse_responses' / folder / f'Room001-0000{k}.wav', rir)
    for part in ('no_reverb', 'with_reverb'):
        for k, name in NOISY.items():
            clean = wave(20 + k)
            write(tmp_path / SYNTHETIC / part / 'clean' / f'clean_fileid_{k}.wav', clean)
            write(tmp_path / SYNTHETIC / part / 'noisy' / f'{name}.wav', clean + wave(30 + k, level=0.01))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(split, variant='dccrn:dns'):
    return open_source(DataConfig.from_config_dict(config.load(variant).data), split)


def test_the_variant_mixes_as_the_challenge_does(challenge):
    """Half of the mixtures are reverberant, as is their target; SNRs from -5 to 25 dB; levels from -35 to -15 dBFS."""
    source = opened('train')
    assert [len(found) for found in (source, source.noise, source.mixer.rirs)] == [3, 2, 3]
    recipes = [source.mixer.draw(np.random.default_rng([0, k]), source.noise) for k in range(400)]
    assert 150 < sum(recipe.rir is not None for recipe in recipes) < 250
    for k in range(40):
        clean, noisy = source.draw(k % 3, 4000, np.random.default_rng([1, k]))
        assert -5.01 <= wave_snr(clean, noisy) <= 25.01
        assert np.abs(noisy).max() == pytest.approx(1, abs=1e-5) or (
            -35.1 <= 20 * np.log10(np.sqrt(np.mean(noisy.astype(np.float64)**2))) <= -14.9)


def test_readers_are_speakers(challenge, capsys):
    """Of two files of one reader, none is in training if the other one is held out."""
    sides = [{mixture.speech.name.split('_')[5] for mixture in opened(split).mixtures}
             for split in ('train', 'validation')]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == {'06709', '11980', '01326'}
    assert 'using the readers in the names of files as speakers; 1 of 3 are held out' in capsys.readouterr().out


@pytest.mark.parametrize('part', ['no_reverb', 'with_reverb'])
def test_pairs_of_the_test_set_share_a_file_id(challenge, part):
    root = challenge / SYNTHETIC / part
    source = opened('test') if part == 'no_reverb' else open_source(
        DataConfig(test=Folders(str(root / 'clean'), str(root / 'noisy'))), 'test')
    assert {source.info(i)['id'] for i in range(len(source))} == set(NOISY.values())
    for i in range(3):
        name = source.info(i)['id']
        for x, path in zip(source.read(i), (f'clean/clean_fileid_{name.rpartition("_")[2]}.wav', f'noisy/{name}.wav')):
            np.testing.assert_array_equal(x, soundfile.read(root / path, dtype='float32')[0])


def test_files_without_a_partner_and_repeated_ids_are_listed(challenge):
    root = challenge / SYNTHETIC / 'no_reverb'
    lone = write(root / 'noisy' / 'clnsp9_bus_snr3_tl-20_fileid_7.wav', wave(0))
    twice = write(root / 'noisy' / 'clnsp99_bus_snr3_tl-20_fileid_10.wav', wave(0))
    nameless = write(root / 'clean' / 'other.wav', wave(0))
    with pytest.raises(UserError) as error:
        open_source(DataConfig(test=Folders(str(root / 'clean'), str(root / 'noisy'))), 'test')
    assert dict(line.strip().split(': ', 1) for line in str(error.value).splitlines()[1:]) == {
        str(lone): f'unpaired: no file of this name or file id in {root / "clean"}',
        str(nameless): f'unpaired: no file of this name or file id in {root / "noisy"}',
        str(twice): f'has the same file id as {root / "noisy" / NOISY[10]}.wav'}


def test_equal_names_come_before_file_ids(tmp_path):
    for k, part in enumerate(('clean', 'noisy')):
        for name in ('a_fileid_1', 'b_fileid_1'):
            write(tmp_path / part / f'{name}.wav', wave(k))
    source = open_source(DataConfig(test=Folders(str(tmp_path / 'clean'), str(tmp_path / 'noisy'))), 'test')
    assert [source.info(i)['id'] for i in range(len(source))] == ['a_fileid_1', 'b_fileid_1']


def test_the_full_band_has_folders_of_its_own(challenge):
    (challenge / 'datasets_fullband').mkdir()
    for old, new in (('clean', 'clean_fullband/read_speech'), ('noise', 'noise_fullband'),
                     ('impulse_responses', 'impulse_responses')):
        (challenge / 'datasets_fullband' / new).parent.mkdir(exist_ok=True)
        (challenge / 'datasets' / old).rename(challenge / 'datasets_fullband' / new)
    for path in (challenge / 'datasets_fullband').rglob('*.wav'):
        soundfile.write(path, np.repeat(soundfile.read(path)[0], 3, axis=0), 48_000)
    source = opened('train', 'dccrn:dns_fullband')
    assert source.sample_rate == RATE and len(source) == 3  # resampled
    assert len(source.draw(0, 2000, np.random.default_rng(0))[0]) == 2000
