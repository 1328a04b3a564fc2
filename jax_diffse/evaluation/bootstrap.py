"""Means over files with confidence intervals, and paired differences, by the bootstrap (Efron, Ann. Statist. 7, 1979).

Intervals are percentiles of the means of files drawn with replacement. They measure how far a mean would move with
other files of the same kind; they do not measure the variation between training runs or data sets.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 5000
BATCH = 500  # of resamples, to limit memory; divides RESAMPLES


class Estimate(NamedTuple):
    """A mean over files."""

    mean: float
    low: float  # of the interval; NaN with fewer than two files
    high: float
    files: int  # with a value for every seed; 0: all other fields are NaN
    seed_std: float  # standard deviation over seeds of the mean over files; NaN with fewer than two seeds


class Difference(NamedTuple):
    """A mean of paired differences."""

    mean: float
    low: float
    high: float
    files: int  # with a value on both sides
    better: int  # of `files`
    worse: int


def estimate(values: np.ndarray) -> Estimate:
    """The mean over files and seeds of `values` `[seeds, files]`; files with a NaN are left out."""
    complete = values[:, np.all(np.isfinite(values), axis=0)]
    if not complete.shape[1]:
        return Estimate(math.nan, math.nan, math.nan, 0, math.nan)
    std = float(complete.mean(axis=1).std(ddof=1)) if len(complete) > 1 else math.nan
    return Estimate(float(complete.mean()), *interval(complete.mean(axis=0)), complete.shape[1], std)


def difference(values: np.ndarray, reference: np.ndarray, sign: int = 1) -> Difference:
    """The mean of `values - reference`, file by file.

    Args:
      values, reference: `[seeds, files]` of the same files. Seeds are averaged first, so their numbers may differ.
      sign: 1 if higher is better, -1 if lower is.
    """
    change = values.mean(axis=0) - reference.mean(axis=0)
    change = change[np.isfinite(change)]
    mean = float(change.mean()) if len(change) else math.nan
    better, worse = (int(np.sum(side * sign * change > 0)) for side in (1, -1))
    return Difference(mean, *interval(change), len(change), better, worse)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The interval of the mean of `values` `[files]`, the same at every call; NaN with fewer than two files."""
    if len(values) < 2:
        return math.nan, math.nan
    low, high = intervals(values[None])
    return float(low[0]), float(high[0])


def intervals(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends `[rows]` of the intervals of the means over files of `values` `[rows, files]`; NaN is left out.

    Equals the percentile method of `scipy.stats.bootstrap`, with one draw of files for all rows that have values for
    the same files: means are products with the numbers of times that files were drawn.
    """
    low, high = np.full((2, len(values)), math.nan)
    finite = np.isfinite(values)
    for pattern in np.unique(finite, axis=0):
        count = int(pattern.sum())
        if count < 2:
            continue
        rows = np.flatnonzero(np.all(finite == pattern, axis=1))
        means = np.concatenate([drawn @ values[np.ix_(rows, pattern)].T for drawn in _draws(count)]) / count
        low[rows], high[rows] = np.percentile(means, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)], axis=0)
    return low, high


def _draws(count: int) -> Iterator[np.ndarray]:
    """How often each file is drawn in each resample, in parts of the rows `[RESAMPLES, count]`."""
    rng = np.random.default_rng(0)
    for _ in range(0, RESAMPLES, BATCH):
        places = rng.integers(0, count, (BATCH, count)) + count * np.arange(BATCH)[:, None]
        yield np.bincount(places.ravel(), minlength=BATCH * count).reshape(BATCH, count).astype(float)
