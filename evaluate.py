"""Evaluates a run: `python evaluate.py --workdir RUN --output DIR` writes a report, DIR/index.html.

By default on the test split of the data that the run was trained on; with --clean and --noisy on folders of equally
named files, and with --speech and --noise on mixtures of all that is in these folders. The report on mixtures has
tables of noise seen and unseen in training by SNR, where the noise folder that the run was trained on is still there.

NISQA rates speech without a reference, so its tables have a row for the clean speech, too. Its weights are not part of
this project: without them, evaluation says in one line how to get them, and goes on.

A run that refines what another enhancer made takes that from a run (--preceding), or from a folder of files named by
the ids of the report (--processed), such as DIR/audio/STAGE of an earlier report with --save-audio.

Several numbers of --steps, values of --sweep, --seeds or runs (--workdir, repeated) make a study of them: tables with
confidence intervals, figures and a page with players in every setting. --compare A B does so for two runs, or two
settings, RUN@steps=6,guidance=none, say, with their paired differences.

What was measured is kept in DIR/cache: a command that was cut off, or asks for more, computes what is missing. Several
processes (--distributed) share the files, and DIR has to be on storage that all of them see.
"""

import argparse
import dataclasses
import shlex
import sys

from jax_diffse import errors, files, launch, processes
from jax_diffse.config import checkpoint, setting
from jax_diffse.errors import UserError


def _levels(text: str) -> tuple[float, ...]:
    return _listed(text, float, 'numbers')


def _numbers(text: str) -> tuple[int, ...]:
    return _listed(text, int, 'whole numbers')


def _listed(text: str, kind: type, what: str) -> tuple:
    try:
        return tuple(kind(item) for item in text.split(','))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'expected {what}, separated by commas, got {text!r}') from error


def _parse() -> argparse.Namespace:
    parser = errors.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                           allow_abbrev=False)
    parser.add_argument('--workdir', type=files.given, metavar='RUN', action='append', default=[],
                        help='a trained or converted run; may be repeated')
    parser.add_argument('--output', required=True, type=files.given, metavar='DIR', help='where the report goes')
    parser.add_argument('--checkpoint', type=checkpoint, default='best', metavar='best|latest|N',
                        help='which of its checkpoints (default: best)')
    parser.add_argument('--model', type=setting, action='append', default=[], metavar='KEY=VALUE',
                        help="in place of a value in the run's config.model, say guidance=none; may be repeated")
    parser.add_argument('--preceding', type=files.given, metavar='RUN',
                        help='a run that enhances first, for a run that refines')
    parser.add_argument('--processed', type=files.given, metavar='DIR',
                        help='what another enhancer made of the noisy files, for a run that refines it')
    study = parser.add_argument_group('studies')
    study.add_argument('--steps', type=_numbers, metavar='A,B,...',
                       help="sampling steps, for systems that sample (default: the run's own)")
    study.add_argument('--sweep', type=setting, action='append', default=[], metavar='KEY=A,B,...',
                       help="values of a key in config.model, or of sampler.KEY, a key of the chosen sampler's; may be "
                            'repeated')
    study.add_argument('--seeds', type=_numbers, default=(0,), metavar='A,B,...',
                       help="of the sampler's noise; several give the spread that it makes (default: 0)")
    study.add_argument('--compare', nargs=2, metavar='RUN[@KEY=VALUE,...]',
                       help='two runs or settings, in place of --workdir; KEY may be steps')
    data = parser.add_argument_group('data')
    data.add_argument('--split', choices=('test', 'validation'), help="of the run's own data (default: test)")
    data.add_argument('--clean', type=files.given, metavar='DIR', help='clean speech; goes with --noisy')
    data.add_argument('--noisy', type=files.given, metavar='DIR', help='the same files with noise')
    data.add_argument('--speech', type=files.given, metavar='DIR', help='clean speech to mix; goes with --noise')
    data.add_argument('--noise', type=files.given, metavar='DIR', help='noise to mix it with, one folder per class')
    data.add_argument('--snr-db', type=_levels, metavar='A,B,...',
                      help='levels to mix at, --snr-db=-5,0 where the first is negative (default: those of the run)')
    data.add_argument('--clip-seconds', type=float, metavar='S',
                      help='cut longer utterances to their middle S seconds before they are mixed, 0: whole (default: '
                           'as in the run)')
    data.add_argument('--resample', action='store_true',
                      help='take files at another rate than the system works at, and resample them')
    data.add_argument('--skip-bad', action='store_true', help='leave out files that cannot be used, rather than stop')
    data.add_argument('--limit', type=int, metavar='N', help='at most N files, spread evenly over the data')
    parser.add_argument('--metrics', metavar='A,B,...',
                        help='metrics by name, a wrong one lists them (default: all that compare with clean speech but '
                             'sdr and, where its weights are, NISQA v2)')
    parser.add_argument('--workers', type=int, metavar='N', help='scoring processes (default: one per CPU)')
    parser.add_argument('--save-audio', action='store_true',
                        help='also write what each stage made of each file, to DIR/audio/STAGE')
    parser.add_argument('--cache', type=files.given, metavar='DIR',
                        help='where results are kept (default: DIR/cache of --output)')
    processes.add_arguments(parser)
    args = parser.parse_args()
    if bool(args.workdir) == bool(args.compare):
        parser.error('expected either --workdir or --compare')
    return args


