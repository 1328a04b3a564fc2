"""The commands `jax-diffse COMMAND`, one module each.

A command's module has `USAGE`, `add_arguments(parser)` and `run(args)`, which returns the exit status; its docstring is
the help text. These modules import nothing heavy at the top, so that `--help` responds at once.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

import jax_diffse
from jax_diffse import errors, launch

COMMANDS = {
    'train': 'train a system, or resume a training',
    'evaluate': 'score runs on a data set, sweep sampling steps, compare runs',
    'score': 'score files that any systems made, without a run',
    'enhance': 'enhance recordings',
    'convert': "turn the authors' checkpoints into a run",
    'export': 'write a run as one file that JAX alone can load',
    'plan': 'estimate what a training costs on TPUs or GPUs, without having them',
    'pack': 'pack many recordings into a few large files',
    'configs': 'list the experiments that train knows',
}


def main(command: str = '') -> None:
    """Runs the command line and exits with status 0, or 2 for a mistake that the user can fix.

    Args:
      command: the command of a script such as `train.py`; '': the first argument names the command.
    """
    errors.exit_with(lambda: run(sys.argv[1:], command))


def run(arguments: Sequence[str], command: str = '') -> int | None:
    """Parses a command line, runs the command and returns its exit status.

    Raises:
      UserError: a mistake in the command line, or an error of the command.
    """
    found = parser(command) if command else _all_commands()
    args, overrides = found.parse_known_args(arguments)
    if overrides and not args.takes_overrides:
        found.error(f'unrecognized arguments: {" ".join(overrides)}')
    args.overrides = overrides
    launch.tune()  # before the command imports JAX
    return args.run(args)


def parser(command: str) -> argparse.ArgumentParser:
    """The parser of a command's script, such as `train.py`."""
    return _fill(errors.Parser(prog=f'{command}.py', **_settings(command)), command)


def _all_commands() -> argparse.ArgumentParser:
    import shtab

    found = errors.Parser(prog='jax-diffse', description='Speech enhancement with diffusion and predictive networks.',
                          allow_abbrev=False, epilog='jax-diffse COMMAND --help describes a command.')
    found.add_argument('--version', action='version', version=f'jax-diffse {jax_diffse.__version__}')
    shtab.add_argument_to(found, '--print-completion', help='print the completion script of a shell')
    commands = found.add_subparsers(metavar='COMMAND', required=True, parser_class=errors.Parser)
    for name, summary in COMMANDS.items():
        _fill(commands.add_parser(name, help=summary, **_settings(name)), name)
    return found


def _settings(command: str) -> dict:
    module = _module(command)
    return {'description': module.__doc__, 'usage': f'%(prog)s {module.USAGE}', 'allow_abbrev': False,
            'formatter_class': argparse.RawDescriptionHelpFormatter}


def _fill(empty: argparse.ArgumentParser, command: str) -> argparse.ArgumentParser:
    module = _module(command)
    module.add_arguments(empty)
    empty.set_defaults(run=module.run, takes_overrides=command in ('train', 'plan'))
    return empty


def _module(command: str):
    return importlib.import_module(f'jax_diffse.cli.{command}')
