"""Measures systems, scaling, data, metrics, NISQA, losses and streaming: `python -m benchmarks`.

Writes OUTPUT/benchmarks.json and OUTPUT/benchmarks.md. With --plan, it measures nothing and writes OUTPUT/plans.json
and OUTPUT/plans.md: what the compilers for accelerators say of every system; plans that are there already stay until
they are made again. docs/benchmarks.md explains each figure.
"""

import argparse
import json
import os
import pathlib
import signal
import sys
import time

from benchmarks import job, plan, plans, report
from jax_diffse import errors, files, launch
from jax_diffse.errors import UserError


def _names(text: str) -> list[str]:
    return [name for name in text.split(',') if name]


def _folder(text: str) -> pathlib.Path:
    return files.path(text)


def _counts(text: str) -> list[int]:
    return [_count(number) for number in text.split(',')]


def _count(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _seconds(text: str) -> float:
    if not 0 < float(text) < float('inf'):
        raise ValueError
    return float(text)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    full = plan.FULL
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument('--output', type=_folder, default='runs/benchmarks', metavar='DIR',
                        help='folder for the results (default: %(default)s)')
    parser.add_argument('--against', type=files.given, metavar='JSON',
                        help='an earlier benchmarks.json to compare with, as ratios')
    parser.add_argument('--only', type=_names, default=list(plan.PARTS), metavar='A,B,...',
                        help=f'parts (default: {",".join(plan.PARTS)})')
    parser.add_argument('--quick', action='store_true', help='measure everything at its smallest size, as a check')
    parser.add_argument('--synthetic', action='store_true',
                        help='leave out the pipeline and starts, which need TensorFlow; the rest runs on noise anyway')
    parser.add_argument('--plan', action='store_true',
                        help='plan the systems on accelerators that are not at hand, and measure nothing')
    parser.add_argument('--targets', type=_names, default=list(plans.TARGETS), metavar='A,B,...',
                        help=f'of --plan, TPU slices or GPUs (default: {",".join(plans.TARGETS)})')
    of_systems = parser.add_argument_group('systems')
    of_systems.add_argument('--systems', type=_names, default=list(plan.SYSTEMS), metavar='A,B,...',
                            help=f'default: {",".join(plan.SYSTEMS)}')
    of_systems.add_argument('--steps', type=_counts, metavar='A,B,...',
                            help=f'numbers of sampling steps (default: {",".join(map(str, full.steps))})')
    of_systems.add_argument('--batch', type=_count, help=f'number of waveforms (default: {full.batch})')
    of_systems.add_argument('--seconds', type=_seconds, help=f'length of each (default: {full.seconds:g})')
    of_systems.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'), help='also used by scaling')
    of_systems.add_argument('--repeats', type=_count, help=f'at most, for each median (default: {full.repeats})')
    of_pipeline = parser.add_argument_group('pipeline')
    of_pipeline.add_argument('--speech', type=files.given, default='', metavar='DIR',
                             help='mix your own files; goes with --noise')
    of_pipeline.add_argument('--noise', type=files.given, default='', metavar='DIR')
    args = parser.parse_args(argv)
    plan.check('--only', args.only, plan.PARTS)
    plan.check('--systems', args.systems, plan.SYSTEMS)
    if bool(args.speech) != bool(args.noise):
        raise UserError('--speech and --noise go together: give both or neither')
    return args


def main(argv: list[str] | None = None) -> int:
    """Runs the jobs one after the other and writes the results after each; returns 1 if one failed."""
    args = _parse(argv)
    earlier = report.load(args.against) if args.against else None
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--output={args.output}: cannot create the folder ({error.strerror})') from error
    size = plan.size_of(args)
    machine = job.start(plan.Job('machine', {'repeats': size.repeats}))
    if machine.failure:
        raise UserError(f'cannot measure anything on this machine: {machine.failure}')
    if args.plan:
        return _plan(args, machine.figures[0])
    found = {'format': report.FORMAT, 'complete': False, **machine.figures[0], 'left_out': {}, 'failures': {},
             'figures': []}
    for each in plan.jobs(args, size, found['hardware']):
        if each.part in args.only:
            _measure(each, args.synthetic, found)
            report.write(args.output, found, earlier)
    report.write(args.output, found | {'complete': True}, earlier)
    print(f'{args.output / "benchmarks.md"}')
    return 1 if found['failures'] else 0


def _plan(args: argparse.Namespace, machine: dict) -> int:
    """Plans the systems one after the other and writes the results after each; returns 1 if one failed.

    Plans in the folder stay there until they are made again.
    """
    found, failed = plans.load(args.output / 'plans.json'), False
    for each in plans.jobs(args.systems, args.targets):
        outcome = job.start(each)
        print(f'{each}: {outcome.failure or "planned"}', flush=True)
        found[each.label] = plans.record(outcome, machine)
        failed |= bool(outcome.failure)
        files.write_text(args.output / 'plans.json', json.dumps(found, indent=1) + '\n')
        files.write_text(args.output / 'plans.md', plans.markdown(found))
    print(f'{args.output / "plans.md"}')
    return int(failed)


def _measure(each: plan.Job, synthetic: bool, found: report.Report) -> None:
    """Runs a job, adds its outcome to `found`, and prints a line about it."""
    started = time.perf_counter()
    left_out = synthetic and each.part in ('pipeline', 'starts')
    outcome = job.Outcome([], '--synthetic', '') if left_out else job.start(each)
    found['figures'] += outcome.figures
    print(f'{each}: {len(outcome.figures)} figures in {time.perf_counter() - started:.0f} s', flush=True)
    for key, words, reason in (('left_out', 'left out', outcome.left_out), ('failures', 'failed', outcome.failure)):
        if reason:
            found[key][str(each)] = reason
            print(f'{each} {words}: {reason}', flush=True)


if __name__ == '__main__':
    # Compile times are measured, so no program may come from a cache.
    os.environ.update(JAX_DIFFSE_CACHE='off', JAX_ENABLE_COMPILATION_CACHE='false')
    launch.tune()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which also ends the job's process
    errors.exit_with(main)
