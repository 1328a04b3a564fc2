"""The command line: `jax-diffse COMMAND`, `python -m jax_diffse COMMAND` and the scripts of a clone."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

import jax_diffse
from jax_diffse import cli, config, conversion
from jax_diffse.conversion import ncsnpp
from jax_diffse.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
TWO_SCREENS = 70  # lines


def _printed(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.run(arguments)
    assert not stop.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize('command', cli.COMMANDS)
def test_help_of_a_command_fits_two_screens(command, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '100')
    text = _printed(capsys, command, '--help')
    assert len(text.splitlines()) <= TWO_SCREENS
    assert text.startswith(f'usage: jax-diffse {command} ')


def test_help_lists_the_commands(capsys):
    text = _printed(capsys, '--help')
    for command, summary in cli.COMMANDS.items():
        assert re.search(rf'^ +{command} +{re.escape(summary.split()[0])}', text, re.MULTILINE)


def test_version(capsys):
    assert _printed(capsys, '--version') == f'jax-diffse {jax_diffse.__version__}\n'


def test_a_completion_script_knows_the_flags(capsys):
    script = _printed(capsys, '--print-completion', 'bash')
    assert '--chunk-seconds' in script and '--snr-db' in script


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], 'the following arguments are required: COMMAND'),
    (['enhence'], "invalid choice: 'enhence'"),
    (['enhance', '--workdir', 'run', '--output', 'out', 'in', '--stpes', '3'], 'unrecognized arguments: --stpes 3'),
    (['evaluate', '--workdir', 'run', '--out', 'x'], 'the following arguments are required: -o/--output'),
    (['evaluate', '--output', 'x'], 'expected either --workdir or --compare'),
    (['train', '--config', 'dccrn', '--workdir', 'y', '--batch-size', '3'], "unknown argument '--batch-size'"),
    (['convert', 'nisqa'], 'nisqa takes files'),
    (['convert', 'dccrn=x.pt'], 'required: --workdir'),
])
def test_a_mistake_is_named(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        cli.run(arguments)


def test_the_kinds_of_checkpoints_are_those_that_can_be_converted():
    from jax_diffse.cli import convert

    assert convert.KINDS == (*conversion.KINDS, *ncsnpp.KINDS)


@pytest.mark.parametrize('words', [['-m', 'jax_diffse', 'enhance'], [str(ROOT / 'enhance.py')]])
def test_all_entry_points_run_the_command(words, tmp_path):
    done = subprocess.run([sys.executable, *words, '--workdir', 'nowhere', '--output', 'out', 'in.wav'], text=True,
                          capture_output=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert (done.returncode, done.stdout) == (2, '')
    assert re.fullmatch(r'error: nowhere: not a run .*\n', done.stderr)


def test_parsing_loads_nothing_heavy():
    """Checks that --help and mistakes need no heavy imports."""
    check = ('import sys\nfrom jax_diffse import cli\n'
             f'for name in {list(cli.COMMANDS)}: cli.parser(name)\n'
             'print(sorted({"jax", "numpy", "tensorflow", "ml_collections", "torch"} & set(sys.modules)))')
    done = subprocess.run([sys.executable, '-c', check], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == '[]', done.stderr


@pytest.mark.parametrize(('argv', 'expected'), [
    (['/usr/bin/jax-diffse', 'enhance', 'my file.wav'], "jax-diffse enhance 'my file.wav'"),
    (['/somewhere/jax_diffse/__main__.py', 'train'], 'python -m jax_diffse train'),
    (['train.py', '--workdir', 'x'], 'python train.py --workdir x')])
def test_the_record_has_the_command_as_it_was_typed(argv, expected, monkeypatch):
    from jax_diffse import launch

    monkeypatch.setattr(sys, 'argv', argv)
    assert launch.command() == expected


def test_configs_are_listed_with_their_variants(capsys):
    cli.run(['configs'])
    text = capsys.readouterr().out
    for found in config.available():
        assert re.search(rf'^{found.name} +{re.escape(found.title)}$', text, re.MULTILINE)
        assert all(name in text for names in found.variants.values() for name in names)
    cli.run(['configs', 'dccrn'])
    alone = capsys.readouterr().out
    assert 'si_snr+lms' in alone and 'segan' not in alone and '(default)' in alone
    with pytest.raises(UserError, match='dcrn: no such config, expected some of .*dccrn'):
        cli.run(['configs', 'dcrn'])
