import csv

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from jax_diffse.data.builders import chime4
from jax_diffse.data.builders.chime4 import Chime4, Chime4Config
from jax_diffse.errors import UserError

SPEAKERS = {'dt05': 'F01_050C0101', 'et05': 'M05_440C0201'}
NUM_SAMPLES = 4000
BOOTH_EXTRA = 100  # samples by which the booth recordings are longer


def noise(seed, num_samples=NUM_SAMPLES):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples)


def write(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16_000, subtype='PCM_16')


def write_published_layout(manual):
    """One sentence in two environments per set; every channel of the noisy files has other contents."""
    audio = manual / chime4.ROOT
    for part, speaker in SPEAKERS.items():
        write(audio / f'isolated/{part}_bth/{speaker}_BTH.CH0.wav', noise(7, NUM_SAMPLES + BOOTH_EXTRA))
        for environment in ('bus', 'str'):
            folder, name = f'{part}_{environment}_simu', f'{speaker}_{environment.upper()}'
            for channel in (1, 5, 6):
                write(audio / f'isolated/{folder}/{name}.CH{channel}.wav', noise(channel))
                write(audio / f'isolated_ext/{folder}/{name}.CH{channel}.Clean.wav', noise(10 + channel))


def config(reference):
    return Chime4Config(name=f'dummy_{reference}', description='the published layout with a few files',
                        reference=reference, num_validation=2, num_test=2)


@pytest.fixture(scope='class')
def published(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp('manual')
    write_published_layout(folder)
    request.cls.EXAMPLE_DIR = folder


@pytest.mark.usefixtures('published')
class TestPublishedLayout(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Chime4
    BUILDER_CONFIG_NAMES_TO_TEST = [config('aligned'), config('booth')]
    SPLITS = {'validation': 2, 'test': 2}


@pytest.fixture
def manual(tmp_path):
    write_published_layout(tmp_path / 'manual')
    return tmp_path / 'manual'


def prepare(manual, reference='aligned', builder_config=None):
    builder = Chime4(config=builder_config or config(reference), data_dir=manual.parent / 'tfds')
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))
    return builder


def by_id(builder, split):
    return {row['id'].decode(): row for row in builder.as_dataset(split=split).as_numpy_iterator()}


@pytest.mark.parametrize('reference, seed', [('aligned', 15), ('booth', 7)])
def test_pairs_are_of_channel_5_with_the_reference_asked_for(manual, reference, seed):
    builder = prepare(manual, reference)
    for split, part in (('validation', 'dt05'), ('test', 'et05')):
        rows = by_id(builder, split)
        assert set(rows) == {f'{SPEAKERS[part]}_BUS', f'{SPEAKERS[part]}_STR'}
        row = rows[f'{SPEAKERS[part]}_STR']
        assert (row['speaker'].decode(), row['noise'].decode()) == (SPEAKERS[part][:3], 'str')
        np.testing.assert_allclose(row['noisy'] / 32_768, noise(5), atol=1e-4)
        np.testing.assert_allclose(row['clean'] / 32_768, noise(seed), atol=1e-4)


def test_the_manifest_lists_every_file_used(manual):
    builder = prepare(manual)
    with open(builder.data_path / 'manifest.tsv') as file:
        rows = list(csv.DictReader(file, delimiter='\t'))
    assert [row['split'] for row in rows] == ['validation'] * 2 + ['test'] * 2
    assert rows[0]['noisy'] == 'isolated/dt05_bus_simu/F01_050C0101_BUS.CH5.wav'
    assert rows[0]['clean'] == 'isolated_ext/dt05_bus_simu/F01_050C0101_BUS.CH5.Clean.wav'
    assert all((manual / chime4.ROOT / row[key]).exists() for row in rows for key in ('noisy', 'clean'))


def test_a_missing_directory_says_what_to_put_where(tmp_path):
    (tmp_path / 'manual').mkdir()
    with pytest.raises(UserError, match='Put or link the CHiME-4 corpus here as CHiME4') as empty:
        prepare(tmp_path / 'manual')
    assert str(tmp_path / 'manual') in str(empty.value) and '\n' not in str(empty.value)
    (tmp_path / 'manual/elsewhere').mkdir()
    with pytest.raises(UserError, match='manual/CHiME4/data/audio/16kHz/isolated: no such directory. Put or link'):
        prepare(tmp_path / 'manual')


def test_a_missing_clean_file_is_named_and_nothing_is_left_prepared(manual):
    (manual / chime4.ROOT / 'isolated_ext/et05_str_simu/M05_440C0201_STR.CH5.Clean.wav').unlink()
    with pytest.raises(UserError, match=r'M05_440C0201_STR.CH5.Clean.wav: no such file.*\(1 of 2 in et05'):
        prepare(manual)
    assert not list((manual.parent / 'tfds').rglob('manifest.tsv'))


def test_an_incomplete_corpus_is_refused_by_count(manual):
    with pytest.raises(UserError, match='simulated dt05: 2 pairs, expected the 1640 published'):
        prepare(manual, builder_config='aligned')


def test_aligned_files_of_unequal_length_are_refused(manual):
    write(manual / chime4.ROOT / 'isolated_ext/dt05_bus_simu/F01_050C0101_BUS.CH5.Clean.wav', noise(0, 3999))
    with pytest.raises(UserError, match='F01_050C0101_BUS: 3999 clean but 4000 noisy samples'):
        prepare(manual)
