"""Stages that build on one another, trained one after the other."""

import pathlib

from jax_diffse import files
from jax_diffse.config import stage_config
from jax_diffse.training.loop import train


def train_chain(config, workdir, *, change_config: bool = False) -> dict[str, dict[str, float]]:
    """Trains, or continues, the stages `config.chain`.

    Each starts from the best checkpoint of the one before it; the first from `config.init_from`, where that is given.
    The last one's run is `workdir` itself, the others' are `workdir/STAGE`. A stage that was interrupted, or reached
    its time limit, ends the call; the next call goes on there.

    Args:
      config: as for `train`, with `chain`, the names of the stages, and `stages`, what each changes in the rest.
      workdir: a directory; made where there is none.
      change_config: go on with stages although they were made with another config.

    Returns:
      Stage -> what `train` returns, for the stages that were reached.

    Raises:
      UserError: as `train` does.
    """
    workdir, results = pathlib.Path(files.given(workdir)), {}
    configs = {name: stage_config(config, name) for name in config.chain}  # a mistake in a late one ends it here
    init_from = config.init_from
    for i, (name, stage) in enumerate(configs.items(), start=1):
        folder, stage.init_from = workdir if i == len(configs) else workdir / name, init_from
        results[name] = train(stage, folder, change_config=change_config)
        if not results[name]['finished']:
            break
        init_from = str(folder)
    return results
