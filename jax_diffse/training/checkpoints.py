"""Checkpoints of a run: what training resumes from, and what evaluation and enhancement load.

`WORKDIR/checkpoints/STEP/` holds four items: `variables`, `ema` (of trained groups, where kept), `optimizer` (all that
only training needs) and `meta` (JSON: resolved config, software versions, sample rate). Orbax writes each step under a
temporary name and renames it, so a step that is there was whole. A file of checksums tells whether it still is; if not,
the one before is used.
"""

import contextlib
import dataclasses
import hashlib
import logging
import math
import os
import pathlib
import platform
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

import absl.logging
import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jax_diffse import files, systems
from jax_diffse.config import override
from jax_diffse.errors import NoRoomError, UserError
from jax_diffse.systems.base import System, Variables, shapes
from jax_diffse.training import checksums

absl.logging.set_verbosity(absl.logging.FATAL)  # of errors, Orbax logs pages besides raising them
log = logging.getLogger(__name__)

FORMAT = 1  # of this layout; raised when it changes


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained enhancer."""

    system: System
    variables: Variables  # averaged weights where the run kept them
    config: ml_collections.ConfigDict
    step: int
    hash: str  # hexadecimal SHA-256 of the variables
    workdir: pathlib.Path
    history: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of its training, see `history.History`


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a result."""
    from importlib import metadata

    names = ('jax_diffse', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
    found = {'python': platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a clone that was not installed
            found[name] = 'not installed'
    return found


def _directory(workdir) -> pathlib.Path:
    return pathlib.Path(files.given(workdir)).absolute() / 'checkpoints'


class Checkpoints:
    """Writes and restores the checkpoints of one run; keeps the latest two and the best by validation loss.

    Damaged ones are moved to `WORKDIR/damaged`, with a warning.

    Raises:
      UserError: there are checkpoints, but none can be read.
    """

    def __init__(self, workdir, config: ml_collections.ConfigDict, sample_rate: int):
        self._meta = {'format': FORMAT, 'config': config.to_dict(), 'versions': versions(), 'sample_rate': sample_rate}
        self._workdir, self._saving = pathlib.Path(workdir), None
        self._unraisablehook, sys.unraisablehook = sys.unraisablehook, _pass_over_late_callbacks(sys.unraisablehook)
        if jax.process_index() == 0:
            _set_damaged_aside(self._workdir)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices('checkpoints')
        keep = preservation_policy.AnyPreservationPolicy([
            preservation_policy.LatestN(2),
            # Orbax keeps the highest; a checkpoint without a validation loss is only ever the latest.
            preservation_policy.BestN(get_metric_fn=lambda metrics: metrics['validation_loss'], reverse=True, n=1,
                                      keep_checkpoints_without_metrics=False)])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep, best_fn=lambda metrics: metrics['validation_loss'], best_mode='min',
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._finished))
        self._manager = ocp.CheckpointManager(_directory(workdir), options=options)

    @property
    def latest_step(self) -> int | None:
        """The step of the latest checkpoint, one that is being written included."""
        return self._manager.latest_step()

    @property
    def has_validation_loss(self) -> bool:
        """Whether the latest checkpoint was saved with one."""
        return self._manager.metrics(self.latest_step) is not None

    def save(self, state, validation_loss: float | None = None, history: Mapping[str, Any] | None = None) -> None:
        """Starts writing a `TrainState`, and the record of the training, in the background.

        Where its step is saved already, it is replaced if only now there is a validation loss.

        Raises:
          NoRoomError: this one, or the one before, cannot be written.
        """
        step = int(state.step)
        meta = {**self._meta, 'history': dict(history or {})}
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
        """The latest `TrainState`, in the structure and on the devices of `state`.

        Raises:
          UserError: it is of another structure.
        """
        items = {'variables': ocp.args.StandardRestore(state.variables),
                 'optimizer': ocp.args.StandardRestore(_optimizer_item(state))}
        if state.ema:
            items['ema'] = ocp.args.StandardRestore(state.ema)
        try:
            restored = self._manager.restore(self.latest_step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError) as error:
            raise _does_not_fit(self._workdir, self.latest_step, error) from error
        return state.replace(**restored['variables'], **restored['optimizer'],
                             ema=restored['ema'] if state.ema else state.ema)

    def meta(self) -> dict[str, Any]:
        """What the latest checkpoint says of itself: 'config', and 'history' of the training."""
        return {'history': {}, **_json(_directory(self._workdir) / str(self.latest_step), 'meta')}

    def close(self) -> None:
        """Returns when everything is on disk.

        Raises:
          NoRoomError: the last one cannot be written.
        """
        with self._writing():
            self._manager.close()
        sys.unraisablehook = self._unraisablehook

    def _finished(self) -> None:
        """Orbax calls it when all is written, before it gives the folder its name."""
        if jax.process_index() == 0:
            written, = _directory(self._workdir).glob(f'{self._saving}.*')
            checksums.write(written)

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except (ValueError, OSError) as error:
            kept = _steps(_directory(self._workdir))
            last = f'that of step {kept[0]} is kept' if kept else 'there is no earlier one'
            raise NoRoomError(f'{self._workdir}: the checkpoint of step {self._saving} cannot be written '
                              f'({_reason(error)}); {last}, the same command continues') from error


