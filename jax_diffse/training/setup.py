"""Sets up a training: its checked config, data, state and steps."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from jax_diffse import data, experiment, files, runs, systems
from jax_diffse.config import from_config_dict, to_json
from jax_diffse.data.segments import Segments
from jax_diffse.data.source import Source
from jax_diffse.errors import UserError
from jax_diffse.runs.history import History
from jax_diffse.systems.base import System, shapes
from jax_diffse.training import parallel
from jax_diffse.training import state as state_lib
from jax_diffse.training.augmentation import Augmentation
from jax_diffse.training.checkpoints import Checkpoints
from jax_diffse.training.initial import initial_variables
from jax_diffse.training.logging import Logger
from jax_diffse.training.profile import Profiler, Window
from jax_diffse.training.settings import AugmentConfig, LogConfig, ParallelConfig, TrainConfig
from jax_diffse.training.stopping import Stop

# Keys that may change when a run is resumed.
FREE_KEYS = ('train.steps', 'train.log_every', 'train.save_every', 'train.max_minutes', 'train.early_stop', 'parallel',
             'log', 'data.check')


@dataclasses.dataclass(frozen=True)
class TrainingSpec:
    """A checked config, with the objects that it describes."""

    config: ml_collections.ConfigDict
    workdir: pathlib.Path
    train: TrainConfig
    log: LogConfig
    optimizer: state_lib.OptimizerConfig
    data: data.DataConfig
    init_from: str
    mapping: parallel.Parallel
    system: System
    augment: AugmentConfig

    @classmethod
    def of(cls, config: ml_collections.ConfigDict, workdir: pathlib.Path) -> 'TrainingSpec':
        """Checks the config and connects to the devices.

        Raises:
          UserError: an invalid value.
        """
        train = from_config_dict(TrainConfig, config.train, 'config.train')
        log = from_config_dict(LogConfig, config.log, 'config.log')
        optimizer = from_config_dict(state_lib.OptimizerConfig, config.optimizer, 'config.optimizer')
        mapping = parallel.Parallel(from_config_dict(ParallelConfig, config.parallel, 'config.parallel').mapper)
        init_from = files.given(config.get('init_from', ''))
        mapping.connect()
        mapping.check_batch_size(train.batch_size, train.accumulate)
        system = systems.build(config.system, config.model)
        augment = from_config_dict(AugmentConfig, config.get('augment', {}), 'config.augment')
        log.check(system)
        return cls(config, workdir, train, log, optimizer,
                   from_config_dict(data.DataConfig, config.data, 'config.data'), init_from, mapping, system, augment)

    @property
    def examples(self) -> str:
        """What the training goes through once per epoch."""
        return 'segments' if self.data.segments else 'utterances'


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that is ready for its first step.

    Attributes:
      spec: the checked config.
      stop: tells whether the run should end.
      train_source: the utterances, or their segments.
      validation_source: the utterances.
      checkpoints: of the run.
      resumed: whether the run had a checkpoint.
      changes: the changes to the config of the resumed run, in words.
      history: the record of the training.
      state: before the first step of this call, on the devices.
      place: puts this process's rows of a training batch on its devices, and augments them.
      train_step: (state, batch) -> (state, metrics), compiled on first call.
      logger: of the run.
      profiler: traces the steps that were asked for.
    """

    spec: TrainingSpec
    stop: Stop
    train_source: Source
    validation_source: Source
    checkpoints: Checkpoints
    resumed: bool
    changes: str
    history: History
    state: Any
    place: Callable
    train_step: Callable
    logger: Logger
    profiler: Profiler

    def train_batches(self) -> Iterator[dict[str, np.ndarray]]:
        """This process's share of the training batches, from the next step on; infinite."""
        from jax_diffse.data import pipeline  # imports TensorFlow

        settings, system = self.spec.train, self.spec.system
        return pipeline.train_batches(
            self.train_source, system.front_end, batch_size=settings.batch_size, seed=settings.seed,
            start_step=int(self.state.step), num_samples=settings.crop_samples(system.sample_rate), process=_process())

    def validation_batches(self) -> Iterator[dict[str, np.ndarray]]:
        """This process's share of the validation batches; ends early if the run must stop immediately."""
        from jax_diffse.data import pipeline

        settings, system = self.spec.train, self.spec.system
        limit = round(settings.eval_seconds * system.sample_rate) or None
        for batch in pipeline.eval_batches(self.validation_source, system.front_end, batch_size=settings.batch_size,
                                           max_samples=limit, process=_process()):
            if self.stop.requested():
                return
            yield batch


def _process():
    from jax_diffse.data.pipeline import Process

    return Process(jax.process_index(), jax.process_count())


