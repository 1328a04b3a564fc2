"""The training loop: knows `System` and nothing else."""

import contextlib
import dataclasses
import math
import pathlib

import jax
import numpy as np

from jax_diffse import data, files, runs, systems
from jax_diffse.config import from_config_dict, to_json
from jax_diffse.errors import UserError
from jax_diffse.runs.history import History
from jax_diffse.systems.base import Refiner, shapes
from jax_diffse.training import parallel
from jax_diffse.training import state as state_lib
from jax_diffse.training.checkpoints import Checkpoints
from jax_diffse.training.initial import initial_variables
from jax_diffse.training.logging import Clock, Logger
from jax_diffse.training.stopping import Stop

# Keys that may change between a run and its continuation.
FREE_KEYS = ('train.steps', 'train.log_every', 'train.save_every', 'train.max_minutes', 'train.early_stop', 'parallel',
             'log')
LISTENING_STEPS = 25  # of what a prior generates for the log


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and on what a run trains; one evaluation is one pass over the validation split."""

    steps: int
    batch_size: int  # global: over all devices and accumulation steps
    crop_seconds: float = 3.0
    accumulate: int = 1  # parts a batch is taken in, to save memory
    ema_decay: float = 0.0  # of the averaged weights that are evaluated and used; 0: none are kept
    eval_every: int = 1000
    eval_seconds: float = 0.0  # validation utterances are cut to this; 0: whole
    save_every: int = 1000
    log_every: int = 50
    early_stop: int = 0  # validations without a new best before the run ends; 0: never
    max_minutes: float = 0.0  # of this call; the run can be continued; 0: no limit
    seed: int = 0

    def __post_init__(self):
        for name in ('steps', 'batch_size', 'accumulate', 'eval_every', 'save_every', 'log_every'):
            if getattr(self, name) < 1:
                raise UserError(f'config.train.{name}: expected 1 or more, got {getattr(self, name)}')
        for name, good in (('crop_seconds', 0 < self.crop_seconds < math.inf),
                           ('eval_seconds', 0 <= self.eval_seconds < math.inf), ('max_minutes', self.max_minutes >= 0),
                           ('ema_decay', 0 <= self.ema_decay < 1), ('early_stop', self.early_stop >= 0),
                           ('seed', 0 <= self.seed < 2**32)):
            if not good:
                raise UserError(f'config.train.{name}: {getattr(self, name)} makes no sense, see TrainConfig')


@dataclasses.dataclass(frozen=True)
class LogConfig:
    audio_examples: int = 2  # validation utterances whose audio and spectrograms are logged
    wandb_project: str = ''  # '': no Weights & Biases


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    mapper: str = 'shard_map'  # or 'pmap'


def train(config, workdir, *, change_config: bool = False) -> dict[str, float]:
    """Trains, or continues, the run in `workdir` as the config says.

    Args:
      config: a ConfigDict with keys system, model, init_from (an earlier run, or ''), data, train, optimizer, log and
        parallel.
      workdir: a directory; made where there is none. Where it holds checkpoints of the same config the run goes on
        from the latest that can be read, and ends as it would have without the break.
      change_config: go on although the run was made with another config.

    Returns:
      `step`, `validation_loss` (the last one), `best_validation_loss`, and `finished`: false where the same call would
      go on.

    Raises:
      UserError: what the user gave is wrong, another process trains in `workdir`, a checkpoint cannot be saved, or the
        loss stopped being finite.
    """
    with contextlib.ExitStack() as stack:
        return _train(config, pathlib.Path(files.given(workdir)), change_config, stack)


def _train(config, workdir: pathlib.Path, change_config: bool, stack: contextlib.ExitStack) -> dict[str, float]:
    # ------------------------------------------------------------------------------------------------ what was asked
    parallel.wait_for_each_step()
    settings = from_config_dict(TrainConfig, config.train, 'config.train')
    log = from_config_dict(LogConfig, config.log, 'config.log')
    optimizer = from_config_dict(state_lib.OptimizerConfig, config.optimizer, 'config.optimizer')
    mapping = parallel.Parallel(from_config_dict(ParallelConfig, config.parallel, 'config.parallel').mapper)
    init_from = files.given(config.get('init_from', ''))
    mapping.connect()
    mapping.check_batch_size(settings.batch_size, settings.accumulate)
    system = systems.build(config.system, config.model)
    stop = stack.enter_context(Stop(settings.max_minutes))

    # ----------------------------------------------------------------------------------------------------------- data
    data_config = from_config_dict(data.DataConfig, config.data, 'config.data')
    train_source = data.open_source(data_config, 'train')
    validation_source = data.open_source(data_config, 'validation')
    if train_source.sample_rate != system.sample_rate:
        raise UserError(f'the data are at {train_source.sample_rate} Hz (config.data.sample_rate), expected the '
                        f'{system.sample_rate} Hz of the system')

    # ---------------------------------------------------------------------------------------------------------- state
    primary = jax.process_index() == 0
    _make_workdir(workdir)
    if primary:
        stack.enter_context(files.locked(workdir / '.lock', str(workdir)))
    checkpoints = Checkpoints(workdir, config, system.sample_rate)
    resumed, key = checkpoints.latest_step is not None, jax.random.key(settings.seed)
    if resumed:
        earlier, source = checkpoints.meta(), {}
        changed = _changes(earlier['config'], config.to_dict())
        if changed and not change_config:
            raise UserError(f'{workdir}: holds a run with another config ({changed}); use the old values or another '
                            '--workdir, or go on with the new ones: --change-config')
        variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes(system))
    else:
        variables = initial_variables(system, key, init_from)
        earlier, source = {'history': {}}, runs.history_of(init_from) if init_from else {}
    state = state_lib.create(system, optimizer, settings.ema_decay, variables)
    if resumed:
        state = checkpoints.restore(state)
    history = History(earlier['history'], f'{data_config.describe("train")}; {len(train_source)} utterances', source)
    state = mapping.replicate(state)
    first_step = step = int(state.step)
    if primary:
        with files.atomic_write(workdir / 'config.json') as partial:
            partial.write_text(to_json(config), encoding='utf-8')

    # -------------------------------------------------------------------------------------------------------- batches
    from jax_diffse.data import pipeline  # TensorFlow comes in here

    shard = {'process_index': jax.process_index(), 'process_count': jax.process_count()}
    batches = pipeline.train_batches(
        train_source, system.front_end, batch_size=settings.batch_size, seed=settings.seed, start_step=first_step,
        num_samples=round(settings.crop_seconds * system.sample_rate), **shard)

    def validation_batches():
        limit = round(settings.eval_seconds * system.sample_rate) or None
        for batch in pipeline.eval_batches(validation_source, system.front_end, batch_size=settings.batch_size,
                                           max_samples=limit, **shard):
            if stop.asked():
                return
            yield batch

    # ---------------------------------------------------------------------------------------------------------- steps
    train_step = mapping.map(state_lib.make_train_step(
        system, optimizer, steps=settings.steps, seed=settings.seed, ema_decay=settings.ema_decay,
        accumulate=settings.accumulate), donate=True)
    eval_step = mapping.map(state_lib.make_eval_step(system, settings.seed))
    listen = jax.jit(_generator(system) if isinstance(system, Refiner) else system.enhance)
    logger = Logger(workdir, config, total_steps=settings.steps, first_step=first_step, enabled=primary,
                    wandb_project=log.wandb_project)
    stack.callback(logger.free_terminal)  # whatever ends the run
    logger.message(f'{workdir}: {len(train_source)} training and {len(validation_source)} validation utterances, '
                   f'{len(mapping.devices)} device(s), from step {first_step} to {settings.steps}')
    if resumed and changed:
        logger.message(f'{workdir}: the config was changed: {changed}')

    def is_due(every):
        return step % every == 0 or step == settings.steps

    # ----------------------------------------------------------------------------------------------------------- loop
    clock, pending, validation_loss, stopped = Clock(), [], float('nan'), _no_new_best(state, settings)
    # A run that was stopped in a validation was saved before it.
    unjudged = resumed and is_due(settings.eval_every) and not checkpoints.has_validation_loss
    clock.start()
    while not stopped and (unjudged or step < settings.steps):
        if not unjudged:
            state, metrics = train_step(state, mapping.shard(next(batches)))
            step += 1
            pending.append((step, metrics))
            clock.count(settings.batch_size)
            logger.progress(step)
            unjudged, stopped = is_due(settings.eval_every), stop.due()
            if unjudged or stopped or is_due(settings.log_every) or is_due(settings.save_every):
                values = _fetch(pending, checkpoints.latest_step)
            if is_due(settings.log_every):
                values['examples_per_second'] = clock.rate()
                logger.scalars(step, values, '  '.join(f'{k} {v:.4g}' for k, v in values.items()))
        clock.stop()
        judged = False
        if unjudged and not stop.at_once:
            variables = state.averaged
            means = evaluate(eval_step, variables, validation_batches(), mapping)
            judged = not stop.at_once
        if judged:
            unjudged, validation_loss = False, _judged(system, means)
            state = _after_validation(state, validation_loss, optimizer, mapping)
            logger.scalars(step, {f'validation/{k}': v for k, v in means.items()},
                           f'validation loss {validation_loss:.4g} (best {float(state.best):.4g})')
            if primary and log.audio_examples:
                _log_audio(logger, step, system, listen, variables, validation_source, log.audio_examples)
            stopped = stopped or _no_new_best(state, settings)
        stopped = stopped or (stop.at_once and stop.due())
        if judged or stopped or is_due(settings.save_every):
            checkpoints.save(state, validation_loss if judged else None, history.record())
        clock.start()
    checkpoints.close()
    logger.message(f'{workdir}: at step {step}' + (f' ({stopped})' if stopped else ''))
    logger.close()
    return {'step': step, 'validation_loss': validation_loss, 'best_validation_loss': float(state.best),
            'finished': not stop.at_once and (step >= settings.steps or bool(_no_new_best(state, settings)))}


def _after_validation(state, loss, optimizer, mapping):
    """`state_lib.after_validation`; only the numbers that it changes go through the host."""
    names = ('plateau', 'best', 'stale')
    small = state.replace(**{name: jax.device_get(getattr(state, name)) for name in names})
    new = state_lib.after_validation(small, loss, optimizer)
    return state.replace(**{name: mapping.replicate(getattr(new, name)) for name in names})


def _no_new_best(state, settings) -> str:
    """Why validation ends the run, or nothing."""
    stale = settings.early_stop and int(state.stale) >= settings.early_stop
    return f'no new best in {settings.early_stop} validations' if stale else ''


def _make_workdir(workdir):
    try:
        (workdir / 'checkpoints').mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{workdir}: cannot be made ({error.strerror})') from error


def _changes(saved, given) -> str:
    """The keys that another config has other values of, with these, or ''."""
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


def _fetch(pending, kept) -> dict[str, float]:
    """Fetches the metrics of all steps since the last call; their means, or an error naming a step."""
    steps = [(step, {k: float(v) for k, v in metrics.items()}) for step, metrics in jax.device_get(pending)]
    pending.clear()
    for step, metrics in steps:
        state_lib.check_finite(metrics, step, kept)
    return {name: float(np.mean([metrics[name] for _, metrics in steps])) for name in steps[0][1]} if steps else {}


def evaluate(eval_step, variables, batches, mapping: parallel.Parallel) -> dict[str, float]:
    """The means over all batches of what `state.make_eval_step` adds up."""
    totals: dict[str, np.ndarray] = {}
    for batch in batches:
        sums = jax.device_get(eval_step(variables, mapping.shard(batch)))
        for name, pair in sums.items():
            totals[name] = totals.get(name, np.zeros(2)) + np.array([float(x) for x in pair])
    return {name: float(total / max(weight, 1e-8)) for name, (total, weight) in totals.items()}


def _judged(system, means) -> float:
    if system.criterion:
        return means[system.criterion]
    return sum(value for name, value in means.items() if name.endswith('/loss'))


def _generator(system):
    """What a prior is listened to with: it cannot enhance by itself."""
    def generate(variables, noisy, num_samples, key):
        del num_samples
        return system.generate(variables, key, noisy.shape[1], steps=LISTENING_STEPS)

    return generate


def _log_audio(logger, step, system, listen, variables, source, count):
    # On one device: only the first process is here, and a step over all devices would wait for the others.
    variables = jax.tree.map(lambda x: x.addressable_data(0), variables)
    for i in range(min(count, len(source))):
        clean, noisy = (x[:4 * system.sample_rate] for x in source.read(i))
        key = jax.random.fold_in(jax.random.key(0), i)[None]
        padded = np.pad(noisy, (0, 4 * system.sample_rate - len(noisy)))[None]
        heard = np.asarray(listen(variables, padded, np.array([len(noisy)]), key))[0]
        if isinstance(system, Refiner):
            logger.audio(step, f'{i}/generated', heard, system.sample_rate)
            continue
        for name, waveform in (('clean', clean), ('noisy', noisy), ('enhanced', heard[:len(noisy)])):
            logger.audio(step, f'{source.info(i)["id"]}/{name}', waveform, system.sample_rate)
