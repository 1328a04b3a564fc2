"""Means over files with confidence intervals, and paired differences, by the bootstrap (Efron, Ann. Statist. 7, 1979).

Intervals are percentiles of the means of files drawn with replacement. They measure how far a mean would move with
other files of the same kind; they do not measure the variation between training runs or data sets.
"""

import math
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 5000


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
    from scipy import stats  # slow to import

    found = stats.bootstrap((values,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE,
                            method='percentile', rng=np.random.default_rng(0), batch=500).confidence_interval
    return float(found.low), float(found.high)
