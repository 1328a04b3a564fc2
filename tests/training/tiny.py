"""Trainings of the system `tests.toys.Trainable`, which tests register as `toy`, on a few small files."""

import pathlib

import jax
import numpy as np
import soundfile
from ml_collections import ConfigDict

from jax_diffse import runs


def write_corpus(root: pathlib.Path) -> pathlib.Path:
    """Writes 8 pairs of 8000 + 500 i samples into `root/clean` and `root/noisy`."""
    rng = np.random.default_rng(0)
    for kind, scale in (('clean', 0.1), ('noisy', 0.3)):
        (root / kind).mkdir()
        for i in range(8):
            soundfile.write(root / kind / f'{i}.wav', scale * rng.standard_normal(8000 + 500 * i), 16_000)
    return root


def make_config(corpus: pathlib.Path, **train_keys) -> ConfigDict:
    folders = {'clean': str(corpus / 'clean'), 'noisy': str(corpus / 'noisy')}
    return ConfigDict({
        'system': 'toy', 'model': {}, 'data': {'name': 'folders', 'train': folders, 'validation': {}},
        'train': {'steps': 6, 'batch_size': 4, 'crop_seconds': 0.25, 'eval_every': 3, 'save_every': 3, 'log_every': 2,
                  'ema_decay': 0.9, **train_keys},
        'optimizer': {'learning_rate': 1e-3}, 'log': {'audio_examples': 0}, 'parallel': {}}).lock()


def weights(workdir: pathlib.Path, step: int | str):
    return jax.device_get(runs.load(workdir, step=step).variables)


def assert_same(a, b) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)
