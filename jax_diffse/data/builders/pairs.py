"""Shared code of the builders: the features of a pair of recordings, how it is stored, and checks of pairs."""

from collections.abc import Iterable

import numpy as np
import tensorflow_datasets as tfds

import jax_diffse.data.tf  # noqa: F401  hides accelerators before TFDS uses TensorFlow
from jax_diffse import audio
from jax_diffse.errors import UserError

SAMPLE_RATE = 16_000  # Hz
FULL_SCALE = 32_768  # int16 value of 1.0


def info(builder: tfds.core.DatasetBuilder, description: str, **details: str) -> tfds.core.DatasetInfo:
    """Builds the `DatasetInfo` of a builder of pairs; `details` are its homepage and citation."""
    # Raw bytes: otherwise TFDS would store each sample as a 64-bit integer, and decode the samples one by one.
    waveform = tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding='bytes')
    features = tfds.features.FeaturesDict({
        'id': tfds.features.Text(),  # unique in its split
        'clean': waveform,
        'noisy': waveform,
        'speaker': tfds.features.Text(),
        'noise': tfds.features.Text(),  # class of the noise, '' if unknown
        'snr_db': np.float32,  # NaN if unknown
    })
    return tfds.core.DatasetInfo(builder=builder, description=description, features=features,
                                 metadata=tfds.core.MetadataDict(sample_rate=SAMPLE_RATE), **details)


def example(name: str, clean: np.ndarray, noisy: np.ndarray, speaker: str, noise: str = '',
            snr_db: float = np.nan) -> tuple[str, dict]:
    """Makes a TFDS key and example from float waveforms `[N]` in [-1, 1].

    Raises:
      UserError: the two differ in length.
    """
    if len(clean) != len(noisy):
        raise UserError(f'{name}: {len(clean)} clean but {len(noisy)} noisy samples, expected a pair of equal length')
    return name, {'id': name, 'clean': to_int16(clean), 'noisy': to_int16(noisy), 'speaker': speaker,
                  'noise': noise, 'snr_db': snr_db}


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Rounds [-1, 1) to 16 bits; values beyond are clipped."""
    return np.clip(np.round(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def to_stored_rate(samples: np.ndarray, sample_rate: int, name: str) -> np.ndarray:
    """Resamples a waveform `[N, 1]` at any rate (Hz) -> `[M]` at `SAMPLE_RATE`.

    Raises:
      UserError: there is more than one channel.
    """
    if samples.shape[1] != 1:
        raise UserError(f'{name}: {samples.shape[1]} channels, expected one')
    return audio.resample(samples[:, 0], sample_rate, SAMPLE_RATE)


def check_partners(clean: Iterable[str], noisy: Iterable[str], clean_place: str, noisy_place: str) -> None:
    """Raises a `UserError` that names the utterances that only one of the two places has."""
    clean, noisy = set(clean), set(noisy)
    for lonely, place, other in ((clean - noisy, clean_place, noisy_place), (noisy - clean, noisy_place, clean_place)):
        if lonely:
            names = ', '.join(sorted(lonely)[:10]) + (f' and {len(lonely) - 10} more' if len(lonely) > 10 else '')
            raise UserError(f'{place}: no partner in {other} for {names}; download the data set again')


def check_count(count: int, expected: int, place: str) -> None:
    """Raises a `UserError` if a part of a published data set does not have the published number of pairs."""
    if count != expected:
        raise UserError(f'{place}: {count} pairs, expected the {expected} published; download the data set again')
