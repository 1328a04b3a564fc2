"""Scores of many files at every stage of enhancement: their statistics, and the same as CSV and Markdown."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

import numpy as np

LOWER_IS_BETTER = ('llr', 'wss')
DECIMALS = {'si_sdr': 2, 'ssnr': 2, 'wss': 2}  # others: 3
MAX_LEVELS = 12  # more SNRs than these are grouped into steps of 5 dB


@dataclasses.dataclass(frozen=True)
class Results:
    """Every metric of every file at every stage; NaN where it could not be computed."""

    infos: Sequence[dict]  # per file: 'id', and where known 'snr_db' and 'noise'
    stages: Sequence[str]  # the noisy input, then those of the system in their order
    metrics: Sequence[str]
    values: np.ndarray  # [files, stages, metrics], float64
    reasons: Sequence[Sequence[dict[str, str]]]  # [files][stages]: metric -> why it is NaN

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every stage with every earlier one: (stage, earlier)."""
        return [(stage, earlier) for s, stage in enumerate(self.stages) for earlier in self.stages[:s]]

    def differences(self, stage: str, earlier: str) -> np.ndarray:
        """`stage` minus `earlier`, file by file, `[files, metrics]`; NaN where either is."""
        return self.values[:, self.stages.index(stage)] - self.values[:, self.stages.index(earlier)]

    def gains(self, stage: str, earlier: str) -> np.ndarray:
        """`differences` with the sign of an improvement: positive is better for every metric."""
        return self.differences(stage, earlier) * [-1 if metric in LOWER_IS_BETTER else 1 for metric in self.metrics]

    def statistics(self, files: Sequence[int] | None = None) -> dict[str, dict[str, dict]]:
        """Stage -> metric -> statistics over `files` (indices; default: all).

        'mean' is over the 'files' for which the metric is not NaN. 'against' has, for every earlier stage, the mean
        'difference' to it over the 'paired' files with both values, of which it made 'worse' so many.
        """
        files = range(len(self.infos)) if files is None else files
        return {stage: {metric: self._entry(s, m, list(files)) for m, metric in enumerate(self.metrics)}
                for s, stage in enumerate(self.stages)}

    def _entry(self, s: int, m: int, files: list[int]) -> dict:
        against = {}
        for earlier in self.stages[:s]:
            difference, paired = _mean(self.differences(self.stages[s], earlier)[files, m])
            worse = int(np.sum(self.gains(self.stages[s], earlier)[files, m] < 0))
            against[earlier] = {'difference': difference, 'paired': paired, 'worse': worse}
        mean, count = _mean(self.values[files, s, m])
        return {'mean': mean, 'files': count, 'against': against}

    def groups(self) -> dict[str, dict[str, list[int]]]:
        """The files (indices) by SNR ('snr_db'), lowest first, and by noise class ('noise'), where known.

        A file without the property is in the group 'unknown', the last; a property that no file has is left out.
        """
        levels = {info['snr_db'] for info in self.infos if info.get('snr_db') is not None}
        of_level = _level if len(levels) <= MAX_LEVELS else _range
        by_snr = self._group([info.get('snr_db') for info in self.infos], of_level)
        by_noise = self._group([info.get('noise') or None for info in self.infos], lambda noise: (noise, noise))
        return {name: group for name, group in (('snr_db', by_snr), ('noise', by_noise)) if group}

    def _group(self, properties, key) -> dict[str, list[int]]:
        known = sorted({key(value) for value in properties if value is not None})
        groups = {label: [] for _, label in known}
        unknown = [i for i, value in enumerate(properties) if value is None]
        for i, value in enumerate(properties):
            if value is not None:
                groups[key(value)[1]].append(i)
        return groups | {'unknown': unknown} if groups and unknown else groups

    def failures(self) -> list[dict[str, str]]:
        """What is NaN: 'id', 'stage', 'metric' and 'reason'."""
        return [{'id': info['id'], 'stage': stage, 'metric': metric, 'reason': reason}
                for info, stages in zip(self.infos, self.reasons, strict=True)
                for stage, reasons in zip(self.stages, stages, strict=True) for metric, reason in reasons.items()]

    def main_metric(self) -> int:
        """Index of the metric that files are ranked by: pesq_wb, or else the first that some file has at both ends."""
        order = sorted(range(len(self.metrics)), key=lambda m: self.metrics[m] != 'pesq_wb')
        return next((m for m in order if np.isfinite(self._overall()[:, m]).any()), order[0])

    def ranked(self) -> list[int]:
        """Files by the last stage's gain over the first in the main metric, best first; without those that lack it."""
        gains = self._overall()[:, self.main_metric()]
        return [int(i) for i in np.argsort(-gains, kind='stable') if np.isfinite(gains[i])]

    def _overall(self) -> np.ndarray:
        return self.gains(self.stages[-1], self.stages[0])


