"""Flags and keys that messages name exist in the commands that print them."""

import argparse
import ast
import functools
import pathlib
import re
import runpy
from unittest import mock

import pytest

from jax_diffse import errors
from jax_diffse.experiment import sections

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLAG = re.compile(r'(?<![\w-])--[a-z][\w-]*(?:\.[\w.]+)?')
KEY = re.compile(r'\bconfig\.((?:data|train|optimizer|log|parallel)\.\w+|init_from|system)\b')
COMMANDS = {'train': 'train.py', 'evaluate': 'evaluate.py', 'enhance': 'enhance.py', 'export': 'jax_diffse/export.py',
            'convert': 'jax_diffse/convert/__main__.py'}
# Folder or module below jax_diffse -> the commands that print its messages; the longest that fits counts.
PRINTED_BY = {
    'evaluation': ('evaluate',), 'evaluation/enhance': ('enhance',), 'evaluation/enhancer': ('evaluate', 'enhance'),
    'evaluation/streaming': ('enhance',), 'evaluation/nisqa': ('evaluate', 'convert'), 'export': ('export',),
    'convert': ('convert',), 'training': ('train',), 'data': ('train',), 'processes': ('train', 'evaluate'),
    'config': ('train',), 'systems': ('train', 'evaluate', 'enhance'), 'training/checkpoints': ('train', 'convert')}


class _Caught(Exception):
    pass


@functools.cache
def _flags(command: str) -> frozenset[str]:
    """The flags that a command takes, from the parser that it makes."""
    caught = []

    def catch(self, *_):
        caught.append(self)
        raise _Caught

    with mock.patch.object(argparse.ArgumentParser, 'parse_known_args', catch), mock.patch(
            'jax_diffse.launch.tune'), pytest.raises(_Caught), mock.patch.object(
            errors, 'exit_with', lambda main: main()):
        runpy.run_path(str(ROOT / COMMANDS[command]), run_name='__main__')
    return frozenset(option for action in caught[0]._actions for option in action.option_strings)


def _messages(path: pathlib.Path) -> list[str]:
    """The texts of a module but for its documentation; what is put into them is left out."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found, parts = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in node.values}
            found.append('{}'.join(part.value for part in node.values if isinstance(part, ast.Constant)))
    return found + [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(
        node.value, str) and id(node) not in parts | documentation]


OTHERS = {'--always', '--dirty', '--abbrev', '--exclude'}  # git's


def _modules():
    for path in sorted((ROOT / 'jax_diffse').rglob('*.py')):
        name = path.relative_to(ROOT / 'jax_diffse').with_suffix('').as_posix()
        places = [place for place in PRINTED_BY if name == place or name.startswith(f'{place}/')]
        if places:
            yield pytest.param(path, PRINTED_BY[max(places, key=len)], id=name)
    for command in ('train', 'evaluate', 'enhance'):
        yield pytest.param(ROOT / COMMANDS[command], (command,), id=command)


@pytest.mark.parametrize(('path', 'commands'), _modules())
def test_flags_in_messages_exist_in_the_command_at_hand(path, commands):
    for message in _messages(path):
        for flag in FLAG.findall(re.sub(r'\(?\w+\.py: --[\w-]+\)?', '', message)):
            known = flag.startswith('--config') or flag in OTHERS
            assert known or all(flag in _flags(command) for command in commands), message
        for command, flag in re.findall(r'(\w+)\.py: (--[\w-]+)', message):  # of another command, which is named
            assert flag in _flags(command), message


@pytest.mark.parametrize(('path', 'commands'), _modules())
def test_keys_in_messages_exist_in_the_configs(path, commands):
    config = sections('dccrn', {}).to_dict()
    for message in _messages(path):
        for key in KEY.findall(message):
            section, _, name = key.partition('.')
            assert section in config and (not name or name in config[section]), message


@pytest.mark.parametrize('module', ['scan', 'folders', 'config'])
def test_advice_about_data_names_what_evaluate_takes(module):
    """evaluate.py takes no --config.KEY; messages about data are those of train.py, too."""
    for message in _messages(ROOT / 'jax_diffse' / 'data' / f'{module}.py'):
        for key, rest in re.findall(r'config\.data\.(\w+=\w+)(.{0,12})', message):
            assert '(evaluate' in rest, f'{key}: {message}'


def test_the_flags_are_those_of_the_parsers():
    assert {'--resample', '--skip-bad', '--processed'} <= _flags('evaluate') and '--resample' not in _flags('enhance')
