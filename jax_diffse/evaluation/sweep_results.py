"""Results of a sweep: means with intervals per setting and stage, paired differences, CSV and Markdown."""

import csv
import dataclasses
import functools
import io
import math
from collections.abc import Sequence

import numpy as np

from jax_diffse.evaluation import bootstrap
from jax_diffse.evaluation.bootstrap import Difference, Estimate
from jax_diffse.evaluation.evaluator import NOISY
from jax_diffse.evaluation.results import Results
from jax_diffse.evaluation.tables import grid, heading, number
from jax_diffse.metrics import METRICS
from jax_diffse.metrics.scoring import CLEAN


@dataclasses.dataclass(frozen=True)
class Point:
    """A setting of a run, over all seeds."""

    run: str  # name
    changes: dict[str, object]  # varied key in config.model -> value
    steps: int | None  # of sampling; None: the system does not sample
    evaluations: int | None  # of the network in so many steps
    checkpoint: dict
    stages: tuple[str, ...] = ()  # of the system
    baselines: tuple[str, ...] = ()  # the stages that do not depend on the sampler
    seeds: tuple[Results, ...] = ()  # per seed
    real_time_factor: float = math.nan  # of enhancement, without compilation
    devices: tuple[str, ...] = ()

    @property
    def series(self) -> str:
        """The name of the point without the number of steps."""
        return ', '.join([self.run, *(f'{key}={value}' for key, value in self.changes.items())])

    @property
    def label(self) -> str:
        """The name of the point."""
        return self.series + ('' if self.steps is None else f', {self.steps} step{"s" * (self.steps != 1)}')

    @property
    def last(self) -> str:
        """The last stage, which is the enhanced speech."""
        return self.stages[-1]

    def values(self, stage: str, m: int) -> np.ndarray:
        """Metric m of a stage, `[seeds, files]`."""
        return np.array([found.values[:, found.stages.index(stage), m] for found in self.seeds])


@dataclasses.dataclass(frozen=True)
class SweepResults:
    """Points on one list of files; the first point is the reference of differences."""

    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    points: tuple[Point, ...]

    @functools.cached_property
    def inputs(self) -> dict[str, list[Estimate | None]]:
        """'clean', if it was scored, and 'noisy' -> the mean of each metric."""
        found = self.points[0].seeds[0]
        clean = found.clean_values()
        rows = {NOISY: [bootstrap.estimate(found.values[None, :, 0, m]) for m in range(len(self.metrics))]}
        if clean:
            rows = {CLEAN: [bootstrap.estimate(clean[metric][None]) if metric in clean else None
                            for metric in self.metrics]} | rows
        return rows

    def means(self, point: Point, stage: str) -> list[Estimate]:
        """The mean of each metric at a stage."""
        return self._means[point.label, stage]

    def differences(self, point: Point) -> list[Difference]:
        """The difference of each metric, at the last stage, to the first point."""
        return self._differences[point.label]

    @functools.cached_property
    def _means(self):
        return {(point.label, stage): [bootstrap.estimate(point.values(stage, m)) for m in range(len(self.metrics))]
                for point in self.points for stage in point.stages}

    @functools.cached_property
    def _differences(self):
        first = self.points[0]
        signs = [METRICS[metric].sign for metric in self.metrics]
        return {point.label: [bootstrap.difference(point.values(point.last, m), first.values(first.last, m), sign)
                              for m, sign in enumerate(signs)] for point in self.points}

    def keys(self) -> list[str]:
        """The varied keys of config.model."""
        return list(dict.fromkeys(key for point in self.points for key in point.changes))

    def tree(self) -> list[dict]:
        """All points for JSON, apart from NaN."""
        return [{
            'run': point.run, 'changes': point.changes, 'sampling_steps': point.steps,
            'network_evaluations': point.evaluations, 'label': point.label,
            'checkpoint': point.checkpoint, 'real_time_factor': point.real_time_factor,
            'devices': list(point.devices), 'baselines': list(point.baselines),
            'stages': {stage: {metric: found._asdict() for metric, found in
                               zip(self.metrics, self.means(point, stage), strict=True)} for stage in point.stages},
            'differences': {metric: found._asdict() for metric, found in
                            zip(self.metrics, self.differences(point), strict=True)},
        } for point in self.points]


