"""Prepared arrays as a data source; the axes are those of the study's README: input (noisy) first, target second."""

import concurrent.futures
import itertools
import os
import pickle
import tracemalloc

import numpy as np
import pytest

from jax_diffse.data import DataConfig, arrays, open_source, pipeline
from jax_diffse.data.config import Folders
from jax_diffse.errors import UserError

LENGTH = 4800  # 0.3 s
LEVELS = (-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0)


def examples(*leading, length=LENGTH, seed=0):
    """Random pairs `[*leading, 2, length]`; the second of each pair is the quieter one."""
    return np.random.default_rng(seed).uniform(-0.4, 0.4, (*leading, 2, length)) * [[1.0], [0.25]]


def saved(path, samples, dtype=np.float32):
    np.save(path, np.asarray(samples, dtype))
    return str(path)


def train_config(path, **more):
    return DataConfig(train=Folders(arrays=str(path)), **more)


def of_tests(path, **more):
    return DataConfig(test=Folders(arrays=str(path)), **{'test_snr_db': LEVELS, **more})


@pytest.mark.parametrize(('dtype', 'scale', 'exact'), [
    (np.float32, 1, 1e-7), (np.float64, 1, 1e-7), (np.int16, 32_768, 2e-5), ('>f4', 1, 1e-7), ('>i2', 32_768, 2e-5)])
def test_samples_are_those_of_the_file(tmp_path, dtype, scale, exact):
    samples = examples(3)
    source = open_source(of_tests(saved(tmp_path / 'a.npy', np.rint(scale * samples) if scale > 1 else samples, dtype)),
                         'test')
    assert len(source) == 3 and source.sample_rate == 16_000
    for i in range(3):
        assert source.info(i) == {'id': f'000{i}', 'num_samples': LENGTH}
        clean, noisy = source.read(i)
        assert clean.dtype == noisy.dtype == np.float32
        np.testing.assert_allclose(noisy, samples[i, 0], atol=exact)
        np.testing.assert_allclose(clean, samples[i, 1], atol=exact)


@pytest.mark.parametrize(('kinds', 'named'), [(2, ('seen', 'unseen')), (1, ('',))])
def test_tests_are_named_by_noise_kind_and_snr(tmp_path, kinds, named):
    samples = examples(kinds, 7, 2)
    source = open_source(of_tests(saved(tmp_path / 'a.npy', samples)), 'test')
    assert len(source) == kinds * 7 * 2
    ids = set()
    for i, (k, s, b) in enumerate(itertools.product(range(kinds), range(7), range(2))):
        info = source.info(i)
        assert info['id'] == f'{named[k]}/{LEVELS[s]:g}dB/000{b}'.strip('/')
        assert (info['snr_db'], info.get('noise_kind', '')) == (LEVELS[s], named[k])
        np.testing.assert_array_equal(source.read(i), samples[k, s, b, ::-1].astype(np.float32))
        ids.add(info['id'])
    assert len(ids) == len(source)


def test_crops_are_pairs_from_random_places_that_are_not_silent(tmp_path):
    samples = examples(2)
    samples[..., 2000:] = 0  # zero-padded, as shorter utterances are
    saved(tmp_path / 'v.npy', samples)
    source = open_source(DataConfig(train=Folders(arrays=saved(tmp_path / 'a.npy', samples)),
                                    validation=Folders(arrays=str(tmp_path / 'v.npy'))), 'train')
    starts = set()
    for seed in range(30):
        clean, noisy = source.draw(1, 500, np.random.default_rng(seed))
        assert clean.shape == noisy.shape == (500,) and clean.any()
        start = next(k for k in range(2000) if np.array_equal(clean, samples[1, 1, k:k + 500].astype(np.float32)))
        np.testing.assert_array_equal(noisy, samples[1, 0, start:start + 500].astype(np.float32))
        starts.add(start)
    assert len(starts) > 10
    np.testing.assert_array_equal(source.draw(0, 10**6, np.random.default_rng(0)), source.read(0))


