"""Chooses metrics and scores every file at every stage.

Metrics that compare with the clean speech are defined at 8 and 16 kHz and run in a pool of processes. Those of networks
need no reference and also rate the clean speech: `dnsmos` in the pool, `nisqa` in this process, in batches.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jax_diffse.errors import UserError
from jax_diffse.metrics import COMPARING, DEFAULT, METRICS, Pool, Scores, dnsmos, nisqa
from jax_diffse.metrics import scores as comparing

RATERS = {name: rater for rater in (dnsmos, nisqa) for name in rater.METRICS}  # metric -> module
CLEAN = 'clean'  # the row of the clean speech, which only metrics without a reference score


def check(names: Sequence[str] | None, sample_rate: int) -> None:
    """Checks that files can be scored with these metrics; None stands for the default.

    Raises:
      UserError: no name, an unknown name, a rate (Hz) at which metrics that compare with clean speech are not defined,
        or only metrics of models that are not installed (the message says how to get them).
    """
    names, known = DEFAULT if names is None else names, METRICS
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        wrong = f'metric {unknown[0]!r} does not exist' if unknown else 'no metric named'
        raise UserError(f'{wrong}, expected some of: {", ".join(known)}')
    compared, missing = [name for name in names if name in COMPARING], _missing(names)
    if compared:
        comparing.check(sample_rate, compared)
    elif all(METRICS[name].model in missing for name in names):
        raise UserError('; '.join(missing.values()))


def choose(names: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the metrics to compute: the named ones, or the default ones, which include those of installed networks.

    Prints one line for each model that is not installed, which says how to get it.
    """
    wanted = (*DEFAULT, *dnsmos.DEFAULT, *nisqa.DEFAULT) if names is None else tuple(names)
    missing = _missing(wanted)
    for how_to_get in missing.values():
        print(how_to_get, flush=True)
    return wanted if names else tuple(name for name in wanted if METRICS[name].model not in missing)


def is_final(name: str, scores: Scores) -> bool:
    """Whether a metric needs no new computation; it does if its model was missing and is available now."""
    if name not in scores.values:
        return False
    rater, model = RATERS.get(name), METRICS[name].model
    return not (rater and scores.reasons.get(name) == rater.how_to_get(model) and rater.is_available(model))


def _missing(names: Iterable[str]) -> dict[str, str]:
    """The models of these metrics that are not installed -> how to get them."""
    models = {METRICS[name].model: RATERS[name] for name in names if name in RATERS}
    return {model: rater.how_to_get(model) for model, rater in models.items() if not rater.is_available(model)}


def score(clean: Sequence[np.ndarray], rows: Mapping[str, Sequence[np.ndarray]], sample_rate: int,
          names: Sequence[str], pool: Pool, noisy: Sequence[np.ndarray] | None = None) -> dict[str, list[Scores]]:
    """Scores every file in every row.

    Args:
      clean: per file, `[N]`.
      rows: stage -> per file, `[N]`. The row 'clean' is scored only in metrics that need no reference.
      sample_rate: Hz.
      names: metrics; undefined values are NaN with a reason.
      pool: for all metrics but those of `nisqa`.
      noisy: per file, `[N]`, for metrics that need the noise, which is noisy - clean.

    Returns:
      Row -> scores per file.
    """
    compared, by_dnsmos, by_nisqa = ([name for name in names if name in known]
                                     for known in (COMPARING, dnsmos.METRICS, nisqa.METRICS))
    more = (noisy,) if noisy is not None and any(METRICS[name].needs_noise for name in compared) else ()
    found = {}
    for row, waveforms in rows.items():
        parts: list[Iterable[Scores]] = []
        if compared and row != CLEAN:
            parts.append(pool.score_all(zip(clean, waveforms, *more, strict=True), sample_rate, compared))
        if by_dnsmos:
            parts.append(pool.rate_all(waveforms, sample_rate, by_dnsmos))
        if by_nisqa:
            parts.append(_attempt(waveforms, sample_rate, by_nisqa))
        found[row] = [_merged(names, scores) for scores in zip(*parts, strict=True)] or [Scores({}, {})] * len(clean)
    return found


def _attempt(waveforms, sample_rate, names) -> list[Scores]:
    try:
        return nisqa.score_all(waveforms, sample_rate, names)
    except Exception as error:  # damaged weights or too little memory must not lose the enhanced audio
        return [Scores.undefined(names, f'{type(error).__name__}: {error}')] * len(waveforms)


def _merged(names, parts: Sequence[Scores]) -> Scores:
    """Merges the scores of several parts, in the order of `names`."""
    values = {name: value for part in parts for name, value in part.values.items()}
    reasons = {name: reason for part in parts for name, reason in part.reasons.items()}
    return Scores({name: values[name] for name in names if name in values}, reasons)
