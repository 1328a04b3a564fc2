import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jax_diffse.evaluation import alignment
from jax_diffse.evaluation.alignment import aligned, offset


def noise(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n)


@pytest.mark.parametrize('block', [2**20, 700])  # in one piece, and in several
@pytest.mark.parametrize(('late', 'sign', 'ratio'), [
    (0, 1, 10), (137, 1, 0.7), (-200, 1, 0.5), (200, -1, 1), (1, 1, 100)])
def test_a_shift_is_found(monkeypatch, block, late, sign, ratio):
    monkeypatch.setattr(alignment, '_BLOCK', block)
    whole = noise(6000)
    signal = sign * whole[1000 - late:4000 - late] + noise(3000, 1) / ratio
    assert offset(whole[1000:5000], signal, 200) == late


def test_it_equals_numpy_correlation_at_every_lag():
    a, b = noise(300), noise(280, 1)
    b[40:] += 2 * a[:240]
    full = np.correlate(b, a, 'full')  # lag k of b behind a is at len(a) - 1 + k
    assert offset(a, b, 279) == np.argmax(np.abs(full)) - 299 == 40


@pytest.mark.parametrize('signal', [np.zeros(1000), np.full(1000, np.nan), noise(1000, 5), np.zeros(0)])
def test_without_a_clear_maximum_there_is_no_offset(signal):
    assert offset(noise(1000), signal, 100) is None
    assert offset(signal, noise(1000), 100) is None


def test_an_offset_beyond_the_reach_is_not_found():
    whole = noise(6000)
    assert offset(whole[1000:5000], whole[800:4800], 150) is None


@pytest.mark.parametrize(('late', 'first', 'second', 'count'), [
    (0, 0, 0, 8), (2, 0, 2, 6), (-3, 3, 0, 7), (20, 0, 8, 0)])
def test_signals_are_cut_to_their_common_part(late, first, second, count):
    a, b = np.arange(10), 100 + np.arange(8)
    found = aligned(a, b, late)
    assert_array_equal(found.reference, a[first:first + count])
    assert_array_equal(found.signal, b[second:second + count])
