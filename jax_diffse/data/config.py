"""What a run's data are: `config.data`, checked."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jax_diffse import files
from jax_diffse.config import from_config_dict
from jax_diffse.errors import UserError

FOLDERS = 'folders'
BUILDERS = ('voicebank_demand', 'chime4', 'spoken_demo')  # TFDS; 'voicebank_demand/56spk' picks a builder's config
SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class Folders:
    """Directories of one split: `clean` and `noisy` (pairs), `speech` and `noise` (to mix), `speech` alone, or none."""

    clean: str = ''
    noisy: str = ''
    speech: str = ''
    noise: str = ''

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, files.given(getattr(self, field.name)))

    def kind(self, key: str) -> str:
        """'pairs', 'mix', 'clean' (speech alone) or '' (nothing named).

        Raises:
          UserError: half a pair, or both; `key` names these folders in the message.
        """
        named = tuple(field.name for field in dataclasses.fields(self) if getattr(self, field.name))
        kinds = {(): '', ('clean', 'noisy'): 'pairs', ('speech', 'noise'): 'mix', ('speech',): 'clean'}
        if named not in kinds:
            raise UserError(f'{key}: {" and ".join(named)} set, expected clean and noisy, speech and noise, or speech '
                            'alone')
        return kinds[named]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data of a run.

    Where `validation` names no folders, a share `held_out` of the training material is held out for it: whole
    speakers (`speakers.speakers` finds them), and noise files.
    """

    name: str = FOLDERS  # or a TFDS builder: 'voicebank_demand', 'voicebank_demand/56spk', 'chime4', 'spoken_demo'
    data_dir: str = ''  # where TFDS keeps its data sets; '' for its default
    train: Folders = Folders()
    validation: Folders = Folders()
    test: Folders = Folders()
    held_out: float = 0.05  # share of the training material
    speaker_level: int = 0  # of the folders that are speakers, 1: directly below the named one; 0: it is found
    snr_db: tuple[float, ...] = (0.0, 5.0, 10.0, 15.0)  # drawn from when mixing; VoiceBank-DEMAND's training levels
    snr_uniform: bool = False  # draw from the whole range between the lowest and the highest of snr_db
    test_snr_db: tuple[float, ...] = (2.5, 7.5, 12.5, 17.5)  # of the listed test mixtures; VoiceBank-DEMAND's
    clip_seconds: float = 0.0  # of listed mixtures (validation, test): the middle of longer utterances; 0: whole
    sample_rate: int = 16_000  # Hz, which every file must have
    resample: bool = False  # resample files of folders at another rate as they are read, instead of refusing them
    min_seconds: float = 0.25  # shorter files are bad; PESQ needs this much
    skip_bad: bool = False  # leave bad files out instead of stopping

    def __post_init__(self):
        object.__setattr__(self, 'data_dir', files.given(self.data_dir))
        if self.name != FOLDERS and self.name.partition('/')[0] not in BUILDERS:
            raise UserError(f'config.data.name: no data set {self.name!r}, expected one of {(FOLDERS, *BUILDERS)}')
        if not 0 < self.held_out < 1:
            raise UserError(f'config.data.held_out: expected a share between 0 and 1, got {self.held_out}')
        if self.speaker_level < 0:
            raise UserError(f'config.data.speaker_level: expected 0 (it is found) or the level of the folders that are '
                            f'speakers, 1 or more, got {self.speaker_level}')
        if self.sample_rate <= 0:
            raise UserError(f'config.data.sample_rate: expected a positive number of Hz, got {self.sample_rate}')
        if self.clip_seconds and not self.min_seconds <= self.clip_seconds < math.inf:
            raise UserError(f'config.data.clip_seconds (evaluate: --clip-seconds): expected 0 (whole utterances) or '
                            f'at least {self.min_seconds:g} (config.data.min_seconds), got {self.clip_seconds:g}')
        for key in ('snr_db', 'test_snr_db'):
            levels = getattr(self, key)
            if not levels or not all(type(level) in (int, float) and math.isfinite(level) for level in levels):
                flag = ' (evaluate: --snr-db)' if key == 'test_snr_db' else ''
                raise UserError(f'config.data.{key}{flag}: expected one or more numbers (dB), got {levels!r}')

    def describe(self, split: str) -> str:
        """What the data of a split are, in words."""
        if self.name != FOLDERS:
            return f'{self.name}, {split} split'
        named = {name: path for name, path in dataclasses.asdict(getattr(self, split)).items() if path}
        folders = ', '.join(f'{name} {path}' for name, path in named.items())
        mixed = split != 'train' and ('speech' in named if named else self.train.speech)
        clips = f', cut to {self.clip_seconds:g} s' if mixed and self.clip_seconds else ''
        return (folders or f'{split} split, held out of {self.train.clean or self.train.speech}') + clips

    @classmethod
    def from_config_dict(cls, config: Mapping[str, Any]) -> 'DataConfig':
        """Makes it from `config.data` (a ConfigDict or a dict); absent keys take their defaults.

        Raises:
          UserError: an unknown key or a value of the wrong type, by name.
        """
        return from_config_dict(cls, config, 'config.data')
