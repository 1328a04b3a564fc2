"""Batches from a `Source`: stateless, resumable and sharded by process, built with tf.data.

A training example is a pure function of the seed and its global index g. It depends neither on the number of processes
nor on the step that the run was resumed at. g names an epoch and an item, and seeds the generator that draws crop,
noise and SNR.
"""

import atexit
import functools
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from jax_diffse.data import tf_spectral
from jax_diffse.data.places import REQUESTS
from jax_diffse.data.source import Source
from jax_diffse.data.tf import tf
from jax_diffse.errors import UserError
from jax_diffse.spectral import FrontEnd

Batch = dict[str, np.ndarray]


class Process(NamedTuple):
    """One of several processes that share the batches."""

    index: int
    count: int


ALONE = Process(0, 1)
_ORDER, _DRAW = 0, 1  # purposes of the random streams of a seed
_open = weakref.WeakSet()  # iterators in use


@atexit.register
def _close_all() -> None:
    """Closes all iterators: threads of TensorFlow that run Python code when the interpreter exits would hang it."""
    for iterator in list(_open):
        iterator.close()


def train_batches(source: Source, front_end: FrontEnd | None, *, batch_size: int, num_samples: int, seed: int,
                  start_step: int = 0, process: Process = ALONE) -> Iterator[Batch]:
    """Yields endless training batches from `start_step` on; every item of the source is drawn once per epoch.

    Args:
      source: where examples are drawn from.
      front_end: builds spectrograms; None for systems that read waveforms.
      batch_size: examples of the global batch; each process yields its own, consecutive `batch_size / process.count`.
      num_samples: length of the crops; shorter ones are zero-padded.
      seed: 0 or more.
      start_step: the step of the first batch.
      process: this process among those that share the batches.

    Returns:
      Batches of `clean`, `noisy` `[B, num_samples]` float32, `num_samples` `[B]` int32, `index` `[B]` int64 (g), and
      with a front end `clean_spec`, `noisy_spec` `[B, T, F, 2]` float32, zero beyond the real frames. With
      `front_end.unit_rms` or `unit_peak`, waveforms and spectrograms are scaled to that level of the noisy crop.

    Raises:
      UserError: `batch_size` is not a multiple of `process.count`; while iterating: a file can no longer be read.
    """
    rows = _rows(batch_size, process.count)
    size = len(source)

    def fetch(index):
        epoch, place = divmod(index, size)
        rng = np.random.default_rng([seed, _DRAW, index])
        return source.draw(int(permutation(seed, epoch, size)[place]), num_samples, rng)

    examples = tf.data.Dataset.range(start_step * rows, sys.maxsize).map(
        lambda k: (k // rows * batch_size + process.index * rows + k % rows, num_samples))
    return _batches(examples, fetch, front_end, rows, _workers(source))


def eval_batches(source: Source, front_end: FrontEnd | None, *, batch_size: int, max_samples: int | None = None,
                 process: Process = ALONE) -> Iterator[Batch]:
    """Yields the fixed utterances of a source, once each, uncut; see `train_batches` for the rest.

    Utterances are sorted by length, and each batch is padded to one of a few lengths (`bucket`). Batches are filled up
    with silent examples of `num_samples` 0 and `index` -1, so that every process yields the same number of batches of
    the same shapes. `index` is the utterance's place in the source. `max_samples` cuts longer utterances to their
    middle.
    """
    rows = _rows(batch_size, process.count)
    lengths = np.array([_length(source, i) for i in range(len(source))])
    if max_samples is not None:
        lengths = np.minimum(lengths, max_samples)
    order = np.argsort(lengths, kind='stable')
    padding = -len(order) % batch_size
    order = np.concatenate([np.full(padding, -1), order]).reshape(-1, batch_size)  # silent ones join the shortest
    padded = [min(bucket(lengths[batch].max(), source.sample_rate), max_samples or sys.maxsize) for batch in
              (batch[batch >= 0] for batch in order)]

    def fetch(index):
        if index < 0:
            return np.zeros(0, np.float32), np.zeros(0, np.float32)
        clean, noisy = source.read(index)
        start = (len(clean) - lengths[index]) // 2
        return clean[start:start + lengths[index]], noisy[start:start + lengths[index]]

    mine = order[:, process.index * rows:(process.index + 1) * rows].reshape(-1)
    examples = tf.data.Dataset.from_tensor_slices((mine.astype(np.int64), np.repeat(padded, rows).astype(np.int32)))
    return _batches(examples, fetch, front_end, rows, _workers(source))


@functools.lru_cache(maxsize=4)  # consecutive examples share an epoch, or lie around the end of one
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns the order `[size]` in which the items of a source are drawn in an epoch."""
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(size)


def bucket(num_samples: int, sample_rate: int) -> int:
    """Returns the length to pad to: the smallest that fits of 1, 1.5, 2, 3, 4, 6, 8, 12 ... seconds.

    Few lengths mean few compiled programs.
    """
    seconds = 1
    while seconds * sample_rate < num_samples:
        seconds *= 2
    shorter = 3 * seconds * sample_rate // 4
    return int(shorter if seconds > 1 and num_samples <= shorter else seconds * sample_rate)


def _rows(batch_size, process_count) -> int:
    """Rows of one process."""
    if batch_size % process_count:
        raise UserError(f'batch size {batch_size}: expected a multiple of the number of processes, {process_count}')
    return batch_size // process_count


def _workers(source: Source) -> int:
    """The number of threads that fetch examples: one for each core, or more if they mostly wait."""
    cores = os.cpu_count() or 1
    return max(cores, REQUESTS) if source.in_store else cores


def _length(source, i) -> int:
    return source.info(i).get('num_samples') or len(source.read(i)[0])


def _batches(examples: tf.data.Dataset, fetch: Callable, front_end, rows: int, workers: int) -> Iterator[Batch]:
    """Fetches the examples `(index, padded length)` in parallel, in order, and batches them by `rows`."""
    failures = []

    def load(index):
        try:
            return np.stack(fetch(int(index))).astype(np.float32, copy=False)
        except UserError as error:  # TensorFlow would print it, wrapped in pages of text
            failures.append(error)
            return np.zeros((2, 1), np.float32)  # in a batch that is not given out

    def example(index, length):
        waves = tf.ensure_shape(tf.numpy_function(load, [index], tf.float32), [2, None])
        return _example(waves, index, tf.cast(length, tf.int32), front_end)

    options = tf.data.Options()
    options.deterministic = True
    # There is nothing to tune, and the tuning thread may delay the exit by up to a minute.
    options.autotune.enabled = False
    options.threading.private_threadpool_size = workers
    parallel = max(workers, 2 * (os.cpu_count() or 1))
    dataset = examples.map(example, num_parallel_calls=parallel).batch(rows).prefetch(2).with_options(options)
    iterator = _iterate(dataset, failures)
    _open.add(iterator)
    return iterator


def _iterate(dataset, failures) -> Iterator[Batch]:
    for batch in dataset.as_numpy_iterator():
        if failures:
            raise failures[0]
        yield batch


def _example(waves, index, length, front_end) -> dict[str, tf.Tensor]:
    """Clean and noisy `[2, N]` -> one example, padded to `length` samples."""
    num_samples = tf.shape(waves)[1]
    if front_end is not None and (front_end.unit_rms or front_end.unit_peak):
        waves *= tf_spectral.gain(front_end, waves[1])
    padded = tf.pad(waves, [[0, 0], [0, length - num_samples]])
    result = {'clean': padded[0], 'noisy': padded[1], 'num_samples': num_samples, 'index': index}
    if front_end is not None:
        specs = tf.cond(num_samples > 0, lambda: tf_spectral.analyze(front_end, waves),
                        lambda: tf.zeros([2, 0, front_end.num_bins, 2]))
        frames = tf_spectral.num_frames(front_end, length) - tf.shape(specs)[1]
        specs = tf.pad(specs, [[0, 0], [0, frames], [0, 0], [0, 0]])
        result |= {'clean_spec': specs[0], 'noisy_spec': specs[1]}
    return result
