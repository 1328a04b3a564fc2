"""Scores and their statistics as CSV and Markdown."""

import csv
import io
import math
from collections.abc import Sequence

from jax_diffse.evaluation import bootstrap
from jax_diffse.evaluation.results import Results
from jax_diffse.metrics import METRICS
from jax_diffse.metrics.scoring import CLEAN

PROPERTIES = {'snr_db': 'SNR (dB)', 'noise': 'noise', 'shared': 'files of'}  # of groups -> title
NOT_APPLICABLE = '–'  # for clean speech, in metrics that compare with it
KINDS_NOTE = 'Seen: noise of a class in the training data. Avg: the mean over the SNRs, n/a if one of them is n/a.'


def number(value: float, metric: str, sign: bool = False) -> str:
    """Formats a value of a metric; 'n/a' for NaN."""
    return f'{value:{"+" if sign else ""}.{METRICS[metric].decimals}f}' if math.isfinite(value) else 'n/a'


def to_csv(results: Results) -> str:
    """One line per file and stage, and one for its clean speech if that was scored.

    Undefined metrics are 'nan', with the reasons in the last column; metrics that do not apply are empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['id', 'stage', 'snr_db', 'noise', 'noise_kind', *results.metrics, 'reasons'])
    for i, info in enumerate(results.infos):
        for row, scores in results.rows(i).items():
            reasons = '; '.join(f'{metric}: {reason}' for metric, reason in scores.reasons.items())
            writer.writerow([info['id'], row, info.get('snr_db', ''), info.get('noise', ''), info.get('noise_kind', ''),
                             *(scores.values.get(metric, '') for metric in results.metrics), reasons])
    return text.getvalue()


def ranked(statistics: dict[str, dict], metric: str) -> dict[str, dict]:
    """Statistics with the stages in the order of a metric, best first; 'clean' stays first, NaN comes last."""
    def place(stage):
        if stage == CLEAN:  # not scored in metrics that compare with it
            return -math.inf
        mean = statistics[stage][metric]['mean']
        return -METRICS[metric].sign * mean if math.isfinite(mean) else math.inf

    return {stage: statistics[stage] for stage in sorted(statistics, key=place)}


def summary_tables(results: Results, sort: str = '') -> str:
    """Two Markdown tables: the means of every stage, and its mean differences to every earlier one.

    The row below each difference has the number of files that the stage made worse. Of systems side by side, only the
    differences to the first stage are there.

    Args:
      results: the scores.
      sort: the metric that orders the means, best first; '': they are in the order of the stages.
    """
    statistics = results.statistics()
    pairs = [pair for pair in results.pairs if not results.side_by_side or pair[1] == results.stages[0]]
    return _summary_tables(results, ranked(statistics, sort) if sort else statistics, pairs)


def _summary_tables(results: Results, statistics: dict, pairs: Sequence[tuple[str, str]]) -> str:
    """The tables, with rows of intervals if the statistics have them."""
    total, rows = len(results.infos), []
    label = 'system' if results.side_by_side else 'stage'
    means = _table(results, [label], _mean_rows(results.metrics, statistics, total))
    for row, (stage, earlier) in zip(_difference_rows(statistics, total, pairs), pairs, strict=True):
        against = {metric: entry['against'][earlier] for metric, entry in statistics[stage].items()}
        rows.append(row)
        if all('low' in entry for entry in against.values()):
            rows.append([f'{100 * bootstrap.CONFIDENCE:g} % interval', str(total), *(
                _interval(entry, metric, sign=True) or 'n/a' for metric, entry in against.items())])
        rows.append(['files made worse', str(total), *(str(entry['worse']) if entry['paired'] else 'n/a'
                                                       for entry in against.values())])
    return '\n\n'.join([means, _table(results, ['difference'], rows)] if rows else [means])


def _interval(entry: dict, metric: str, sign: bool = False) -> str:
    """The interval of a mean or a difference, such as '0.50 to 0.70'; '' if it has none."""
    if not math.isfinite(entry.get('low', math.nan)):
        return ''
    return f'{number(entry["low"], metric, sign)} to {number(entry["high"], metric, sign)}'


def to_markdown(results: Results, title: str, notes: Sequence[str], statistics: dict | None = None) -> str:
    """The summary, two tables per grouping, and a table per metric by noise kind and SNR, as a Markdown document.

    Args:
      results: the scores.
      title: of the document.
      notes: facts at its head.
      statistics: of all files; their order is that of the means. Default: without intervals, in the order of stages.
    """
    parts = [f'# {title}', '\n'.join(f'- {note}' for note in notes),
             _summary_tables(results, statistics or results.statistics(), results.pairs),
             'Arrows point to the better side. A mean over fewer files than its row names shows their number in '
             'parentheses. Differences are means over the files that have both values; their intervals are '
             f'bootstrapped over files ({bootstrap.RESAMPLES} draws).']
    for name, groups in results.groups().items():
        title = PROPERTIES[name]
        means, differences = [], []
        for label, files in groups.items():
            group = results.statistics(files), len(files)
            means += [[_cell(label), *row] for row in _mean_rows(results.metrics, *group)]
            differences += [[_cell(label), *row] for row in _difference_rows(*group, results.pairs)]
        parts += [f'## By {title}', _table(results, [title, 'stage'], means),
                  _table(results, [title, 'difference'], differences)]
    return '\n\n'.join(parts + _kind_tables(results)) + '\n'


def _kind_tables(results: Results) -> list[str]:
    """The numbers of files by noise kind and SNR, then for each metric the means and the differences to noisy."""
    kinds = results.by_kind()
    if not kinds:
        return []
    columns = list(next(iter(kinds.values())))
    counts = [[_cell(kind), *(str(cell['files']) for cell in cells.values())] for kind, cells in kinds.items()]
    tables = [grid(['files', *columns], 1, counts)]
    to_first = [(stage, earlier) for stage, earlier in results.pairs if earlier == results.stages[0]]
    by_cell = {kind: [_mean_rows(results.metrics, cell['statistics'], cell['files'])
                      + _difference_rows(cell['statistics'], cell['files'], to_first) for cell in cells.values()]
               for kind, cells in kinds.items()}
    for m, metric in enumerate(results.metrics):
        rows = [[_cell(kind), same[0][0], *(row[2 + m] for row in same)]
                for kind, cells in by_cell.items() for same in zip(*cells, strict=True)
                if same[0][2 + m] != NOT_APPLICABLE]
        tables.append(grid([heading(metric), 'stage', *columns], 2, rows))
    return ['## By noise kind and SNR (dB)', KINDS_NOTE, *tables]


def _mean_rows(metrics: Sequence[str], statistics: dict, total: int) -> list[list[str]]:
    """A row for clean speech, if scored, and for every stage: its name, the number of files, a cell per metric."""
    return [[row, str(total), *(_mean_cell(entries.get(metric), metric, total) for metric in metrics)]
            for row, entries in statistics.items()]


def _mean_cell(entry: dict | None, metric: str, total: int) -> str:
    return _with_count(number(entry['mean'], metric), entry['files'], total) if entry else NOT_APPLICABLE


def _difference_rows(statistics: dict, total: int, pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """A row per pair of stages: its name, the number of files, a cell per metric."""
    rows = []
    for stage, earlier in pairs:
        entries = {metric: entry['against'][earlier] for metric, entry in statistics[stage].items()}
        rows.append([f'{stage} - {earlier}', str(total), *(
            _with_count(number(entry['difference'], metric, sign=True), entry['paired'], total)
            for metric, entry in entries.items())])
    return rows


def heading(metric: str) -> str:
    """The name of a metric with an arrow to its better side."""
    return f'{metric} {"↓" if METRICS[metric].lower_is_better else "↑"}'


def _with_count(text: str, count: int, total: int) -> str:
    return text if count == total else f'{text} ({count})'


def _cell(text: str) -> str:
    return ' '.join(text.split()).replace('|', '\\|')


def _table(results: Results, labels: list[str], rows: list[list[str]]) -> str:
    """Columns of text, then the number of files and the metrics."""
    return grid([*labels, 'files', *map(heading, results.metrics)], len(labels), rows)


def grid(header: list[str], num_labels: int, rows: list[list[str]]) -> str:
    """A Markdown table, padded for reading as text: `num_labels` columns of text, then columns of numbers."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells):
        return '| ' + ' | '.join(cell.ljust(width) if i < num_labels else cell.rjust(width)
                                 for i, (cell, width) in enumerate(zip(cells, widths, strict=True))) + ' |'

    rule = '|' + '|'.join('-' * (width + 2) if i < num_labels else '-' * (width + 1) + ':'
                          for i, width in enumerate(widths)) + '|'
    return '\n'.join([line(header), rule, *map(line, rows)])
