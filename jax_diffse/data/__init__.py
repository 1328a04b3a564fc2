"""Data sets and the tf.data pipeline; nothing outside this package imports TensorFlow.

This module, `folders`, `packed` and `arrays` load without TensorFlow; `pipeline`, `tf_spectral`, `tfds_source`,
`packing` and the builders import it.
"""

import dataclasses
import logging

from jax_diffse.data.arrays import open_arrays
from jax_diffse.data.config import FOLDERS, SPLITS, DataConfig
from jax_diffse.data.folders import open_folders
from jax_diffse.data.mixtures import MixSource
from jax_diffse.data.resampling import Resampled
from jax_diffse.data.scan import folders_once
from jax_diffse.data.share import take_share
from jax_diffse.data.source import Padded, Source
from jax_diffse.errors import UserError

__all__ = ['FOLDERS', 'SPLITS', 'DataConfig', 'Source', 'open_folders', 'open_source', 'open_training']

log = logging.getLogger(__name__)


def open_source(config: DataConfig, split: str) -> Source:
    """Opens the 'train', 'validation' or 'test' split. New and changed files of a `folders` split are read once, to
    check them (`config.check`).

    Raises:
      UserError: a folder is missing or not named; bad files (all in one message); the data set does not exist or is
        not at `config.sample_rate`; folders are named beside a data set, for training.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
    if split == 'train':
        _check_used(config)
    with folders_once():
        source = _open(config, split)
    if config.share_of(split)[0] < 1:
        print(f'{config.describe(split)}: {source.used}', flush=True)
    if split == 'train' or not config.pad_seconds or isinstance(source, MixSource):  # extended before mixing
        return source
    return Padded(source, round(config.pad_seconds * config.sample_rate))


def open_training(config: DataConfig) -> tuple[Source, Source]:
    """Opens the 'train' and the 'validation' split, and searches folders that both read only once.

    Raises:
      UserError: see `open_source`.
    """
    with folders_once():
        return open_source(config, 'train'), open_source(config, 'validation')


def _check_used(config: DataConfig) -> None:
    """Refuses folders that a data set would take the place of, and warns of keys that change only mixtures."""
    named = [f'config.data.{split}.{field}' for split in SPLITS
             for field, path in dataclasses.asdict(getattr(config, split)).items() if path]
    if config.name != FOLDERS and named:
        raise UserError(f'{named[0]}: would not be used, as config.data.name is {config.name!r}; choose the variant '
                        'folders of the config (--config.data.name=folders), or name no folders')
    kinds = [getattr(config, split).kind(f'config.data.{split}') for split in ('train', 'validation')]
    mixing = [f'config.data.{key}' for key in ('noise_gain', 'noise_classes') if getattr(config, key)]
    mixing += [f'config.data.mixer.{key}' for key in config.mixer.changed]
    if mixing and 'mix' not in kinds:
        log.warning('%s: without effect, as the data are not mixed from speech and noise', ', '.join(mixing))
    rir = [f'config.data.mixer.{key}' for key in config.mixer.changed if key.startswith('rir')]
    if rir and 'mix' in kinds and not (config.train.rir or config.validation.rir):
        log.warning('%s: without effect, as config.data.train.rir names no folder', ', '.join(rir))


def _open(config: DataConfig, split: str) -> Source:
    if config.name == FOLDERS:
        key, folders, _ = config.folders_of(split)
        if folders.kind(key) == 'arrays':
            return take_share(open_arrays(config, split), *config.share_of(split))
        return open_folders(config, split)
    from jax_diffse.data.tfds_source import open_tfds  # loads TensorFlow

    source = take_share(open_tfds(config.name, split, config.data_dir), *config.share_of(split))
    if source.sample_rate == config.sample_rate:
        return source
    if not config.resample:
        raise UserError(f'config.data.sample_rate: expected {source.sample_rate} Hz, the rate of {config.name}, '
                        f'got {config.sample_rate}; --config.data.resample=True (evaluate: --resample) resamples it')
    return Resampled(source, config.sample_rate)
