"""Flags and keys that messages name exist in the commands that print them."""

import ast
import functools
import pathlib
import re

import pytest

from jax_diffse import cli
from jax_diffse.experiment import sections

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLAG = re.compile(r'(?<![\w-])--[a-z][\w-]*(?:\.[\w.]+)?')
KEY = re.compile(r'\bconfig\.((?:data|train|augment|optimizer|log|parallel)\.\w+|init_from|system)\b')
# Folder or module below jax_diffse -> the commands that print its messages; the longest that fits counts.
PRINTED_BY = {
    'evaluation': ('evaluate',), 'evaluation/score': ('score',), 'evaluation/signals': ('evaluate', 'score'),
    'evaluation/other_systems': ('evaluate', 'score'), 'inference': ('evaluate', 'enhance'),
    'inference/enhance': ('enhance',),
    'inference/jobs': ('enhance',), 'inference/live': ('enhance',), 'inference/streaming': ('enhance',),
    'inference/export': ('export',),
    'metrics': ('evaluate', 'score'), 'conversion': ('convert',), 'training': ('train',), 'data': ('train',),
    'data/packing': ('pack',), 'data/lists': ('pack',),
    'processes': ('train', 'evaluate', 'score'), 'config': ('train',), 'systems': ('train', 'evaluate', 'enhance'),
    'pretrained': ('enhance', 'evaluate'), 'runs': ('train', 'convert'),
    **{f'cli/{name}': (name,) for name in cli.COMMANDS}}


@functools.cache
def _flags(command: str) -> frozenset[str]:
    """The flags that a command takes."""
    parser = cli.parser(command)
    return frozenset(option for action in parser._actions for option in action.option_strings)


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


OF_ANOTHER = r'\b(train|evaluate|enhance|score): (--[\w-]+)'
OTHERS = {'--always', '--dirty', '--abbrev', '--exclude', '--logdir'}  # of git and TensorBoard


def _modules():
    for path in sorted((ROOT / 'jax_diffse').rglob('*.py')):
        name = path.relative_to(ROOT / 'jax_diffse').with_suffix('').as_posix()
        places = [place for place in PRINTED_BY if name == place or name.startswith(f'{place}/')]
        if places:
            yield pytest.param(path, PRINTED_BY[max(places, key=len)], id=name)


@pytest.mark.parametrize(('path', 'commands'), list(_modules()))
def test_flags_in_messages_exist_in_the_command_at_hand(path, commands):
    for message in _messages(path):
        for flag in FLAG.findall(re.sub(OF_ANOTHER, '', message)):
            known = flag.startswith('--config') or flag in OTHERS
            assert known or all(flag in _flags(command) for command in commands), message
        for command, flag in re.findall(OF_ANOTHER, message):  # flags of another command, which the message names
            assert flag in _flags(command), message


@pytest.mark.parametrize(('path', 'commands'), list(_modules()))
def test_keys_in_messages_exist_in_the_configs(path, commands):
    config = sections('dccrn', {}).to_dict()
    for message in _messages(path):
        for key in KEY.findall(message):
            section, _, name = key.partition('.')
            assert section in config and (not name or name in config[section]), message


@pytest.mark.parametrize('module', ['arrays', 'scan', 'folders', 'config'])
def test_advice_about_data_names_what_evaluate_takes(module):
    """evaluate takes no --config.KEY; messages about data are those of train, too."""
    for message in _messages(ROOT / 'jax_diffse' / 'data' / f'{module}.py'):
        for key, rest in re.findall(r'config\.data\.(\w+=\w+)(.{0,12})', message):
            assert '(evaluate' in rest, f'{key}: {message}'


def test_the_flags_are_those_of_the_parsers():
    assert {'--resample', '--skip-bad', '--processed'} <= _flags('evaluate') and '--resample' not in _flags('enhance')
