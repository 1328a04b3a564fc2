"""Which metrics are computed, and their values for every file at every stage.

Those of `metrics` compare with the clean speech, are defined at 8 and 16 kHz, and run in a pool of processes. Those of
`nisqa` need no reference and take any rate; they rate the clean speech, too, and run here, a stage's files together.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jax_diffse.errors import UserError
from jax_diffse.evaluation import nisqa
from jax_diffse.evaluation.metrics import DEFAULT, METRICS, Scores, score_all
from jax_diffse.evaluation.metrics import scores as comparing
from jax_diffse.evaluation.progress import track
from jax_diffse.evaluation.results import CLEAN, Results


def check(names: Sequence[str] | None, sample_rate: int) -> None:
    """Refuses metrics that no file could be scored with; None stands for the default.

    Raises:
      UserError: no name, one that does not exist, a rate (Hz) at which those that compare with clean speech are not
        defined, or nothing but metrics of models whose weights are not there: says how to get them.
    """
    names, known = DEFAULT if names is None else names, (*METRICS, *nisqa.METRICS)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        wrong = f'metric {unknown[0]!r} does not exist' if unknown else 'no metric named'
        raise UserError(f'{wrong}, expected some of: {", ".join(known)}')
    compared, missing = [name for name in names if name in METRICS], _missing(names)
    if compared:
        comparing.check(sample_rate, compared)
    elif all(nisqa.METRICS[name] in missing for name in names):
        raise UserError('; '.join(map(nisqa.how_to_get, missing)))


def choose(names: Sequence[str] | None) -> tuple[str, ...]:
    """The metrics to compute: those named, or else the default of those that compare and, with weights, of NISQA's.

    Prints, one line for each model whose weights are missing, how to get them.
    """
    wanted = (*DEFAULT, *nisqa.DEFAULT) if names is None else tuple(names)
    missing = _missing(wanted)
    for model in missing:
        print(nisqa.how_to_get(model), flush=True)
    return wanted if names else tuple(name for name in wanted if nisqa.METRICS.get(name) not in missing)


def _missing(names: Iterable[str]) -> list[str]:
    """The models of these metrics whose weights are not there."""
    models = dict.fromkeys(nisqa.METRICS[name] for name in names if name in nisqa.METRICS)
    return [model for model in models if not nisqa.is_available(model)]


def score(infos: Sequence[dict], clean: Sequence[np.ndarray], stages: Mapping[str, Sequence[np.ndarray]],
          sample_rate: int, names: Sequence[str], workers: int | None = None) -> Results:
    """Scores every file at every stage, and prints how far it is.

    Args:
      infos: of the files, see `Results`.
      clean: per file, `[N]`.
      stages: stage -> per file, `[N]`.
      sample_rate: Hz.
      names: metrics; what cannot be computed is NaN with a reason.
      workers: processes for those that compare, by default one per CPU; 0 scores in this process.
    """
    compared = _compare(clean, stages, sample_rate, [name for name in names if name in METRICS], workers)
    rated = _rate({CLEAN: clean, **stages}, sample_rate, [name for name in names if name in nisqa.METRICS])
    scores = [[_merged([found[stage][i] for found in (compared, rated) if found]) for stage in stages]
              for i in range(len(clean))]
    values = [[[merged.values[name] for name in names] for merged in of_file] for of_file in scores]
    reasons = [[merged.reasons for merged in of_file] for of_file in scores]
    return Results(infos, tuple(stages), tuple(names), np.array(values, np.float64), reasons, rated.get(CLEAN, ()))


def _compare(clean, stages, sample_rate, names, workers) -> dict[str, list[Scores]]:
    """Stage -> per file, its scores against the clean speech; empty without metrics."""
    if not names:
        return {}
    jobs = (pair for waveforms in stages.values() for pair in zip(clean, waveforms, strict=True))
    scores = list(track(score_all(jobs, sample_rate, names, workers), len(clean) * len(stages), 'scoring'))
    return {stage: scores[s * len(clean):(s + 1) * len(clean)] for s, stage in enumerate(stages)}


def _rate(rows, sample_rate, names) -> dict[str, list[Scores]]:
    """Clean speech or stage -> per file, its scores without a reference; empty without metrics."""
    if not names:
        return {}
    scores = (_attempt(waveforms, sample_rate, names) for waveforms in rows.values())
    return dict(zip(rows, track(scores, len(rows), 'NISQA'), strict=True))


def _attempt(waveforms, sample_rate, names) -> list[Scores]:
    try:
        return nisqa.score_all(waveforms, sample_rate, names)
    except Exception as error:  # damaged weights, or too little memory, must not cost what was enhanced
        return [Scores.undefined(names, f'{type(error).__name__}: {error}')] * len(waveforms)


def _merged(parts: Sequence[Scores]) -> Scores:
    return Scores({name: value for part in parts for name, value in part.values.items()},
                  {name: reason for part in parts for name, reason in part.reasons.items()})
