"""The training loop, which depends on nothing that is specific to a system."""

import contextlib
import pathlib

import jax
import numpy as np

from jax_diffse import files
from jax_diffse.training import state as state_lib
from jax_diffse.training.logging import Clock
from jax_diffse.training.settings import TrainConfig
from jax_diffse.training.setup import Training, set_up
from jax_diffse.training.validation import Validation


def train(config, workdir, *, change_config: bool = False) -> dict[str, float]:
    """Trains one run, or resumes the one in `workdir`.

    Args:
      config: a ConfigDict with keys system, model, init_from (an earlier run, or ''), data, train, optimizer, log and
        parallel; augment may be missing.
      workdir: a folder; created if missing. If it holds checkpoints of the same config, the run resumes from the latest
        readable one and gives the same result as without the interruption.
      change_config: resume although the run was made with another config.

    Returns:
      `step`, `validation_loss` (the last one), `best_validation_loss`, and `finished`: false if the same call would
      resume the run.

    Raises:
      UserError: a mistake in the config, another process trains in `workdir`, a checkpoint cannot be saved, or the loss
        stopped being finite.
    """
    with contextlib.ExitStack() as stack:
        training = set_up(config, pathlib.Path(files.given(workdir)), change_config, stack)
        return _loop(training)


def _loop(training: Training) -> dict[str, float]:
    settings, mapping, logger = training.spec.train, training.spec.mapping, training.logger
    checkpoints, stop, state = training.checkpoints, training.stop, training.state
    validate, batches, step = Validation(training), training.train_batches(), int(state.step)
    segments = ' segments' if training.spec.data.segments else ''
    logger.message(f'{training.spec.workdir}: {len(training.train_source)} training{segments} and '
                   f'{len(training.validation_source)} validation utterances, {len(mapping.devices)} device(s), from '
                   f'step {step} to {settings.steps}')
    if training.changes:
        logger.message(f'{training.spec.workdir}: the config was changed: {training.changes}')

    def is_due(every):
        return step % every == 0 or step == settings.steps

    clock, pending, validation_loss, stopped = Clock(), [], float('nan'), _no_new_best(state, settings)
    # A run that was stopped during a validation was saved without its validation loss.
    must_validate = training.resumed and is_due(settings.eval_every) and not checkpoints.has_validation_loss
    clock.start()
    while not stopped and (must_validate or step < settings.steps):
        if not must_validate:
            state, metrics = training.train_step(state, training.place(next(batches)))
            step += 1
            pending.append((step, metrics))
            clock.count(settings.batch_size)
            logger.progress(step)
            must_validate, stopped = is_due(settings.eval_every), stop.reason()
            if must_validate or stopped or is_due(settings.log_every) or is_due(settings.save_every):
                values = _fetch(pending, checkpoints.latest_step)
            if is_due(settings.log_every):
                values['examples_per_second'] = clock.rate()
                logger.scalars(step, values, '  '.join(f'{k} {v:.4g}' for k, v in values.items()))
        clock.stop()
        loss = None
        if must_validate and not stop.immediate:
            state, loss = validate(state, step)
        if loss is not None:
            must_validate, validation_loss = False, loss
            stopped = stopped or _no_new_best(state, settings)
        stopped = stopped or (stop.immediate and stop.reason())
        if loss is not None or stopped or is_due(settings.save_every):
            checkpoints.save(state, loss, training.history.record())
        clock.start()
    checkpoints.close()
    logger.message(f'{training.spec.workdir}: at step {step}' + (f' ({stopped})' if stopped else ''))
    logger.close()
    return {'step': step, 'validation_loss': validation_loss, 'best_validation_loss': float(state.best),
            'finished': not stop.immediate and (step >= settings.steps or bool(_no_new_best(state, settings)))}


def _no_new_best(state, settings: TrainConfig) -> str:
    """The reason for early stopping, or ''."""
    stale = settings.early_stop and int(state.stale) >= settings.early_stop
    return f'no new best in {settings.early_stop} validations' if stale else ''


def _fetch(pending: list, kept: int | None) -> dict[str, float]:
    """Fetches the metrics of all steps since the last call, checks them and returns their means."""
    steps = [(step, {k: float(v) for k, v in metrics.items()}) for step, metrics in jax.device_get(pending)]
    pending.clear()
    for step, metrics in steps:
        state_lib.check_finite(metrics, step, kept)
    return {name: float(np.mean([metrics[name] for _, metrics in steps])) for name in steps[0][1]} if steps else {}
