"""Packs many recordings into a few large files, from which training reads them faster than from a folder.

    jax-diffse pack --speech DIR --output PACKED
    jax-diffse pack --noise DIR --output PACKED
    jax-diffse pack --clean DIR --noisy DIR --output PACKED

The result takes the place of the folder, as in --config.data.train.speech=PACKED; of pairs, clean and noisy both name
it. It is also a data set of TensorFlow Datasets. Recordings keep their names, rates, speakers and classes of noise.

Rerunning an interrupted command continues after the last complete file of the result.
"""

import argparse

from jax_diffse import files

USAGE = '--speech DIR | --noise DIR | --clean DIR --noisy DIR --output PACKED [options]'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument('--speech', type=files.given, default='', metavar='DIR', help='folder of speech')
    parser.add_argument('--noise', type=files.given, default='', metavar='DIR', help='folder of noise, or ESC')
    parser.add_argument('--clean', type=files.given, default='', metavar='DIR', help='clean speech of pairs')
    parser.add_argument('--noisy', type=files.given, default='', metavar='DIR', help='noisy speech of pairs')
    parser.add_argument('--output', required=True, type=files.given, metavar='PACKED', help='folder for the result')
    parser.add_argument('--list', type=files.given, default='', metavar='FILE',
                        help='pack only the files that FILE lists, a path below the folder on each line')
    parser.add_argument('--encoding', default='flac', metavar='flac|int16',
                        help='flac (default): smaller; int16: faster to read, rounded to 16 bits')
    parser.add_argument('--speaker-level', type=int, default=0, metavar='N',
                        help='depth of the folders that are speakers (default: detected)')
    parser.add_argument('--skip-bad', action='store_true', help='leave out unusable files instead of stopping')


def run(args: argparse.Namespace) -> None:
    """Packs the recordings, and prints what was packed."""
    from jax_diffse.data import packing
    from jax_diffse.data.config import Folders

    folders = Folders(clean=args.clean, noisy=args.noisy, speech=args.speech, noise=args.noise)
    options = packing.PackOptions(args.encoding, args.list, args.speaker_level, args.skip_bad)
    print(packing.pack(folders, args.output, options))
