import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from jax_diffse.data import DataConfig, open_source, pipeline
from jax_diffse.data.config import Folders
from jax_diffse.data.pipeline import Process
from jax_diffse.errors import UserError
from jax_diffse.spectral import FrontEnd

RATE = 16_000
NUM_SAMPLES = 4000


class Waves:
    """A source of noise: utterance i is `lengths[i]` long; the first clean sample of a crop tells i."""

    sample_rate, in_store = RATE, False

    def __init__(self, lengths):
        self.lengths = lengths

    def __len__(self):
        return len(self.lengths)

    def info(self, i):
        return {'id': str(i)}

    def read(self, i):
        clean, noisy = np.random.default_rng(i).standard_normal((2, self.lengths[i])).astype(np.float32)
        return clean, noisy

    def draw(self, i, num_samples, rng):
        clean, noisy = rng.standard_normal((2, min(num_samples, self.lengths[i]))).astype(np.float32)
        clean[0] = i
        return clean, noisy


SOURCE = Waves([5000, 3000, 4000, 8000, 2500, 6000, 7000])


def take(count, front_end=None, source=SOURCE, batch_size=4, seed=3, **kwargs):
    batches = pipeline.train_batches(source, front_end, batch_size=batch_size, num_samples=NUM_SAMPLES, seed=seed,
                                     **kwargs)
    return [next(batches) for _ in range(count)]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_batches_have_the_documented_shapes_and_types():
    batch, = take(1, FrontEnd())
    shapes = {key: (value.shape, value.dtype) for key, value in batch.items()}
    assert shapes == {
        'clean': ((4, NUM_SAMPLES), np.float32), 'noisy': ((4, NUM_SAMPLES), np.float32),
        'num_samples': ((4,), np.int32), 'index': ((4,), np.int64),
        'clean_spec': ((4, 26, 161, 2), np.float32), 'noisy_spec': ((4, 26, 161, 2), np.float32)}
    assert take(1)[0].keys() == {'clean', 'noisy', 'num_samples', 'index'}


def test_speech_alone_makes_batches_in_which_it_is_its_own_noisy_counterpart(tmp_path):
    for i in range(2):
        soundfile.write(tmp_path / f'{i}.wav', 0.1 * np.random.default_rng(i).standard_normal(6000), RATE)
    source = open_source(DataConfig(test=Folders(speech=str(tmp_path))), 'test')
    batch, = take(1, FrontEnd(), source)
    assert batch['clean'].shape == (4, NUM_SAMPLES) and np.all(batch['num_samples'] == NUM_SAMPLES)
    np.testing.assert_array_equal(batch['noisy'], batch['clean'])
    np.testing.assert_array_equal(batch['noisy_spec'], batch['clean_spec'])
    assert np.all(np.abs(batch['clean_spec']).max((1, 2, 3)) > 0)


def test_every_item_is_drawn_once_per_epoch_in_another_order():
    batches = take(7)  # 28 examples, 4 epochs of 7
    items = np.concatenate([batch['clean'][:, 0] for batch in batches]).reshape(4, 7)
    assert np.array_equal(np.sort(items), np.tile(np.arange(7), (4, 1)))
    assert len({tuple(epoch) for epoch in items}) == 4
    assert np.array_equal(np.concatenate([batch['index'] for batch in batches]), np.arange(28))


def test_the_same_seed_gives_the_same_batches_and_another_seed_others():
    first, again = take(3, FrontEnd()), take(3, FrontEnd())
    for a, b in zip(first, again, strict=True):
        assert_same(a, b)
    assert not np.array_equal(first[0]['noisy'], take(1, FrontEnd(), seed=4)[0]['noisy'])


def test_starting_at_a_step_equals_skipping_to_it():
    for a, b in zip(take(6)[4:], take(2, start_step=4), strict=True):
        assert_same(a, b)


def test_the_shards_of_two_processes_make_up_the_whole_batch():
    shards = [take(3, FrontEnd(), start_step=1, process=Process(k, 2)) for k in range(2)]
    for whole, *parts in zip(take(3, FrontEnd(), start_step=1), *shards, strict=True):
        assert_same(whole, {key: np.concatenate([part[key] for part in parts]) for key in whole})


@pytest.mark.parametrize('level', ['unit_rms', 'unit_peak'])
def test_waveforms_are_scaled_to_the_level_of_noisy_and_padded(level):
    plain = FrontEnd(unit_rms=False)
    for scaled, raw in zip(take(2, dataclasses.replace(plain, **{level: True})), take(2, plain), strict=True):
        for row, length in enumerate(scaled['num_samples']):
            noisy = raw['noisy'][row, :length].astype(np.float64)
            gain = 1 / (np.sqrt(np.mean(noisy**2)) if level == 'unit_rms' else np.abs(noisy).max())
            for key in ('clean', 'noisy'):
                np.testing.assert_allclose(scaled[key][row], gain * raw[key][row], rtol=1e-5)
                assert not scaled[key][row, length:].any()
    assert_same(take(1)[0], {key: value for key, value in take(1, plain)[0].items() if not key.endswith('_spec')})


def test_spectrograms_are_those_of_the_waveforms():
    front_end = FrontEnd(compression='none')
    for batch in take(2, front_end):
        assert (batch['num_samples'] < NUM_SAMPLES).any()
        for key in ('clean', 'noisy'):
            expected = np.asarray(front_end.analyze(batch[key], batch['num_samples']))
            np.testing.assert_allclose(batch[f'{key}_spec'], expected, atol=1e-5 * np.abs(expected).max())


