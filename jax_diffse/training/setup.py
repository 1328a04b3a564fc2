"""A training before its first step: what was asked, the data, the state and the compiled steps."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from jax_diffse import data, files, runs, systems
from jax_diffse.config import from_config_dict, to_json
from jax_diffse.data.source import Source
from jax_diffse.errors import UserError
from jax_diffse.runs.history import History
from jax_diffse.systems.base import System, shapes
from jax_diffse.training import parallel
from jax_diffse.training import state as state_lib
from jax_diffse.training.checkpoints import Checkpoints
from jax_diffse.training.initial import initial_variables
from jax_diffse.training.logging import Logger
from jax_diffse.training.settings import LogConfig, ParallelConfig, TrainConfig
from jax_diffse.training.stopping import Stop

# Keys that may change between a run and its continuation.
FREE_KEYS = ('train.steps', 'train.log_every', 'train.save_every', 'train.max_minutes', 'train.early_stop', 'parallel',
             'log')


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the config asks for, checked."""

    config: ml_collections.ConfigDict
    workdir: pathlib.Path
    train: TrainConfig
    log: LogConfig
    optimizer: state_lib.OptimizerConfig
    data: data.DataConfig
    init_from: str
    mapping: parallel.Parallel
    system: System

    @classmethod
    def of(cls, config: ml_collections.ConfigDict, workdir: pathlib.Path) -> 'Asked':
        """Checks the config and connects to the devices.

        Raises:
          UserError: a value that is not taken.
        """
        train = from_config_dict(TrainConfig, config.train, 'config.train')
        log = from_config_dict(LogConfig, config.log, 'config.log')
        optimizer = from_config_dict(state_lib.OptimizerConfig, config.optimizer, 'config.optimizer')
        mapping = parallel.Parallel(from_config_dict(ParallelConfig, config.parallel, 'config.parallel').mapper)
        init_from = files.given(config.get('init_from', ''))
        mapping.connect()
        mapping.check_batch_size(train.batch_size, train.accumulate)
        system = systems.build(config.system, config.model)
        return cls(config, workdir, train, log, optimizer,
                   from_config_dict(data.DataConfig, config.data, 'config.data'), init_from, mapping, system)


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that is ready for its first step.

    Attributes:
      asked: what the config asks for.
      stop: notes why the run should end.
      train_source, validation_source: the utterances.
      checkpoints: of the run.
      resumed: whether the run had a checkpoint.
      changes: how the config differs from that of the resumed run, in words.
      history: how the run came to be.
      state: before the first step of this call, on the devices.
      train_step: (state, batch) -> (state, metrics), compiled when called first.
      logger: of the run.
    """

    asked: Asked
    stop: Stop
    train_source: Source
    validation_source: Source
    checkpoints: Checkpoints
    resumed: bool
    changes: str
    history: History
    state: Any
    train_step: Callable
    logger: Logger

    def train_batches(self) -> Iterator[dict[str, np.ndarray]]:
        """This process's share of the training batches, from the next step on, without end."""
        from jax_diffse.data import pipeline  # imports TensorFlow

        settings, system = self.asked.train, self.asked.system
        return pipeline.train_batches(
            self.train_source, system.front_end, batch_size=settings.batch_size, seed=settings.seed,
            start_step=int(self.state.step), num_samples=round(settings.crop_seconds * system.sample_rate),
            process=_process())

    def validation_batches(self) -> Iterator[dict[str, np.ndarray]]:
        """This process's share of the validation batches; they end early if the run is to stop at once."""
        from jax_diffse.data import pipeline

        settings, system = self.asked.train, self.asked.system
        limit = round(settings.eval_seconds * system.sample_rate) or None
        for batch in pipeline.eval_batches(self.validation_source, system.front_end, batch_size=settings.batch_size,
                                           max_samples=limit, process=_process()):
            if self.stop.asked():
                return
            yield batch


def _process():
    from jax_diffse.data.pipeline import Process

    return Process(jax.process_index(), jax.process_count())


