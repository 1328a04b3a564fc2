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


def add_scoring(parser: argparse.ArgumentParser) -> None:
    """Adds --metrics, --workers and --cache."""
    parser.add_argument('--metrics', type=_names, metavar='A,B,...',
                        help='names; an unknown name lists them (default: see docs/metrics.md; DNSMOS and NISQA v2 if '
                             'installed)')
    parser.add_argument('--workers', type=int, metavar='N', help='scoring processes (default: one per CPU)')
    parser.add_argument('--cache', type=files.given, metavar='DIR', help='folder of the cache (default: DIR/cache)')


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(',')))


def numbers(kind: type) -> Callable[[str], tuple]:
    """Returns the argument type for several numbers, separated by commas."""
    what = 'whole numbers' if kind is int else 'numbers'

    def parse(text: str) -> tuple:
        try:
            return tuple(kind(item) for item in text.split(','))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f'expected {what}, separated by commas, got {text!r}') from error

    return parse
