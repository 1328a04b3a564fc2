"""Chooses metrics and scores every file at every stage.

Metrics that compare with the clean speech are defined at 8 and 16 kHz and run in a pool of processes. Metrics of
`nisqa` need no reference and take any rate; they also rate the clean speech and run in this process, in batches.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jax_diffse.errors import UserError
from jax_diffse.metrics import COMPARING, DEFAULT, METRICS, Pool, Scores, nisqa
from jax_diffse.metrics import scores as comparing

CLEAN = 'clean'  # the row of the clean speech, which only metrics without a reference score


def check(names: Sequence[str] | None, sample_rate: int) -> None:
    """Checks that files can be scored with these metrics; None stands for the default.

    Raises:
      UserError: no name, an unknown name, a rate (Hz) at which metrics that compare with clean speech are not defined,
        or only metrics of models without weights (the message says how to get them).
    """
    names, known = DEFAULT if names is None else names, METRICS
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        wrong = f'metric {unknown[0]!r} does not exist' if unknown else 'no metric named'
        raise UserError(f'{wrong}, expected some of: {", ".join(known)}')
    compared, missing = [name for name in names if name in COMPARING], _missing(names)
    if compared:
        comparing.check(sample_rate, compared)
    elif all(nisqa.METRICS[name] in missing for name in names):
        raise UserError('; '.join(map(nisqa.how_to_get, missing)))


def choose(names: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the metrics to compute: the named ones, or the default ones, which include NISQA if its weights exist.

    Prints one line for each model without weights, which says how to get them.
    """
    wanted = (*DEFAULT, *nisqa.DEFAULT) if names is None else tuple(names)
    missing = _missing(wanted)
    for model in missing:
        print(nisqa.how_to_get(model), flush=True)
    return wanted if names else tuple(name for name in wanted if nisqa.METRICS.get(name) not in missing)


def is_final(name: str, scores: Scores) -> bool:
    """Whether a metric needs no new computation; it does if its model was missing and is available now."""
    if name not in scores.values:
        return False
    model = METRICS[name].model
    return not (model and scores.reasons.get(name) == nisqa.how_to_get(model) and nisqa.is_available(model))


def _missing(names: Iterable[str]) -> list[str]:
    """The models of these metrics that have no weights."""
    models = dict.fromkeys(nisqa.METRICS[name] for name in names if name in nisqa.METRICS)
    return [model for model in models if not nisqa.is_available(model)]


def score(clean: Sequence[np.ndarray], rows: Mapping[str, Sequence[np.ndarray]], sample_rate: int,
          names: Sequence[str], pool: Pool) -> dict[str, list[Scores]]:
    """Scores every file in every row.

    Args:
      clean: per file, `[N]`.
      rows: stage -> per file, `[N]`. The row 'clean' is scored only in metrics that need no reference.
      sample_rate: Hz.
      names: metrics; undefined values are NaN with a reason.
      pool: for metrics that compare with clean speech.

    Returns:
      Row -> scores per file.
    """
    compared, rated = ([name for name in names if name in known] for known in (COMPARING, nisqa.METRICS))
    found = {}
    for row, waveforms in rows.items():
        parts = [pool.score_all(zip(clean, waveforms, strict=True), sample_rate, compared)] if (
            compared and row != CLEAN) else []
        parts += [_attempt(waveforms, sample_rate, rated)] if rated else []
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
