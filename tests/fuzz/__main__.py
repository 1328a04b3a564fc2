"""Damages audio files and checkpoints for a given time and reports how their readers reacted.

    python -m tests.fuzz --seconds 300 [--kinds wav,run] [--seed 7]

Exits with 1 where a file was neither read nor refused with a message of one line.
"""

import argparse
import sys

from tests.fuzz import drill


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=60.0, help='for all kinds together')
    parser.add_argument('--kinds', default=','.join(drill.KINDS), help=f'some of {", ".join(drill.KINDS)}')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--serve', nargs=4, help=argparse.SUPPRESS)  # kind, seed, first, count: the child
    args = parser.parse_args(arguments)
    if args.serve:
        name, *numbers = args.serve
        drill.serve(name, *map(int, numbers))
        return 0
    names = [name.strip() for name in args.kinds.split(',')]
    tallies = {name: drill.drill(name, seed=args.seed, seconds=args.seconds / len(names)) for name in names}
    print(drill.table(tallies))
    return int(any(tally.other for tally in tallies.values()))


if __name__ == '__main__':
    sys.exit(main())