def set_up(config: ml_collections.ConfigDict, workdir: pathlib.Path, change_config: bool, profile: Window | None,
           stack: contextlib.ExitStack) -> Training:
    """Sets up the training of a config, or resumes the one in `workdir`; `stack` closes its resources.

    A training without steps that are left is not traced.

    Raises:
      UserError: see `loop.train`.
    """
    parallel.wait_for_each_step()
    spec = TrainingSpec.of(config, workdir)
    stop = stack.enter_context(Stop(spec.train.max_minutes))
    train_source, validation_source = _open_data(spec)
    augmentation = Augmentation.load(spec.augment, spec.init_from, spec.system)
    place = spec.mapping.shard
    if augmentation:
        place = augmentation.placing(spec.mapping, spec.system.front_end, spec.train)
    primary = jax.process_index() == 0
    _make_workdir(workdir)
    if primary:
        stack.enter_context(files.locked(workdir / '.lock', str(workdir)))
    checkpoints = Checkpoints(workdir, config, spec.system.sample_rate)
    resumed = checkpoints.latest_step is not None
    if resumed:
        state, changes, earlier = _resume(spec, checkpoints, augmentation, change_config)
        source = {}
    else:
        state, changes, earlier = _start(spec), '', {}
        source = runs.history_of(spec.init_from) if spec.init_from else {}
    if profile and state.step < spec.train.steps:
        profile.check(spec.train.steps, int(state.step))
    history = _history(spec, earlier, source, len(train_source), augmentation)
    if primary:
        files.write_text(workdir / 'config.json', to_json(config))
    logger = Logger(workdir, config, total_steps=spec.train.steps, first_step=int(state.step), enabled=primary,
                    wandb_project=spec.log.wandb_project)
    stack.callback(logger.free_terminal)
    profiler = stack.enter_context(Profiler(profile if primary else None, workdir, logger.message))
    if augmentation:
        logger.message(augmentation.describe())
    train_step = spec.mapping.map(state_lib.make_train_step(
        spec.system, spec.optimizer, steps=spec.train.steps, seed=spec.train.seed,
        ema_decay=spec.train.ema_decay, accumulate=spec.train.accumulate), donate=True)
    return Training(spec, stop, train_source, validation_source, checkpoints, resumed, changes, history,
                    spec.mapping.replicate(state), place, train_step, logger, profiler)


def _open_data(spec: TrainingSpec) -> tuple[Source, Source]:
    train_source, validation_source = data.open_training(spec.data)
    if train_source.sample_rate != spec.system.sample_rate:
        raise UserError(f'the data are at {train_source.sample_rate} Hz (config.data.sample_rate), expected the '
                        f'{spec.system.sample_rate} Hz of the system')
    if spec.data.segments:
        train_source = Segments(train_source, spec.train.crop_samples(spec.system.sample_rate))
    return train_source, validation_source


def _start(spec: TrainingSpec):
    """The state of a new run."""
    variables = initial_variables(spec.system, jax.random.key(spec.train.seed), spec.init_from)
    return state_lib.create(spec.system, spec.optimizer, spec.train.ema_decay, variables)


def _history(spec: TrainingSpec, earlier: dict, source: dict, examples: int,
             augmentation: Augmentation | None) -> History:
    data = f'{spec.data.describe("train")}; {examples} {spec.examples}'
    if augmentation is None:
        return History(earlier, data, source, {})
    return History(earlier, f'{data}; {augmentation.describe()}', source, augmentation.record())


def _resume(spec: TrainingSpec, checkpoints: Checkpoints, augmentation: Augmentation | None, change_config: bool):
    """Returns the state of the latest checkpoint, the changes of the config since then, and the history until then."""
    meta = checkpoints.meta()
    earlier = meta['history'].get('augment', {})
    now = augmentation.record() if augmentation else {}
    changes = _changes(_with_augment(meta['config'], earlier), _with_augment(spec.config.to_dict(), now))
    if changes and not change_config:
        raise UserError(f'{spec.workdir}: holds a run with another config ({changes}); use the old values or another '
                        '--workdir, or resume with the new ones: --change-config')
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes(spec.system))
    empty = state_lib.create(spec.system, spec.optimizer, spec.train.ema_decay, variables)
    return checkpoints.restore(empty), changes, meta['history']


def _with_augment(config: dict, record: dict) -> dict:
    """A config with its section `augment`, which earlier configs lack, and the weights that draw the samples."""
    section = {**dataclasses.asdict(AugmentConfig()), **config.get('augment', {}), 'hash': record.get('hash', '')}
    return {**config, 'augment': section}


def _make_workdir(workdir: pathlib.Path) -> None:
    try:
        files.make_folder(workdir)
        files.make_folder(workdir / 'checkpoints')
    except OSError as error:
        raise UserError(f'{workdir}: cannot be created ({files.reason(error)})') from error


def _changes(saved: dict, given: dict) -> str:
    """The keys whose values differ between two configs, with both values, or ''.

    A key that the saved config lacks is newer than the run. It changes nothing if it has the neutral value of
    `experiment.sections`, or, in config.model, if it is empty, 0 or False.
    """
    def flat(tree, prefix=''):
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from flat(value, f'{prefix}{key}.')
            else:
                yield f'{prefix}{key}', list(value) if isinstance(value, tuple) else value

    saved, given = dict(flat(saved)), dict(flat(given))
    neutral = {key: type(value)() for key, value in given.items()} | dict(flat(experiment.sections('', {}).to_dict()))
    changed = [key for key in sorted({*saved, *given}) if saved.get(key, neutral.get(key)) != given.get(key)
               and not any(key == free or key.startswith(free + '.') for free in FREE_KEYS)]
    return '; '.join(f'{key} was {saved.get(key)!r}, is {given.get(key)!r}' for key in changed)
