"""Prints tables of trainings with and without samples of a diffusion model in their data, over several seeds.

    python -m docs.augmentation --base REPORT --augmented REPORT... --control REPORT...

REPORT is a folder that `jax-diffse evaluate` wrote for one setting; all are on the same files. `--augmented` and
`--control` take the reports of trainings that differ in config.train.seed alone, `--base` that of the run they started
from. Mixtures whose noise is known to be of a class in training (seen) or of another one (unseen) get a table each.
"""

import argparse
import csv
import pathlib
from typing import NamedTuple

import numpy as np

from docs.refinement import METRICS
from jax_diffse.errors import UserError, exit_with
from jax_diffse.evaluation import bootstrap
from jax_diffse.evaluation.tables import grid, heading, number
from jax_diffse.metrics import METRICS as CATALOGUE

NOISY = 'noisy'


class Report(NamedTuple):
    """The scores of the noisy input and of the last stage, per file and metric."""

    folder: str
    kinds: dict[str, str]  # id -> 'seen', 'unseen' or ''
    noisy: dict[str, dict[str, float]]  # id -> metric -> value
    enhanced: dict[str, dict[str, float]]


def read(folder: str) -> Report:
    """Reads a report.

    Raises:
      UserError: it has no scores of one setting.
    """
    path = pathlib.Path(folder, 'scores.csv')
    if not path.exists():
        raise UserError(f'{folder}: has no scores.csv, expected a folder that evaluate wrote')
    with path.open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    if not rows or 'noise_kind' not in rows[0]:
        raise UserError(f'{folder}: has several settings, expected a report of one')
    last = rows[-1]['stage']

    def of(stage):
        return {row['id']: {metric: float(row[metric]) for metric in METRICS if row.get(metric)}
                for row in rows if row['stage'] == stage}

    return Report(folder, {row['id']: row['noise_kind'] for row in rows}, of(NOISY), of(last))


def tables(groups: dict[str, list[Report]]) -> str:
    """A table of means and one of paired differences, for all files and for every kind of noise.

    Args:
      groups: 'base', 'augmented' and 'control' -> reports.

    Raises:
      UserError: reports on different files.
    """
    every = [report for reports in groups.values() for report in reports]
    for report in every[1:]:
        if report.kinds != every[0].kinds:
            raise UserError(f'{report.folder}: expected a report on the files of {every[0].folder}')
    kinds, parts = every[0].kinds, []
    for kind in dict.fromkeys(['', *sorted(kinds.values())]):
        ids = [name for name, own in kinds.items() if kind in ('', own)]
        values = {name: stack([report.enhanced for report in reports], ids) for name, reports in groups.items()}
        values = {NOISY: stack([every[0].noisy], ids)} | values
        title = f'{len(ids)} files' + (f', {kind} noise' if kind else '')
        parts.append(f'{title}:\n\n{means(values)}\n\n{differences(values)}')
    return '\n\n'.join(parts)


def stack(scores: list[dict], ids: list[str]) -> dict[str, np.ndarray]:
    """Metric -> `[seeds, files]`, for the metrics that all files have."""
    metrics = [metric for metric in METRICS if all(metric in found[name] for found in scores for name in ids)]
    return {metric: np.array([[found[name][metric] for name in ids] for found in scores]) for metric in metrics}


def means(values: dict[str, dict]) -> str:
    """Rows of means over files and seeds, with the standard deviation over seeds of the mean over files."""
    metrics = _common(values)
    rows = []
    for name, own in values.items():
        found = [(bootstrap.estimate(own[metric]), metric) for metric in metrics]
        rows.append([name, str(len(own[metrics[0]])), *(_spread(estimate, metric) for estimate, metric in found)])
    return grid(['mean (± over seeds)', 'trainings', *map(heading, metrics)], 1, rows)


def differences(values: dict[str, dict]) -> str:
    """Rows of paired differences per file, averaged over seeds, with intervals and the files made better and worse."""
    metrics, rows = _common(values), []
    for name, other in (('augmented', 'control'), ('augmented', 'base'), ('control', 'base')):
        cells = [_interval(bootstrap.difference(values[name][metric], values[other][metric], CATALOGUE[metric].sign),
                           metric) for metric in metrics]
        rows.append([f'{name} - {other}', *cells])
    interval = f'difference [{100 * bootstrap.CONFIDENCE:g} % interval], files better/worse'
    return grid([interval, *map(heading, metrics)], 1, rows)


def _common(values: dict[str, dict]) -> list[str]:
    return [metric for metric in METRICS if all(metric in own for own in values.values())]


def _spread(estimate: bootstrap.Estimate, metric: str) -> str:
    text = number(estimate.mean, metric)
    return f'{text} ± {number(estimate.seed_std, metric)}' if np.isfinite(estimate.seed_std) else text


def _interval(found: bootstrap.Difference, metric: str) -> str:
    low, high = (number(bound, metric, sign=True) for bound in (found.low, found.high))
    return f'{number(found.mean, metric, sign=True)} [{low}, {high}], {found.better}/{found.worse}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--base', nargs=1, required=True, metavar='REPORT')
    for name in ('--augmented', '--control'):
        parser.add_argument(name, nargs='+', required=True, metavar='REPORT')
    given = vars(parser.parse_args())
    print(tables({name: list(map(read, folders)) for name, folders in given.items()}))


if __name__ == '__main__':
    exit_with(main)
