"""What makes a training step fit into the memory of a device: each change is tried by compiling the step with it."""

from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from jax_diffse.planning.plan import DoesNotFitError, Plan, plan_step
from jax_diffse.planning.targets import Target


def changed(config: ConfigDict, **changes) -> ConfigDict:
    """The config with other values; keys have '__' for dots, as in `train__accumulate`."""
    config = config.copy_and_resolve_references()
    for key, value in changes.items():
        *path, last = key.split('__')
        section = config
        for name in path:
            section = section[name]
        section[last] = value
    return config


def tried(config: ConfigDict, target: Target,
          plan: Callable[[ConfigDict, Target], Plan] = plan_step) -> Iterator[tuple[str, Plan | None]]:
    """Tries what may help, alone and then together, until something fits.

    Yields:
      The change, as on the command line, and the plan with it, or None where it does not fit.
    """
    network = config.model if 'dtype' in config.model else config.model.get('network', ConfigDict())
    prefix = 'model' if 'dtype' in config.model else 'model__network'
    options = []
    if network.get('dtype') == 'float32':
        options.append({f'{prefix}__dtype': 'bfloat16'})
    if 'remat' in network and not network.remat:
        options.append({f'{prefix}__remat': True})
    rows = config.train.batch_size // len(target.devices)
    parts = [{'train__accumulate': parts} for parts in range(config.train.accumulate + 1, rows + 1)
             if rows % parts == 0]
    together: dict = {}
    for option in options:
        together |= option
        yield from _attempt(config, target, option, plan)
    for option in parts:
        fitted = False
        for words, found in _attempt(config, target, option, plan):
            fitted = found is not None
            yield words, found
        if fitted:
            return
    if len(options) + bool(parts) > 1:
        yield from _attempt(config, target, {**together, **(parts[-1] if parts else {})}, plan)


def _attempt(config, target, option: dict, plan) -> Iterator[tuple[str, Plan | None]]:
    words = ' '.join(f'--config.{key.replace("__", ".")}={value}' for key, value in option.items())
    try:
        found = plan(changed(config, **option), target)
    except DoesNotFitError:
        yield words, None
        return
    yield words, found if found.fits else None
