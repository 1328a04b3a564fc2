"""Options of an evaluation: recordings, metrics, cache."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jax_diffse.data import FOLDERS, open_source
from jax_diffse.data.config import DataConfig, Folders
from jax_diffse.data.mixtures import MixSource
from jax_diffse.data.source import Source
from jax_diffse.errors import UserError
from jax_diffse.metrics.pool import check_workers
from jax_diffse.runs import Run


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """Metrics, cache and output of an evaluation.

    Attributes:
      metrics: names; default: see `metrics.scoring.choose`.
      workers: scoring processes; default: one per CPU; 0: score in this process.
      cache: folder of earlier results; default: `cache` in the output folder.
      processed: for a refiner: folder with another enhancer's output; see `utterances.read_all`.
      also: other systems whose files are scored beside the run: name -> folder with files named by the utterances' ids.
      save_audio: also write the output of every stage for every file.
      command: the command line that repeats the evaluation, for the record.

    Raises:
      UserError: a negative number of workers.
    """

    metrics: Sequence[str] | None = None
    workers: int | None = None
    cache: str | os.PathLike | None = None
    processed: str | os.PathLike | None = None
    also: Mapping[str, str | os.PathLike] = dataclasses.field(default_factory=dict)
    save_audio: bool = False
    command: str = ''

    def __post_init__(self) -> None:
        check_workers(self.workers)


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Pairs of clean and noisy speech that systems are evaluated on.

    Attributes:
      source: the pairs.
      description: of the data, for the report.
      limit: at most this many utterances, spread evenly over the source.
      skip_bad: leave out utterances whose processed file is missing or does not fit, instead of stopping.
      resample: resample the files of other systems that have another rate.
    """

    source: Source
    description: str = ''
    limit: int | None = None
    skip_bad: bool = False
    resample: bool = False

    def write_manifest(self, folder: pathlib.Path) -> None:
        """Writes the list of mixtures, `mixtures.tsv`, if speech is mixed on the fly; only the first process writes."""
        if isinstance(self.source, MixSource) and not jax.process_index():
            self.source.write_manifest(folder / 'mixtures.tsv')


@dataclasses.dataclass(frozen=True)
class EvaluationData:
    """The recordings to evaluate on; default: the test split of the data that the run was trained on.

    Attributes:
      split: 'test' or 'validation' of the run's own data, or of `data_set`.
      data_set: a data set of TFDS instead of the run's own data, such as 'voicebank_demand'.
      clean, noisy: folders whose files have the same names.
      speech, noise: folders to mix on the fly; noise has one subfolder per class.
      rir: folder of room impulse responses; each mixture is reverberated with one of them.
      arrays: a file of prepared pairs, see `data.arrays.open_arrays`.
      snr_db: SNRs of the mixtures, or of the dB classes of the array; default: those of the run.
      noise_classes: classes of the noise to use; default: those of the run's `test_noise_classes`, usually all.
      clip_seconds: longer utterances are cut to their middle before mixing; 0: not cut; default: the run's.
      pad_seconds: shorter utterances are extended with zeros at their end, before mixing; 0: not extended; default: the
        run's.
      share: of the utterances of each speaker of the test data, the same for all runs; default: the run's `test_share`.
      resample: accept files and data sets at another rate than the system's, and resample them.
      skip_bad: leave out unusable files instead of stopping.
      limit: at most this many files, spread evenly over the data.
    """

    split: str | None = None
    data_set: str | None = None
    clean: str | os.PathLike | None = None
    noisy: str | os.PathLike | None = None
    speech: str | os.PathLike | None = None
    noise: str | os.PathLike | None = None
    rir: str | os.PathLike | None = None
    arrays: str | os.PathLike | None = None
    snr_db: tuple[float, ...] = ()
    noise_classes: tuple[str, ...] = ()
    clip_seconds: float | None = None
    pad_seconds: float | None = None
    share: float | None = None
    resample: bool = False
    skip_bad: bool = False
    limit: int | None = None

    def config(self, run: Run) -> tuple[DataConfig, str]:
        """The data configuration for a run, and its split.

        Raises:
          UserError: the options contradict each other, or the run has no such data.
        """
        own = DataConfig.from_config_dict(run.config.get('data', {}))
        if self.data_set:
            own = dataclasses.replace(own, name=self.data_set, sample_rate=run.system.sample_rate)
        changes: dict[str, Any] = {'skip_bad': own.skip_bad or self.skip_bad, 'resample': own.resample or self.resample,
                                   'pad_seconds': own.pad_seconds if self.pad_seconds is None else self.pad_seconds,
                                   'test_share': own.test_share if self.share is None else self.share}
        folders = {field.name: os.fspath(getattr(self, field.name)) for field in dataclasses.fields(Folders)
                   if getattr(self, field.name)}
        self._check(folders, own, run)
        if not folders:
            split = self.split or 'test'
            if own.name == FOLDERS and split == 'test' and own.test == Folders():
                raise UserError(f'{run.workdir}: its config names no test data; give --clean and --noisy, --speech '
                                'and --noise, --arrays or --data-set')
            return dataclasses.replace(own, **changes), split
        clip_seconds = own.clip_seconds if self.clip_seconds is None else self.clip_seconds
        return dataclasses.replace(
            own, name=FOLDERS, train=own.train if own.name == FOLDERS else Folders(), test=Folders(**folders),
            sample_rate=run.system.sample_rate, test_snr_db=self.snr_db or own.test_snr_db,
            test_noise_classes=self.noise_classes or own.test_noise_classes,
            clip_seconds=clip_seconds if 'speech' in folders else 0.0, **changes), 'test'

    def open(self, run: Run) -> EvaluationSet:
        """Opens the recordings for a run.

        Raises:
          UserError: see `config` and `data.open_source`.
        """
        config, split = self.config(run)
        source, description = open_source(config, split), config.describe(split)
        if self.snr_db and self.arrays and 'snr_db' not in source.info(0):
            raise UserError(f'--snr-db: {self.arrays} has no axis of dB classes; drop it')
        if config.share_of(split)[0] < 1:
            description += f': {source.used}'
        return EvaluationSet(source, description, self.limit, config.skip_bad, config.resample)

    def _check(self, folders: dict[str, str], own: DataConfig, run: Run) -> None:
        if tuple(folders) not in ((), ('clean', 'noisy'), ('speech', 'noise'), ('speech', 'noise', 'rir'), ('arrays',)):
            raise UserError(f'{" ".join(f"--{name}" for name in folders)} given, expected --clean and --noisy, '
                            '--speech and --noise (and --rir), or --arrays alone')
        if self.data_set is not None and (folders or self.data_set == FOLDERS):
            raise UserError(f'--data-set={self.data_set}: expected a data set of TFDS, alone; name your own files with '
                            '--clean and --noisy, --speech and --noise, or --arrays')
        if self.snr_db and not {'speech', 'arrays'} & set(folders):
            raise UserError('--snr-db needs --speech and --noise, or --arrays')
        for flag, given in (('--noise-classes', bool(self.noise_classes)),
                            ('--clip-seconds', self.clip_seconds is not None)):
            if given and 'speech' not in folders:
                raise UserError(f'{flag} needs --speech and --noise')
        if self.share is not None and self.split == 'validation':
            raise UserError('--share is for test data, but --split=validation given; drop one of them')
        if self.resample and self.arrays:
            raise UserError(f'--resample is for folders; the samples in {self.arrays} must have the rate of the system')
        if self.split and folders:
            raise UserError(f'--split={self.split} given with --{next(iter(folders))}; --split selects from the '
                            "run's own data, drop one of them")
