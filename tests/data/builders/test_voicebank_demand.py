import io
import zipfile

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from jax_diffse.data.builders import voicebank_demand
from jax_diffse.data.builders.voicebank_demand import Archive, VoiceBankDemandConfig
from jax_diffse.errors import UserError

PUBLISHED_RATE = 48_000
ARCHIVES = {'clean_train': 'clean_trainset_28spk_wav.zip', 'noisy_train': 'noisy_trainset_28spk_wav.zip',
            'clean_test': 'clean_testset_wav.zip', 'noisy_test': 'noisy_testset_wav.zip', 'logs': 'logfiles.zip'}
TRAIN = ('p226_001', 'p287_003', 'p227_002', 'p228_001', 'p228_004')
TEST = ('p232_001', 'p257_002')
DUMMY = VoiceBankDemandConfig(name='dummy', description='the published layout with a few files', speakers=28,
                              validation_speakers=('p226', 'p287'), num_train=len(TRAIN), num_test=len(TEST))


def tone(hertz, seconds=0.5, rate=PUBLISHED_RATE):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def wav(samples, rate=PUBLISHED_RATE):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format='WAV', subtype='PCM_16')
    return file.getvalue()


def write_zip(path, members):
    with zipfile.ZipFile(path, 'w') as archive:
        for member, data in members.items():
            archive.writestr(member, data)


def write_published_layout(folder):
    """Clean files are a tone of 1 kHz, noisy ones have another of 3 kHz beside it."""
    for part, names in (('trainset_28spk', TRAIN), ('testset', TEST)):
        for kind, samples in (('clean', tone(1000)), ('noisy', tone(1000) + 0.25 * tone(3000))):
            inner = f'{kind}_{part}_wav'
            members = {f'{inner}/{name}.wav': wav(samples) for name in names}
            members |= {f'{inner}/': b'', f'__MACOSX/{inner}/._{names[0]}.wav': b'not audio',
                        f'{inner}/.DS_Store': b'not audio'}
            write_zip(folder / f'{inner}.zip', members)
    write_zip(folder / 'logfiles.zip', {'log_trainset_28spk.txt': 'p226_001 cafeteria 15\np227_002 ssn 0\n',
                                        'log_testset.txt': 'p232_001 bus 2.5\np257_002 living 17.5\n'})