def _mean(values) -> tuple[float, int]:
    finite = values[np.isfinite(values)]
    return (float(finite.mean()), len(finite)) if len(finite) else (math.nan, 0)


def _level(snr_db: float) -> tuple[float, str]:
    return float(snr_db), f'{snr_db:g}'


def _range(snr_db: float) -> tuple[float, str]:
    low = 5 * math.floor(snr_db / 5)
    return float(low), f'{low} to {low + 5}'


def number(value: float, metric: str, sign: bool = False) -> str:
    """A value as it is shown, 'n/a' for NaN."""
    return f'{value:{"+" if sign else ""}.{DECIMALS.get(metric, 3)}f}' if math.isfinite(value) else 'n/a'


def to_csv(results: Results) -> str:
    """One line per file and stage; 'nan' where a metric could not be computed, with the reasons in the last column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['id', 'stage', 'snr_db', 'noise', *results.metrics, 'reasons'])
    for i, info in enumerate(results.infos):
        for s, stage in enumerate(results.stages):
            reasons = '; '.join(f'{metric}: {reason}' for metric, reason in results.reasons[i][s].items())
            writer.writerow([info['id'], stage, info.get('snr_db', ''), info.get('noise', ''),
                             *map(repr, results.values[i, s].tolist()), reasons])
    return text.getvalue()


def summary_tables(results: Results) -> str:
    """Two Markdown tables: the means of every stage, and its mean differences to every earlier one.

    Below each difference stands the number of files that the stage made worse.
    """
    rows = []
    for row, (stage, earlier) in zip(_difference_rows(results), results.pairs, strict=True):
        losses = [str(entry['against'][earlier]['worse']) for entry in results.statistics()[stage].values()]
        rows += [row, ['files made worse', str(len(results.infos)), *losses]]
    return '\n\n'.join([_table(results, ['stage'], _mean_rows(results)), _table(results, ['difference'], rows)])


def to_markdown(results: Results, title: str, notes: Sequence[str]) -> str:
    """The summary, then two tables per grouping, as a Markdown document."""
    parts = [f'# {title}', '\n'.join(f'- {note}' for note in notes), summary_tables(results),
             'Arrows point to the better side. A mean over fewer files than its row names is followed by their number. '
             'Differences are means over the files that have both values.']
    for name, groups in results.groups().items():
        heading = {'snr_db': 'SNR (dB)', 'noise': 'noise'}[name]
        parts.append(f'## By {heading}')
        for what, rows_of in (('stage', _mean_rows), ('difference', _difference_rows)):
            rows = [[_cell(label), *row] for label, files in groups.items() for row in rows_of(results, files)]
            parts.append(_table(results, [heading, what], rows))
    return '\n\n'.join(parts) + '\n'


def _mean_rows(results: Results, files: Sequence[int] | None = None) -> list[list[str]]:
    """A row per stage."""
    total = len(results.infos if files is None else files)
    return [[stage, str(total), *(_with_count(number(entry['mean'], metric), entry['files'], total)
                                  for metric, entry in entries.items())]
            for stage, entries in results.statistics(files).items()]


def _difference_rows(results: Results, files: Sequence[int] | None = None) -> list[list[str]]:
    """A row per pair of stages."""
    total, statistics, rows = len(results.infos if files is None else files), results.statistics(files), []
    for stage, earlier in results.pairs:
        entries = {metric: entry['against'][earlier] for metric, entry in statistics[stage].items()}
        rows.append([f'{stage} - {earlier}', str(total), *(
            _with_count(number(entry['difference'], metric, sign=True), entry['paired'], total)
            for metric, entry in entries.items())])
    return rows


def _heading(metric: str) -> str:
    return f'{metric} {"↓" if metric in LOWER_IS_BETTER else "↑"}'


def _with_count(text: str, count: int, total: int) -> str:
    return text if count == total else f'{text} ({count})'


def _cell(text: str) -> str:
    return ' '.join(text.split()).replace('|', '\\|')


def _table(results: Results, labels: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with columns of text, then the number of files and the metrics; padded, to be read as it is."""
    header = [*labels, 'files', *map(_heading, results.metrics)]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells):
        return '| ' + ' | '.join(cell.ljust(width) if i < len(labels) else cell.rjust(width)
                                 for i, (cell, width) in enumerate(zip(cells, widths, strict=True))) + ' |'

    rule = '|' + '|'.join('-' * (width + 2) if i < len(labels) else '-' * (width + 1) + ':'
                          for i, width in enumerate(widths)) + '|'
    return '\n'.join([line(header), rule, *map(line, rows)])