def to_csv(results: SweepResults) -> str:
    """A line per point, stage and metric; undefined values are 'nan', values that do not apply are empty."""
    keys, text = results.keys(), io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['run', *keys, 'nfe', 'real_time_factor', 'stage', 'metric', *Estimate._fields,
                     *(f'difference_{name}' for name in Difference._fields)])
    for point in results.points:
        setting = [point.run, *(point.changes.get(key, '') for key in keys),
                   _nfe(point), point.real_time_factor]
        for stage in point.stages:
            differences = results.differences(point) if stage == point.last else [()] * len(results.metrics)
            for metric, found, change in zip(results.metrics, results.means(point, stage), differences, strict=True):
                writer.writerow([*setting, stage, metric, *found, *(change or [''] * len(Difference._fields))])
    return text.getvalue()


def scores_csv(results: SweepResults) -> str:
    """A line per point, seed, file and stage; the first point has the noisy input. Undefined values are 'nan'."""
    keys, text = results.keys(), io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['run', *keys, 'nfe', 'seed', 'id', 'stage', *results.metrics, 'reasons'])
    for point in results.points:
        setting = [point.run, *(point.changes.get(key, '') for key in keys), _nfe(point)]
        for seed, found in zip(results.seeds, point.seeds):
            for i, info in enumerate(found.infos):
                for s, stage in enumerate(found.stages):
                    if stage == NOISY and (point, seed) != (results.points[0], results.seeds[0]):
                        continue
                    reasons = '; '.join(f'{metric}: {reason}' for metric, reason in found.reasons[i][s].items())
                    writer.writerow([*setting, seed, info['id'], stage, *found.values[i, s].tolist(), reasons])
    return text.getvalue()


def to_markdown(results: SweepResults, title: str, notes: Sequence[str]) -> str:
    """Means and differences with their intervals, and the spread over seeds, as a Markdown document."""
    percent = f'{100 * bootstrap.CONFIDENCE:g} %'
    parts = [f'# {title}', '\n'.join(f'- {note}' for note in notes), means_table(results, intervals=True),
             f'Means over files with {percent} confidence intervals in brackets (bootstrap over files, '
             f'{bootstrap.RESAMPLES} draws). Arrows point to the better side. NFE: network evaluations of the sampler. '
             'RTF: real-time factor.']
    if len(results.points) > 1:
        parts += ['## Differences', differences_table(results),
                  f'Differences to {results.points[0].label}, paired by file. A star marks an interval that excludes '
                  'zero. Parentheses: numbers of better and of worse files.']
    if len(results.seeds) > 1:
        parts += ['## Spread over seeds', seeds_table(results),
                  f'Standard deviation of the mean over files, over {len(results.seeds)} seeds.']
    return '\n\n'.join(parts) + '\n'


def means_table(results: SweepResults, intervals: bool = False) -> str:
    """A Markdown table: clean and noisy speech, then every point and stage."""
    def row(names, estimates):
        return names + [mean_text(found, metric, intervals) if found else '–'
                        for found, metric in zip(estimates, results.metrics, strict=True)]

    rows = [row([name, '', '', ''], found) for name, found in results.inputs.items()]
    rows += [row([point.series, _nfe(point), stage, f'{point.real_time_factor:.3f}'], results.means(point, stage))
             for point in results.points for stage in point.stages]
    return grid(['setting', 'NFE', 'stage', 'RTF', *map(heading, results.metrics)], 1, rows)


def mean_text(found: Estimate, metric: str, intervals: bool) -> str:
    """A mean with its interval if requested and defined, such as '2.150 [2.010, 2.290]'."""
    text = number(found.mean, metric)
    if intervals and math.isfinite(found.low):
        text += f' [{number(found.low, metric)}, {number(found.high, metric)}]'
    return text


def differences_table(results: SweepResults) -> str:
    """A Markdown table: the differences of every point to the first."""
    rows = [[point.series, _nfe(point), *(difference_text(found, metric) for found, metric in
                                          zip(results.differences(point), results.metrics, strict=True))]
            for point in results.points[1:]]
    return grid(['setting', 'NFE', *map(heading, results.metrics)], 1, rows)


def difference_text(found: Difference, metric: str) -> str:
    """A difference such as '+0.020 [-0.010, +0.050] (20, 18)'; a star marks an interval that excludes zero."""
    low, high = (number(side, metric, sign=True) for side in (found.low, found.high))
    star = '*' if found.low > 0 or found.high < 0 else ''
    return f'{number(found.mean, metric, sign=True)} [{low}, {high}]{star} ({found.better}, {found.worse})'


def seeds_table(results: SweepResults) -> str:
    """A Markdown table of the standard deviation over seeds."""
    rows = [[point.series, _nfe(point), *(number(found.seed_std, metric) for found, metric in
                                          zip(results.means(point, point.last), results.metrics, strict=True))]
            for point in results.points]
    return grid(['setting', 'NFE', *results.metrics], 1, rows)


def _nfe(point: Point) -> str:
    return '' if point.evaluations is None else str(point.evaluations)