@pytest.fixture(scope='class')
def published(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp('published')
    write_published_layout(folder)
    request.cls.EXAMPLE_DIR = folder


@pytest.mark.usefixtures('published')
class TestPublishedLayout(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own test of a builder, on archives that are read for real."""

    DATASET_CLASS = voicebank_demand.VoicebankDemand
    BUILDER_CONFIG_NAMES_TO_TEST = [DUMMY]
    SPLITS = {'train': 3, 'validation': 2, 'test': 2}
    DL_DOWNLOAD_RESULT = ARCHIVES
    SKIP_CHECKSUMS = True  # the publisher states no SHA-256


@pytest.fixture
def folder(tmp_path):
    write_published_layout(tmp_path)
    return tmp_path


def examples(folder, config=DUMMY):
    """Split -> id -> example, straight from the builder's generators."""

    class Download:
        def download(self, urls):
            assert set(urls) == set(ARCHIVES) and all(url.startswith(voicebank_demand.URL) for url in urls.values())
            return {key: folder / url.removeprefix(voicebank_demand.URL) for key, url in urls.items()}

    builder = voicebank_demand.VoicebankDemand(config=config, data_dir=folder / 'tfds')
    return {split: dict(generator) for split, generator in builder._split_generators(Download()).items()}


def test_held_out_speakers_are_in_validation_alone(folder):
    found = examples(folder)
    assert set(found['train']) == {'p227_002', 'p228_001', 'p228_004'}
    assert set(found['validation']) == {'p226_001', 'p287_003'}
    assert set(found['test']) == set(TEST)
    assert found['validation']['p287_003']['speaker'] == 'p287'


def test_noise_and_snr_are_those_of_the_log_and_absent_where_it_is_silent(folder):
    found = examples(folder)
    assert (found['validation']['p226_001']['noise'], found['validation']['p226_001']['snr_db']) == ('cafeteria', 15.0)
    assert (found['test']['p232_001']['noise'], found['test']['p232_001']['snr_db']) == ('bus', 2.5)
    assert found['train']['p228_001']['noise'] == '' and np.isnan(found['train']['p228_001']['snr_db'])


def test_48_khz_becomes_16_khz_with_pitch_and_level_kept(folder):
    example = examples(folder)['test']['p232_001']
    for key, peaks in (('clean', {1000: 0.5}), ('noisy', {1000: 0.5, 3000: 0.125})):
        assert example[key].dtype == np.int16 and len(example[key]) == 8000  # half a second
        # The amplitude of a tone of whole periods is twice its Fourier coefficient.
        amplitude = 2 * np.abs(np.fft.rfft(example[key] / 32_768)) / 8000
        for hertz, expected in peaks.items():
            np.testing.assert_allclose(amplitude[hertz // 2], expected, rtol=0.01)
        assert set(np.flatnonzero(amplitude > 0.05) * 2) == set(peaks)


@pytest.mark.parametrize('kind', ['clean', 'noisy'])
def test_a_file_without_partner_is_named(folder, kind):
    path = folder / f'{kind}_testset_wav.zip'
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(f'{kind}_testset_wav/p232_777.wav', wav(tone(1000)))
    with pytest.raises(UserError, match=f'{path.name}: no partner.*p232_777'):
        examples(folder)


def test_an_incomplete_published_set_is_refused_by_count(folder):
    with pytest.raises(UserError, match='noisy_trainset_28spk_wav.zip: 5 pairs, expected the 11572 published'):
        examples(folder, '28spk')


@pytest.mark.parametrize('name, train, speakers', [('28spk', 11_572, 28), ('56spk', 23_075, 56)])
def test_configs_expect_the_published_counts(name, train, speakers):
    config = voicebank_demand.VoicebankDemand.builder_configs[name]
    assert (config.num_train, config.num_test, config.speakers) == (train, 824, speakers)


def test_pairs_of_unequal_length_are_named(folder):
    members = {f'noisy_testset_wav/{name}.wav': wav(tone(1000, seconds=0.4)) for name in TEST}
    write_zip(folder / 'noisy_testset_wav.zip', members)
    with pytest.raises(UserError, match='p232_001: 8000 clean but 6400 noisy samples'):
        examples(folder)


def link(name):
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o120777 << 16  # what zip stores for a symbolic link
    return member


@pytest.mark.parametrize('member', [
    '../evil.wav', 'clean_testset_wav/../../evil.wav', '/etc/evil.wav', 'C:\\evil.wav', 'C:evil.wav',
    'clean_testset_wav\\..\\evil.wav', link('clean_testset_wav/evil.wav')], ids=str)
def test_a_hostile_member_is_refused_by_name_and_nothing_is_written(folder, member):
    with zipfile.ZipFile(folder / 'clean_testset_wav.zip', 'a') as archive:
        archive.writestr(member, 'somewhere else')
    before = sorted(folder.parent.rglob('*'))
    with pytest.raises(UserError, match=r'clean_testset_wav.zip: refused, its member .*evil\.wav'):
        examples(folder)
    assert sorted(folder.parent.rglob('*')) == before


def test_what_is_no_archive_or_no_audio_is_named(tmp_path):
    (tmp_path / 'a.zip').write_bytes(b'<html>too many requests</html>')
    with pytest.raises(UserError, match='a.zip: not readable as a zip archive'):
        Archive(tmp_path / 'a.zip', 'a.zip')
    write_zip(tmp_path / 'b.zip', {'b/p1_1.wav': b'not audio'})
    with pytest.raises(UserError, match='b.zip: member p1_1.wav is not readable as audio'):
        Archive(tmp_path / 'b.zip', 'b.zip').read('p1_1')


def test_a_damaged_member_is_named(tmp_path):
    path = tmp_path / 'c.zip'
    write_zip(path, {'c/p1_1.wav': wav(tone(1000))})
    data = bytearray(path.read_bytes())
    data[1000] ^= 0xFF  # inside the member, which is stored uncompressed
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match='c.zip: member p1_1.wav is damaged'):
        Archive(path, 'c.zip').read('p1_1')
