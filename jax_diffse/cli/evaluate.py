"""Evaluates runs: writes tables, figures and a report with audio players, DIR/index.html.

The default data are the test split of the data that the run was trained on. --clean and --noisy name folders whose
files have the same names; --speech and --noise name folders to mix; --arrays names a file of prepared pairs.

Several --steps, --sweep values, --seeds or runs (--workdir, repeated) give a sweep: tables with confidence intervals
and figures. --compare A B compares two runs, or two settings such as RUN@steps=6,guidance=none, file by file.

Results are cached in DIR/cache, so rerunning an interrupted or extended command computes only what is missing.
"""

import argparse

from jax_diffse import files, launch, processes
from jax_diffse.cli import arguments
from jax_diffse.config import setting
from jax_diffse.errors import UserError

USAGE = '--workdir RUN [--workdir RUN ...] --output DIR [options]'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument('--workdir', type=files.given, metavar='RUN', action='append', default=[],
                        help='a run, or package:dccrn, which comes with the package; repeatable')
    parser.add_argument('-o', '--output', required=True, type=files.given, metavar='DIR',
                        help='folder for the report')
    arguments.add_scoring(parser)
    parser.add_argument('--save-audio', action='store_true', help='write the output of every stage to DIR/audio/STAGE')
    parser.add_argument('--also', action='append', default=[], metavar='NAME=DIR',
                        help="another system's files for the same utterances; repeatable")
    arguments.add_run(parser)
    study = parser.add_argument_group('sweeps')
    study.add_argument('--steps', type=arguments.numbers(int), metavar='A,B,...',
                       help="sampling steps, for systems that sample (default: the run's own)")
    study.add_argument('--sweep', type=setting, action='append', default=[], metavar='KEY=A,B,...',
                       help='values of a key in config.model, or of sampler.KEY; repeatable')
    study.add_argument('--seeds', type=arguments.numbers(int), default=(0,), metavar='A,B,...',
                       help="seeds of the sampler's noise (default: 0)")
    study.add_argument('--compare', nargs=2, metavar='RUN[@KEY=VALUE,...]',
                       help='two runs or settings, instead of --workdir; KEY may be steps')
    data = parser.add_argument_group('data')
    data.add_argument('--split', choices=('test', 'validation'), help="of the run's own data (default: test)")
    data.add_argument('--data-set', metavar='NAME', help='voicebank_demand or another data set of TFDS')
    data.add_argument('--clean', type=files.given, metavar='DIR', help='clean speech; requires --noisy')
    data.add_argument('--noisy', type=files.given, metavar='DIR', help='the same recordings with noise')
    data.add_argument('--speech', type=files.given, metavar='DIR', help='clean speech to mix; requires --noise')
    data.add_argument('--noise', type=files.given, metavar='DIR', help='noise to mix it with, one folder per class')
    data.add_argument('--rir', type=files.given, metavar='DIR',
                      help='room impulse responses for the mixtures; requires --speech and --noise')
    data.add_argument('--arrays', type=files.given, metavar='FILE.npy',
                      help='prepared pairs: [noise kind, dB class, B, 2, L] or [B, 2, L]; 2: noisy, clean')
    data.add_argument('--snr-db', type=arguments.numbers(float), default=(), metavar='A,B,...',
                      help="SNRs of the mixtures or dB classes, as in --snr-db=-5,0 (default: the run's)")
    data.add_argument('--noise-classes', type=lambda names: tuple(names.split(',')), default=(), metavar='A,B,...',
                      help='classes of the noise to use (default: all)')
    data.add_argument('--clip-seconds', type=float, metavar='S',
                      help="cut utterances to their middle before mixing; 0: not cut (default: the run's)")
    data.add_argument('--pad-seconds', type=float, metavar='S',
                      help="extend shorter utterances with zeros, before mixing; 0: not extended (default: the run's)")
    data.add_argument('--share', type=float, metavar='X',
                      help="share of each speaker's test utterances, as 0.25 (default: the run's test_share)")
    data.add_argument('--resample', action='store_true', help="resample files and data sets to the system's rate")
    data.add_argument('--skip-bad', action='store_true', help='leave out unusable files instead of stopping')
    data.add_argument('--limit', type=int, metavar='N', help='at most N files, spread evenly over the data')
    refining = parser.add_argument_group('refiners')
    arguments.add_preceding(refining)
    refining.add_argument('--processed', type=files.given, metavar='DIR',
                          help='output of another enhancer for the noisy files, named by their ids')
    processes.add_arguments(parser)


def run(args: argparse.Namespace) -> int | None:
    """Evaluates and returns the exit status."""
    if bool(args.workdir) == bool(args.compare):
        raise UserError('expected either --workdir or --compare')
    return processes.run(lambda: _evaluate(args), args)


def _evaluate(args: argparse.Namespace) -> None:
    from jax_diffse import runs
    from jax_diffse.evaluation import other_systems
    from jax_diffse.evaluation.options import EvaluationData, EvaluationOptions
    from jax_diffse.evaluation.study import study

    data = EvaluationData(
        split=args.split, data_set=args.data_set, clean=args.clean, noisy=args.noisy, speech=args.speech,
        noise=args.noise, rir=args.rir, arrays=args.arrays, snr_db=args.snr_db, noise_classes=args.noise_classes,
        clip_seconds=args.clip_seconds, pad_seconds=args.pad_seconds, share=args.share, resample=args.resample,
        skip_bad=args.skip_bad, limit=args.limit)
    options = EvaluationOptions(
        metrics=args.metrics, workers=args.workers, cache=args.cache, processed=args.processed,
        also=other_systems.parse(args.also, '--also'), save_audio=args.save_audio, command=launch.command())
    preceding = runs.load(args.preceding) if args.preceding else None
    study(_variants(args), data, args.output, options, seeds=args.seeds, preceding=preceding)


def _variants(args: argparse.Namespace) -> list:
    """The settings to evaluate."""
    from jax_diffse import runs
    from jax_diffse.evaluation.sweep import grid, parse_setting

    def load(workdir):
        return runs.load(workdir, step=args.checkpoint, model=dict(args.model))

    if args.compare is None:
        values = {key: listed.split(',') for key, listed in args.sweep}
        return grid([load(workdir) for workdir in args.workdir], args.steps or (None,), values)
    if args.steps or args.sweep:
        raise UserError('--compare: cannot be combined with --steps and --sweep; expected RUN@steps=N,KEY=VALUE')
    found = []
    for workdir, changes, steps in map(parse_setting, args.compare):
        found += grid([load(workdir)], (steps,), {key: [value] for key, value in changes.items()})
    return found
