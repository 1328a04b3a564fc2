"""Data sets of TFDS builders, opened for random access, and prepared first if necessary."""

import importlib
import os
import pathlib
import sys
import tempfile

import numpy as np
import tensorflow_datasets as tfds

from jax_diffse import files
from jax_diffse.data.builders import pairs  # which takes TensorFlow from jax_diffse.data.tf
from jax_diffse.errors import StoreError, UserError

MODULES = {  # builder -> the module that registers it with TFDS when it is imported
    'voicebank_demand': 'jax_diffse.data.builders.voicebank_demand',
    'chime4': 'jax_diffse.data.builders.chime4',
    'spoken_demo': 'jax_diffse.data.builders.spoken_demo',
}

DATA_DIR = os.path.expanduser('~/tensorflow_datasets')
COMPLETE = 'dataset_info.json'  # the last file of a data set


class TfdsSource:
    """Pairs of a prepared builder, a `jax_diffse.data.source.Source`; several threads may read from it."""

    used = ''  # `share.take_share` takes shares

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        self.sample_rate = builder.info.metadata['sample_rate']  # Hz
        self.in_store = files.is_address(builder.data_dir)
        self._records = builder.as_data_source(split)

    def __len__(self) -> int:
        return len(self._records)

    def info(self, i: int) -> dict:
        record = self._records[i]
        info = {'id': record['id'].decode(), 'speaker': record['speaker'].decode(), 'num_samples': len(record['clean'])}
        if record['noise']:
            info['noise'] = record['noise'].decode()
        if not np.isnan(record['snr_db']):
            info['snr_db'] = round(float(record['snr_db']), 4)  # stored in single precision
        return info

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        record = self._records[i]
        return _waveform(record['clean']), _waveform(record['noisy'])

    def draw(self, i: int, num_samples: int, rng: np.random.Generator,
             start: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        record = self._records[i]
        if start is None:
            start = rng.integers(max(len(record['clean']) - num_samples, 0) + 1)
        crop = slice(start, start + num_samples)
        return _waveform(record['clean'][crop]), _waveform(record['noisy'][crop])


def _waveform(stored: np.ndarray) -> np.ndarray:
    return stored.astype(np.float32) / pairs.FULL_SCALE


def open_tfds(name: str, split: str, data_dir: str = '') -> TfdsSource:
    """Opens a split of 'voicebank_demand', 'chime4' or 'spoken_demo', or of one of their configs ('name/config').

    Args:
      name: the builder, and after a slash its config.
      split: 'train', 'validation' or 'test'.
      data_dir: the folder of TFDS's data sets, which may be an address of `gs://`; '' for its default,
        `~/tensorflow_datasets`.

    Raises:
      UserError: there is no such builder, config or split, or the data set cannot be prepared.
    """
    if data_dir.startswith('s3://'):
        raise UserError(f'config.data.data_dir={data_dir}: TensorFlow Datasets reads no s3://, expected a folder of '
                        'this machine or an address of gs://')
    files.given(data_dir or os.environ.get('TFDS_DATA_DIR', ''))  # prepares the client that TFDS uses for addresses
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder = _builder(name, data_dir)
        if files.is_address(builder.data_dir):
            builder = _prepared_in_store(name, data_dir, builder)
        else:
            # An interrupted preparation leaves a directory that is marked incomplete, which is never opened.
            builder.download_and_prepare(file_format='array_record')
        if split not in builder.info.splits:
            raise UserError(f'{name}: no split {split!r}, expected one of {", ".join(builder.info.splits)}')
        return TfdsSource(builder, split)
    except (OSError, tfds.download.DownloadError) as error:
        elsewhere = '' if data_dir else '; set TFDS_DATA_DIR to use another folder than ~/tensorflow_datasets'
        raise UserError(f'{name}: cannot be prepared in {data_dir or DATA_DIR} ({_reason(error)}){elsewhere}'
                        ) from error


def _reason(error: BaseException) -> str:
    """Why a preparation failed; TFDS raises errors of object storage anew, with pages of text."""
    cause: BaseException | None = error
    while cause and not (isinstance(cause, StoreError) and cause.strerror):
        cause = cause.__cause__ or cause.__context__
    return files.reason(cause) if cause else ' '.join(str(error).split())


def _prepared_in_store(name: str, data_dir: str, builder: tfds.core.DatasetBuilder) -> tfds.core.DatasetBuilder:
    """Prepares a data set in a temporary folder of this machine and uploads it, if object storage does not have it.

    The file that makes it complete is uploaded last. What is downloaded stays in TFDS's default folder.
    """
    target = files.path(builder.data_dir)
    if _complete(target):
        return builder
    waiting = f'{target}: waiting while the data set is prepared'
    with files.locked_in_turn(target.with_name(f'{target.name}.lock'), waiting), tempfile.TemporaryDirectory(
            prefix='jax_diffse_') as folder:
        if not _complete(target):  # another process may have prepared it meanwhile
            local = _builder(name, folder)
            local.download_and_prepare(file_format='array_record', download_dir=os.path.join(DATA_DIR, 'downloads'))
            found = [path for path in pathlib.Path(local.data_dir).rglob('*') if path.is_file()]
            for path in sorted(found, key=lambda path: (path.name == COMPLETE, path)):
                files.upload(path, target / path.relative_to(local.data_dir).as_posix())
    return _builder(name, data_dir)


def _complete(folder: pathlib.Path) -> bool:
    return (folder / COMPLETE).exists()


def _builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    base, _, config = name.partition('/')
    if base not in MODULES:
        raise UserError(f'{name}: no such data set, expected one of {", ".join(MODULES)}')
    importlib.import_module(MODULES[base])
    configs = tuple(tfds.builder_cls(base).builder_configs)
    if config and config not in configs:
        raise UserError(f'{name}: no such config, expected one of {", ".join(f"{base}/{known}" for known in configs)}')
    return tfds.builder(name, data_dir=data_dir or None, file_format='array_record')
