"""Lists the experiments that `jax-diffse train --config NAME[:VARIANTS]` knows.

Variants are joined by commas, at most one of each group, as in dccrn:si_snr,folders,small,short.
"""

import argparse

USAGE = '[NAME ...]'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument('names', nargs='*', metavar='NAME', help='only these, with a line for each variant')


def run(args: argparse.Namespace) -> None:
    """Prints them."""
