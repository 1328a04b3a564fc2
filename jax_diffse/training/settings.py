"""The sections `train`, `augment`, `log` and `parallel` of a config, with checks."""

import dataclasses
import math

from jax_diffse.errors import UserError
from jax_diffse.systems.base import Refiner, System

PESQ = {8000: 'pesq_nb', 16_000: 'pesq_wb'}  # rate in Hz -> the metric that is logged


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length, batches and validations of a training; a validation is one pass over the validation split."""

    steps: int
    batch_size: int  # global: over all devices and accumulation steps
    crop_seconds: float = 3.0
    accumulate: int = 1  # parts that a batch is split into, to save memory
    ema_decay: float = 0.0  # of averaged weights, which are used for evaluation; 0: no averaging
    eval_every: int = 1000
    eval_seconds: float = 0.0  # validation utterances are cut to this length; 0: not cut
    save_every: int = 1000
    log_every: int = 50
    early_stop: int = 0  # validations without a new best before the run ends; 0: never
    max_minutes: float = 0.0  # time limit of a call, after which the run can be resumed; 0: no limit
    seed: int = 0

    def __post_init__(self):
        for name in ('steps', 'batch_size', 'accumulate', 'eval_every', 'save_every', 'log_every'):
            self._require(name, getattr(self, name) >= 1, '1 or more')
        self._require('crop_seconds', 0 < self.crop_seconds < math.inf, 'positive')
        self._require('eval_seconds', 0 <= self.eval_seconds < math.inf, '0 (not cut) or more')
        self._require('ema_decay', 0 <= self.ema_decay < 1, 'in [0, 1)')
        self._require('early_stop', self.early_stop >= 0, '0 (never) or more')
        self._require('max_minutes', self.max_minutes >= 0, '0 (no limit) or more')
        self._require('seed', 0 <= self.seed < 2**32, f'from 0 to {2**32 - 1}')

    def crop_samples(self, sample_rate: int) -> int:
        """The length of a training example, in samples at a rate in Hz."""
        return max(1, round(self.crop_seconds * sample_rate))

    def _require(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise UserError(f'config.train.{name} must be {expected}, got {getattr(self, name)}')


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Samples in place of noisy inputs; see `augmentation.Augmentation`."""

    run: str = ''  # a trained run with a sampler; '': config.init_from
    share: float = 0.0  # of the training examples whose noisy input is replaced by a sample; 0: none
    steps: int = 0  # of sampling; 0: the run's own number

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise UserError(f'config.augment.share must be in [0, 1], got {self.share:g}')
        if self.steps < 0:
            raise UserError(f"config.augment.steps must be 0 (the run's own number) or more, got {self.steps}")


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """Logging besides losses."""

    audio_examples: int = 2  # validation utterances whose audio and spectrograms are logged
    pesq_examples: int = 0  # validation utterances that are enhanced and scored, to log the best and the worst one
    wandb_project: str = ''  # '': no Weights & Biases

    def __post_init__(self):
        for name in ('audio_examples', 'pesq_examples'):
            if getattr(self, name) < 0:
                raise UserError(f'config.log.{name} must be 0 (none) or more, got {getattr(self, name)}')

    def check(self, system: System) -> None:
        """Checks that the outputs of a system can be scored, if they are to be.

        Raises:
          UserError: the system enhances nothing by itself, or works at a rate without PESQ.
        """
        if self.pesq_examples and isinstance(system, Refiner):
            raise UserError(f'config.log.pesq_examples: expected 0, as {type(system).__name__} enhances nothing by '
                            f'itself that could be scored in training, got {self.pesq_examples}')
        if self.pesq_examples and system.sample_rate not in PESQ:
            raise UserError(f'config.log.pesq_examples: expected 0, as PESQ is not defined at {system.sample_rate} Hz, '
                            f'got {self.pesq_examples}')


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """The mapping of steps over devices."""

    mapper: str = 'shard_map'  # or 'pmap'
