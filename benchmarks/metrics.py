"""Seconds per file of each metric, and of the pool: `python benchmarks/metrics.py [--clean DIR --noisy DIR]`.

Without directories, 16 pairs of 3 s of modulated noise.
"""

import argparse
import os
import time

import numpy as np

from jax_diffse import audio
from jax_diffse.errors import UserError, exit_with
from jax_diffse.evaluation.metrics import DEFAULT, score, score_all

SAMPLE_RATE = 16000


def generated(count: int = 16, seconds: float = 3.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of noise in syllables and the same with noise added."""
    rng = np.random.default_rng(0)
    time_axis = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    clean = [0.1 * rng.standard_normal(len(time_axis)) * np.maximum(np.sin(8 * np.pi * time_axis + k), 0.01)
             for k in range(count)]
    return [(x, x + 0.02 * rng.standard_normal(len(x))) for x in clean]


def paired(clean_dir: str, noisy_dir: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """The first channels, at 16 kHz, of files of the same name in two directories."""
    def load(path):
        samples, rate = audio.read(path)
        return audio.resample(samples[:, 0], rate, SAMPLE_RATE)

    clean = {path.name: path for path in audio.find(clean_dir)}
    noisy = {path.name: path for path in audio.find(noisy_dir)}
    names = sorted(clean.keys() & noisy.keys())
    if not names:
        raise UserError(f'{clean_dir}: no file has a partner of the same name in {noisy_dir}')
    return [(load(clean[name]), load(noisy[name])) for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--clean', help='directory of clean files')
    parser.add_argument('--noisy', help='directory of noisy files of the same names')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes of the pool')
    flags = parser.parse_args()
    if bool(flags.clean) != bool(flags.noisy):
        raise UserError('--clean and --noisy belong together: give both or neither')
    pairs = paired(flags.clean, flags.noisy) if flags.clean else generated()
    seconds = np.mean([len(clean) for clean, _ in pairs]) / SAMPLE_RATE
    print(f'{len(pairs)} pairs of {seconds:.2f} s on average\nmetric    ms per file')
    score(*pairs[0], SAMPLE_RATE)  # imports what is imported late
    for name in DEFAULT:
        start = time.perf_counter()
        for pair in pairs:
            score(*pair, SAMPLE_RATE, (name,))
        print(f'{name:8}  {1000 * (time.perf_counter() - start) / len(pairs):8.1f}')
    start = time.perf_counter()
    for pair in pairs:
        score(*pair, SAMPLE_RATE)
    print(f'all       {1000 * (time.perf_counter() - start) / len(pairs):8.1f}')
    start = time.perf_counter()
    results = list(score_all(pairs, SAMPLE_RATE, workers=flags.workers))
    print(f'pool of {flags.workers}, with its start: {1000 * (time.perf_counter() - start) / len(pairs):.1f} per file')
    print('\nmetric         mean  over')
    for name in DEFAULT:
        values = np.array([result.values[name] for result in results])
        count = np.count_nonzero(~np.isnan(values))
        print(f'{name:8}  {np.nanmean(values) if count else np.nan:9.4f}  {count}')


if __name__ == '__main__':
    exit_with(main)
