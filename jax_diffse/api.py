"""The commands as functions: `jax_diffse.train`, `evaluate` and `convert`."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jax_diffse import config as configs
from jax_diffse import runs
from jax_diffse.conversion import writing
from jax_diffse.errors import UserError
from jax_diffse.evaluation.options import EvaluationData, EvaluationOptions
from jax_diffse.evaluation.study import study
from jax_diffse.evaluation.sweep import grid
from jax_diffse.training import chain
from jax_diffse.training.profile import Window


def train(config: str | os.PathLike | ConfigDict, workdir: str | os.PathLike, *,
          overrides: Mapping[str, Any] | None = None, change_config: bool = False,
          profile: str | None = None) -> dict[str, dict[str, float]]:
    """Trains a system, or resumes a training.

    Args:
      config: a name with variants, such as 'dccrn:si_snr,quick', the path of a config file, or a ConfigDict.
      workdir: the folder of the run; created if missing. If it holds a run of the same config, training resumes from
        its latest checkpoint.
      overrides: keys of a named config -> values, such as {'train.batch_size': 16}.
      change_config: resume although the run was made with another config.
      profile: 'FIRST:COUNT', the steps that are traced for the profiler of TensorBoard, of each stage.

    Returns:
      Stage -> 'step', 'validation_loss', 'best_validation_loss' and 'finished'. A config without stages has one stage,
      named after its system.

    Raises:
      UserError: a mistake in the config, another process trains in `workdir`, a checkpoint cannot be saved, or the loss
        stopped being finite.
    """
    arguments = [f'--config.{key}={value}' for key, value in (overrides or {}).items()]
    if isinstance(config, (str, os.PathLike)):
        config = configs.load(os.fspath(config), arguments)
    elif overrides:
        raise UserError('overrides need the name or path of a config; set the keys of a ConfigDict directly')
    window = None if profile is None else Window.of(profile)
    return chain.train(config, workdir, change_config=change_config, profile=window)


def evaluate(run: str | os.PathLike | Sequence[str | os.PathLike], output: str | os.PathLike, *,
             data: EvaluationData = EvaluationData(), options: EvaluationOptions = EvaluationOptions(),
             steps: int | Sequence[int] | None = None, seeds: Sequence[int] = (0,),
             preceding: str | os.PathLike | None = None) -> dict:
    """Evaluates one run, or several side by side, and writes the report.

    Args:
      run: the folder of a run, or several; 'package:dccrn' is the enhancer that comes with the package.
      output: the folder for the report.
      data: the recordings; default: the test split of the first run's own data.
      options: metrics, cache and so on.
      steps: sampling steps; several numbers are compared side by side. Default: each run's own.
      seeds: of the sampler's noise; several measure its spread.
      preceding: for refiners: the run whose output they refine.

    Returns:
      The summary of the report: the content of `summary.json` for one setting, of `sweep.json` for several.

    Raises:
      UserError: no such run, or data, metrics or settings that do not fit.
    """
    names = [run] if isinstance(run, (str, os.PathLike)) else run
    counts = (steps,) if steps is None or isinstance(steps, int) else tuple(steps)
    variants = grid([runs.load(name) for name in names], counts)
    before = None if preceding is None else runs.load(preceding)
    return study(variants, data, output, options, seeds=seeds, preceding=before)


def convert(checkpoints: Mapping[str, str | os.PathLike], workdir: str | os.PathLike, *,
            model: Mapping[str, Any] | None = None, raw: bool = False) -> None:
    """Converts the authors' PyTorch checkpoints of one system into a run. Needs torch; does not execute code in files.

    Args:
      checkpoints: kind, such as 'dccrn' (see `jax_diffse.conversion.KINDS`) or 'sgmse' (`ncsnpp.KINDS`) -> file.
      workdir: the folder of the run to write.
      model: fields of config.model that the weights do not determine.
      raw: of 'sgmse', 'bridge' and 'flowse': the trained weights instead of their moving averages.

    Raises:
      UserError: a file that cannot be read or converted, kinds that do not form a system, or a workdir that holds a
        run already.
    """
    writing.to_run(checkpoints, workdir, model, raw=raw)
