"""Arguments that several commands share."""

import argparse
from collections.abc import Callable

from jax_diffse import files
from jax_diffse.config import checkpoint, setting


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds --checkpoint and --model, which select what is loaded of a run."""
    parser.add_argument('--checkpoint', type=checkpoint, default='best', metavar='best|latest|N',
                        help='which checkpoint of the run (default: best)')
    parser.add_argument('--model', type=setting, action='append', default=[], metavar='KEY=VALUE',
                        help="override a value of the run's config.model, as in guidance=none; repeatable")


def add_preceding(parser: argparse.ArgumentParser) -> None:
    """Adds --preceding, for refiners."""
    parser.add_argument('--preceding', type=files.given, metavar='RUN',
                        help='for a refiner: the run whose output it refines')


def numbers(kind: type) -> Callable[[str], tuple]:
    """Returns the argument type for several numbers, separated by commas."""
    what = 'whole numbers' if kind is int else 'numbers'

    def parse(text: str) -> tuple:
        try:
            return tuple(kind(item) for item in text.split(','))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f'expected {what}, separated by commas, got {text!r}') from error

    return parse
