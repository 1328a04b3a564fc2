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
    """Yields crops of 3 s per second, mixed on the fly, over `seconds` after a warm-up: from folders and packed.

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
        loose = Folders(speech=speech, noise=noise) if speech else write_corpus(root)
        settings = {'speech': speech or 'generated', 'noise': noise or 'generated', 'batch': BATCH, 'seconds': CROP}
        for kind, folders in {'': loose, **packed(loose, root)}.items():
            source = open_source(DataConfig(train=folders, validation=folders, sample_rate=SAMPLE_RATE), 'train')
            for what, front_end in (('mixtures', FrontEnd()), ('mixtures without spectrograms', None)):
                batches = pipeline.train_batches(source, front_end, batch_size=BATCH, num_samples=CROP * SAMPLE_RATE,
                                                 seed=0)
                rate = per_second(batches, seconds)
                batches.close()
                yield figure(f'pipeline {kind}'.strip(), 'crops per second', what, BATCH * rate, '1/s', 1, settings)


def packed(folders: Folders, root: str) -> dict[str, Folders]:
    """Packs folders below `root`: how they are packed -> the results."""
    from jax_diffse.data import packing

    found = {}
    for encoding in packing.ENCODINGS:
        speech, noise = (os.path.join(root, f'{kind}_{encoding}') for kind in ('speech', 'noise'))
        packing.pack(Folders(speech=folders.speech), speech, packing.PackOptions(encoding))
        packing.pack(Folders(noise=folders.noise), noise, packing.PackOptions(encoding))
        found[f'packed as {encoding}'] = Folders(speech=speech, noise=noise)
    return found


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
