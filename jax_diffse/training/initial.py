"""Initial variables of a run: random, or from an earlier run."""

import dataclasses

import jax
import jax.numpy as jnp

from jax_diffse import runs
from jax_diffse.errors import UserError
from jax_diffse.spectral import FrontEnd
from jax_diffse.systems.base import System, Variables, shapes


def initial_variables(system: System, key: jax.Array, init_from: str = '') -> Variables:
    """Returns the variables before the first step.

    Groups that the run `init_from` has, or has an origin for (`System.origins`), come from its best checkpoint; the
    others are random. Frozen groups must come from a run, because they are not trained.

    Raises:
      UserError: no `init_from` for a system with frozen groups, or an `init_from` that is not a run, lacks a frozen
        group or does not fit.
    """
    expected = shapes(system)
    frozen = [group for group in expected['params'] if group not in system.losses]
    if not init_from:
        if frozen:
            raise UserError(f'config.init_from: this stage builds on trained {" and ".join(frozen)}: name the run of '
                            'the previous stage')
        return system.init(key)
    run = runs.load(init_from)
    if run.system.front_end != system.front_end:
        theirs, ours = _unlike(run.system.front_end, system.front_end)
        raise UserError(f'config.init_from={init_from}: has {theirs}, but this config has {ours}')
    known = run.variables['params']
    origins = {group: next((name for name in system.origins.get(group, (group,)) if name in known), None)
               for group in expected['params']}
    missing = [group for group in frozen if origins[group] is None]
    if missing:
        raise UserError(f'config.init_from={init_from}: holds {", ".join(known)}, but this stage needs '
                        f'{" and ".join(missing)} as well: name the run of the previous stage')
    variables = system.init(key) if None in origins.values() else expected  # initialisation takes seconds
    return {collection: {group: _take(run, collection, origins[group], tree) for group, tree in groups.items()}
            for collection, groups in variables.items()}


def _unlike(a: FrontEnd | None, b: FrontEnd | None) -> tuple[str, str]:
    """The fields of two front ends that differ, in words; a front end may be missing."""
    fields = [{} if x is None else dataclasses.asdict(x) for x in (a, b)]
    differ = [key for key in fields[0] | fields[1] if fields[0].get(key) != fields[1].get(key)]
    theirs, ours = (', '.join(f'{key}={found[key]!r}' for key in differ) if found else 'no spectrograms'
                    for found in fields)
    return theirs, ours


def _take(run, collection, origin, initial):
    if origin is None:
        return initial
    found = run.variables[collection][origin]
    sizes = [jax.tree.map(lambda x: x.shape, tree) for tree in (found, initial)]
    if sizes[0] != sizes[1]:
        raise UserError(f'config.init_from={run.workdir}: the size or kind of its {origin} differs from config.model; '
                        f'it was trained with {run.config.model.to_json()}')
    return jax.tree.map(jnp.copy, found)  # two groups may have one origin
