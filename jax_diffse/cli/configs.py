"""Lists the experiments that `jax-diffse train --config NAME[:VARIANTS]` knows.

Variants are joined by commas, at most one of each group, as in dccrn:si_snr,folders,small,short.
"""

import argparse

USAGE = '[NAME ...]'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument('names', nargs='*', metavar='NAME', help='list only these, with a line per variant')


def run(args: argparse.Namespace) -> None:
    """Prints the list."""
    from jax_diffse import config
    from jax_diffse.errors import UserError

    listed = {found.name: found for found in config.available()}
    unknown = [name for name in args.names if name not in listed]
    if unknown:
        raise UserError(f'{unknown[0]}: no such config, expected some of {", ".join(listed)}')
    for name in args.names or listed:
        print(f'{name:<18}{listed[name].title}')
        for group, names in listed[name].variants.items():
            if args.names:
                print(f'  {group}')
                for variant, description in names.items():
                    default = ' (default)' if variant == listed[name].defaults.get(group) else ''
                    print(f'    {variant:<14}{description}{default}')
            else:
                print(f'{"":<18}{group}: {", ".join(names)}')
