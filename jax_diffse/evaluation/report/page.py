"""The report as one self-contained HTML page, which needs neither network nor other files."""

import functools
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2
import markupsafe
import numpy as np

from jax_diffse.evaluation import bootstrap
from jax_diffse.evaluation.other_systems import span
from jax_diffse.evaluation.report import figures
from jax_diffse.evaluation.results import Results
from jax_diffse.evaluation.tables import KINDS_NOTE, NOT_APPLICABLE, PROPERTIES, number
from jax_diffse.metrics import METRICS, Scores
from jax_diffse.metrics.scoring import CLEAN

HERE = pathlib.Path(__file__).parent
MOST_STAGES = 4  # with more, only changes from the first stage have histograms
MAX_SECONDS = 30  # of an example, to limit the size of the page
STAGE_COLOURS = ('#b9732f', '#2b66b1', '#6b4fa0', '#2f7d6d', '#a33e78',  # of histograms, by stage
                 '#7a8b1f', '#c2504a', '#3b9ab2', '#8a5a44', '#5b6b7f')
CLEAN_COLOUR = '#7c8796'
HEADLINES = ('pesq_wb', 'estoi', 'si_sdr', 'covl', 'nisqa_v2_mos')  # shown large, if computed


class Example(NamedTuple):
    """A file to show with spectrograms and players."""

    label: str  # the reason for its choice
    file: int  # index
    waveforms: Mapping[str, np.ndarray]  # 'clean' and every stage -> [N]


def render(results: Results, summary: dict, examples: list[Example], sample_rate: int) -> str:
    """Renders the page.

    Args:
      results: scores of every file.
      summary: see `jax_diffse.evaluation.evaluate.evaluate`.
      examples: files to show with spectrograms and players.
      sample_rate: of the examples, Hz.
    """
    return environment().get_template('evaluation.html').render(
        results=results, summary=summary, main=results.metrics[results.main_metric()],
        headlines=[metric for metric in HEADLINES if metric in results.metrics] or results.metrics[:4],
        stage_colours=_stage_colours(results), cards=[_card(results, m) for m in range(len(results.metrics))],
        width=figures.WIDTH, row=figures.ROW, examples=[show(example, sample_rate) for example in examples],
        table=_per_file(results), failures=_by_reason(summary['failures']), kinds_note=KINDS_NOTE,
        percent=100 * bootstrap.CONFIDENCE, properties=PROPERTIES, span=span)


@functools.cache
def environment() -> jinja2.Environment:
    """The templates of the self-contained pages."""
    found = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True,
                               lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    found.filters.update(number=_number, config=lambda config: json.dumps(config, indent=2, sort_keys=True))
    found.tests['finite'] = math.isfinite
    found.globals.update(style=_inline('style.css'), script=_inline('script.js'), known=METRICS,
                         max_seconds=MAX_SECONDS, range_db=figures.RANGE_DB,
                         colour_scale=figures.colour_scale(), not_applicable=NOT_APPLICABLE)
    return found


def _inline(name: str) -> markupsafe.Markup:
    """A file of this folder, to insert without escaping."""
    return markupsafe.Markup((HERE / name).read_text(encoding='utf-8'))


def _number(value: float, metric: str, sign: bool = False) -> str:
    return number(value, metric, sign).replace('-', '−')


def _by_reason(failures: list[dict]) -> list[dict]:
    """Merges the failures of one file and stage that have one reason into one row."""
    rows: dict[tuple, list[str]] = {}
    for failure in failures:
        rows.setdefault((failure['id'], failure['stage'], failure['reason']), []).append(failure['metric'])
    return [{'id': utterance, 'stage': stage, 'metrics': metrics, 'reason': reason}
            for (utterance, stage, reason), metrics in rows.items()]


def _stage_colours(results: Results) -> dict[str, str]:
    stages = {stage: STAGE_COLOURS[i % len(STAGE_COLOURS)] for i, stage in enumerate(results.stages)}
    return {CLEAN: CLEAN_COLOUR} | stages


def _card(results: Results, m: int) -> dict:
    """The histograms of a metric: its values for clean speech, if any, and at every stage, and its changes between
    stages.
    """
    metric, clean = results.metrics[m], results.clean_values()
    values = {CLEAN: clean[metric]} if metric in clean else {}
    values |= {stage: results.values[:, s, m] for s, stage in enumerate(results.stages)}
    pairs = results.pairs if len(results.stages) <= MOST_STAGES else [(stage, results.stages[0])
                                                                      for stage in results.stages[1:]]
    changes = {pair: results.differences(*pair)[:, m] for pair in pairs}
    if METRICS[metric].lower_is_better:  # zero goes to the better side, as no change is no loss
        changes = {pair: np.where(change == 0, -1e-9, change) for pair, change in changes.items()}
    return {'metric': metric, 'values': figures.histograms(values), 'changes': figures.histograms(changes)}


def show(example: Example, sample_rate: int) -> dict:
    """Spectrograms and sounds of an example; its spectrograms share one colour scale."""
    shown = {name: waveform[:MAX_SECONDS * sample_rate] for name, waveform in example.waveforms.items()}
    power = {name: figures.power_db(waveform) for name, waveform in shown.items()}
    loudest = (power['clean'] if 'clean' in power else np.concatenate(list(power.values()), axis=1)).max()
    return {'label': example.label, 'file': example.file,
            'signals': {name: {'picture': figures.spectrogram(power[name], loudest, sample_rate),
                               'sound': figures.player(waveform, sample_rate)}
                        for name, waveform in shown.items()},
            'cut': any(len(waveform) > MAX_SECONDS * sample_rate for waveform in example.waveforms.values())}


def _per_file(results: Results) -> dict:
    """The table of files for the script, clean speech last; null stands for NaN and for metrics that do not apply."""
    names = [*results.stages, *([CLEAN] if results.clean else [])]
    return {
        'metrics': list(results.metrics), 'not_applicable': NOT_APPLICABLE,
        'decimals': [METRICS[metric].decimals for metric in results.metrics],
        'signs': [METRICS[metric].sign for metric in results.metrics],
        'titles': [METRICS[metric].title for metric in results.metrics], 'stages': names,
        'facts': [fact for fact in ('snr_db', 'noise')
                  if any(info.get(fact) not in (None, '') for info in results.infos)],
        'files': [{'id': info['id'], 'snr_db': info.get('snr_db'), 'noise': info.get('noise') or None,
                   'values': [_rounded(rows[name], results.metrics) for name in names],
                   'reasons': [rows[name].reasons for name in names]}
                  for info, rows in ((info, results.rows(i)) for i, info in enumerate(results.infos))],
    }


def _rounded(scores: Scores, metrics: Sequence[str]) -> list[float | None]:
    values = [scores.values.get(metric, math.nan) for metric in metrics]
    return [None if math.isnan(value) else round(value, 6) for value in values]
