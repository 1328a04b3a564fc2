"""Enhances recordings: `python enhance.py --workdir RUN --output DIR FILE_OR_DIR...`.

Files may have any length, rate and number of channels; results keep them, with the file's format and encoding. Inputs
are never overwritten. A file that cannot be read, or has no partner, is reported at the end, and the exit status is
then 1, or 2 where no file was enhanced. A command that was cut off goes on: what it finished is not done again.

A run that refines what another enhancer made takes that from files of the same names, of any extension (--noisy and
--processed in place of FILE_OR_DIR), or from a run (--preceding).

With --stream a file goes through the system hop by hop, as a live stream would. The result is the same up to 1e-4 for
files of one chunk; longer ones are otherwise cross-faded from several.
"""

import argparse

from jax_diffse import errors, files, launch
from jax_diffse.config import checkpoint, setting


def main() -> int:
    launch.tune()
    parser = errors.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('inputs', nargs='*', type=files.given, metavar='FILE_OR_DIR',
                        help='recordings, and folders of them')
    parser.add_argument('--workdir', required=True, type=files.given, metavar='RUN', help='a trained or converted run')
    parser.add_argument('--output', required=True, type=files.given, metavar='DIR',
                        help='where the results go, under the same names')
    parser.add_argument('--noisy', type=files.given, metavar='DIR',
                        help='noisy recordings, a folder or a file; goes with --processed')
    parser.add_argument('--processed', type=files.given, metavar='DIR',
                        help='what another enhancer made of them, for a run that refines it')
    parser.add_argument('--preceding', type=files.given, metavar='RUN',
                        help='a run that enhances first, for a run that refines')
    parser.add_argument('--model', type=setting, action='append', default=[], metavar='KEY=VALUE',
                        help="in place of a value in the run's config.model, say guidance=none; may be repeated")
    parser.add_argument('--noise', type=files.given, metavar='DIR',
                        help='also write what was removed (input - output) here')
    parser.add_argument('--strength', type=float, default=1.0, help='0: the input, 1: fully enhanced (default)')
    parser.add_argument('--steps', type=int, help="sampling steps, for systems that sample (default: the run's own)")
    parser.add_argument('--checkpoint', type=checkpoint, default='best', metavar='best|latest|N',
                        help='checkpoint (default: best)')
    parser.add_argument('--stream', action='store_true',
                        help='enhance hop by hop, as in a live stream, on one CPU core, for systems that can (DCCRN)')
    parser.add_argument('--chunk-seconds', type=float, metavar='SECONDS',
                        help='how much is enhanced at a time (default: 16); less needs less memory')
    args = vars(parser.parse_args())
    args['model'] = dict(args['model'])
    if args['stream']:
        launch.use_one_core()

    from jax_diffse.inference.enhance import enhance

    return enhance(args.pop('workdir'), args.pop('inputs'), args.pop('output'), **args)


if __name__ == '__main__':
    errors.exit_with(main)
