"""Configs: ConfigDicts with command-line overrides at the edge, frozen dataclasses inside."""

import argparse
import ast
import dataclasses
import json
import math
import os
import typing
from collections.abc import Mapping, Sequence

from jax_diffse import files
from jax_diffse.errors import UserError

T = typing.TypeVar('T')


def load(path: str, overrides: Sequence[str] = ()):
    """Loads `FILE.py` or `FILE.py:VARIANT` and applies overrides.

    Args:
      path: a Python file with `get_config(variant: str)`; what follows the colon is handed to it.
      overrides: like `--config.train.steps=100`.

    Returns:
      A locked ConfigDict.

    Raises:
      UserError: no such file, one that fails, unknown variant, unknown key, or a value of the wrong type.
    """
    from absl import flags
    from ml_collections import config_flags

    path = files.given(path)
    if not os.path.isfile(path.partition(':')[0]):
        raise UserError(f'--config={path}: no such file')
    for override in overrides:
        if not override.startswith('--config.') or '=' not in override:
            raise UserError(f'unknown argument {override!r}, expected --config.KEY=VALUE')
    values, argv = flags.FlagValues(), ['', f'--config={path}', *overrides]
    config_flags.DEFINE_config_file('config', lock_config=True, flag_values=values, sys_argv=argv)
    try:
        values(argv)
        return values['config'].value
    except Exception as error:  # the file is code, which may fail in any way
        raise UserError(f'--config={path}: {_reason(error)}') from error


def _reason(error: Exception) -> str:
    """The message in one line; of an error inside the config file, which holds a traceback, the end of that."""
    if error.args and isinstance(error.args[0], KeyError):  # how ml_collections raises it again
        error = error.args[0]
    text = str(error).strip()
    if isinstance(error, KeyError):  # whose text is a representation
        text = f'unknown key {error.args[0]}'.replace('\n', '. ')
    elif isinstance(error, (SyntaxError, ImportError, NameError)):
        text = f'{type(error).__name__}: {text}'
    if 'Error whilst parsing config file' in text:
        text = text.splitlines()[-1].removeprefix('ValueError: ')
    return ' '.join(text.split())


def stage_config(config, name: str):
    """The config of one stage of a chain: `config` with the changes in `config.stages.NAME`, locked.

    Raises:
      UserError: no such stage, or one that names keys which the config lacks.
    """
    if name not in config.stages:
        raise UserError(f'config.chain: unknown stage {name!r}, expected some of {", ".join(config.stages)}')
    stage = config.copy_and_resolve_references().unlock()
    changes = stage.stages[name]
    del stage.chain, stage.stages
    try:
        stage.lock().update(changes)
    except (KeyError, AttributeError) as error:
        raise UserError(f'config.stages.{name}: {" ".join(str(error.args[0]).split())}') from error
    return stage


def setting(text: str) -> tuple[str, str]:
    """`KEY=VALUE` of a command line -> the two, for `override`.

    Raises:
      argparse.ArgumentTypeError: there is no '='.
    """
    key, separator, value = text.partition('=')
    if not separator:
        raise argparse.ArgumentTypeError(f'expected KEY=VALUE, got {text!r}')
    return key, value


def checkpoint(text: str) -> int | str:
    """'best', 'latest' or a number of a command line, for `runs.load`.

    Raises:
      argparse.ArgumentTypeError: it is none of these.
    """
    if text not in ('best', 'latest') and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected 'best', 'latest' or the number of a step, got {text!r}")
    return int(text) if text.isdecimal() else text


def override(model, changes: Mapping[str, object]) -> None:
    """Sets fields of `config.model`, a ConfigDict; 'network.heads' is the field heads of its network.

    Values may be text, as on a command line: Python literals, except where the field is text itself.

    Raises:
      UserError: a value of another type, or a field of something that has none.
    """
    for key, value in changes.items():
        *path, last = key.split('.')
        try:
            section = model
            for name in path:
                section = section[name]
            section[last] = value if isinstance(section.get(last), str) else _literal(value)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f'config.model.{key}={value!r}: {_reason(error)}') from error


def _literal(value):
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return value


def from_config_dict(cls: type[T], config, name: str) -> T:
    """Builds the frozen dataclass `cls` from a ConfigDict or dict; nested dataclasses and sequences are followed.

    `name` is how the user would address the config, as in 'config.data'.

    Raises:
      UserError: a key that `cls` lacks, a value of another type, or a value that `cls` refuses.
    """
    if not hasattr(config, 'items'):
        raise UserError(f'{name}: expected a section, got {config!r}')
    fields = {field.name: field for field in dataclasses.fields(cls)}
    types = typing.get_type_hints(cls)
    for key in config:
        if key not in fields:
            raise UserError(f'{name}.{key}: unknown key, expected one of {", ".join(fields)}')
    try:
        return cls(**{key: _convert(types[key], value, f'{name}.{key}') for key, value in config.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f'{name}: {error}') from error


def _convert(wanted, value, name):
    if dataclasses.is_dataclass(wanted):
        return from_config_dict(wanted, value, name)
    origin = typing.get_origin(wanted) or wanted
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise UserError(f'{name}: expected a sequence, got {value!r}')
        return tuple(_convert(typing.get_args(wanted)[0], part, name) for part in value)
    if origin is float and type(value) is int:
        value = float(value)
    if type(value) is not origin:
        raise UserError(f'{name}: expected {origin.__name__}, got {value!r}')
    if origin is float and not math.isfinite(value):
        raise UserError(f'{name}: expected a finite number, got {value}')
    return value


def to_json(config) -> str:
    """The config as indented JSON, keys sorted."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)
