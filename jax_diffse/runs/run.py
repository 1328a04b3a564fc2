"""Loads, changes and saves trained runs."""

import dataclasses
import hashlib
import logging
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from jax_diffse import files, pretrained, systems
from jax_diffse.config import override
from jax_diffse.errors import UserError
from jax_diffse.runs import checksums, layout
from jax_diffse.systems.base import Invertible, System, Variables, shapes

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained system with its variables and config."""

    system: System
    variables: Variables  # with averaged weights, if the run has them
    config: ml_collections.ConfigDict
    step: int
    hash: str  # hexadecimal SHA-256 of the variables
    workdir: pathlib.Path
    history: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the training, see `runs.history.History`


def save(workdir: str | os.PathLike, config: ml_collections.ConfigDict, variables: Variables, step: int = 0) -> None:
    """Writes variables from elsewhere, such as converted ones, as a run that `load` accepts.

    Raises:
      UserError: `workdir` holds checkpoints already, or cannot be created.
    """
    system = systems.build(config.system, config.model)
    if layout.steps(layout.directory(workdir)):
        raise UserError(f'{workdir}: holds checkpoints already, choose another --workdir')
    try:
        layout.directory(workdir).mkdir(parents=True, exist_ok=True)  # an interrupted call may have created it
    except OSError as error:
        raise UserError(f'{workdir}: cannot create the folder of the run ({files.reason(error)})') from error
    options = ocp.CheckpointManagerOptions(cleanup_tmp_directories=True)
    meta = layout.new_meta(config, system.sample_rate, {})
    with ocp.CheckpointManager(layout.directory(workdir), options=options) as manager:
        manager.save(step, args=ocp.args.Composite(
            variables=ocp.args.StandardSave(variables), meta=ocp.args.JsonSave(meta)))
    checksums.write(layout.directory(workdir) / str(step))


def load(workdir: str | os.PathLike, *, step: int | str = 'best', model: Mapping[str, Any] | None = None) -> Run:
    """Loads a run from its folder.

    Args:
      workdir: the folder that training or conversion wrote, or the name of the packaged enhancer, `pretrained.NAME`.
      step: 'best' (lowest validation loss; the latest checkpoint if none was validated), 'latest' or a number.
      model: fields of config.model to override, such as those of the sampler.

    Raises:
      UserError: no such run or step, or a checkpoint that this version cannot read.
    """
    if pretrained.is_packaged(workdir):
        return _load_packaged(workdir, step, model or {})
    directory = layout.directory(workdir)
    if not files.is_folder(directory):
        raise UserError(f'{workdir}: not a run (it has no checkpoints folder); train and convert create runs')
    candidates = _candidates(directory, step, workdir)
    for number in candidates:
        reason = checksums.damage(directory / str(number))
        if not reason:
            break
        if number == candidates[-1]:
            raise UserError(f'{workdir}: the checkpoint of step {number} is damaged, or training replaced it just now; '
                            f'try again, or another step ({reason})')
        log.warning('%s: the checkpoint of step %d is damaged (%s); using another one', workdir, number, reason)
    try:
        return _load(directory / str(number), workdir, model or {})
    except UserError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many kinds if there are no checksums
        raise layout.does_not_fit(workdir, number, error) from error


def history_of(workdir: str | os.PathLike) -> dict[str, Any]:
    """The record of a run's training, see `runs.history.History`; {} if it has none.

    Raises:
      UserError: no such run.
    """
    if pretrained.is_packaged(workdir):
        return dict(pretrained.read(workdir)[0]['history'])
    directory = layout.directory(workdir)
    meta = layout.meta(directory / str(_candidates(directory, 'best', workdir)[0]), workdir)
    return dict(meta['history'])


def _load(path: pathlib.Path, workdir: str | os.PathLike, model: Mapping[str, Any]) -> Run:
    return _built(layout.meta(path, workdir), lambda system: _restore_variables(path, system), int(path.name), workdir,
                  model)


def _load_packaged(name: str | os.PathLike, step: int | str, model: Mapping[str, Any]) -> Run:
    meta, variables = pretrained.read(name)
    if step not in ('best', 'latest', meta['step']):
        raise UserError(f'{name}: no checkpoint of step {step}; available: {meta["step"]}')

    def restore(system: System) -> Variables:
        try:
            _check_shapes(_named_shapes(variables), _named_shapes(shapes(system)))
        except ValueError as error:
            raise layout.does_not_fit(name, meta['step'], error) from error
        placed: Variables = jax.device_put(variables, jax.local_devices()[0])
        return placed

    return _built(meta, restore, meta['step'], name, model)


def _built(meta: Mapping[str, Any], restore: Callable[[System], Variables], step: int, workdir: str | os.PathLike,
           model: Mapping[str, Any]) -> Run:
    config = ml_collections.ConfigDict(meta['config'])
    override(config.model, model)
    system = systems.build(config.system, config.model)
    variables, history = restore(system), meta['history']
    if history.get('inverted') and isinstance(system, Invertible):
        variables, history = system.negated(variables), {**history, 'inverted': False}
    return Run(system, variables, config.lock(), step, _hash(variables), files.path(workdir), history)


def with_model(run: Run, model: Mapping[str, Any]) -> Run:
    """Returns the run with changed fields of config.model, such as those of its sampler; dotted keys as in `override`.

    Raises:
      UserError: a field that the system lacks, a value that it refuses, or one that the trained weights do not fit.
    """
    config = ml_collections.ConfigDict(run.config.to_dict())
    override(config.model, model)
    system = systems.build(config.system, config.model)
    if shapes(system) != shapes(run.system):
        raise UserError(f'{run.workdir}: {", ".join(model)}: does not fit the trained weights; change keys of the '
                        'sampler, or use another run')
    return dataclasses.replace(run, system=system, config=config.lock())


def _candidates(directory: pathlib.Path, step: int | str, workdir: str | os.PathLike) -> list[int]:
    """The requested step, followed by substitutes in case it is damaged."""
    steps: list[int] = layout.steps(directory)
    if not steps:
        raise UserError(f'{workdir}: holds no finished checkpoint')
    if step == 'latest':
        return steps
    if step == 'best':
        return sorted(steps, key=lambda number: (layout.validation_loss(directory / str(number)), -number))
    if step not in steps:
        raise UserError(f'{workdir}: no checkpoint of step {step}; available: {", ".join(map(str, sorted(steps)))}')
    return [step]


def _restore_variables(path: pathlib.Path, system: System) -> Variables:
    # On one local device, independent of the devices of the training.
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes(system))
    with ocp.StandardCheckpointer(multiprocessing_options=layout.this_process_only()) as checkpointer:
        variables: dict[str, Any] = _restore_arrays(checkpointer, path / 'variables', abstract)
        if (path / 'ema').exists():
            averaged = {group: abstract['params'][group] for group in system.losses}
            variables['params'] = {**variables['params'], **_restore_arrays(checkpointer, path / 'ema', averaged)}
    return variables


def _restore_arrays(checkpointer: ocp.StandardCheckpointer, path: pathlib.Path, abstract: Any) -> Any:
    """Restores arrays with the shapes of `abstract`; a ValueError names one that differs (Orbax's fills pages)."""
    _check_shapes(_named_shapes(checkpointer.metadata(path).item_metadata.tree), _named_shapes(abstract))
    return checkpointer.restore(path, abstract)


def _check_shapes(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    if found != wanted:
        name = min(set(found.items()) ^ set(wanted.items()))[0]
        raise ValueError(f'{name} is {found.get(name, "missing")}, expected {wanted.get(name, "none")}')


def _named_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, 'shape'))}


def _hash(variables: Variables) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