def test_the_file_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, '_BLOCK', 1 << 14)
    path = saved(tmp_path / 'a.npy', examples(64, length=1 << 13))  # 4 MiB
    tracemalloc.start()
    source = open_source(of_tests(path), 'test')
    for i in range(len(source)):
        source.read(i)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(source) == 64 and peak < 1 << 20


def test_a_share_is_held_out_for_validation_and_one_line_says_so(tmp_path, capsys):
    config = train_config(saved(tmp_path / 'a.npy', examples(20)), held_out=0.2)
    ids = {split: {source.info(i)['id'] for i in range(len(source))}
           for split in ('train', 'validation') for source in [open_source(config, split)]}
    assert len(ids['validation']) == 4 and ids['train'] | ids['validation'] == {f'{i:04d}' for i in range(20)}
    _, line = capsys.readouterr().out.splitlines()
    assert 'a.npy: arrays name no speakers; 4 of 20 examples are held out' in line
    assert 'held out of ' + str(tmp_path / 'a.npy') in config.describe('validation')


def test_a_line_says_at_which_rate_the_samples_are_taken(tmp_path, capsys):
    path = saved(tmp_path / 'a.npy', examples(4))
    for split in ('train', 'validation'):
        open_source(train_config(path, sample_rate=8000), split)
    assert capsys.readouterr().out.count(f'{path}: 4 examples of 0.6 s, taken to be at 8000 Hz') == 1


def test_an_array_of_its_own_is_used_for_validation(tmp_path):
    config = DataConfig(train=Folders(arrays=saved(tmp_path / 'a.npy', examples(5))),
                        validation=Folders(arrays=saved(tmp_path / 'b.npy', examples(3, seed=1))))
    assert [len(open_source(config, split)) for split in ('train', 'validation')] == [5, 3]


def test_threads_and_the_pipeline_read_the_same(tmp_path):
    samples = examples(6)
    source = open_source(of_tests(saved(tmp_path / 'a.npy', samples)), 'test')
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sums = list(pool.map(lambda i: source.read(i % 6)[1].sum(), range(60)))
    assert sums == [source.read(i % 6)[1].sum() for i in range(60)]
    batch = next(pipeline.train_batches(source, None, batch_size=6, num_samples=LENGTH, seed=0))
    order = pipeline.permutation(0, 0, 6)
    np.testing.assert_array_equal(batch['noisy'], samples[order, 0].astype(np.float32))
    np.testing.assert_array_equal(batch['clean'], samples[order, 1].astype(np.float32))


# --------------------------------------------------------------------------------------------------------- bad files


class Payload:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ('executed',)


def edited(change, samples=None, dtype=np.float64):
    samples = examples(3) if samples is None else samples
    change(samples)
    return lambda path: saved(path, samples, dtype)


def set_to(index, value):
    return lambda samples: samples.__setitem__(index, value)


