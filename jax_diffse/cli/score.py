"""Scores files that any systems made: tables, paired differences and a report with audio players, DIR/index.html.

    jax-diffse score --clean clean --noisy noisy mine=outputs/mine theirs=outputs/theirs --output report

Files of the folders belong together by name: the path below the folder without its extension. A system may lack files;
they are listed, and every mean says over how many files it is. Offsets and differences in length to the clean speech
are reported. Without --clean, only metrics that need no reference are computed.

Results are cached in DIR/cache, so rerunning an interrupted or extended command computes only what is missing.
"""

import argparse

from jax_diffse import files, launch, processes
from jax_diffse.cli import arguments

USAGE = '[--clean DIR] [--noisy DIR] --output DIR [options] NAME=DIR [NAME=DIR ...]'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument('systems', nargs='+', metavar='NAME=DIR', help="a system's name and the folder of its files")
    parser.add_argument('--clean', type=files.given, metavar='DIR', help='clean speech')
    parser.add_argument('--noisy', type=files.given, metavar='DIR', help='the noisy input, as the first column')
    parser.add_argument('-o', '--output', required=True, type=files.given, metavar='DIR',
                        help='folder for the report')
    arguments.add_scoring(parser)
    parser.add_argument('--sort', default='', metavar='METRIC',
                        help='order the systems in tables of means by this metric, best first (default: as given)')
    reading = parser.add_argument_group('files')
    reading.add_argument('--align', action='store_true', help='remove offsets from the clean speech before scoring')
    reading.add_argument('--resample', action='store_true', help='resample files to the rate of the clean speech')
    reading.add_argument('--sample-rate', type=int, metavar='HZ',
                         help='resample all files, also the clean speech, to this rate')
    reading.add_argument('--channel', type=int, metavar='N',
                         help='score channel N of files with several; 1 is the first (default: refuse such files)')
    reading.add_argument('--tolerance', type=float, default=0.25, metavar='S',
                         help='cut off differences in length to the clean speech up to S seconds; beyond them, metrics '
                              'that compare are n/a (default: 0.25)')
    processes.add_arguments(parser)


def run(args: argparse.Namespace) -> int | None:
    """Scores and returns the exit status."""
    return processes.run(lambda: _score(args), args)


def _score(args: argparse.Namespace) -> None:
    from jax_diffse.evaluation import other_systems
    from jax_diffse.evaluation.score import ScoreOptions, score_folders

    systems = other_systems.parse(args.systems)
    options = ScoreOptions(
        metrics=args.metrics, sort=args.sort, workers=args.workers, cache=args.cache, sample_rate=args.sample_rate,
        resample=args.resample, channel=args.channel, align=args.align, tolerance=args.tolerance,
        command=launch.command())
    score_folders(args.clean, systems, args.output, args.noisy, options)
