"""Writes the checkpoints of a training and restores them on resumption; see `runs/layout.py` for the files."""

import contextlib
import logging
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jax_diffse import files
from jax_diffse.errors import NoRoomError, UserError
from jax_diffse.runs import checksums, layout
from jax_diffse.training.vector import to_trees, to_vectors

log = logging.getLogger(__name__)


class Checkpoints:
    """Writes and restores the checkpoints of one run; keeps the latest two and the best by validation loss.

    Damaged checkpoints are moved to `WORKDIR/damaged`, with a warning.

    Raises:
      UserError: all checkpoints are damaged.
    """

    def __init__(self, workdir, config: ml_collections.ConfigDict, sample_rate: int):
        self._config, self._sample_rate = config, sample_rate
        self._workdir, self._saving = files.path(workdir), None
        self._unraisablehook, sys.unraisablehook = sys.unraisablehook, _pass_over_late_callbacks(sys.unraisablehook)
        if jax.process_index() == 0:
            _set_damaged_aside(self._workdir)
            layout.mark_copies(layout.directory(workdir))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices('checkpoints')
        keep = preservation_policy.AnyPreservationPolicy([
            preservation_policy.LatestN(2),
            # Orbax keeps the highest, hence `reverse`. Without a validation loss, only the latest checkpoints are kept.
            preservation_policy.BestN(get_metric_fn=lambda metrics: metrics['validation_loss'], reverse=True, n=1,
                                      keep_checkpoints_without_metrics=False)])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep, best_fn=lambda metrics: metrics['validation_loss'], best_mode='min',
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._finished))
        self._manager = ocp.CheckpointManager(layout.directory(workdir), options=options)

    @property
    def latest_step(self) -> int | None:
        """The step of the latest checkpoint, including one that is being written."""
        return self._manager.latest_step()

    @property
    def has_validation_loss(self) -> bool:
        """Whether the latest checkpoint has a validation loss."""
        return self._manager.metrics(self.latest_step) is not None

    def save(self, state, validation_loss: float | None = None, history: Mapping[str, Any] | None = None) -> None:
        """Starts writing a `TrainState` and the record of the training, in the background.

        An existing checkpoint of the same step is replaced only if there is a validation loss now.

        Raises:
          NoRoomError: this checkpoint or the previous one cannot be written.
        """
        step, state = int(state.step), jax.jit(to_trees)(state)
        meta = layout.new_meta(self._config, self._sample_rate, history or {})
        items = {'variables': ocp.args.StandardSave(state.variables), 'meta': ocp.args.JsonSave(meta),
                 'optimizer': ocp.args.StandardSave(_optimizer_item(state))}
        if state.ema:
            items['ema'] = ocp.args.StandardSave(state.ema)
        metrics = None if validation_loss is None else {'validation_loss': validation_loss}
        with self._writing():
            if step == self.latest_step:
                if metrics is None:
                    return
                self._manager.delete(step)
            self._manager.wait_until_finished()
            self._saving = step
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def restore(self, state):
        """Restores the latest `TrainState`, with the structure and devices of `state`.

        Raises:
          UserError: its structure differs.
        """
        trees = to_trees(state)
        items = {'variables': ocp.args.StandardRestore(trees.variables),
                 'optimizer': ocp.args.StandardRestore(_optimizer_item(trees))}
        if state.ema:
            items['ema'] = ocp.args.StandardRestore(trees.ema)
        try:
            restored = self._manager.restore(self.latest_step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError) as error:
            raise layout.does_not_fit(self._workdir, self.latest_step, error) from error
        found = state.replace(**restored['variables'], **restored['optimizer'],
                              ema=restored['ema'] if state.ema else state.ema)
        return to_vectors(found, state)

    def meta(self) -> dict[str, Any]:
        """The metadata of the latest checkpoint, with 'config' and the 'history' of the training."""
        return layout.meta(layout.directory(self._workdir) / str(self.latest_step), self._workdir)

    def close(self) -> None:
        """Waits until everything is on disk.

        Raises:
          NoRoomError: the last checkpoint cannot be written.
        """
        with self._writing():
            self._manager.close()
        sys.unraisablehook = self._unraisablehook

    def _finished(self) -> None:
        """Adds the checksums; Orbax calls this after writing all items, before it marks the checkpoint as complete."""
        if jax.process_index() == 0:
            directory = layout.directory(self._workdir)
            if files.is_address(directory):
                checksums.write(directory / str(self._saving))
            else:
                written, = directory.glob(f'{self._saving}.*')  # is renamed later
                checksums.write(written)

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except (ValueError, OSError) as error:
            raise NoRoomError(f'{self._workdir}: the checkpoint of step {self._saving} cannot be written '
                              f'({layout.reason(error)}); {self._kept()}, rerun the command to resume') from error

    def _kept(self) -> str:
        try:
            kept = layout.steps(layout.directory(self._workdir))
        except OSError:  # the store cannot be reached
            return 'earlier ones are kept'
        return f'that of step {kept[0]} is kept' if kept else 'there is no earlier one'


def _set_damaged_aside(workdir: pathlib.Path) -> None:
    directory = layout.directory(workdir)
    steps = layout.steps(directory)
    damaged = {step: reason for step in steps if (reason := checksums.damage(directory / str(step)))}
    if damaged and len(damaged) == len(steps):
        raise UserError(f'{workdir}: none of its checkpoints can be read (step {steps[0]}: {damaged[steps[0]]}); '
                        'restore one from a copy, or start again in another --workdir')
    for step, reason in damaged.items():
        aside = workdir / 'damaged' / f'{step}-{time.time_ns()}'
        aside.parent.mkdir(exist_ok=True)
        files.move_folder(directory / str(step), aside)
        log.warning('%s: the checkpoint of step %d is damaged (%s) and was moved to %s; using another one', workdir,
                    step, reason, aside)


def _pass_over_late_callbacks(previous):
    """A `sys.unraisablehook` that drops TensorStore's tracebacks of writes that continue after a failed one."""
    def hook(unraisable):
        if not (isinstance(unraisable.exc_value, RuntimeError) and 'Event loop' in str(unraisable.exc_value)):
            previous(unraisable)

    return hook


def _optimizer_item(state):
    return {name: getattr(state, name) for name in ('step', 'opt_state', 'plateau', 'best', 'stale')}


