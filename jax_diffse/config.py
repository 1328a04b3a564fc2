"""Configs: ConfigDicts with command-line overrides at the interface, frozen dataclasses inside."""

import argparse
import ast
import dataclasses
import json
import math
import os
import pathlib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jax_diffse import files
from jax_diffse.errors import UserError

T = typing.TypeVar('T')
RENAMED = {  # earlier name of a config -> its new name
    'compact_diffiner_short': 'compact_diffiner:folders,short', 'dccrn_short': 'dccrn:folders,small,short',
    'diffgmm_birds': 'diffgmm:birds', 'diffgmm_short': 'diffgmm:folders,small,short',
    'diffiner_small': 'diffiner:folders,small,short', 'dr_diffuse_c_gen': 'dr_diffuse:c_gen',
    'dr_diffuse_c_gen_short': 'dr_diffuse:c_gen,folders,short', 'dr_diffuse_diffuse': 'dr_diffuse:diffusion',
    'dr_diffuse_diffusec': 'dr_diffuse:diffusion,diffusec', 'dr_diffuse_refiner': 'dr_diffuse:refiner',
    'dr_diffuse_short': 'dr_diffuse:folders,short', 'segan_short': 'segan:folders,short',
}


class Listed(NamedTuple):
    """The description of a config."""

    name: str
    title: str  # the first line of its docstring
    variants: dict[str, dict[str, str]]  # group -> name -> description
    defaults: dict[str, str]  # group -> default name


def available() -> list[Listed]:
    """Lists the configs that `load` knows by name, sorted by name."""
    found = []
    for path in _named().values():
        module = _module(path)
        found.append(Listed(path.stem, module.__doc__.splitlines()[0], module.VARIANTS, module.DEFAULTS))
    return found


def load(config: str, overrides: Sequence[str] = ()):
    """Loads a config and applies overrides.

    Args:
      config: 'NAME' or 'NAME:VARIANTS' of a config of this project. The path of a Python file, with a separator or the
        suffix .py, may replace the name. The file has `get_config(variant: str)`.
      overrides: like `--config.train.steps=100`.

    Returns:
      A locked ConfigDict.

    Raises:
      UserError: no such config, one that fails, an unknown variant, an unknown key, or a value of the wrong type.
    """
    from absl import flags
    from ml_collections import config_flags

    for override in overrides:
        if not override.startswith('--config.') or '=' not in override:
            raise UserError(f'unknown argument {override!r}, expected --config.KEY=VALUE')
    path, variant = _find(config)
    try:
        found = _module(path).get_config(variant) if variant else _module(path).get_config()
    except UserError as error:
        raise UserError(f'--config={config}: {error}') from error
    except Exception as error:  # code in the file may raise anything
        raise UserError(f'--config={config}: {type(error).__name__}: {_one_line(error)}') from error
    values, argv = flags.FlagValues(), ['', *overrides]
    try:
        config_flags.DEFINE_config_dict('config', found, lock_config=True, flag_values=values, sys_argv=argv)
        values(argv)
        return values['config'].value
    except Exception as error:  # ml_collections and absl raise many kinds
        raise UserError(f'--config={config}: {_reason(error)}') from error


def _find(config: str) -> tuple[pathlib.Path, str]:
    """Returns the file of a config and its variants.

    Raises:
      UserError: there is no such file or name.
    """
    if files.is_address(config):
        raise UserError(f'--config={config}: an address, expected the path of a file on this machine')
    name, _, variant = files.given(config).partition(':')
    is_path = os.sep in name or '/' in name or name.endswith('.py')
    if is_path and os.path.isfile(name):
        return pathlib.Path(name), variant
    named, stem = _named(), name.rpartition('/')[2].removesuffix('.py')
    if not is_path and name in named:
        return named[name], variant
    if stem in RENAMED:
        raise UserError(f'--config={config}: is now {_present_name(stem, variant)}')
    if is_path:
        raise UserError(f'--config={config}: no such file')
    raise UserError(f'--config={config}: no such config, expected the path of a file or one of {", ".join(named)}')


def _named() -> dict[str, pathlib.Path]:
    """Name -> file of this project's configs, which lie in an installed package, or next to it in a clone."""
    package = pathlib.Path(__file__).parent
    folder = package / 'configs' if (package / 'configs').is_dir() else package.parent / 'configs'
    return {path.stem: path for path in sorted(folder.glob('*.py')) if not path.stem.startswith('_')}


def _present_name(earlier: str, variant: str) -> str:
    name, _, implied = RENAMED[earlier].partition(':')
    given = [part for part in variant.split(',') if part]
    if 'quick' in given:  # has its own size and length
        implied = ','.join(part for part in implied.split(',') if part not in ('small', 'short'))
    parts = dict.fromkeys([*given, *filter(None, implied.split(','))])
    return f'{name}:{",".join(parts)}'


def _module(path: pathlib.Path) -> types.ModuleType:
    """Runs a config file, which may be outside a package."""
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    exec(compile(path.read_bytes(), str(path), 'exec'), module.__dict__)
    return module


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())


def _reason(error: Exception) -> str:
    """The mistake in an override, in one line."""
    if error.args and isinstance(error.args[0], KeyError):  # ml_collections wraps it
        error = error.args[0]
    text = _one_line(error)
    if isinstance(error, KeyError):  # str() of a KeyError is quoted
        text = f'unknown key {error.args[0]}'.replace('\n', '. ')
    elif isinstance(error, SyntaxError):
        text = f'SyntaxError: {text}'
    return ' '.join(text.split())


def stage_config(config, name: str):
    """Returns the config of one stage of a chain: `config` with the changes of `config.stages.NAME`, locked.

    Raises:
      UserError: no such stage, or a stage with keys that the config lacks.
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
    """Parses the argument `KEY=VALUE` into key and value, for `override`.

    Raises:
      argparse.ArgumentTypeError: there is no '='.
    """
    key, separator, value = text.partition('=')
    if not separator:
        raise argparse.ArgumentTypeError(f'expected KEY=VALUE, got {text!r}')
    return key, value


def checkpoint(text: str) -> int | str:
    """Parses the argument 'best', 'latest' or a number, for `runs.load`.

    Raises:
      argparse.ArgumentTypeError: `text` is none of these.
    """
    if text not in ('best', 'latest') and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected 'best', 'latest' or the number of a step, got {text!r}")
    return int(text) if text.isdecimal() else text


def override(model, changes: Mapping[str, object]) -> None:
    """Sets fields of `config.model`, a ConfigDict; 'network.heads' is the field heads of its network.

    Values may be text, as on a command line: Python literals, unless the field itself is text.

    Raises:
      UserError: an unknown field, or a value of another type.
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
    """Builds the frozen dataclass `cls` from a ConfigDict or dict, including nested dataclasses and sequences.

    `name` is the user's name of the config, such as 'config.data', for messages.

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