def _data(args: argparse.Namespace, run):
    """What to evaluate on: (DataConfig, split, description)."""
    from jax_diffse.data.config import FOLDERS, DataConfig, Folders

    own = DataConfig.from_config_dict(run.config.get('data', {}))
    own = dataclasses.replace(own, skip_bad=own.skip_bad or args.skip_bad, resample=own.resample or args.resample)
    folders = {name: getattr(args, name) for name in ('clean', 'noisy', 'speech', 'noise') if getattr(args, name)}
    if tuple(folders) not in ((), ('clean', 'noisy'), ('speech', 'noise')):
        raise UserError(f'{" ".join(f"--{name}" for name in folders)} given, expected --clean and --noisy, or --speech '
                        'and --noise')
    for flag, value in (('--snr-db', args.snr_db), ('--clip-seconds', args.clip_seconds)):
        if value is not None and 'speech' not in folders:
            raise UserError(f'{flag} given, which is only of use where --speech and --noise are mixed')
    if args.resample and not folders and own.name != FOLDERS:
        raise UserError(f'--resample: is for folders, but {run.workdir} is evaluated on {own.name}, which has one rate')
    if not folders:
        split = args.split or 'test'
        if own.name == FOLDERS and split == 'test' and own.test == Folders():
            raise UserError(f'{run.workdir}: its config names no test data; give --clean and --noisy, or --speech and '
                            '--noise')
        return own, split, own.describe(split)
    if args.split:
        raise UserError(f"--split={args.split} given with --{next(iter(folders))}: a split is of the run's own data")
    config = dataclasses.replace(
        own, name=FOLDERS, train=own.train if own.name == FOLDERS else Folders(), test=Folders(**folders),
        sample_rate=run.system.sample_rate, test_snr_db=args.snr_db or own.test_snr_db,
        clip_seconds=own.clip_seconds if args.clip_seconds is None else args.clip_seconds)
    return config, 'test', config.describe('test')


def _variants(args: argparse.Namespace):
    """The settings that are asked for."""
    from jax_diffse import runs
    from jax_diffse.evaluation.sweep import grid, parse_setting

    if args.compare is None:
        runs = [runs.load(workdir, step=args.checkpoint, model=dict(args.model)) for workdir in args.workdir]
        return grid(runs, args.steps or (None,), {key: values.split(',') for key, values in args.sweep})
    if args.steps or args.sweep:
        raise UserError('--compare: does not go together with --steps and --sweep; expected RUN@steps=N,KEY=VALUE')
    found = []
    for workdir, changes, steps in map(parse_setting, args.compare):
        run = runs.load(workdir, step=args.checkpoint, model=dict(args.model))
        found += grid([run], (steps,), {key: [value] for key, value in changes.items()})
    return found


def main() -> int | None:
    launch.tune()
    args = _parse()
    return processes.run(lambda: _evaluate(args), args)


def _evaluate(args: argparse.Namespace) -> None:
    import jax

    from jax_diffse import runs
    from jax_diffse.data import FOLDERS, open_source
    from jax_diffse.data.folders import MixSource
    from jax_diffse.evaluation.evaluate import check_apart, evaluate
    from jax_diffse.evaluation.sweep import sweep
    from jax_diffse.inference.enhancer import Enhancer
    from jax_diffse.metrics import scoring
    from jax_diffse.systems.base import Refiner

    variants = _variants(args)
    first = variants[0].run
    preceding = runs.load(args.preceding) if args.preceding else None
    metrics = None if args.metrics is None else tuple(dict.fromkeys(args.metrics.split(',')))
    scoring.check(metrics, first.system.sample_rate)  # before the data, which may take long to prepare
    refining = [variant.run for variant in variants if isinstance(variant.run.system, Refiner)] or [first]
    Enhancer(refining[0], preceding=preceding).check_processed(args.processed is not None)
    config, split, description = _data(args, first)
    if args.save_audio and config.name == FOLDERS:
        for folders in map(dataclasses.asdict, (config.train, config.validation, config.test)):
            for folder in filter(None, folders.values()):
                check_apart(args.output, folder)
    source = open_source(config, split)
    if isinstance(source, MixSource) and not jax.process_index():
        source.write_manifest(f'{args.output}/mixtures.tsv')
    common = {'preceding': preceding, 'processed': args.processed, 'data': description, 'metrics': metrics,
              'limit': args.limit, 'workers': args.workers, 'skip_bad': config.skip_bad, 'cache': args.cache,
              'command': shlex.join(['python', *sys.argv])}
    if len(variants) == 1 and len(args.seeds) == 1:
        evaluate(first, source, args.output, steps=variants[0].steps, seed=args.seeds[0], save_audio=args.save_audio,
                 **common)
    elif args.save_audio:
        raise UserError('--save-audio: is for one setting; the audio of several is in the cache, or give one at a time')
    else:
        sweep(variants, source, args.output, seeds=args.seeds, **common)


if __name__ == '__main__':
    errors.exit_with(main)
