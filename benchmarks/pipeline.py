"""Crops per second of the training pipeline.

    python -m benchmarks.pipeline [--speech DIR --noise DIR | --clean DIR --noisy DIR]

Without folders it reads FLAC files of noise that it writes to a temporary one.
"""

import argparse
import os
import tempfile
import time

import numpy as np

from jax_diffse import audio
from jax_diffse.data import DataConfig, open_source, pipeline
from jax_diffse.data.config import Folders
from jax_diffse.errors import exit_with
from jax_diffse.spectral import FrontEnd

SAMPLE_RATE = 16_000  # Hz


def write_corpus(root: str) -> Folders:
    """Writes 64 speech and 64 noise files of 8 s, filtered noise, below `root`."""
    rng = np.random.default_rng(0)
    for kind in ('speech', 'noise'):
        for i in range(64):
            samples = np.convolve(rng.standard_normal(8 * SAMPLE_RATE), np.hanning(9), 'same')
            audio.write(os.path.join(root, kind, f'{i}.flac'), 0.02 * samples, SAMPLE_RATE)
    return Folders(speech=os.path.join(root, 'speech'), noise=os.path.join(root, 'noise'))


def measure(folders: Folders, batch_size: int, seconds: float) -> float:
    """Three-second crops per second, spectrograms included, over about `seconds` after a warm-up."""
    source = open_source(DataConfig(train=folders, validation=folders, sample_rate=SAMPLE_RATE), 'train')
    batches = pipeline.train_batches(source, FrontEnd(), batch_size=batch_size, num_samples=3 * SAMPLE_RATE, seed=0)
    for _ in range(8):
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(batches)
        count += batch_size
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('speech', 'noise', 'clean', 'noisy'):
        parser.add_argument(f'--{name}', default='', metavar='DIR')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--seconds', type=float, default=10.0)
    args = parser.parse_args()
    folders = Folders(args.clean, args.noisy, args.speech, args.noise)
    with tempfile.TemporaryDirectory() as root:
        folders = folders if folders.kind('arguments') else write_corpus(root)
        rate = measure(folders, args.batch_size, args.seconds)
    print(f'{rate:.0f} crops of 3 s per second ({os.cpu_count()} cores)')


if __name__ == '__main__':
    exit_with(main)
