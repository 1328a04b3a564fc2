"""Arguments that several commands share."""

import argparse
from collections.abc import Callable

from jax_diffse import files
from jax_diffse.config import checkpoint, setting


def add_run(parser: argparse.ArgumentParser) -> None:
    """--checkpoint and --model, which say how a run is loaded."""
    parser.add_argument('--checkpoint', type=checkpoint, default='best', metavar='best|latest|N',
                        help='which checkpoint of the run (default: best)')
    parser.add_argument('--model', type=setting, action='append', default=[], metavar='KEY=VALUE',
                        help="override a value of the run's config.model, as in guidance=none; repeatable")


def add_preceding(parser: argparse.ArgumentParser) -> None:
    """--preceding, for runs that refine."""
    parser.add_argument('--preceding', type=files.given, metavar='RUN',
                        help='for a run that refines: the run that enhances first')


def numbers(kind: type) -> Callable[[str], tuple]:
    """The type of an argument with several numbers, separated by commas."""
    what = 'whole numbers' if kind is int else 'numbers'

    def parse(text: str) -> tuple:
        try:
            return tuple(kind(item) for item in text.split(','))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f'expected {what}, separated by commas, got {text!r}') from error

    return parse
