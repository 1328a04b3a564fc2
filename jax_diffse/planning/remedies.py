"""What makes a training step fit into the memory of a device: each change is tried by compiling the step with it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from jax_diffse.planning.plan import DoesNotFitError, Plan, plan_step
from jax_diffse.planning.targets import Target


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A copy of the config with other values: 'train.accumulate' -> 2."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    return config


def tried(config: ConfigDict, target: Target,
          plan: Callable[[ConfigDict, Target], Plan] = plan_step) -> Iterator[tuple[str, Plan | None]]:
    """Tries bfloat16, recomputation and ever smaller parts of the batch, each alone, and last all of them together.

    Yields:
      The change, as on the command line, and the plan with it, or None where it does not fit. Accumulation ends with
      the first number of parts that fits.
    """
    section = 'model' if 'dtype' in config.model else 'model.network'
    network = config.model if section == 'model' else config.model.network
    alone = [{f'{section}.dtype': 'bfloat16'}] * (network.dtype == 'float32')
    alone += [{f'{section}.remat': True}] * (not network.get('remat', True))
    rows = config.train.batch_size // len(target.devices)
    parts = [{'train.accumulate': count} for count in range(config.train.accumulate + 1, rows + 1) if rows % count == 0]
    for change in alone:
        yield _words(change), _attempt(config, target, change, plan)
    for change in parts:
        found = _attempt(config, target, change, plan)
        yield _words(change), found
        if found:
            return
    together = {key: value for change in (*alone, *parts[-1:]) for key, value in change.items()}
    if len(together) > 1:
        yield _words(together), _attempt(config, target, together, plan)


def _words(change: Mapping[str, Any]) -> str:
    return ' '.join(f'--config.{key}={value}' for key, value in change.items())


def _attempt(config: ConfigDict, target: Target, change: Mapping[str, Any], plan) -> Plan | None:
    try:
        found = plan(changed(config, change), target)
    except DoesNotFitError:
        return None
    return found if found.fits else None
