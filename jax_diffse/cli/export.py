"""Exports a run as one file that needs only JAX, for a set of platforms.

To use the file in Python:

    enhance = jax.export.deserialize(open('OUT', 'rb').read()).call
    enhanced = enhance(noisy, num_samples, np.uint32(0))  # [B, N] float32, [B] int32, a seed

A refiner takes the output of another enhancer as a fourth argument, unless --preceding adds the run that produces it
to the file.
"""

import argparse

from jax_diffse import files
from jax_diffse.cli import arguments

USAGE = 'RUN OUT [options]'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument('workdir', type=files.given, metavar='RUN', help='a trained or converted run')
    parser.add_argument('output', type=files.given, metavar='OUT', help='the file to write')
    parser.add_argument('--platforms', default='cpu,cuda,tpu', help='platforms of the file (default: cpu,cuda,tpu)')
    parser.add_argument('--chunk-seconds', type=float, default=4.0, metavar='SECONDS',
                        help='length N of the signals (default: 4)')
    parser.add_argument('--batch', type=int, default=1, metavar='B', help='number of signals (default: 1)')
    parser.add_argument('--steps', type=int, metavar='N',
                        help="sampling steps, for systems that sample (default: the run's own)")
    arguments.add_run(parser)
    arguments.add_preceding(parser)


def run(args: argparse.Namespace) -> None:
    """Exports the run and prints the signature of the function."""
    from jax_diffse import runs
    from jax_diffse.inference.export import export, opened

    loaded = runs.load(args.workdir, step=args.checkpoint, model=dict(args.model))
    preceding = None if args.preceding is None else runs.load(args.preceding)
    targets = tuple(dict.fromkeys(args.platforms.split(',')))
    with opened(args.output) as file:  # before the export, which takes long
        exported = export(loaded, targets, chunk_seconds=args.chunk_seconds, batch=args.batch, steps=args.steps,
                          preceding=preceding)
        file.write(exported.serialize())
        size = file.tell()
    inputs = dict(zip(('noisy', 'num_samples', 'seed', 'processed'), exported.in_avals))
    signature = ', '.join(f'{name} {value.str_short(short_dtypes=True)}' for name, value in inputs.items())
    print(f'{args.output}: {size / 1e6:.1f} MB for {", ".join(exported.platforms)}: ({signature}) -> '
          f'{exported.out_avals[0].str_short(short_dtypes=True)}, at {loaded.system.sample_rate} Hz')
