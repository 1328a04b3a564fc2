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
    stages: Sequence[str]  # the first, the noisy input, is what the others are compared with
    metrics: Sequence[str]
    values: np.ndarray  # [files, stages, metrics], float64
    reasons: Sequence[Sequence[dict[str, str]]]  # [files][stages]: metric -> why it is NaN

    def differences(self) -> np.ndarray:
        """Each stage minus the first, file by file, `[files, stages, metrics]`; NaN where either is."""
        return self.values - self.values[:, :1]

    def gains(self) -> np.ndarray:
        """`differences` with the sign of an improvement: positive is better for every metric."""
        return self.differences() * [-1 if metric in LOWER_IS_BETTER else 1 for metric in self.metrics]

    def statistics(self, files: Sequence[int] | None = None) -> dict[str, dict[str, dict]]:
        """Stage -> metric -> statistics over `files` (indices; default: all).

        'mean' is over the 'files' for which the metric is not NaN. Stages after the first also have the mean
        'difference' to the first, over the 'paired' files with both values, of which it made 'worse' so many.
        """
        files = slice(None) if files is None else list(files)
        values, differences, gains = self.values[files], self.differences()[files], self.gains()[files]
        found = {}
        for s, stage in enumerate(self.stages):
            found[stage] = {}
            for m, metric in enumerate(self.metrics):
                entry = dict(zip(('mean', 'files'), _mean(values[:, s, m]), strict=True))
                if s > 0:
                    entry |= zip(('difference', 'paired'), _mean(differences[:, s, m]), strict=True)
                    entry['worse'] = int(np.sum(gains[:, s, m] < 0))
                found[stage][metric] = entry
        return found

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
        """Index of the metric that files are ranked by: pesq_wb, or else the first that some file has at all stages."""
        order = sorted(range(len(self.metrics)), key=lambda m: self.metrics[m] != 'pesq_wb')
        return next((m for m in order if np.isfinite(self.gains()[:, -1, m]).any()), order[0])

    def ranked(self) -> list[int]:
        """Files by the last stage's gain in the main metric, best first; those without one are left out."""
        gains = self.gains()[:, -1, self.main_metric()]
        return [int(i) for i in np.argsort(-gains, kind='stable') if np.isfinite(gains[i])]


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


def summary_table(results: Results) -> str:
    """The Markdown table of means: the noisy row first, then every stage with its difference and its losses."""
    rows = _stage_rows(results, None, '')
    total = len(results.infos)
    for stage in results.stages[1:]:
        losses = [str(entry['worse']) for entry in results.statistics()[stage].values()]
        rows.append([f'files made worse ({stage})', str(total), *losses])
    return _markdown(['', 'files', *(_heading(metric) for metric in results.metrics)], rows)


def to_markdown(results: Results, title: str, notes: Sequence[str]) -> str:
    """The summary, then one table per grouping, as a Markdown document."""
    parts = [f'# {title}', '\n'.join(f'- {note}' for note in notes), summary_table(results),
             'Arrows point to the better side. A mean over fewer files than its row names is followed by their number. '
             'Differences are means over the files that have both values.']
    for name, groups in results.groups().items():
        heading = {'snr_db': 'SNR (dB)', 'noise': 'noise'}[name]
        rows = [row for label, files in groups.items() for row in _stage_rows(results, files, _cell(label))]
        parts += [f'## By {heading}',
                  _markdown([heading, 'stage', 'files', *map(_heading, results.metrics)], rows)]
    return '\n\n'.join(parts) + '\n'


def _stage_rows(results: Results, files, group: str) -> list[list[str]]:
    """A row per stage, and after each but the first its difference; `group` goes into a first column of its own."""
    statistics, rows = results.statistics(files), []
    total = len(results.infos) if files is None else len(files)
    first = [group] if group else []
    for stage in results.stages:
        entries = statistics[stage]
        rows.append([*first, stage, str(total), *(
            _with_count(number(entries[m]['mean'], m), entries[m]['files'], total) for m in results.metrics)])
        if stage != results.stages[0]:
            rows.append([*first, f'{stage} - {results.stages[0]}', str(total), *(
                _with_count(number(entries[m]['difference'], m, sign=True), entries[m]['paired'], total)
                for m in results.metrics)])
    return rows


def _heading(metric: str) -> str:
    return f'{metric} {"↓" if metric in LOWER_IS_BETTER else "↑"}'


def _with_count(text: str, count: int, total: int) -> str:
    return text if count == total else f'{text} ({count})'


def _cell(text: str) -> str:
    return ' '.join(text.split()).replace('|', '\\|')


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    """Padded, so that it can be read as it is; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    texts = [i for i, name in enumerate(header) if name in ('', 'stage', 'SNR (dB)', 'noise')]

    def line(cells):
        return '| ' + ' | '.join(cell.ljust(width) if i in texts else cell.rjust(width)
                                 for i, (cell, width) in enumerate(zip(cells, widths, strict=True))) + ' |'

    rule = '|' + '|'.join('-' * (width + 2) if i in texts else '-' * (width + 1) + ':'
                          for i, width in enumerate(widths)) + '|'
    return '\n'.join([line(header), rule, *map(line, rows)])