@pytest.mark.parametrize(('make', 'line'), [
    (lambda path: None, r'cannot be read \(No such file'),
    (lambda path: path.mkdir(), r'cannot be read \(Is a directory'),
    (lambda path: path.write_bytes(b''), 'not an array of NumPy'),
    (lambda path: path.write_bytes(b'once upon a time'), 'not an array of NumPy'),
    (lambda path: path.write_bytes(b'\x93NUMPY\x01\x00\x10\x00' + b'{[(:' * 4), 'not an array of NumPy'),
    (lambda path: path.write_bytes(pickle.dumps(Payload())), 'not an array of NumPy'),
    (lambda path: np.savez(path.open('wb'), a=examples(2)), 'an archive of arrays'),
    (lambda path: np.save(path, np.array([Payload()])), 'holds Python objects, which are not loaded'),
    (lambda path: os.truncate(saved(path, examples(3)), 60_000), 'cut off'),
    (lambda path: saved(path, examples(3), np.int32), 'samples are int32, expected float32, float64, int16'),
    (lambda path: saved(path, examples(3), np.complex64), 'samples are complex64'),
    (lambda path: saved(path, examples(3)[0]), r'2 axes, \[2, 4800\], expected \[B, 2, L\]'),
    (lambda path: saved(path, examples(3, 4)), r'4 axes, \[3, 4, 2, 4800\]'),
    (lambda path: saved(path, examples(3)[:, :1]), r'1 signals per example in \[3, 1, 4800\]'),
    (lambda path: saved(path, examples(0)), r'no examples in \[0, 2, 4800\]'),
    (lambda path: saved(path, examples(3, 7, 2)), '3 noise kinds in .* expected 2 .seen, unseen. or 1'),
    (lambda path: saved(path, examples(2, 8, 2)), '8 dB classes, got 7 SNRs .*test_snr_db .evaluate: --snr-db'),
    (lambda path: saved(path, examples(3, length=100)), '0.006 s per example at 16000 Hz, expected 0.25 s or more'),
    (edited(set_to((1, 0, 7), np.nan)), r'has NaN or infinite samples in 1 of 3 examples, first in \[1\]'),
    (edited(set_to((slice(1, 3), 1, 7), 1e300)), r'has NaN or infinite samples in 2 of 3 examples, first in \[1\]'),
    (lambda path: saved(path, 32_768 * examples(3)), 'has samples beyond 100, where full scale is 1, in 3 of 3'),
    (edited(set_to((2, 1), 0.0)), r'clean speech is silent in 1 of 3 examples, first in \[2\]; .*--skip-bad'),
    (edited(set_to((0, 0), 0.0)), r'noisy speech is silent in 1 of 3'),
    (edited(set_to((1, 6, 1, 1), 0.0), examples(2, 7, 2)), r'silent in 1 of 28 examples, first in \[1, 6, 1\]'),
])
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, monkeypatch, make, line):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'a.npy'
    make(path)
    with pytest.raises(UserError, match=line) as error:
        open_source(of_tests(path), 'test')
    message = str(error.value)
    assert message.startswith(f'{path}: ') and '\n' not in message
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize('levels', [(0.0, 0.0), (1.0, 1.0 + 1e-9)])
def test_equal_names_of_classes_are_refused(tmp_path, levels):
    with pytest.raises(UserError, match='2 dB classes, got 2 SNRs'):
        open_source(of_tests(saved(tmp_path / 'a.npy', examples(1, 2, 2)), test_snr_db=levels), 'test')


def test_tests_by_condition_are_no_training_data(tmp_path):
    with pytest.raises(UserError, match=r'5 axes, \[2, 7, 2, 2, 4800\], expected \[B, 2, L\]$'):
        open_source(train_config(saved(tmp_path / 'a.npy', examples(2, 7, 2))), 'train')


def test_bad_examples_are_left_out_on_request(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(arrays, '_BLOCK', 2 * 2 * LENGTH)  # two examples at once
    samples = examples(5)
    samples[3, 1], samples[1, 0, 5] = 0.0, np.nan
    path = saved(tmp_path / 'a.npy', samples)
    source = open_source(of_tests(path, skip_bad=True), 'test')
    assert [source.info(i)['id'] for i in range(len(source))] == ['0000', '0002', '0004']
    np.testing.assert_array_equal(source.read(1)[1], samples[2, 0].astype(np.float32))
    line, = caplog.messages
    assert 'left out: has NaN or infinite samples in 1 of 5 examples, clean speech is silent in 1 of 5' in line
    with pytest.raises(UserError, match='in 2 of 2 examples, first in .0., so none is left'):
        open_source(of_tests(saved(tmp_path / 'b.npy', np.zeros((2, 2, LENGTH))), skip_bad=True), 'test')


@pytest.mark.parametrize('other', ['clean', 'speech'])
def test_an_array_beside_folders_is_refused(tmp_path, other):
    with pytest.raises(UserError, match=f'config.data.train: {other} and arrays set, .* or arrays alone'):
        open_source(DataConfig(train=Folders(**{other: 'x', 'arrays': 'y.npy'})), 'train')


def test_one_example_cannot_be_shared(tmp_path):
    with pytest.raises(UserError, match='has a single example, so none can be held out'):
        open_source(train_config(saved(tmp_path / 'a.npy', examples(1))), 'train')
