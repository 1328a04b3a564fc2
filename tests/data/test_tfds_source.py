from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jax_diffse import files
from jax_diffse.data import tfds_source
from jax_diffse.data.builders import pairs, spoken_demo
from jax_diffse.data.tfds_source import TfdsSource, open_tfds
from jax_diffse.errors import UserError

LENGTHS = (1000, 3000, 50, 2000)


def waveform(length, seed):
    return np.random.default_rng(seed).uniform(-0.9, 0.9, length).astype(np.float32)


class SmallPairs(tfds.core.GeneratorBasedBuilder):
    """Pairs of known contents."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        return pairs.info(self, 'Pairs of known contents.')

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        for i, length in enumerate(LENGTHS):
            known = {'noise': 'bus', 'snr_db': 2.5} if i == 0 else {}
            yield pairs.example(f'u{i}', waveform(length, i), waveform(length, 100 + i), 's1', **known)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    builder = SmallPairs(data_dir=tmp_path_factory.mktemp('tfds'), file_format='array_record')
    builder.download_and_prepare()
    return TfdsSource(builder, 'train')


def order(source):
    """Index by id number; TFDS stores examples in an order of its own."""
    return {int(source.info(i)['id'][1:]): i for i in range(len(source))}


def test_read_gives_back_the_float_waveforms_to_16_bits(source):
    assert len(source) == len(LENGTHS) and source.sample_rate == 16_000
    for number, i in order(source).items():
        clean, noisy = source.read(i)
        assert clean.dtype == noisy.dtype == np.float32
        np.testing.assert_allclose(clean, waveform(LENGTHS[number], number), atol=0.51 / 32_768)
        np.testing.assert_allclose(noisy, waveform(LENGTHS[number], 100 + number), atol=0.51 / 32_768)


def test_info_leaves_out_what_is_unknown(source):
    index = order(source)
    lengths = [len(source.read(index[k])[0]) for k in (0, 1)]
    assert source.info(index[0]) == {'id': 'u0', 'speaker': 's1', 'num_samples': lengths[0], 'noise': 'bus',
                                     'snr_db': 2.5}
    assert source.info(index[1]) == {'id': 'u1', 'speaker': 's1', 'num_samples': lengths[1]}


def test_draw_crops_clean_and_noisy_at_the_same_place(source):
    i = order(source)[1]
    clean, noisy = source.read(i)
    starts = set()
    for seed in range(200):
        crop = source.draw(i, 2990, np.random.default_rng(seed))
        start = next(s for s in range(11) if np.array_equal(clean[s:s + 2990], crop[0]))
        np.testing.assert_array_equal(noisy[start:start + 2990], crop[1])
        starts.add(start)
    assert starts == set(range(11))  # every place, the last included


def test_draw_follows_from_the_generator_and_keeps_short_utterances_whole(source):
    index = order(source)
    first, again = (source.draw(index[3], 500, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(source.draw(index[2], 500, np.random.default_rng(7)), source.read(index[2]))


def test_threads_may_read_at_once(source):
    with ThreadPoolExecutor(8) as pool:
        sums = list(pool.map(lambda i: source.read(i % len(source))[1].sum(), range(100)))
    assert sums == [source.read(i % len(source))[1].sum() for i in range(100)]


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(UserError, match='voicebank: no such data set.*voicebank_demand, chime4, spoken_demo'):
        open_tfds('voicebank', 'train', str(tmp_path))
    with pytest.raises(UserError, match='no such config.*voicebank_demand/28spk, voicebank_demand/56spk'):
        open_tfds('voicebank_demand/30spk', 'train', str(tmp_path))


@pytest.fixture
def two_utterances(monkeypatch):
    config = spoken_demo.SpokenDemoConfig(name='standard', description='a few', train=2, validation=1, test=1)
    monkeypatch.setattr(spoken_demo.SpokenDemo, 'builder_configs', {'standard': config})  # made of the next, and kept
    monkeypatch.setattr(spoken_demo.SpokenDemo, 'BUILDER_CONFIGS', [config])


def test_opening_prepares_once_in_the_directory_asked_for(tmp_path, monkeypatch, two_utterances):
    pytest.importorskip('espeakng_loader')
    first = open_tfds('spoken_demo', 'train', str(tmp_path))
    assert (tmp_path / 'spoken_demo').is_dir()
    monkeypatch.setattr(spoken_demo, 'generate', None)  # a second preparation would call it
    again = open_tfds('spoken_demo/standard', 'train', str(tmp_path))
    assert len(first) == len(again) == 2
    np.testing.assert_array_equal(first.read(0), again.read(0))
    with pytest.raises(UserError, match=r"spoken_demo: no split 'dev', expected one of .*train"):
        open_tfds('spoken_demo', 'dev', str(tmp_path))


def test_an_interrupted_preparation_leaves_nothing_that_opens(tmp_path, monkeypatch, two_utterances):
    pytest.importorskip('espeakng_loader')

    def interrupted(split, utterances, seed):
        yield from list(generate(split, utterances, seed))[:1]
        raise KeyboardInterrupt

    generate = spoken_demo.generate
    monkeypatch.setattr(spoken_demo, 'generate', interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_tfds('spoken_demo', 'train', str(tmp_path))
    assert not list(tmp_path.rglob('dataset_info.json'))
    monkeypatch.setattr(spoken_demo, 'generate', generate)
    assert len(open_tfds('spoken_demo', 'train', str(tmp_path))) == 2


@pytest.fixture
def small_pairs(monkeypatch):
    """`SmallPairs` under the name of a builder of this project; the list of how often it was made."""
    made, generate = [], SmallPairs._generate_examples
    monkeypatch.setattr(SmallPairs, '_generate_examples', lambda self: made.append(1) or generate(self))
    monkeypatch.setitem(tfds_source.MODULES, 'small_pairs', SmallPairs.__module__)
    return made


def test_data_sets_are_prepared_in_object_storage(source, small_pairs, bucket, store):
    prepared = open_tfds('small_pairs', 'train', f'{bucket}/tfds')
    names = store.names(bucket.removeprefix('gs://'))
    folder = 'tfds/small_pairs/1.0.0'
    assert f'{folder}/dataset_info.json' in names and not [name for name in names if 'lock' in name or 'tmp' in name]
    written = [request.written for request in store.requests if request.written.startswith(folder)]
    assert [name for name in written if not name.endswith('.lock')][-1] == f'{folder}/dataset_info.json'
    again = open_tfds('small_pairs', 'train', f'{bucket}/tfds')
    assert small_pairs == [1] and len(prepared) == len(again) == len(LENGTHS)
    for i in range(len(again)):
        assert again.info(i) == prepared.info(i) == source.info(i)
        np.testing.assert_array_equal(again.read(i), source.read(i))
        np.testing.assert_array_equal(again.draw(i, 40, np.random.default_rng(i)),
                                      source.draw(i, 40, np.random.default_rng(i)))


def test_an_interrupted_upload_is_made_again(small_pairs, bucket, monkeypatch):
    upload = files.upload

    def interrupted(source, address):
        if source.name == tfds_source.COMPLETE:
            raise KeyboardInterrupt
        upload(source, address)

    with monkeypatch.context() as patch:
        patch.setattr(files, 'upload', interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_tfds('small_pairs', 'train', bucket)
    assert len(open_tfds('small_pairs', 'train', bucket)) == len(LENGTHS) and small_pairs == [1, 1]


def test_what_prevents_a_preparation_in_object_storage_is_one_line(small_pairs, bucket, store):
    with pytest.raises(UserError, match=r'^small_pairs: cannot be prepared in gs://no-such-bucket/x \(there is no such '
                                        r'bucket\)$'):
        open_tfds('small_pairs', 'train', 'gs://no-such-bucket/x')
    store.refused = 403
    with pytest.raises(UserError, match=r'^small_pairs: cannot be prepared in gs://.*no permission') as error:
        open_tfds('small_pairs', 'train', bucket)
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match=r'config.data.data_dir=s3://ours: TensorFlow Datasets reads no s3://'):
        open_tfds('small_pairs', 'train', 's3://ours')


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError('no route to host')

    monkeypatch.setattr(tfds.core.GeneratorBasedBuilder, 'download_and_prepare', fail)
    with pytest.raises(UserError, match='^voicebank_demand: cannot be prepared in .*no route to host'):
        open_tfds('voicebank_demand', 'train', str(tmp_path))


def test_every_builder_named_is_there():
    for name in tfds_source.MODULES:
        assert tfds_source._builder(name, '').name == name
