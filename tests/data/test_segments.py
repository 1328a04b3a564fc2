"""Consecutive segments; the arithmetic is worked out by hand, and samples are compared with those of the files."""

import numpy as np
import pytest
import soundfile

from jax_diffse.data import DataConfig, open_source, pipeline
from jax_diffse.data.config import Folders
from jax_diffse.data.pipeline import Process
from jax_diffse.data.scan import AudioFile
from jax_diffse.data.segments import Segments
from jax_diffse.errors import UserError
from tests.data.test_tfds_source import source as records  # noqa: F401  a fixture: 1000, 3000, 50 and 2000 samples

LENGTH = 16_384
SIZES = {'a': 3 * LENGTH + 100, 'b': LENGTH - 1, 'c': 2 * LENGTH, 'd': LENGTH + 1}
PLACES = [('a', 0), ('a', LENGTH), ('a', 2 * LENGTH), ('c', 0), ('c', LENGTH), ('d', 0)]  # 3 + 0 + 2 + 1 segments


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp('corpus')
    for folder, level in (('clean', 0.1), ('noisy', 0.2), ('noise', 0.02)):
        (root / folder).mkdir()
        for seed, (name, size) in enumerate(SIZES.items()):
            soundfile.write(root / folder / f'{name}.wav', level * np.random.default_rng(seed).uniform(-1, 1, size),
                            16_000)
    return root


def opened(corpus, length=LENGTH, **folders):
    named = Folders(**{key: str(corpus / folder) for key, folder in folders.items()})
    return Segments(open_source(DataConfig(train=named, validation=named), 'train'), length)


def samples(corpus, folder, name, start):
    return soundfile.read(corpus / folder / f'{name}.wav', dtype='float32')[0][start:start + LENGTH]


def drawn(source):
    return [source.draw(i, LENGTH, np.random.default_rng(i)) for i in range(len(source))]


def test_segments_of_pairs_are_consecutive_and_the_remainder_is_dropped(corpus):
    source = opened(corpus, clean='clean', noisy='noisy')
    assert len(source) == 6
    for i, (name, start) in enumerate(PLACES):
        assert source.info(i) == {'id': f'{name}@{start}', 'num_samples': LENGTH}
        expected = [samples(corpus, folder, name, start) for folder in ('clean', 'noisy')]
        np.testing.assert_array_equal(drawn(source)[i], expected)
        np.testing.assert_array_equal(source.read(i), expected)


def test_segments_of_speech_alone(corpus):
    found = drawn(opened(corpus, speech='clean'))
    np.testing.assert_array_equal(found, [[samples(corpus, 'clean', *place)] * 2 for place in PLACES])


def test_segments_of_speech_are_mixed_with_random_noise(corpus):
    source = opened(corpus, speech='clean', noise='noise')
    noises = []
    for i, (name, start) in enumerate(PLACES):
        pairs = [source.draw(i, LENGTH, np.random.default_rng(seed)) for seed in (1, 1, 2)]
        for clean, _ in pairs:
            np.testing.assert_array_equal(clean, samples(corpus, 'clean', name, start))
        noises += [noisy - clean for clean, noisy in pairs]
        np.testing.assert_array_equal(noises[-3], noises[-2])
        assert not np.allclose(noises[-3], noises[-1])
    assert all(noise.any() for noise in noises)


def test_the_clips_of_listed_mixtures_do_not_shorten_the_speech_of_training(corpus):
    named = Folders(speech=str(corpus / 'clean'), noise=str(corpus / 'noise'))
    config = DataConfig(train=named, validation=named, clip_seconds=1.0)
    assert len(Segments(open_source(config, 'train'), LENGTH)) == 6


def test_segments_of_a_prepared_data_set(records):  # noqa: F811
    source = Segments(records, 900)  # 1 + 3 + 0 + 2
    assert len(source) == 6
    found = {source.info(i)['id']: source.draw(i, 900, np.random.default_rng(i)) for i in range(6)}
    assert found.keys() == {'u0@0', 'u1@0', 'u1@900', 'u1@1800', 'u3@0', 'u3@900'}
    whole = {records.info(i)['id']: records.read(i) for i in range(len(records))}
    for name, pair in found.items():
        start = int(name[3:])
        np.testing.assert_array_equal(pair, [x[start:start + 900] for x in whole[name[:2]]])


def test_no_more_than_the_segment_is_read(corpus, monkeypatch):
    read, source = [], opened(corpus, clean='clean', noisy='noisy')
    whole = AudioFile.read
    monkeypatch.setattr(AudioFile, 'read', lambda self, start=0, stop=None: read.append((start, stop)) or whole(
        self, start, stop))
    source.draw(2, LENGTH, np.random.default_rng(0))
    assert read == [(2 * LENGTH, 3 * LENGTH)] * 2


def test_a_segment_of_silent_speech_stays_silent(tmp_path):
    speech = np.concatenate([np.zeros(LENGTH), 0.1 * np.random.default_rng(0).uniform(-1, 1, LENGTH)])
    for folder, x in (('speech', speech), ('noise', speech[::-1])):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / 'a.wav', x, 16_000)
    silent, spoken = drawn(opened(tmp_path, speech='speech', noise='noise'))
    assert not np.any(silent) and np.all(np.isfinite(spoken)) and np.any(spoken[1] != spoken[0])


def test_no_segment_at_all_is_one_line(corpus):
    with pytest.raises(UserError, match=r'^config.data.segments: none of the 4 utterances .* 60000 samples .* 3.75 s '
                                        r'\(config.train.crop_seconds\)$'):
        opened(corpus, 60_000, clean='clean', noisy='noisy')


def batches(corpus, count, **settings):
    found = pipeline.train_batches(opened(corpus, speech='clean', noise='noise'), None, batch_size=4,
                                   num_samples=LENGTH, seed=3, **settings)
    return [next(found) for _ in range(count)]


def test_an_epoch_goes_once_over_all_segments_in_another_order(corpus):
    clean = np.concatenate([batch['clean'] for batch in batches(corpus, 3)])  # 12 examples: 2 epochs of 6
    expected = np.array([samples(corpus, 'clean', *place) for place in PLACES])
    places = [int(np.abs(expected - x).sum(axis=1).argmin()) for x in clean]
    np.testing.assert_array_equal(clean, expected[places])
    assert sorted(places[:6]) == sorted(places[6:]) == list(range(6)) and places[:6] != places[6:]


def test_segments_are_the_same_after_a_resumption_and_for_two_processes(corpus):
    whole = batches(corpus, 3)
    shards = [batches(corpus, 2, start_step=1, process=Process(k, 2)) for k in range(2)]
    for batch, *parts in zip(whole[1:], *shards, strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key], np.concatenate([part[key] for part in parts]))
