"""Converts checkpoints and writes them as a run or as the weights of a metric."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jax_diffse import conversion, runs, systems
from jax_diffse.config import override
from jax_diffse.conversion import ncsnpp, nisqa
from jax_diffse.errors import UserError
from jax_diffse.metrics import nisqa as metric
from jax_diffse.systems.continuous import GROUP

NISQA_LICENCE = metric.LICENCE


def to_run(paths: Mapping[str, str | os.PathLike], workdir: str | os.PathLike,
           model: Mapping[str, Any] | None = None, *, raw: bool = False) -> None:
    """Converts the networks of a system and writes them as a run.

    Args:
      paths: kind (a key of `conversion.KINDS` or `ncsnpp.KINDS`) -> the authors' file.
      workdir: folder of the run to write.
      model: fields of config.model that the weights do not determine.
      raw: of a kind in `ncsnpp.KINDS`: the trained weights instead of their moving averages.

    Raises:
      UserError: a file that cannot be read or converted, kinds that do not form a system, or a workdir that holds a
        run already.
    """
    if len(paths) == 1 and next(iter(paths)) in ncsnpp.KINDS:
        (kind, path), = paths.items()
        system, fields, variables = _from_lightning(kind, path, raw)
    elif raw:
        raise UserError(f'--raw: expected one file of {" or ".join(ncsnpp.KINDS)}, which have averaged weights')
    else:
        system, fields, variables = _from_weights(paths)
    config = ConfigDict({'system': system, 'model': dataclasses.asdict(systems.build(system, fields))})
    override(config.model, model or {})
    systems.build(system, config.model)  # checks the overridden values
    runs.save(workdir, config, variables)


def _from_weights(paths):
    """The system that the files form, its fields, and its variables."""
    for kind in paths:
        if kind in ncsnpp.KINDS:
            raise UserError(f'{kind}: a whole system, to be converted alone')
    weights = {kind: conversion.read(kind, path) for kind, path in paths.items()}
    system, fields = conversion.describe(weights)
    variables: dict = {'params': {}, 'batch_stats': {}}
    for kind, path in paths.items():
        try:
            converted = conversion.from_weights(kind, weights[kind])
        except UserError as error:
            raise UserError(f'{path}: {error}') from error
        for collection, groups in converted.items():
            variables[collection].update(groups)
    return system, fields, variables


def _from_lightning(kind, path, raw):
    """The system of a checkpoint that has hyper-parameters, its fields, and its variables."""
    found, hyper_parameters = ncsnpp.load(path, 'raw' if raw else 'ema')
    try:
        fields = ncsnpp.fields(kind, hyper_parameters)
        systems.build(kind, fields)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    return kind, fields, {'params': {GROUP: found['params']}, 'batch_stats': {}}


def to_cache(paths: Sequence[str | os.PathLike]) -> Iterator[tuple[str | os.PathLike, str, pathlib.Path]]:
    """Converts released files of NISQA into the cache folder; yields the file, model and written file of each.

    Raises:
      UserError: a file that cannot be read, or that is not one of the released files.
    """
    for path, model in [(path, nisqa.identify(path)) for path in paths]:
        yield path, model, metric.save(model, nisqa.variables(model, conversion.read_state_dict(path)))
