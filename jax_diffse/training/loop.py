"""The training loop, which depends on nothing that is specific to a system."""

import contextlib

from jax_diffse.runs import layout
from jax_diffse.training.profile import Window
from jax_diffse.training.settings import TrainConfig
from jax_diffse.training.setup import Training, set_up
from jax_diffse.training.steps import Steps
from jax_diffse.training.validation import Validation


def train(config, workdir, *, change_config: bool = False, profile: Window | None = None) -> dict[str, float]:
    """Trains one run, or resumes the one in `workdir`.

    Args:
      config: a ConfigDict with keys system, model, init_from (an earlier run, or ''), data, train, optimizer, log and
        parallel; augment may be missing.
      workdir: a folder; created if missing. If it holds checkpoints of the same config, the run resumes from the latest
        readable one and gives the same result as without the interruption.
      change_config: resume although the run was made with another config.
      profile: the steps that are traced.

    Returns:
      `step`, `validation_loss` (the last one), `best_validation_loss`, and `finished`: false if the same call would
      resume the run.

    Raises:
      UserError: a mistake in the config, another process trains in `workdir`, a checkpoint cannot be saved, or the loss
        stopped being finite.
    """
    with contextlib.ExitStack() as stack:
        training = set_up(config, layout.directory(workdir).parent, change_config, profile, stack)
        return _loop(training)


def _loop(training: Training) -> dict[str, float]:
    settings, mapping, logger = training.spec.train, training.spec.mapping, training.logger
    checkpoints, stop, state = training.checkpoints, training.stop, training.state
    validate, steps = Validation(training), Steps(training, training.train_batches())
    segments = ' segments' if training.spec.data.segments else ''
    logger.message(f'{training.spec.workdir}: {len(training.train_source)} training{segments} and '
                   f'{len(training.validation_source)} validation utterances, {len(mapping.devices)} device(s), from '
                   f'step {steps.number} to {settings.steps}')
    if training.changes:
        logger.message(f'{training.spec.workdir}: the config was changed: {training.changes}')

    def is_due(every):
        return steps.number % every == 0 or steps.number == settings.steps

    validation_loss, stopped = float('nan'), _no_new_best(state, settings)
    # A run that was stopped during a validation was saved without its validation loss.
    must_validate = training.resumed and is_due(settings.eval_every) and not checkpoints.has_validation_loss
    steps.speed.start()
    while not stopped and (must_validate or steps.number < settings.steps):
        if not must_validate:
            state = steps.take(state)
            logger.progress(steps.number)
            must_validate, stopped = is_due(settings.eval_every), stop.reason()
            if must_validate or stopped or is_due(settings.log_every) or is_due(settings.save_every):
                values = steps.fetch()
            if is_due(settings.log_every):
                _log(training, steps, values)
        steps.speed.stop()
        loss = None
        if must_validate and not stop.immediate:
            state, loss = validate(state, steps.number)
        if loss is not None:
            must_validate, validation_loss = False, loss
            stopped = stopped or _no_new_best(state, settings)
        stopped = stopped or (stop.immediate and stop.reason())
        if loss is not None or stopped or is_due(settings.save_every):
            checkpoints.save(state, loss, training.history.record())
        steps.speed.start()
    training.profiler.finish()
    checkpoints.close()
    logger.message(f'{training.spec.workdir}: at step {steps.number}' + (f' ({stopped})' if stopped else ''))
    logger.close()
    return {'step': steps.number, 'validation_loss': validation_loss, 'best_validation_loss': float(state.best),
            'finished': not stop.immediate and (steps.number >= settings.steps
                                                or bool(_no_new_best(state, settings)))}


def _no_new_best(state, settings: TrainConfig) -> str:
    """The reason for early stopping, or ''."""
    stale = settings.early_stop and int(state.stale) >= settings.early_stop
    return f'no new best in {settings.early_stop} validations' if stale else ''


def _log(training: Training, steps: Steps, values: dict[str, float]) -> None:
    """Logs the means of the metrics, and the speed; of the latter, the terminal shows examples per second alone."""
    speed = steps.speed.scalars()
    shown = values | {'examples_per_second': speed['examples_per_second']}
    training.logger.scalars(steps.number, values | speed, '  '.join(f'{k} {v:.4g}' for k, v in shown.items()))
