"""Trains a system: `python train.py --config configs/X.py[:VARIANT] --workdir RUN [--config.KEY=VALUE ...]`.

The same command continues a run that was interrupted. A config with several stages trains them one after the other.
"""

import argparse

from jax_diffse import errors, launch


def main() -> None:
    parser = errors.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', required=True, metavar='FILE[:VARIANT]', help='an experiment in configs/')
    parser.add_argument('--workdir', required=True, metavar='RUN', help='where checkpoints and logs go')
    parser.add_argument('--distributed', action='store_true',
                        help='one of several processes (TPU pod, SLURM): call jax.distributed.initialize() first')
    args, overrides = parser.parse_known_args()

    from jax_diffse import config
    from jax_diffse.training.chain import train_chain
    from jax_diffse.training.loop import train

    if args.distributed:
        import jax

        jax.distributed.initialize()
    loaded = config.load(args.config, overrides)
    (train_chain if 'chain' in loaded else train)(loaded, args.workdir)


if __name__ == '__main__':
    launch.tune()
    errors.exit_with(main)
