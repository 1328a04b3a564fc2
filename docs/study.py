"""Trains several systems, evaluates them together and stores the results, as docs/studies/NAME.toml says.

    python -m docs.study NAME --data DIR --speed  # how many steps take the study's processor time
    python -m docs.study NAME --data DIR          # trains, evaluates, stores: docs/results/NAME_EVALUATION.json

Measure --speed on an idle machine and copy the steps into the file. Every training runs on a core of its own, as many
at once as there are cores that this process may use (--lanes). Rerunning an interrupted command resumes it. Run it at
the top of a clone, with --data below it, because stored results have no absolute paths.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from docs import results
from jax_diffse.errors import UserError, exit_with

STUDIES = pathlib.Path(__file__).parent / 'studies'
SPEED_STEPS, WARM_UP = 40, 10  # of a training that measures its speed, and those before it counts


class Training(NamedTuple):
    """A training of a study."""

    name: str  # of the run's folder
    arguments: list[str]  # of train.py, without --workdir


def load(name: str) -> dict:
    """The definition of a study.

    Raises:
      UserError: there is none of this name, or it is no TOML.
    """
    path = STUDIES / f'{name}.toml'
    try:
        return tomllib.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        known = ', '.join(sorted(path.stem for path in STUDIES.glob('*.toml')))
        raise UserError(f'{name}: no such study, expected one of: {known}') from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f'{path}: {error}') from error


def trainings(study: dict, data: str) -> Iterator[Training]:
    """The trainings of a study, for every seed."""
    folders = {f'data.{key}': f'{data}/{folder}' for key, folder in study['data'].items()}
    for seed in study['seeds']:
        for name, system in study['systems'].items():
            keys = folders | study.get('keys', {}) | system.get('keys', {}) | {'train.seed': seed}
            yield Training(f'{name}_{seed}' if len(study['seeds']) > 1 else name,
                           ['--config', system['config'], *(f'--config.{key}={value}' for key, value in keys.items())])


def evaluations(study: dict, data: str, folder: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """The name and the arguments of every evaluation of all runs."""
    workdirs = [word for training in trainings(study, data) for word in ('--workdir', f'{folder}/{training.name}')]
    for name, evaluation in study['evaluations'].items():
        yield name, [*workdirs, '--output', f'{folder}/{name}', *(
            argument.replace('{data}', data) for argument in evaluation['arguments'])]


def lanes(count: int | None) -> list[int | None]:
    """The core of each of `count` lanes, of those that this process may use; default: all. A single lane has all cores.

    Raises:
      UserError: there are fewer cores.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else [0]
    count = len(cores) if count is None else count
    if not 1 <= count <= len(cores):
        raise UserError(f'--lanes={count}: expected 1 to {len(cores)}, the number of cores that this process may use')
    return [None] if count == 1 else [*cores[:count]]


def on_lanes(jobs: list[Training], lanes: list[int | None], work: Callable[[Training, int | None], None]) -> None:
    """Does the work of every training, as many at once as there are lanes."""
    cores: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for core in lanes:
        cores.put(core)

    def run(job):
        core = cores.get()
        try:
            work(job, core)
        finally:
            cores.put(core)

    with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:
        list(pool.map(run, jobs))


def train(training: Training, workdir: str, core: int | None, log: pathlib.Path, *more: str) -> None:
    """Trains, or resumes, or does nothing if the training is complete.

    Raises:
      UserError: the training failed.
    """
    command = [sys.executable, 'train.py', *training.arguments, *more, '--workdir', workdir]
    bind = None if core is None else lambda: os.sched_setaffinity(0, {core})
    with open(log, 'a', encoding='utf-8') as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, preexec_fn=bind).returncode
    if status:
        raise UserError(f'{training.name}: the training ended with status {status}, see {log}')


def speed(training: Training, core: int | None, minutes: float) -> str:
    """Trains for a few steps and says how many take the given time."""
    with tempfile.TemporaryDirectory() as folder:
        more = [f'--config.{key}={value}' for key, value in {
            'train.steps': SPEED_STEPS, 'train.log_every': WARM_UP, 'train.eval_every': SPEED_STEPS}.items()]
        train(training, f'{folder}/run', core, pathlib.Path(folder, 'log'), *more)
        run = pathlib.Path(folder, 'run')
        lines = (run / 'log.jsonl').read_text(encoding='utf-8').splitlines()
        batch = json.loads((run / 'config.json').read_text(encoding='utf-8'))['train']['batch_size']
    rates = [entry['examples_per_second'] for entry in map(json.loads, lines)
             if 'examples_per_second' in entry and entry['step'] > WARM_UP]
    seconds = batch * sum(1 / rate for rate in rates) / len(rates)
    return f'{training.name}: {seconds:.3g} s per step, {60 * minutes / seconds:.0f} steps in {minutes:g} minutes'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', metavar='NAME')
    parser.add_argument('--data', required=True, metavar='DIR', help='the folder that the study names folders of')
    parser.add_argument('--output', type=pathlib.Path, metavar='DIR', help='default: runs/NAME')
    parser.add_argument('--lanes', type=int, metavar='N',
                        help='trainings at once, each on one core (default: one per core); 1: all cores or the '
                             'accelerator for each')
    parser.add_argument('--only', metavar='A,B,...', help='runs to train, and no evaluation')
    parser.add_argument('--speed', action='store_true', help='measure the steps, and nothing else')
    args = parser.parse_args()
    study = load(args.study)
    folder = args.output or pathlib.Path('runs', args.study)
    jobs = {training.name: training for training in trainings(study, args.data)}
    names = args.only.split(',') if args.only else list(jobs)
    if not jobs.keys() >= set(names):
        raise UserError(f'--only={args.only}: expected some of {", ".join(jobs)}')
    chosen, cores = [jobs[name] for name in names], lanes(args.lanes)
    folder.mkdir(parents=True, exist_ok=True)
    if args.speed:
        on_lanes(chosen, cores, lambda job, core: print(speed(job, core, study['minutes']), flush=True))
        return
    on_lanes(chosen, cores, lambda job, core: train(job, f'{folder}/{job.name}', core, folder / f'{job.name}.log'))
    if args.only:
        return
    for name, arguments in evaluations(study, args.data, folder):
        if status := subprocess.run([sys.executable, 'evaluate.py', *arguments]).returncode:
            raise UserError(f'{name}: the evaluation ended with status {status}, see above')
        results.add(folder / name, f'{args.study}_{name}', study['about'])
    (results.HERE / 'results.md').write_text(results.page(), encoding='utf-8')


if __name__ == '__main__':
    exit_with(main)