def _set_damaged_aside(workdir: pathlib.Path) -> None:
    directory = _directory(workdir)
    steps = _steps(directory)
    damaged = {step: reason for step in steps if (reason := checksums.damage(directory / str(step)))}
    if damaged and len(damaged) == len(steps):
        raise UserError(f'{workdir}: none of its checkpoints can be read (step {steps[0]}: {damaged[steps[0]]}); put '
                        'one back from a copy, or start again in another --workdir')
    for step, reason in damaged.items():
        aside = workdir / 'damaged' / f'{step}-{time.time_ns()}'
        aside.parent.mkdir(exist_ok=True)
        os.rename(directory / str(step), aside)
        log.warning('%s: the checkpoint of step %d is damaged (%s) and was moved to %s; another one is used', workdir,
                    step, reason, aside)


def _steps(directory: pathlib.Path) -> list[int]:
    """The finished steps, the latest first."""
    found = directory.glob('*') if directory.is_dir() else ()
    return sorted((int(path.name) for path in found if path.name.isdecimal() and
                   ocp.utils.is_checkpoint_finalized(path)), reverse=True)


def _json(path: pathlib.Path, item: str) -> dict[str, Any]:
    """The item 'meta' or 'metrics' of a checkpoint."""
    handler = ocp.JsonCheckpointHandler(item if item == 'metrics' else None, multiprocessing_options=_alone())
    with ocp.Checkpointer(handler, multiprocessing_options=_alone()) as checkpointer:
        return checkpointer.restore(path / item)


def _alone() -> ocp.options.MultiprocessingOptions:
    """For reading in one process, whatever the others do."""
    this = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=this, active_processes={this},
                                              barrier_sync_key_prefix=f'process_{this}')


