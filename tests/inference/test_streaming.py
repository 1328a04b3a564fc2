"""Streaming against the enhancement of whole recordings, which is tested against the authors' code."""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import jax_diffse
from jax_diffse import runs
from jax_diffse.errors import UserError
from jax_diffse.inference.enhancer import Enhancer
from jax_diffse.inference.streaming import StreamingEnhancer, timing
from jax_diffse.runs import Run
from jax_diffse.systems.dccrn import Dccrn
from tests import reference, toys

RATE = 16_000


@functools.cache
def _run(**options):
    system = Dccrn(**{'channels': (4, 8, 8), 'lstm_units': 8} | options)
    variables = reference.random_variables(jax.eval_shape(system.init, jax.random.key(0)))
    return Run(system, variables, None, 7, 'abc', pathlib.Path('tiny'))


@functools.cache
def _offline():
    return Enhancer(_run())


@pytest.fixture(scope='module')
def compiled():
    return StreamingEnhancer(_run())


@pytest.fixture
def stream(compiled):
    compiled.reset()
    return compiled


def _noise(*shape, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _streamed(stream, noisy, size):
    """All output blocks, the last one from `flush`."""
    return [stream(noisy[start:start + size]) for start in range(0, len(noisy), size)] + [stream.flush()]


@pytest.mark.parametrize(('n', 'size'), [
    (1234, 1), (2001, 99), (2000, 100), (4567, 1000), (7999, 7999), (1, 1), (99, 50), (100, 100), (101, 100), (650, 7)])
def test_blocks_join_to_the_output_of_the_whole(stream, n, size):
    noisy = _noise(n, seed=n)
    enhanced = np.concatenate(_streamed(stream, noisy, size))
    assert enhanced.shape == (n,) and enhanced.dtype == np.float32
    assert_allclose(enhanced, _offline()(noisy, RATE), atol=1e-5)


@pytest.mark.parametrize('options', [
    {'masking': 'C', 'clamp': True}, {'masking': 'R', 'lstm': 'real', 'window': 300}, {'window': 200}])
def test_all_variants_stream_and_keep_silence(options):
    run, noisy = _run(channels=(4, 4), lstm_units=4, lstm_layers=1, **options), _noise(1777)
    stream = StreamingEnhancer(run)
    assert_allclose(np.concatenate(_streamed(stream, noisy, 500)), Enhancer(run)(noisy, RATE), atol=1e-5)
    assert not np.concatenate(_streamed(stream, np.zeros(1500), 400)).any()


def test_silence_stays_silent(stream):
    assert not np.concatenate(_streamed(stream, np.zeros(1500), 400)).any()


def test_latency_is_as_documented(stream):
    noisy, late = _noise(3000), round(stream.latency_seconds * RATE)
    counts = np.cumsum([len(x) for x in _streamed(stream, noisy, 1)])
    assert_array_equal(counts[:-1], np.maximum(0, np.arange(1, 3001) // 100 * 100 + 100 - late))
    assert counts[-1] == 3000


def test_consecutive_recordings_are_independent(stream):
    first, second = _noise(1550), _noise(2222, seed=1)
    _streamed(stream, first, 300)
    after = np.concatenate(_streamed(stream, second, 300))
    stream(first)
    stream.reset()
    assert_array_equal(np.concatenate(_streamed(stream, second, 300)), after)
    assert_allclose(after, _offline()(second, RATE), atol=1e-5)


def test_channels_are_independent(monkeypatch):
    asked, noisy = [], _noise(1850, 2)
    monkeypatch.setattr(runs, 'load', lambda workdir, step: asked.append((workdir, step)) or _run())
    stream = jax_diffse.load_streaming('runs/x', num_channels=2, checkpoint=3)
    assert asked == [('runs/x', 3)]
    enhanced = np.concatenate(_streamed(stream, noisy, 333))
    assert enhanced.shape == (1850, 2)
    assert_allclose(enhanced, _offline()(noisy, RATE), atol=1e-5)
    assert stream.flush().shape == (0, 2)
    with pytest.raises(UserError, match=r'expected the shape \[samples, 2\], got \[10\]'):
        stream(np.zeros(10))


def test_blocks_keep_their_shape(stream):
    assert stream.flush().shape == (0,)
    assert [x.shape for x in _streamed(stream, np.zeros((1000, 1)), 999)] == [(300, 1), (100, 1), (600, 1)]
    assert [x.shape for x in (stream(np.zeros(0)), stream(np.zeros(50)), stream.flush())] == [(0,), (0,), (50,)]


def test_the_full_size_has_the_latency_of_the_paper():
    # 6 blocks look 6 frames ahead, a sample lies in 4 frames; 888 samples is what was measured with the authors' code.
    full = timing(Run(Dccrn(), {}, None, 0, '', pathlib.Path()))
    assert_allclose(full, (888 / RATE, (6 + 4) * 100 / RATE))


def test_look_ahead_is_what_an_output_sample_depends_on(stream):
    look_ahead, latency = round(stream.look_ahead_seconds * RATE), round(stream.latency_seconds * RATE)
    assert (look_ahead, latency, stream.hop) == (588, 700, 100)
    noisy = _noise(4000)
    expected = np.concatenate(_streamed(stream, noisy, 4000))
    for start in (2900, 2937, 2999):  # wherever in a hop
        other = np.concatenate([noisy[:start], _noise(4000 - start, seed=start)])
        change = np.abs(np.concatenate(_streamed(stream, other, 4000)) - expected)
        assert not change[:start - latency + 1].any()
        assert change[:start - look_ahead].max() < 1e-4
        assert change[start - look_ahead:start - look_ahead + 100].max() > 1e-4


@pytest.mark.parametrize(('block', 'message'), [
    (np.zeros((10, 2)), r'expected the shape \[samples\] or \[samples, 1\], got \[10, 2\]'),
    (np.zeros((1, 10)), r'got \[1, 10\]'), (np.float32(0), r'got \[\]'), (np.zeros((4, 1, 1)), r'got \[4, 1, 1\]'),
    (np.zeros(10, np.int16), 'expected floating-point samples'),
    (np.array([0.1, np.nan]), 'NaN or infinite'), (np.array([np.inf, 0.1]), 'NaN or infinite')])
def test_a_bad_block_is_a_user_error_and_changes_nothing(stream, block, message):
    noisy = _noise(1500)
    expected = np.concatenate(_streamed(stream, noisy, 750))
    before = stream(noisy[:750])
    with pytest.raises(UserError, match=f'^block: .*{message}'):
        stream(block)
    assert_array_equal(np.concatenate([before, stream(noisy[750:]), stream.flush()]), expected)


def test_what_cannot_stream_is_a_user_error():
    with pytest.raises(UserError, match='num_channels=0'):
        StreamingEnhancer(_run(), 0)
    with pytest.raises(UserError, match='^toy: Toy needs the whole recording'):
        StreamingEnhancer(toys.run(toys.Toy()))


def test_a_system_that_gives_nan_is_a_user_error():
    run = _run(channels=(2,), lstm_units=2, lstm_layers=1)
    variables = jax.tree.map(lambda x: np.full(x.shape, np.nan, x.dtype), run.variables)
    stream = StreamingEnhancer(dataclasses.replace(run, variables=variables))
    with pytest.raises(UserError, match='tiny: the system gave NaN .* step 7'):
        stream(_noise(1000))
