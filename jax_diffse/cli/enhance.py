"""Enhances recordings of any length, sample rate, number of channels and encoding; results keep these properties.

Without --workdir, the enhancer that comes with the package is used: a small streaming DCCRN for speech at 16 kHz.

Inputs are never overwritten. Files that cannot be enhanced are listed at the end, and the exit status is then 1, or 2
if no file was enhanced. Rerunning an interrupted command skips the files that are done.

A refiner needs the output of another enhancer: files of the same names, with any extension (--noisy and --processed
instead of FILE_OR_DIR), or a run (--preceding).

--stream enhances hop by hop, like a live stream. The result equals that of whole files up to 1e-4, unless a file is
longer than a chunk: whole files are then cross-faded from chunks.

--stdin-pcm enhances raw audio from standard input to standard output, live: one channel of signed 16-bit little-endian
samples, for pipes of sox, ffmpeg and arecord. The latency is reported on standard error.
"""

import argparse
import sys
from typing import TextIO

from jax_diffse import files, launch
from jax_diffse.cli import arguments
from jax_diffse.errors import UserError

USAGE = '[--workdir RUN] (--output DIR FILE_OR_DIR... | --stdin-pcm HZ) [options]'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument('inputs', nargs='*', type=files.given, metavar='FILE_OR_DIR',
                        help='recordings, and folders of them')
    parser.add_argument('--workdir', type=files.given, metavar='RUN',
                        help='a trained or converted run (default: package:dccrn, which comes with the package)')
    parser.add_argument('-o', '--output', type=files.given, metavar='DIR',
                        help='folder for the results, which keep their names')
    parser.add_argument('--name-by-setting', action='store_true',
                        help='write the results to a folder in DIR that is named by the sampler, its values and steps')
    parser.add_argument('--steps', type=int, metavar='N',
                        help="sampling steps, for systems that sample (default: the run's own)")
    parser.add_argument('--strength', type=float, default=1.0, metavar='S',
                        help='0: the input, 1: fully enhanced (default)')
    parser.add_argument('--noise', type=files.given, metavar='DIR',
                        help='folder for the removed noise (input - output)')
    parser.add_argument('--stream', action='store_true',
                        help='enhance as a live stream, on one CPU core, for systems that can (DCCRN)')
    parser.add_argument('--stdin-pcm', type=int, metavar='HZ',
                        help='enhance raw 16-bit samples of this rate from standard input to standard output, live')
    parser.add_argument('--chunk-seconds', type=float, metavar='SECONDS',
                        help='length of chunks (default: 16); shorter chunks need less memory')
    arguments.add_run(parser)
    refining = parser.add_argument_group('refiners')
    arguments.add_preceding(refining)
    refining.add_argument('--noisy', type=files.given, metavar='DIR',
                          help='noisy recordings, a folder or a file; requires --processed')
    refining.add_argument('--processed', type=files.given, metavar='DIR',
                          help='output of another enhancer for them')


def run(args: argparse.Namespace) -> int | None:
    """Enhances the inputs and returns the exit status."""
    if args.stdin_pcm is None and args.output is None:
        raise UserError('the following arguments are required: --output, or --stdin-pcm')
    if args.stream or args.stdin_pcm is not None:
        launch.use_one_core()
    elif args.workdir is None:
        launch.compile_quickly()  # a small network: compilation would take most of the time
    if args.stdin_pcm is not None:
        return _live(args)

    from jax_diffse.inference.enhance import EnhanceOptions, enhance

    workdir = _workdir(args)
    options = EnhanceOptions(
        noisy=args.noisy, processed=args.processed, preceding=args.preceding, noise=args.noise, strength=args.strength,
        steps=args.steps, checkpoint=args.checkpoint, model=dict(args.model), chunk_seconds=args.chunk_seconds,
        name_by_setting=args.name_by_setting, stream=args.stream)
    return enhance(workdir, args.inputs, args.output, options)


def _live(args: argparse.Namespace) -> None:
    """Enhances standard input."""
    given = {'files': args.inputs, '--output': args.output, '--name-by-setting': args.name_by_setting,
             '--steps': args.steps, '--strength': args.strength != 1, '--noise': args.noise,
             '--chunk-seconds': args.chunk_seconds, '--preceding': args.preceding, '--noisy': args.noisy,
             '--processed': args.processed}
    excluded = [name for name, value in given.items() if value not in (None, False, [])]
    if excluded:
        raise UserError(f'--stdin-pcm: enhances standard input to standard output; drop {" and ".join(excluded)}')

    from jax_diffse.inference.live import enhance_pcm

    enhance_pcm(_workdir(args, sys.stderr), args.stdin_pcm, checkpoint=args.checkpoint, model=dict(args.model))


def _workdir(args: argparse.Namespace, to: TextIO | None = None) -> str:
    """The run, or the packaged enhancer if none is named, with a line that says so."""
    from jax_diffse import pretrained

    if args.workdir is None:
        print(pretrained.NOTICE, file=to, flush=True)
    return pretrained.NAME if args.workdir is None else args.workdir