def _reason(error: Exception) -> str:
    """The first line of an error; of TensorStore's, which quote one another, what the system said."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(':')
    cause, *codes = re.split(r' \[(?:os_error_code|tensorstore_spec)=', line)
    return cause.rpartition(': ')[2] if codes else line


def _pass_over_late_callbacks(previous):
    """A `sys.unraisablehook`: of writes that go on after one has failed, TensorStore prints a traceback each."""
    def hook(unraisable):
        if not (isinstance(unraisable.exc_value, RuntimeError) and 'Event loop' in str(unraisable.exc_value)):
            previous(unraisable)

    return hook


def _does_not_fit(workdir, step, error) -> UserError:
    return UserError(f'{workdir}: the checkpoint of step {step} does not fit its config ({_reason(error)}); another '
                     'version of jax_diffse may have written it: use that one, or train or convert again')


def _optimizer_item(state):
    return {name: getattr(state, name) for name in ('step', 'opt_state', 'plateau', 'best', 'stale')}


def save_run(workdir, config: ml_collections.ConfigDict, variables: Variables, step: int = 0) -> None:
    """Writes variables that were not trained here as a run that `load` accepts.

    Raises:
      UserError: `workdir` holds checkpoints already, or cannot be made.
    """
    system = systems.build(config.system, config.model)
    if _steps(_directory(workdir)):
        raise UserError(f'{workdir}: holds checkpoints already, choose another --workdir')
    try:
        _directory(workdir).mkdir(parents=True, exist_ok=True)  # it is there where an earlier call was cut off
    except OSError as error:
        raise UserError(f'{workdir}: cannot be made a folder for the run ({error.strerror})') from error
    meta = {'format': FORMAT, 'config': config.to_dict(), 'versions': versions(), 'sample_rate': system.sample_rate}
    options = ocp.CheckpointManagerOptions(cleanup_tmp_directories=True)
    with ocp.CheckpointManager(_directory(workdir), options=options) as manager:
        manager.save(step, args=ocp.args.Composite(
            variables=ocp.args.StandardSave(variables), meta=ocp.args.JsonSave(meta)))
    checksums.write(_directory(workdir) / str(step))


def load(workdir, *, step: int | str = 'best', model: Mapping[str, Any] | None = None) -> Run:
    """Loads an enhancer from a run; nothing but the workdir is needed.

    Args:
      workdir: what training or conversion wrote.
      step: 'best' (lowest validation loss; the latest where none was validated), 'latest' or a number.
      model: fields of config.model to use in place of the run's own, of the sampler, say.

    Raises:
      UserError: no such run or step, or a checkpoint that this version cannot read.
    """
    directory = _directory(workdir)
    if not directory.is_dir():
        raise UserError(f'{workdir}: not a run (it has no checkpoints folder); train.py and convert make runs')
    candidates = _candidates(directory, step, workdir)
    for number in candidates:
        reason = checksums.damage(directory / str(number))
        if not reason:
            break
        if number == candidates[-1]:
            raise UserError(f'{workdir}: the checkpoint of step {number} is damaged, or training replaced it just now: '
                            f'try again, or another step ({reason})')
        log.warning('%s: the checkpoint of step %d is damaged (%s); another one is used', workdir, number, reason)
    try:
        return _load(directory / str(number), workdir, model or {})
    except UserError:
        raise
    except Exception as error:  # without checksums, Orbax and TensorStore stumble over damage in any way
        raise _does_not_fit(workdir, number, error) from error


def history_of(workdir) -> dict[str, Any]:
    """The record of the training of a run, see `history.History`; {} where it has none.

    Raises:
      UserError: no such run.
    """
    directory = _directory(workdir)
    return _meta(directory / str(_candidates(directory, 'best', workdir)[0]), workdir).get('history', {})


def _load(path: pathlib.Path, workdir, model) -> Run:
    meta = _meta(path, workdir)
    config = ml_collections.ConfigDict(meta['config'])
    override(config.model, model)
    system = systems.build(config.system, config.model)
    variables = _restore_variables(path, system)
    return Run(system, variables, config.lock(), int(path.name), _hash(variables), pathlib.Path(files.given(workdir)),
               meta.get('history', {}))


def altered(run: Run, model: Mapping[str, Any]) -> Run:
    """The run with other fields of config.model, of its sampler, say; dotted keys as in `override`.

    Raises:
      UserError: a field that the system lacks, a value that it refuses, or one that its trained weights do not fit.
    """
    config = ml_collections.ConfigDict(run.config.to_dict())
    override(config.model, model)
    system = systems.build(config.system, config.model)
    if shapes(system) != shapes(run.system):
        raise UserError(f'{run.workdir}: {", ".join(model)}: changes the network, whose weights are trained; expected '
                        'a key of its sampler, or another run')
    return dataclasses.replace(run, system=system, config=config.lock())


def _candidates(directory: pathlib.Path, step: int | str, workdir) -> list[int]:
    """The step that is asked for, and those that take its place where it cannot be read."""
    steps = _steps(directory)
    if not steps:
        raise UserError(f'{workdir}: holds no finished checkpoint')
    if step == 'latest':
        return steps
    if step == 'best':
        return sorted(steps, key=lambda number: (_validation_loss(directory / str(number)), -number))
    if step not in steps:
        raise UserError(f'{workdir}: no checkpoint of step {step}, there are {", ".join(map(str, sorted(steps)))}')
    return [step]


def _meta(path: pathlib.Path, workdir) -> dict[str, Any]:
    try:
        meta = _json(path, 'meta')
        newer, system, _ = meta['format'] > FORMAT, meta['config']['system'], meta['config']['model']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{workdir}: the meta of its checkpoint of step {path.name} is missing or damaged '
                        f'({type(error).__name__}: {error}); try another step, or train or convert again') from error
    if newer:
        raise UserError(f'{workdir}: written by a newer jax_diffse (format {meta["format"]}, this one reads {FORMAT}); '
                        'upgrade jax_diffse')
    if system not in systems.SYSTEMS:
        raise UserError(f'{workdir}: a run of the system {system!r}, which this jax_diffse does not have')
    return meta


def _validation_loss(path: pathlib.Path) -> float:
    """Infinite where there is none."""
    try:
        return _json(path, 'metrics')['validation_loss']
    except (ValueError, KeyError, TypeError, OSError):
        return math.inf


def _restore_variables(path: pathlib.Path, system: System) -> Variables:
    # Onto one local device, whatever the number of devices it was trained on.
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes(system))
    with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        variables = _restore_arrays(checkpointer, path / 'variables', abstract)
        if (path / 'ema').exists():
            averaged = {group: abstract['params'][group] for group in system.losses}
            variables['params'] = {**variables['params'], **_restore_arrays(checkpointer, path / 'ema', averaged)}
    return variables


def _restore_arrays(checkpointer, path: pathlib.Path, abstract):
    """Arrays that have the shapes of `abstract`; a ValueError says which do not (Orbax would add pages to it)."""
    found = _named_shapes(checkpointer.metadata(path).item_metadata.tree)
    wanted = _named_shapes(abstract)
    if found != wanted:
        name = min(set(found.items()) ^ set(wanted.items()))[0]
        raise ValueError(f'{name} is {found.get(name, "missing")}, expected {wanted.get(name, "none")}')
    return checkpointer.restore(path, abstract)


def _named_shapes(tree) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, 'shape'))}


def _hash(variables) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
