"""Plans the training step of a system, or its enhancement, on accelerators that are not at hand; nothing is run there.

The figures are what the compilers for TPUs and GPUs say, not measurements.
"""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from benchmarks.job import Outcome
from benchmarks.plan import SYSTEMS, Job
from jax_diffse.errors import UserError

TARGETS = ('v5e:2x2', '8 x h100')  # by default
SECONDS = 3.0  # of audio per example
PER_DEVICE = {'diffiner': 2, 'diffiner_compact': 2}  # examples on each device; of others 8
ENHANCEMENTS = {'refiner': 6, 'diffiner': 200, 'dccrn': None, 'noise_unet': None, 'sgmse': 30, 'bridge': 50,
                'flowse': 5}  # system -> sampling steps
COLUMNS = ('system', 'per device', 'FLOP', 'ms', 'utilisation', 'examples/s', 'temporaries, GB', 'peak, GB', 'fits',
           'collectives', 'compiled in, s', 'date', 'revision', 'JAX')


def jobs(systems: list[str], targets: list[str]) -> Iterator[Job]:
    """One job for every training step and enhancement on every target."""
    for target in targets:
        for name in systems:
            settings = {'name': name, 'config': SYSTEMS[name], 'target': target,
                        'per_device': PER_DEVICE.get(name, 8)}
            yield Job('plans', settings | {'enhance': False, 'steps': None}, f'{name} on {target}')
            if name in ENHANCEMENTS:
                yield Job('plans', settings | {'enhance': True, 'steps': ENHANCEMENTS[name]},
                          f'{name}, enhancement, on {target}')


def run(name: str, config: str, target: str, per_device: int, enhance: bool, steps: int | None
        ) -> Iterator[dict[str, Any]]:
    """The plan in bfloat16, as a dict."""
    os.environ['JAX_PLATFORMS'] = 'cpu'
    from jax_diffse import config as configs
    from jax_diffse.planning import plan, table, targets

    count, _, kind = target.partition(' x ')
    devices = targets.gpus(kind, int(count)) if kind else targets.tpu(target)
    loaded = configs.load(config).unlock()
    (loaded.model if 'dtype' in loaded.model else loaded.model.network).dtype = 'bfloat16'
    loaded.train.update(batch_size=per_device * len(devices.devices), crop_seconds=SECONDS)
    found = (plan.plan_enhancement(loaded, devices, per_device, SECONDS, steps) if enhance
             else plan.plan_step(loaded, devices))
    yield {'name': name, 'config': config, 'steps': steps, **table.as_json(found)}


def load(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The plans of an earlier run, by the words for their jobs; none if there is no such file.

    Raises:
      UserError: another file.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        markdown(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{path}: no plans of this version; choose another --output or remove the file') from error
    return found


def record(outcome: Outcome, machine: dict[str, Any]) -> dict[str, Any]:
    """A job's plan, or why there is none, with what made it."""
    made = {'date': machine['date'], 'revision': machine['revision'], 'jax': machine['versions']['jax']}
    return made | ({'failure': outcome.failure} if outcome.failure else outcome.figures[0])


def markdown(found: dict[str, dict[str, Any]]) -> str:
    """The plans as a table for each target and kind of program."""
    made = [plan for plan in found.values() if 'failure' not in plan]
    lines = ['# Plans', '', f'Training steps and enhancements in bfloat16, {SECONDS:g} s per example. Times are '
             'estimates of the TPU compiler, or bounds from FLOP, bytes and launches on GPUs. **Nothing here was '
             'measured on a device.** FLOP, memory and times are those of one device.']
    for target, what, basis in dict.fromkeys((plan['target'], plan['what'], plan['basis']) for plan in made):
        lines += ['', f'## {what.capitalize()} on {target}', '', f'Time: {basis}.', '',
                  f'| {" | ".join(COLUMNS)} |', '|---|' + '--:|' * (len(COLUMNS) - 1)]
        lines += [_row(plan) for plan in made if (plan['target'], plan['what']) == (target, what)]
    for name, plan in found.items():
        if 'failure' in plan:
            lines += ['', f'{name} failed: {plan["failure"]}']
    return '\n'.join(lines) + '\n'


def _row(plan: dict[str, Any]) -> str:
    memory = plan['memory']
    steps = f', {plan["steps"]} steps' if plan['steps'] else ''
    cells = (plan['name'] + steps, f'{plan["batch"] // plan["devices"]}', f'{plan["flops"]:.3g}',
             f'{1e3 * plan["seconds"]:.4g}', f'{100 * plan["utilisation"]:.2g} %', f'{plan["examples_per_second"]:.4g}',
             f'{memory["temporaries"] / 1e9:.2f}', f'{memory["peak"] / 1e9:.2f}', 'yes' if plan['fits'] else 'no',
             f'{sum(cost["count"] for cost in plan["collectives"].values()):g}', f'{plan["compile_seconds"]:.0f}',
             plan['date'][:10], plan['revision'] or 'unknown', plan['jax'])
    return f'| {" | ".join(cells)} |'
