"""The data of a run: `config.data`, checked."""

import dataclasses
import math
import sys
from collections.abc import Mapping
from typing import Any

from jax_diffse import files
from jax_diffse.config import from_config_dict
from jax_diffse.data.esc import FOLDS
from jax_diffse.data.facts import CHECKS
from jax_diffse.data.mixer import MixerConfig, TargetConfig
from jax_diffse.errors import UserError

FOLDERS = 'folders'
BUILDERS = ('voicebank_demand', 'chime4', 'spoken_demo')  # TFDS; 'voicebank_demand/56spk' picks a builder's config
SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class Folders:
    """What a split is read from, or nothing.

    Directories: `clean` and `noisy` (pairs), `speech` and `noise` (to mix), also with `rir` (room impulse responses),
    or `speech` alone. Or a file: `arrays`.
    """

    clean: str = ''
    noisy: str = ''
    speech: str = ''
    noise: str = ''
    arrays: str = ''  # .npy, of prepared pairs; see `arrays.open_arrays`
    rir: str = ''

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, files.given(getattr(self, field.name)))

    def kind(self, key: str) -> str:
        """Returns 'pairs', 'mix', 'clean' (speech alone), 'arrays' or '' (nothing named).

        Args:
          key: the config key of these folders, for messages.

        Raises:
          UserError: one folder of two is named, or folders of both kinds.
        """
        named = tuple(field.name for field in dataclasses.fields(self) if getattr(self, field.name))
        kinds = {(): '', ('clean', 'noisy'): 'pairs', ('speech', 'noise'): 'mix',
                 ('speech', 'noise', 'rir'): 'mix', ('speech',): 'clean', ('arrays',): 'arrays'}
        if named not in kinds:
            raise UserError(f'{key}: {" and ".join(named)} set, expected clean and noisy, speech and noise (and '
                            'rir), speech alone, or arrays alone')
        return kinds[named]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data of a run.

    If `validation` names no folders, a share `held_out` of the training material is held out for it: whole speakers
    (`speakers.speakers` finds them) and noise files.
    """

    name: str = FOLDERS  # or a TFDS builder: 'voicebank_demand', 'voicebank_demand/56spk', 'chime4', 'spoken_demo'
    data_dir: str = ''  # folder of TFDS's data sets; '' for its default
    train: Folders = Folders()
    validation: Folders = Folders()
    test: Folders = Folders()
    held_out: float = 0.05  # share of the training material
    share: float = 1.0  # of the utterances of each speaker that training and validation use
    share_seed: int = 0  # of the choice of this share
    test_share: float = 1.0  # of the utterances of each speaker that tests use; always the same ones
    speaker_level: int = 0  # of the folders that are speakers, 1: directly below the named one; 0: search for it
    snr_db: tuple[float, ...] = (0.0, 5.0, 10.0, 15.0)  # SNRs to draw from; VoiceBank-DEMAND's training SNRs
    snr_uniform: bool = False  # draw from the whole range between the lowest and the highest of snr_db
    noise_classes: tuple[str, ...] = ()  # that training and validation use; (): all
    test_noise_classes: tuple[str, ...] = ()  # that tests use; (): all
    esc_test_fold: int = 5  # of ESC-10 and ESC-50, for tests alone; 0: none
    noise_gain: tuple[float, ...] = ()  # (low, high): noisy = clean + a * noise, a drawn from the range, no snr_db
    test_snr_db: tuple[float, ...] = (2.5, 7.5, 12.5, 17.5)  # of the listed test mixtures; VoiceBank-DEMAND's
    mixer: MixerConfig = MixerConfig()  # what else is done to mixtures of training and validation
    test_mixer: MixerConfig = MixerConfig()  # what else is done to test mixtures
    target: TargetConfig = TargetConfig()  # the clean signal of mixtures, in all splits
    segments: bool = False  # train on consecutive segments of config.train.crop_seconds instead of random crops
    clip_seconds: float = 0.0  # cut longer utterances of listed mixtures (validation, test) to their middle; 0: whole
    pad_seconds: float = 0.0  # extend shorter utterances (validation, test) with zeros at their end; 0: as they are
    sample_rate: int = 16_000  # Hz, of every file
    resample: bool = False  # resample files and data sets at another rate when they are read, instead of refusing them
    min_seconds: float = 0.25  # shorter files are bad; the least that PESQ needs
    skip_bad: bool = False  # leave bad files out instead of stopping
    check: str = 'full'  # of files of folders, see `facts.Rules`

    def __post_init__(self):
        object.__setattr__(self, 'data_dir', files.given(self.data_dir))
        if self.name != FOLDERS and self.name.partition('/')[0] not in BUILDERS:
            raise UserError(f'config.data.name (evaluate: --data-set): expected one of '
                            f'{", ".join((FOLDERS, *BUILDERS))}, got {self.name!r}')
        if not 0 < self.held_out < 1:
            raise UserError(f'config.data.held_out: expected a share between 0 and 1, got {self.held_out}')
        for key in ('share', 'test_share'):
            if not 0 < getattr(self, key) <= 1:
                flag = ' (evaluate: --share)' if key == 'test_share' else ''
                raise UserError(f'config.data.{key}{flag}: expected a share of the utterances above 0 and at most 1, '
                                f'got {getattr(self, key):g}')
        if self.speaker_level < 0:
            raise UserError(f'config.data.speaker_level: expected 0 (search for it) or the level of the folders that '
                            f'are speakers, 1 or more, got {self.speaker_level}')
        if self.check not in CHECKS:
            raise UserError(f'config.data.check: expected one of {", ".join(CHECKS)}, got {self.check!r}')
        if self.sample_rate <= 0:
            raise UserError(f'config.data.sample_rate: expected a positive number of Hz, got {self.sample_rate}')
        if self.clip_seconds and not self.min_seconds <= self.clip_seconds < math.inf:
            raise UserError(f'config.data.clip_seconds (evaluate: --clip-seconds): expected 0 (whole utterances) or '
                            f'at least {self.min_seconds:g} (config.data.min_seconds), got {self.clip_seconds:g}')
        if self.esc_test_fold not in range(FOLDS + 1):
            raise UserError(f'config.data.esc_test_fold: expected 0 (none) or a fold from 1 to {FOLDS}, got '
                            f'{self.esc_test_fold}')
        gain = self.noise_gain
        if gain and not (len(gain) == 2 and 0 < gain[0] <= gain[1] < math.inf):
            raise UserError(f'config.data.noise_gain: expected () or the lowest and the highest factor of the noise, '
                            f'both positive, as (0.2,0.8), got {gain!r}')
        if not 0 <= self.pad_seconds <= (self.clip_seconds or sys.float_info.max):
            raise UserError('config.data.pad_seconds (evaluate: --pad-seconds): expected 0 (not extended) or more, and '
                            'no more than config.data.clip_seconds (evaluate: --clip-seconds) if that is set, got '
                            f'{self.pad_seconds:g} and {self.clip_seconds:g}')
        for key in ('snr_db', 'test_snr_db'):
            levels = getattr(self, key)
            if not levels or not all(type(level) in (int, float) and math.isfinite(level) for level in levels):
                flag = ' (evaluate: --snr-db)' if key == 'test_snr_db' else ''
                raise UserError(f'config.data.{key}{flag}: expected one or more numbers (dB), got {levels!r}')
        for key in ('mixer', 'test_mixer'):
            getattr(self, key).check(f'config.data.{key}', self.sample_rate)

    def share_of(self, split: str) -> tuple[float, int]:
        """Returns the share of the utterances that a split uses, and the seed of their choice; of tests always 0."""
        return (self.test_share, 0) if split == 'test' else (self.share, self.share_seed)

    def mixer_of(self, split: str) -> MixerConfig:
        """Returns what is done to the mixtures of a split."""
        return self.test_mixer if split == 'test' else self.mixer

    def describe(self, split: str) -> str:
        """Describes the data of a split in words."""
        share, _ = self.share_of(split)
        return self._describe(split) + (f', a share of {share:g}' if share < 1 else '')

    def folders_of(self, split: str) -> tuple[str, Folders, bool]:
        """What a split is read from: its config key, its folders, and whether train and validation share them."""
        shared = split in ('train', 'validation') and not self.validation.kind('config.data.validation')
        name = 'train' if shared else split
        return f'config.data.{name}', getattr(self, name), shared

    def _describe(self, split: str) -> str:
        padded = f', zero-padded to {self.pad_seconds:g} s' if split != 'train' and self.pad_seconds else ''
        if self.name != FOLDERS:
            return f'{self.name}, {split} split{padded}'
        named = {name: path for name, path in dataclasses.asdict(getattr(self, split)).items() if path}
        folders = ', '.join(f'{name} {path}' for name, path in named.items())
        mixed = split != 'train' and ('speech' in named if named else self.train.speech)
        clips = f', cut to {self.clip_seconds:g} s' if mixed and self.clip_seconds else ''
        clips += self._describe_mixer(split) if mixed else ''
        whole = self.train.clean or self.train.speech or self.train.arrays
        return (folders or f'{split} split, held out of {whole}') + clips + padded

    def _describe_mixer(self, split: str) -> str:
        values = dict(self.mixer_of(split).changed)
        if self.folders_of(split)[1].rir:
            early = f' {self.target.early_ms:g} ms' if self.target.reverb == 'early' else ''
            values['target'] = self.target.reverb + early
        if 'band_hz' in values:
            values['target band'] = self.target.band
        return ''.join(f', {name} {" to ".join(map(str, value)) if isinstance(value, tuple) else value}'
                       for name, value in values.items())

    @classmethod
    def from_config_dict(cls, config: Mapping[str, Any]) -> 'DataConfig':
        """Builds it from `config.data` (a ConfigDict or a dict); absent keys take their defaults.

        Raises:
          UserError: an unknown key, or a value of the wrong type.
        """
        return from_config_dict(cls, config, 'config.data')
