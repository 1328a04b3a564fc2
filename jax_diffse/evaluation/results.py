"""Scores of many files at every stage of enhancement, and their statistics."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jax_diffse.evaluation import bootstrap
from jax_diffse.metrics import METRICS, Scores
from jax_diffse.metrics.scoring import CLEAN

NOISY = 'noisy'  # the stage of the noisy input
NO_FILE = 'no file'  # the reason why a system has no scores for an utterance; such values are no failures
MAX_LEVELS = 12  # more SNRs than these are grouped into steps of 5 dB


@dataclasses.dataclass(frozen=True)
class Results:
    """Every metric of every file at every stage; NaN if undefined."""

    infos: Sequence[dict]  # per file: 'id', and where known 'snr_db', 'noise' and 'noise_kind'
    stages: Sequence[str]  # the noisy input, then the stages of the system in order
    metrics: Sequence[str]
    values: np.ndarray  # [files, stages, metrics], float64
    reasons: Sequence[Sequence[dict[str, str]]]  # [files][stages]: metric -> the reason for NaN
    clean: Sequence[Scores] = ()  # per file: the clean speech, in the metrics without a reference; (): no such metric
    side_by_side: bool = False  # stages other than 'noisy' are systems that do not build on one another

    @classmethod
    def of(cls, infos: Sequence[dict], stages: Sequence[str], metrics: Sequence[str],
           rows: Mapping[str, Sequence[Scores]], side_by_side: bool = False) -> 'Results':
        """Builds results from the scores per file of every stage and, if scored, of 'clean'."""
        files = range(len(infos))
        values = [[[rows[stage][i].values[name] for name in metrics] for stage in stages] for i in files]
        reasons = [[_only(rows[stage][i].reasons, metrics) for stage in stages] for i in files]
        clean = [Scores(_only(scores.values, metrics), _only(scores.reasons, metrics))
                 for scores in rows.get(CLEAN, ())]
        return cls(infos, tuple(stages), tuple(metrics), np.array(values, np.float64), reasons, clean, side_by_side)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All pairs (stage, earlier stage)."""
        return [(stage, earlier) for s, stage in enumerate(self.stages) for earlier in self.stages[:s]]

    def differences(self, stage: str, earlier: str) -> np.ndarray:
        """`stage` minus `earlier`, file by file, `[files, metrics]`; NaN if either is NaN."""
        return self.values[:, self.stages.index(stage)] - self.values[:, self.stages.index(earlier)]

    def gains(self, stage: str, earlier: str) -> np.ndarray:
        """`differences` with the sign of an improvement: positive is better for every metric."""
        return self.differences(stage, earlier) * [METRICS[metric].sign for metric in self.metrics]

    def rows(self, i: int) -> dict[str, Scores]:
        """'clean', if it was scored, and every stage -> scores of file i."""
        clean = {CLEAN: self.clean[i]} if self.clean else {}
        return clean | {stage: Scores(dict(zip(self.metrics, values, strict=True)), reasons) for stage, values, reasons
                        in zip(self.stages, self.values[i].tolist(), self.reasons[i], strict=True)}

    def clean_values(self) -> dict[str, np.ndarray]:
        """Metric without a reference -> its values for clean speech, `[files]`."""
        return {metric: np.array([scores.values[metric] for scores in self.clean], np.float64)
                for metric in (self.clean[0].values if self.clean else ())}

    def statistics(self, files: Sequence[int] | None = None, intervals: bool = False) -> dict[str, dict[str, dict]]:
        """Stage -> metric -> statistics over `files` (indices; default: all). 'clean' comes first, if it was scored.

        'mean' is over the 'files' for which the metric is not NaN. 'against' has, for every earlier stage, the mean
        'difference' to it over the 'paired' files with both values, and how many of those the stage made 'worse'. With
        `intervals`, means and differences have 'low' and 'high' (see `bootstrap`).
        """
        files = list(range(len(self.infos)) if files is None else files)
        clean = {metric: _entry(values[files]) for metric, values in self.clean_values().items()}
        stages = {stage: {metric: _entry(self.values[files, s, m], self._against(s, m, files))
                          for m, metric in enumerate(self.metrics)} for s, stage in enumerate(self.stages)}
        found = {CLEAN: clean} | stages if clean else stages
        if intervals:
            self._add_intervals(found, files)
        return found

    def _add_intervals(self, statistics: dict[str, dict[str, dict]], files: list[int]) -> None:
        entries = [(entry, self.clean_values()[metric][files]) for metric, entry in statistics.get(CLEAN, {}).items()]
        for s, stage in enumerate(self.stages):
            for m, metric in enumerate(self.metrics):
                entry = statistics[stage][metric]
                entries.append((entry, self.values[files, s, m]))
                entries += [(against, self.differences(stage, earlier)[files, m])
                            for earlier, against in entry['against'].items()]
        low, high = bootstrap.intervals(np.array([values for _, values in entries]))
        for (entry, _), *ends in zip(entries, low.tolist(), high.tolist(), strict=True):
            entry['low'], entry['high'] = ends

    def _against(self, s: int, m: int, files: list[int]) -> dict[str, dict]:
        against = {}
        for earlier in self.stages[:s]:
            difference, paired = _mean(self.differences(self.stages[s], earlier)[files, m])
            worse = int(np.sum(self.gains(self.stages[s], earlier)[files, m] < 0))
            against[earlier] = {'difference': difference, 'paired': paired, 'worse': worse}
        return against

    def groups(self) -> dict[str, dict[str, list[int]]]:
        """The files (indices) by SNR ('snr_db'), lowest first, by noise class ('noise') and those of all systems.

        Files without the property form the last group, 'unknown'. A property that no file has is left out. The files of
        all systems ('shared') are there if these are some, but not all.
        """
        levels = {info['snr_db'] for info in self.infos if info.get('snr_db') is not None}
        of_level = _level if len(levels) <= MAX_LEVELS else _range
        by_snr = self._group([info.get('snr_db') for info in self.infos], of_level)
        by_noise = self._group([info.get('noise') or None for info in self.infos], lambda noise: (noise, noise))
        scored = np.isfinite(self.values).any(axis=2).all(axis=1)
        shared = {'every system': np.flatnonzero(scored).tolist()}
        by_presence = shared if self.side_by_side and scored.any() and not scored.all() else {}
        return {name: group for name, group in (('snr_db', by_snr), ('noise', by_noise), ('shared', by_presence))
                if group}

    def by_kind(self) -> dict[str, dict[str, dict]]:
        """Noise kind ('seen' in training, 'unseen') -> SNR, lowest first, then 'Avg' -> {'files', 'statistics'}.

        'Avg' averages means and differences over the SNRs (NaN if one is NaN) and sums the numbers of files. Files that
        lack either property are left out; the result is empty if all do.
        """
        kinds = [info.get('noise_kind') for info in self.infos]
        levels = {label: [i for i in files if kinds[i]] for label, files in self.groups().get('snr_db', {}).items()
                  if label != 'unknown'}
        levels = {label: files for label, files in levels.items() if files}
        table = {}
        for kind in sorted({kinds[i] for files in levels.values() for i in files}):
            cells = {label: [i for i in files if kinds[i] == kind] for label, files in levels.items()}
            table[kind] = {label: {'files': len(cell), 'statistics': self.statistics(cell)}
                           for label, cell in cells.items()}
            table[kind]['Avg'] = _average(list(table[kind].values()))
        return table

    def _group(self, properties, key) -> dict[str, list[int]]:
        known = sorted({key(value) for value in properties if value is not None})
        groups = {label: [] for _, label in known}
        unknown = [i for i, value in enumerate(properties) if value is None]
        for i, value in enumerate(properties):
            if value is not None:
                groups[key(value)[1]].append(i)
        return groups | {'unknown': unknown} if groups and unknown else groups

    def failures(self) -> list[dict[str, str]]:
        """The undefined values: 'id', 'stage', 'metric' and 'reason'; but those of files that a system lacks."""
        return [{'id': info['id'], 'stage': row, 'metric': metric, 'reason': reason}
                for i, info in enumerate(self.infos) for row, scores in self.rows(i).items()
                for metric, reason in scores.reasons.items() if reason != NO_FILE]

    def main_metric(self) -> int:
        """Index of the metric that ranks files: pesq_wb, else the first that some file has at both ends."""
        order = sorted(range(len(self.metrics)), key=lambda m: self.metrics[m] != 'pesq_wb')
        return next((m for m in order if np.isfinite(self._overall()[:, m]).any()), order[0])

    def ranked(self) -> list[int]:
        """Files by the gain of the last stage over the first in the main metric, best first; NaN is left out.

        Of systems side by side: by the mean of their gains, among the files for which the most of them have a value,
        three or more.
        """
        gains = self._overall()[:, self.main_metric()]
        return [int(i) for i in np.argsort(-gains, kind='stable') if np.isfinite(gains[i])]

    def ends(self) -> dict[str, int]:
        """'Best', 'Median' and 'Worst' file of `ranked`; fewer if there are fewer files."""
        ranked = self.ranked()
        places = {len(ranked) // 2: 'Median', len(ranked) - 1: 'Worst', 0: 'Best'} if ranked else {}  # the last wins
        return {places[place]: i for place, i in enumerate(ranked) if place in places}

    def _overall(self) -> np.ndarray:
        if not self.side_by_side:
            return self.gains(self.stages[-1], self.stages[0])
        systems = [s for s, stage in enumerate(self.stages) if stage != NOISY]
        values = self.values[:, systems] - (self.values[:, :1] if self.stages[0] == NOISY else 0)
        gains = values * [METRICS[metric].sign for metric in self.metrics]
        finite = np.isfinite(gains)
        count = finite.sum(axis=1)
        third = np.sort(count, axis=0)[-min(3, len(count))]  # there are three examples
        means = np.where(finite, gains, 0).sum(axis=1) / np.maximum(count, 1)
        return np.where((count > 0) & (count >= third), means, np.nan)


def _only(found: Mapping, metrics: Sequence[str]) -> dict:
    return {name: found[name] for name in metrics if name in found}


def _entry(values: np.ndarray, against: dict | None = None) -> dict:
    mean, count = _mean(values)
    return {'mean': mean, 'files': count, 'against': against or {}}


def _mean(values) -> tuple[float, int]:
    finite = values[np.isfinite(values)]
    return (float(finite.mean()), len(finite)) if len(finite) else (math.nan, 0)


def _average(trees):
    """Averages the floats and sums the counts of trees with one structure."""
    if isinstance(trees[0], dict):
        return {key: _average([tree[key] for tree in trees]) for key in trees[0]}
    return sum(trees) / len(trees) if isinstance(trees[0], float) else sum(trees)


def _level(snr_db: float) -> tuple[float, str]:
    return float(snr_db), f'{snr_db:g}'


def _range(snr_db: float) -> tuple[float, str]:
    low = 5 * math.floor(snr_db / 5)
    return float(low), f'{low} to {low + 5}'
