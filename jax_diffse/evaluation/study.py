"""Evaluates runs and writes the report; implements `jax-diffse evaluate` and `jax_diffse.evaluate`."""

import dataclasses
import os
from collections.abc import Sequence

from jax_diffse.data import FOLDERS
from jax_diffse.data.config import DataConfig
from jax_diffse.errors import UserError
from jax_diffse.evaluation.evaluate import check_apart, evaluate
from jax_diffse.evaluation.options import EvaluationData, EvaluationOptions
from jax_diffse.evaluation.sweep import Variant, check_refining, check_seeds, sweep
from jax_diffse.inference.setting import Setting
from jax_diffse.metrics import scoring
from jax_diffse.runs import Run


def study(variants: Sequence[Variant], data: EvaluationData, output: str | os.PathLike,
          options: EvaluationOptions = EvaluationOptions(), *, seeds: Sequence[int] = (0,),
          preceding: Run | None = None) -> dict:
    """Evaluates one setting of a run, or sweeps several; the default data are those of the first run.

    Args:
      variants: of `sweep.grid`.
      data: the recordings.
      output: the folder for the report; see `evaluate.evaluate` for one setting and `sweep.sweep` for several.
      options: metrics, cache and so on.
      seeds: of the samplers' noise.
      preceding: the run whose output refiners refine.

    Returns:
      The summary, as in `summary.json` or `sweep.json`.

    Raises:
      UserError: options that contradict each other, or an error of the evaluation. The data, which may take long to
        prepare, are opened after the checks of options.
    """
    first, alone = variants[0], len(variants) == 1 and len(seeds) == 1
    scoring.check(options.metrics, first.run.system.sample_rate)
    check_seeds(seeds)
    check_refining(variants, preceding, options.processed is not None)
    if options.save_audio and not alone:
        raise UserError('--save-audio: is for one setting; give one at a time, or take audio from the cache')
    if options.also and not alone:
        raise UserError('--also: is for one setting; give one at a time')
    config, _ = data.config(first.run)
    if options.save_audio and config.name == FOLDERS:
        _check_apart(config, output)
    opened = data.open(first.run)
    if alone:
        return evaluate(Setting(first.run, first.steps, seeds[0], preceding), opened, output, options)
    return sweep(variants, opened, output, options, seeds=seeds, preceding=preceding)


def _check_apart(config: DataConfig, output: str | os.PathLike) -> None:
    for folders in (config.train, config.validation, config.test):
        for folder in filter(None, dataclasses.asdict(folders).values()):
            check_apart(output, folder)