def set_up(config: ml_collections.ConfigDict, workdir: pathlib.Path, change_config: bool,
           stack: contextlib.ExitStack) -> Training:
    """Makes a training of a config, or continues the one in `workdir`; `stack` holds what has to be closed.

    Raises:
      UserError: see `loop.train`.
    """
    parallel.wait_for_each_step()
    asked = Asked.of(config, workdir)
    stop = stack.enter_context(Stop(asked.train.max_minutes))
    train_source, validation_source = _open_data(asked)
    primary = jax.process_index() == 0
    _make_workdir(workdir)
    if primary:
        stack.enter_context(files.locked(workdir / '.lock', str(workdir)))
    checkpoints = Checkpoints(workdir, config, asked.system.sample_rate)
    resumed = checkpoints.latest_step is not None
    if resumed:
        state, changes, earlier = _resume(asked, checkpoints, change_config)
        source = {}
    else:
        state, changes, earlier = _start(asked), '', {}
        source = runs.history_of(asked.init_from) if asked.init_from else {}
    history = History(earlier, f'{asked.data.describe("train")}; {len(train_source)} utterances', source)
    if primary:
        files.write_text(workdir / 'config.json', to_json(config))
    logger = Logger(workdir, config, total_steps=asked.train.steps, first_step=int(state.step), enabled=primary,
                    wandb_project=asked.log.wandb_project)
    stack.callback(logger.free_terminal)  # whatever ends the run
    train_step = asked.mapping.map(state_lib.make_train_step(
        asked.system, asked.optimizer, steps=asked.train.steps, seed=asked.train.seed,
        ema_decay=asked.train.ema_decay, accumulate=asked.train.accumulate), donate=True)
    return Training(asked, stop, train_source, validation_source, checkpoints, resumed, changes, history,
                    asked.mapping.replicate(state), train_step, logger)


def _open_data(asked: Asked) -> tuple[Source, Source]:
    train_source = data.open_source(asked.data, 'train')
    validation_source = data.open_source(asked.data, 'validation')
    if train_source.sample_rate != asked.system.sample_rate:
        raise UserError(f'the data are at {train_source.sample_rate} Hz (config.data.sample_rate), expected the '
                        f'{asked.system.sample_rate} Hz of the system')
    return train_source, validation_source


def _start(asked: Asked):
    """The state of a new run."""
    variables = initial_variables(asked.system, jax.random.key(asked.train.seed), asked.init_from)
    return state_lib.create(asked.system, asked.optimizer, asked.train.ema_decay, variables)


def _resume(asked: Asked, checkpoints: Checkpoints, change_config: bool):
    """The state of the latest checkpoint, how the config has changed since, and the history until then."""
    meta = checkpoints.meta()
    changes = _changes(meta['config'], asked.config.to_dict())
    if changes and not change_config:
        raise UserError(f'{asked.workdir}: holds a run with another config ({changes}); use the old values or another '
                        '--workdir, or go on with the new ones: --change-config')
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes(asked.system))
    empty = state_lib.create(asked.system, asked.optimizer, asked.train.ema_decay, variables)
    return checkpoints.restore(empty), changes, meta['history']


def _make_workdir(workdir: pathlib.Path) -> None:
    try:
        (workdir / 'checkpoints').mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{workdir}: cannot be created ({error.strerror})') from error


def _changes(saved: dict, given: dict) -> str:
    """The keys whose values differ between two configs, with these values, or ''."""
    def flat(tree, prefix=''):
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from flat(value, f'{prefix}{key}.')
            else:
                yield f'{prefix}{key}', list(value) if isinstance(value, tuple) else value

    saved, given = dict(flat(saved)), dict(flat(given))
    changed = [key for key in sorted({*saved, *given}) if saved.get(key) != given.get(key)
               and not any(key == free or key.startswith(free + '.') for free in FREE_KEYS)]
    return '; '.join(f'{key} was {saved.get(key)!r}, is {given.get(key)!r}' for key in changed)
