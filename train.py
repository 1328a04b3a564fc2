"""Trains a system: `python train.py --config CONFIG[:VARIANTS] --workdir RUN [--config.KEY=VALUE ...]`.

The same command continues a run that was interrupted. A config with several stages trains them one after the other.
"""

import argparse

from jax_diffse import errors, files, launch, processes


def main() -> int | None:
    launch.tune()
    parser = errors.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', required=True, metavar='CONFIG[:VARIANTS]',
                        help='an experiment in configs/ by its name, or the path of a file')
    parser.add_argument('--workdir', required=True, type=files.given, metavar='RUN',
                        help='where checkpoints and logs go')
    parser.add_argument('--change-config', action='store_true',
                        help='continue a run although the config is another one than it was made with')
    processes.add_arguments(parser)
    args, overrides = parser.parse_known_args()

    from jax_diffse import config
    from jax_diffse.training.chain import train_chain
    from jax_diffse.training.loop import train

    def work():
        loaded = config.load(args.config, overrides)
        (train_chain if 'chain' in loaded else train)(loaded, args.workdir, change_config=args.change_config)

    return processes.run(work, args)


if __name__ == '__main__':
    errors.exit_with(main)
