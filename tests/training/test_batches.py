"""Batches that are fetched early arrive as they would have otherwise, and so do errors."""

import contextlib

import pytest

from jax_diffse.training.batches import Batches


class Stopwatch:
    """Counts the times that data were waited for."""

    def __init__(self):
        self.waits = 0

    @contextlib.contextmanager
    def waiting(self):
        self.waits += 1
        yield


def place(batch):
    return f'placed {batch}'


def failing(error):
    yield 'first'
    raise error


def test_batches_come_in_order_whether_fetched_early_or_not():
    drawn, watch = iter('abcd'), Stopwatch()
    batches = Batches(drawn, place, watch)
    assert batches.take() == 'placed a'
    batches.prefetch()
    assert next(drawn) == 'c'  # `b` was drawn early
    batches.prefetch()  # is no further ahead
    assert [batches.peek(), batches.peek(), batches.take(), batches.take()] == [*['placed b'] * 3, 'placed d']
    assert watch.waits == 3


def test_an_error_comes_when_its_batch_is_asked_for():
    batches = Batches(failing(OSError('gone')), place, Stopwatch())
    assert batches.take() == 'placed first'
    batches.prefetch()
    with pytest.raises(OSError, match='gone'):
        batches.take()


def test_an_interrupt_comes_at_once():
    batches = Batches(failing(KeyboardInterrupt()), place, Stopwatch())
    batches.take()
    with pytest.raises(KeyboardInterrupt):
        batches.prefetch()
