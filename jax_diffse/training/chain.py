"""Trains a config: one run, or a chain of stages that build on each other."""

import os

from jax_diffse import files
from jax_diffse.config import stage_config
from jax_diffse.training import loop
from jax_diffse.training.profile import Window


def train(config, workdir: str | os.PathLike, *, change_config: bool = False,
          profile: Window | None = None) -> dict[str, dict[str, float]]:
    """Trains a config, or resumes its training.

    Args:
      config: a ConfigDict, as `config.load` returns it.
      workdir: the folder of the run; created if missing.
      change_config: resume although the run was made with another config.
      profile: the steps that are traced, of each stage.

    Returns:
      Stage -> what `loop.train` returns for it. A config without stages has one, named after its system.

    Raises:
      UserError: as `loop.train` does.
    """
    if 'chain' in config:
        return _train_chain(config, workdir, change_config, profile)
    if profile:
        profile.check(config.train.steps)
    return {config.system: loop.train(config, workdir, change_config=change_config, profile=profile)}


def _train_chain(config, workdir, change_config: bool, profile: Window | None) -> dict[str, dict[str, float]]:
    """Trains the stages `config.chain`; `config.stages` holds the changes of each stage to the rest of the config.

    Each stage starts from the best checkpoint of the previous one, the first from `config.init_from` if set. The run of
    the last stage is `workdir`, those of the others are `workdir/STAGE`. A stage that is interrupted or reaches its
    time limit ends the call; the next call resumes there.
    """
    workdir, results = files.path(workdir), {}
    configs = {name: stage_config(config, name) for name in config.chain}  # finds mistakes in late stages early
    for stage in configs.values() if profile else ():
        profile.check(stage.train.steps)
    init_from = config.init_from
    for i, (name, stage) in enumerate(configs.items(), start=1):
        folder, stage.init_from = workdir if i == len(configs) else workdir / name, init_from
        results[name] = loop.train(stage, folder, change_config=change_config, profile=profile)
        if not results[name]['finished']:
            break
        init_from = str(folder)
    return results
