"""Data sets and the tf.data pipeline; nothing outside this package imports TensorFlow.

This module, `folders` and `arrays` load without TensorFlow; `pipeline`, `tf_spectral`, `tfds_source` and the builders
import it.
"""

from jax_diffse.data.arrays import open_arrays
from jax_diffse.data.config import FOLDERS, SPLITS, DataConfig
from jax_diffse.data.folders import MixSource, open_folders
from jax_diffse.data.source import Padded, Source
from jax_diffse.errors import UserError

__all__ = ['FOLDERS', 'SPLITS', 'DataConfig', 'Source', 'open_folders', 'open_source']


def open_source(config: DataConfig, split: str) -> Source:
    """Opens the 'train', 'validation' or 'test' split. Every file of a `folders` split is read once, to
    check it.

    Raises:
      UserError: a folder is missing or not named; bad files (all in one message); the data set does not exist or is
        not at `config.sample_rate`.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
    source = _open(config, split)
    if split == 'train' or not config.pad_seconds or isinstance(source, MixSource):  # extended before mixing
        return source
    return Padded(source, round(config.pad_seconds * config.sample_rate))


def _open(config: DataConfig, split: str) -> Source:
    if config.name == FOLDERS:
        key, folders, _ = config.folders_of(split)
        return (open_arrays if folders.kind(key) == 'arrays' else open_folders)(config, split)
    from jax_diffse.data.tfds_source import open_tfds  # loads TensorFlow

    source = open_tfds(config.name, split, config.data_dir)
    if source.sample_rate != config.sample_rate:
        raise UserError(f'config.data.sample_rate: expected {source.sample_rate} Hz, the rate of {config.name}, '
                        f'got {config.sample_rate}')
    return source
