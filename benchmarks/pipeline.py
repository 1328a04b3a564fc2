"""Measures crops per second of the training pipeline."""

import os
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.figures import Figure, LeftOut, figure
from jax_diffse import audio
from jax_diffse.data import DataConfig, open_source
from jax_diffse.data.config import Folders
from jax_diffse.spectral import FrontEnd

SAMPLE_RATE = 16_000  # Hz
CROP, BATCH = 3, 8  # seconds, crops


def run(seconds: float, speech: str, noise: str) -> Iterator[Figure]:
    """Yields crops of 3 s per second, mixed on the fly, with spectrograms, over `seconds` after a warm-up.

    Args:
      seconds: the time to measure.
      speech, noise: folders; '': FLAC files of noise in a temporary folder.

    Raises:
      LeftOut: TensorFlow is not installed.
      UserError: a folder is missing or has no audio files.
    """
    try:
        from jax_diffse.data import pipeline
    except ImportError as error:
        raise LeftOut(f'TensorFlow cannot be imported ({error})') from error
    with tempfile.TemporaryDirectory() as root:
        folders = Folders(speech=speech, noise=noise) if speech else write_corpus(root)
        source = open_source(DataConfig(train=folders, validation=folders, sample_rate=SAMPLE_RATE), 'train')
        batches = pipeline.train_batches(source, FrontEnd(), batch_size=BATCH, num_samples=CROP * SAMPLE_RATE, seed=0)
        rate = per_second(batches, seconds)
        batches.close()
    settings = {'speech': speech or 'generated', 'noise': noise or 'generated', 'batch': BATCH, 'seconds': CROP}
    yield figure('pipeline', 'crops per second', 'mixtures', BATCH * rate, '1/s', 1, settings)


def per_second(batches: Iterator, seconds: float) -> float:
    """Measures batches per second over about `seconds`, after a warm-up."""
    for _ in range(8):
        next(batches)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        next(batches)
        count += 1
    return count / (time.perf_counter() - started)


def write_corpus(root: str) -> Folders:
    """Writes 64 speech and 64 noise files of 8 s, filtered noise, below `root`."""
    rng = np.random.default_rng(0)
    for kind in ('speech', 'noise'):
        for i in range(64):
            samples = np.convolve(rng.standard_normal(8 * SAMPLE_RATE), np.hanning(9), 'same')
            audio.write(os.path.join(root, kind, f'{i}.flac'), 0.02 * samples, SAMPLE_RATE)
    return Folders(speech=os.path.join(root, 'speech'), noise=os.path.join(root, 'noise'))
