"""Variables that a run starts from: drawn, or taken over from an earlier run."""

import jax
import jax.numpy as jnp

from jax_diffse import runs
from jax_diffse.errors import UserError
from jax_diffse.systems.base import System, Variables, shapes


def initial_variables(system: System, key: jax.Array, init_from: str = '') -> Variables:
    """The variables before the first step.

    Groups that the run `init_from` has too, or has an origin for (`System.origins`), are taken from its best
    checkpoint; the others are drawn. Frozen groups must be found there: a system does not learn from drawn ones.

    Raises:
      UserError: no `init_from` for a system with frozen groups, it is not a run, lacks one of them or does not fit.
    """
    expected = shapes(system)
    frozen = [group for group in expected['params'] if group not in system.losses]
    if not init_from:
        if frozen:
            raise UserError(f'config.init_from: this stage builds on trained {" and ".join(frozen)}: name the run of '
                            'the stage before it')
        return system.init(key)
    run = runs.load(init_from)
    if run.system.front_end != system.front_end:
        raise UserError(f'config.init_from={init_from}: was trained on {run.system.front_end}, this config asks for '
                        f'{system.front_end}')
    known = run.variables['params']
    origins = {group: next((name for name in system.origins.get(group, (group,)) if name in known), None)
               for group in expected['params']}
    missing = [group for group in frozen if origins[group] is None]
    if missing:
        raise UserError(f'config.init_from={init_from}: holds {", ".join(known)}, but this stage needs '
                        f'{" and ".join(missing)} as well: name the run of the stage before it')
    variables = system.init(key) if None in origins.values() else expected  # drawing takes seconds
    return {collection: {group: _taken(run, collection, origins[group], tree) for group, tree in groups.items()}
            for collection, groups in variables.items()}


def _taken(run, collection, origin, drawn):
    if origin is None:
        return drawn
    found = run.variables[collection][origin]
    sizes = [jax.tree.map(lambda x: x.shape, tree) for tree in (found, drawn)]
    if sizes[0] != sizes[1]:
        raise UserError(f'config.init_from={run.workdir}: its {origin} is of another size or kind than config.model '
                        f'asks for; it was trained with {run.config.model.to_json()}')
    return jax.tree.map(jnp.copy, found)  # two groups may come from one
