"""Checkpoints of a run: what training resumes from, and what evaluation and enhancement load.

`WORKDIR/checkpoints/STEP/` holds four items: `variables`, `ema` (of trained groups, where kept), `optimizer` (all that
only training needs) and `meta` (JSON: resolved config, software versions, sample rate). Orbax writes each step under a
temporary name and renames it, so a step that is there is whole.
"""

import dataclasses
import hashlib
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import absl.logging
import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jax_diffse import systems
from jax_diffse.config import override
from jax_diffse.errors import UserError
from jax_diffse.systems.base import System, Variables, shapes

absl.logging.set_verbosity(absl.logging.ERROR)  # Orbax warns of options that are chosen on purpose

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
    return pathlib.Path(workdir).absolute() / 'checkpoints'


class Checkpoints:
    """Writes and restores the checkpoints of one run; keeps the latest and the best by validation loss."""

    def __init__(self, workdir, config: ml_collections.ConfigDict, sample_rate: int):
        self._meta = {'format': FORMAT, 'config': config.to_dict(), 'versions': versions(), 'sample_rate': sample_rate}
        keep = preservation_policy.AnyPreservationPolicy([
            preservation_policy.LatestN(1),
            # Orbax keeps the highest; a checkpoint without a validation loss is only ever the latest.
            preservation_policy.BestN(get_metric_fn=lambda metrics: metrics['validation_loss'], reverse=True, n=1,
                                      keep_checkpoints_without_metrics=False)])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep, best_fn=lambda metrics: metrics['validation_loss'], best_mode='min',
            cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(_directory(workdir), options=options)

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, state, validation_loss: float | None = None) -> None:
        """Starts writing a `TrainState`, in the background; does nothing where its step is saved already."""
        step = int(state.step)
        if step == self.latest_step:
            return
        items = {'variables': ocp.args.StandardSave(state.variables), 'meta': ocp.args.JsonSave(self._meta),
                 'optimizer': ocp.args.StandardSave(_optimizer_item(state))}
        if state.ema:
            items['ema'] = ocp.args.StandardSave(state.ema)
        metrics = None if validation_loss is None else {'validation_loss': validation_loss}
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def restore(self, state):
        """The latest `TrainState`, in the structure and on the devices of `state`."""
        items = {'variables': ocp.args.StandardRestore(state.variables),
                 'optimizer': ocp.args.StandardRestore(_optimizer_item(state))}
        if state.ema:
            items['ema'] = ocp.args.StandardRestore(state.ema)
        restored = self._manager.restore(self.latest_step, args=ocp.args.Composite(**items))
        return state.replace(**restored['variables'], **restored['optimizer'],
                             ema=restored['ema'] if state.ema else state.ema)

    def config(self) -> dict[str, Any]:
        """The config that the latest checkpoint was made with."""
        restored = self._manager.restore(self.latest_step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))
        return restored['meta']['config']

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _optimizer_item(state):
    return {name: getattr(state, name) for name in ('step', 'opt_state', 'plateau', 'best', 'stale')}


def save_run(workdir, config: ml_collections.ConfigDict, variables: Variables, step: int = 0) -> None:
    """Writes variables that were not trained here as a run that `load` accepts.

    Raises:
      UserError: `workdir` holds checkpoints already, or cannot be made.
    """
    system = systems.build(config.system, config.model)
    try:
        _directory(workdir).mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(f'{workdir}: holds checkpoints already, choose another --workdir') from error
    except OSError as error:
        raise UserError(f'{workdir}: cannot be made a folder for the run ({error.strerror})') from error
    meta = {'format': FORMAT, 'config': config.to_dict(), 'versions': versions(), 'sample_rate': system.sample_rate}
    with ocp.CheckpointManager(_directory(workdir)) as manager:
        manager.save(step, args=ocp.args.Composite(
            variables=ocp.args.StandardSave(variables), meta=ocp.args.JsonSave(meta)))


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
    options = ocp.CheckpointManagerOptions(best_fn=lambda metrics: metrics['validation_loss'], best_mode='min',
                                           read_only=True)
    with ocp.CheckpointManager(directory, options=options) as manager:
        number = _choose(manager, step, workdir)
        meta = _restore_meta(manager, number, workdir)
        config = ml_collections.ConfigDict(meta['config'])
        override(config.model, model or {})
        system = systems.build(config.system, config.model)
        variables = _restore_variables(manager, number, system, workdir)
    return Run(system, variables, config.lock(), number, _hash(variables), pathlib.Path(workdir))


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


def _choose(manager, step, workdir) -> int:
    steps = manager.all_steps()
    if not steps:
        raise UserError(f'{workdir}: holds no finished checkpoint')
    if step == 'latest':
        return manager.latest_step()
    if step == 'best':
        best = manager.best_step()
        return manager.latest_step() if best is None else best
    if step not in steps:
        raise UserError(f'{workdir}: no checkpoint of step {step}, there are {", ".join(map(str, sorted(steps)))}')
    return step


def _restore_meta(manager, step, workdir) -> dict[str, Any]:
    try:
        meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))['meta']
        newer, system, _ = meta['format'] > FORMAT, meta['config']['system'], meta['config']['model']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{workdir}: the meta of its checkpoint of step {step} is missing or damaged '
                        f'({type(error).__name__}: {error}); try another step, or train or convert again') from error
    if newer:
        raise UserError(f'{workdir}: written by a newer jax_diffse (format {meta["format"]}, this one reads {FORMAT}); '
                        'upgrade jax_diffse')
    if system not in systems.SYSTEMS:
        raise UserError(f'{workdir}: a run of the system {system!r}, which this jax_diffse does not have')
    return meta


def _restore_variables(manager, step, system, workdir) -> Variables:
    # Onto one local device, whatever the number of devices it was trained on.
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes(system))
    args = {'variables': ocp.args.StandardRestore(abstract)}
    if (manager.directory / str(step) / 'ema').exists():
        args['ema'] = ocp.args.StandardRestore({group: abstract['params'][group] for group in system.losses})
    try:
        restored = manager.restore(step, args=ocp.args.Composite(**args))
    except (ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(':')
        raise UserError(f'{workdir}: the checkpoint of step {step} does not fit its config ({reason}); another version '
                        'of jax_diffse may have written it: use that one, or train or convert again') from error
    except OSError as error:
        raise UserError(f'{workdir}: the checkpoint of step {step} is damaged, or training replaced it just now: try '
                        f'again, or another step ({error})') from error
    variables = dict(restored['variables'])
    return {**variables, 'params': {**variables['params'], **restored['ema']}} if 'ema' in args else variables


def _hash(variables) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
