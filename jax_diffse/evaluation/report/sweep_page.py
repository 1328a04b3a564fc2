"""The report on a sweep as one self-contained HTML page, which needs neither network nor other files."""

import base64
import math
from collections.abc import Sequence

from jax_diffse.evaluation import bootstrap
from jax_diffse.evaluation.bootstrap import Difference, Estimate
from jax_diffse.evaluation.cache import ResultCache
from jax_diffse.evaluation.evaluator import Evaluator
from jax_diffse.evaluation.report import page
from jax_diffse.evaluation.report.curves import Figure
from jax_diffse.evaluation.sweep_results import Point, SweepResults
from jax_diffse.metrics import METRICS


def examples(evaluator: Evaluator, results: SweepResults, caches: Sequence[ResultCache]) -> list[page.Example]:
    """Files with the best, median and worst gain at the first point, at every point, with the first seed."""
    return [page.Example(label, i, _waveforms(evaluator, results, caches, i))
            for label, i in results.points[0].seeds[0].ends().items()]


def _waveforms(evaluator, results, caches, i):
    found = {}
    for point, cache in zip(results.points, caches, strict=True):
        waveforms = evaluator.waveforms(cache, i, (*point.baselines, point.last))
        last = waveforms.pop(point.last)
        found = {**waveforms, **found, point.label: last}
    order = [name for name in found if name not in {point.label for point in results.points}]
    return {name: found[name] for name in (*order, *(point.label for point in results.points))}


def render(results: SweepResults, summary: dict, drawn: Sequence[Figure], shown: Sequence[page.Example],
           sample_rate: int) -> str:
    """Renders the page.

    Args:
      results: every point.
      summary: the content of `sweep.json`.
      drawn: figures to show.
      shown: files to show with spectrograms and players.
      sample_rate: of these files, Hz.
    """
    first = results.points[0].seeds[0]
    return page.environment().get_template('sweep.html').render(
        results=results, summary=summary, main=results.metrics[first.main_metric()], infos=first.infos,
        keys=results.keys(), rows=_rows(results), differences=[(point, results.differences(point))
                                                               for point in results.points[1:]],
        spread=[(point, results.means(point, point.last)) for point in results.points if len(point.seeds) > 1],
        figures=[(figure.title, _data_uri(figure.path.read_bytes())) for figure in drawn],
        examples=[page.show(example, sample_rate) for example in shown], percent=100 * bootstrap.CONFIDENCE,
        resamples=bootstrap.RESAMPLES, clear=_clear)


def _rows(results: SweepResults) -> list[tuple[Point | None, str, list[Estimate | None]]]:
    """The rows (point, stage, means) of the table; the point of the inputs is None."""
    inputs = [(None, row, found) for row, found in results.inputs.items()]
    return inputs + [(point, stage, results.means(point, stage)) for point in results.points for stage in point.stages]


def _clear(found: Difference, metric: str) -> str:
    """'better' or 'worse' if the interval excludes zero, else ''."""
    if not (math.isfinite(found.low) and (found.low > 0 or found.high < 0)):
        return ''
    return 'worse' if (found.low > 0) == METRICS[metric].lower_is_better else 'better'


def _data_uri(png: bytes) -> str:
    return f'data:image/png;base64,{base64.b64encode(png).decode()}'


