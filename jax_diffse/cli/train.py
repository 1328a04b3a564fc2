"""Trains a system, or resumes a training.

Rerunning the command resumes an interrupted run. A config with several stages trains them in order. Any key of a config
can be overridden: --config.train.batch_size=16, or for one stage --config.stages.refiner.train.steps=500.
`jax-diffse configs` lists the experiments.
"""

import argparse

from jax_diffse import files, processes

USAGE = '--config NAME[:VARIANTS] --workdir RUN [--config.KEY=VALUE ...] [options]'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument('--config', required=True, metavar='NAME[:VARIANTS]',
                        help='an experiment, as in dccrn:si_snr+lms,quick, or the path of a config file')
    parser.add_argument('--workdir', required=True, type=files.given, metavar='RUN',
                        help='folder for checkpoints and logs')
    parser.add_argument('--change-config', action='store_true',
                        help='resume although the config differs from that of the run')
    parser.add_argument('--profile', metavar='FIRST:COUNT',
                        help='trace COUNT steps from step FIRST on, of each stage, for the profiler of TensorBoard')
    processes.add_arguments(parser)


def run(args: argparse.Namespace) -> int | None:
    """Trains and returns the exit status."""
    from jax_diffse import config
    from jax_diffse.training.chain import train
    from jax_diffse.training.profile import Window

    def work():
        window = None if args.profile is None else Window.of(args.profile)
        train(config.load(args.config, args.overrides), args.workdir, change_config=args.change_config, profile=window)

    return processes.run(work, args)
