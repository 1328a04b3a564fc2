"""Figures of a sweep: every metric against every varied number, with confidence bands, as PNG and PDF."""

import math
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jax_diffse import files
from jax_diffse.evaluation.evaluator import NOISY
from jax_diffse.evaluation.sweep_results import Point, SweepResults
from jax_diffse.evaluation.tables import heading

COLUMNS = 4  # of panels
STYLES = ('-', '--', ':', '-.')  # by stage, the last stage first
MARKERS = ('o', 's', '^', 'D')
LOG_RATIO = 8  # an axis is logarithmic if its ends differ by more than this factor


class Figure(NamedTuple):
    """A figure on disk."""

    title: str
    path: pathlib.Path  # of the PNG; the PDF is in the same folder


class _Axis(NamedTuple):
    name: str  # of files
    label: str
    value: Callable[[Point], float | None]  # None: the point is not on the axis
    series: Callable[[Point], str]  # points of one series are joined


def draw(results: SweepResults, folder: pathlib.Path) -> list[Figure]:
    """Draws every metric against the network evaluations, the real-time factor and every number that was varied.

    A figure is left out if nothing varies along its axis.
    """
    axes = [_Axis('nfe', 'network evaluations', lambda point: point.evaluations, lambda point: point.series),
            _Axis('rtf', 'real-time factor', lambda point: point.real_time_factor, lambda point: point.series)]
    axes += [_Axis(key, key, lambda point, key=key: point.changes.get(key), lambda point, key=key: _without(point, key))
             for key in results.keys() if all(isinstance(point.changes.get(key, 0.0), (int, float))
                                              for point in results.points)]
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw(results, axis, folder) for axis in axes
            if len({axis.value(point) for point in results.points} - {None}) > 1]


def _without(point: Point, key: str) -> str:
    """The name of a point without one of its keys."""
    rest = [f'{name}={value}' for name, value in point.changes.items() if name != key]
    return ', '.join([point.run, *rest, *([] if point.steps is None else [f'{point.steps} steps'])])


def _draw(results: SweepResults, axis: _Axis, folder: pathlib.Path) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure as Drawing

    rows, columns = math.ceil(len(results.metrics) / COLUMNS), min(COLUMNS, len(results.metrics))
    drawing = Drawing(figsize=(3.1 * columns, 2.4 * rows + 0.6), layout='constrained')
    FigureCanvasAgg(drawing)
    panels = drawing.subplots(rows, columns, squeeze=False).flat
    for m, (metric, panel) in enumerate(zip(results.metrics, panels)):
        _panel(results, axis, m, panel)
        panel.set_title(heading(metric), fontsize=10)
        panel.set_xlabel(axis.label, fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.25, linewidth=0.6)
    for panel in panels:  # panels without a metric
        panel.set_axis_off()
    handles = dict(zip(*reversed(drawing.axes[0].get_legend_handles_labels())))
    drawing.legend(handles.values(), handles.keys(), loc='outside lower center', ncols=min(len(handles), 4), fontsize=8,
                   frameon=False)
    path = folder / f'{axis.name.replace("/", "_")}.png'
    for file in (path, path.with_suffix('.pdf')):
        with files.atomic_write(file) as partial:
            drawing.savefig(partial, format=file.suffix[1:], dpi=150,
                            metadata={'CreationDate': None} if file.suffix == '.pdf' else None)
    return Figure(f'against {axis.label}', path)


def _panel(results: SweepResults, axis: _Axis, m: int, panel) -> None:
    """Draws one metric: a line with a band per series and stage; horizontal lines for stages without a sampler."""
    noisy = results.inputs[NOISY][m].mean
    panel.axhline(noisy, color='0.5', linestyle=':', linewidth=1.2, label=NOISY)
    places, names = [], list(dict.fromkeys(axis.series(point) for point in results.points))
    for i, name in enumerate(names):
        points = sorted((point for point in results.points if axis.series(point) == name and axis.value(point) is not
                         None), key=axis.value)
        colour = f'C{i}'
        if not points:  # a system without a sampler has no place on this axis
            point = next(point for point in results.points if axis.series(point) == name)
            panel.axhline(results.means(point, point.last)[m].mean, color=colour, linewidth=1.2, label=name)
            continue
        places += [axis.value(point) for point in points]
        for stage in points[0].baselines:
            panel.axhline(results.means(points[0], stage)[m].mean, color=colour, linestyle='--', linewidth=0.9,
                          alpha=0.7, label=f'{points[0].run}: {stage}')
        _stages(results, axis, m, panel, name, points, colour)
    if min(places) > 0 and max(places) / min(places) > LOG_RATIO:
        panel.set_xscale('log')
    if axis.name != 'rtf':
        places = sorted(set(places))[:: 1 + len(set(places)) // 9]
        panel.set_xticks(places, [f'{place:g}' for place in places], minor=False)
        panel.set_xticks([], minor=True)


def _stages(results: SweepResults, axis: _Axis, m: int, panel, name: str, points: Sequence[Point], colour: str) -> None:
    stages = [stage for stage in reversed(points[0].stages) if stage not in points[0].baselines
              and all(stage in point.stages for point in points)]  # a system may have fewer at one step
    x = np.array([axis.value(point) for point in points], float)
    for k, stage in enumerate(stages):
        found = [results.means(point, stage)[m] for point in points]
        label = name if len(stages) == 1 else f'{name}: {stage}'
        panel.plot(x, [entry.mean for entry in found], color=colour, linestyle=STYLES[k % len(STYLES)],
                   marker=MARKERS[k % len(MARKERS)], markersize=3.5, linewidth=1.4, alpha=1 if k == 0 else 0.6,
                   label=label)
        if k == 0:  # one band per series keeps the figure legible
            low, high = ([getattr(entry, side) for entry in found] for side in ('low', 'high'))
            panel.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