def evaluate(source=SOURCE, front_end=None, batch_size=4, **kwargs):
    return list(pipeline.eval_batches(source, front_end, batch_size=batch_size, **kwargs))


def test_evaluation_reads_every_utterance_once_and_whole():
    batches = evaluate()
    real = [(index, batch['clean'][row], batch['noisy'][row], batch['num_samples'][row])
            for batch in batches for row, index in enumerate(batch['index']) if index >= 0]
    assert sorted(index for index, *_ in real) == list(range(7))
    for index, clean, noisy, num_samples in real:
        assert num_samples == SOURCE.lengths[index]
        for padded, whole in zip((clean, noisy), SOURCE.read(index), strict=True):
            np.testing.assert_array_equal(padded[:num_samples], whole)
            assert not padded[num_samples:].any()


def test_evaluation_fills_up_batches_with_dummies():
    batches = evaluate(front_end=FrontEnd())
    assert [len(batch['index']) for batch in batches] == [4, 4]
    dummies = [(batch, row) for batch in batches for row in range(4) if batch['index'][row] < 0]
    assert len(dummies) == 1
    for batch, row in dummies:
        assert batch['num_samples'][row] == 0
        assert not any(batch[key][row].any() for key in ('clean', 'noisy', 'clean_spec', 'noisy_spec'))


def test_evaluation_shards_have_equal_shapes_and_make_up_the_whole():
    source = Waves([20_000, 3000, 40_000, 17_000, 60_000])
    shards = [evaluate(source, FrontEnd(), process=Process(k, 2)) for k in range(2)]
    assert len(shards[0]) == len(shards[1]) == 2
    for whole, *parts in zip(evaluate(source, FrontEnd()), *shards, strict=True):
        assert parts[0]['clean_spec'].shape == parts[1]['clean_spec'].shape
        assert_same(whole, {key: np.concatenate([part[key] for part in parts]) for key in whole})


def test_evaluation_cuts_long_utterances_to_their_middle():
    for batch in evaluate(max_samples=3000):
        assert batch['clean'].shape == (4, 3000)
        for row, index in enumerate(batch['index']):
            if index >= 0:
                whole = SOURCE.read(index)[0]
                start = (len(whole) - min(len(whole), 3000)) // 2
                length = batch['num_samples'][row]
                np.testing.assert_array_equal(batch['clean'][row, :length], whole[start:start + 3000])


@pytest.mark.parametrize('seconds, padded', [(0.1, 1), (1, 1), (1.2, 1.5), (1.6, 2), (2.5, 3), (3.5, 4), (5, 6),
                                             (6.5, 8), (8.5, 12), (13, 16)])
def test_buckets(seconds, padded):
    assert pipeline.bucket(round(seconds * RATE), RATE) == padded * RATE


def test_a_batch_that_does_not_divide_among_the_processes_is_refused():
    for call in (take, lambda _, **kwargs: evaluate(**kwargs)):
        with pytest.raises(UserError, match='batch size 4.*multiple of.*3'):
            call(1, process=Process(0, 3))


def test_a_file_that_disappears_is_named(capfd):
    class Broken(Waves):
        def draw(self, i, num_samples, rng):
            raise UserError('gone.wav: no such file')

    with pytest.raises(UserError, match='^gone.wav: no such file$'):
        take(1, source=Broken([4000]))
    assert 'gone' not in capfd.readouterr().err  # TensorFlow does not print it


def test_the_interpreter_can_end_while_batches_are_being_made():
    code = """
import time
import numpy as np
from jax_diffse.data import pipeline
class Slow:
    sample_rate, in_store = 16_000, False
    def __len__(self): return 8
    def draw(self, i, num_samples, rng):
        time.sleep(0.002)
        return np.ones(num_samples, np.float32), np.ones(num_samples, np.float32)
batches = [pipeline.train_batches(Slow(), None, batch_size=4, num_samples=800, seed=0) for _ in range(3)]
for _ in range(20): [next(b) for b in batches]
"""
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60)


@pytest.mark.parametrize('kept', [None, '0'])
def test_tensorflow_loads_keras_only_when_it_is_used(kept):
    code = """
import os, sys
before = dict(os.environ)
from jax_diffse.data.tf import tf
assert not {'keras', 'tf_keras', 'matplotlib.pyplot'} & set(sys.modules)
assert {name: os.environ.get(name) for name in before} == before and os.environ.get('TF_USE_LEGACY_KERAS') == KEPT
print(tf.keras.layers.Dense(3)(tf.ones((1, 2))).shape)
""".replace('KEPT', repr(kept))
    environment = {name: value for name, value in os.environ.items() if name != 'TF_USE_LEGACY_KERAS'}
    environment |= {} if kept is None else {'TF_USE_LEGACY_KERAS': kept}
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == '(1, 3)', done.stderr


def test_no_thread_of_the_pipeline_outlives_its_batches(monkeypatch):
    """TensorFlow's tuning of a pipeline misses, now and then, that it ended, and is waited for, up to a minute."""
    made, iterate = [], pipeline._iterate

    def seen(dataset, failures):
        made.append(dataset)
        yield from iterate(dataset, failures)

    monkeypatch.setattr(pipeline, '_iterate', seen)
    next(pipeline.train_batches(Waves([5000] * 4), None, batch_size=2, num_samples=NUM_SAMPLES, seed=0))
    next(pipeline.eval_batches(Waves([5000] * 4), None, batch_size=2))
    assert len(made) == 2 and all(dataset.options().autotune.enabled is False for dataset in made)
