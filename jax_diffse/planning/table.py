"""Plans in words and in JSON."""

import dataclasses
from typing import Any

from jax_diffse.planning.plan import STEP, Plan
from jax_diffse.planning.targets import Target

GIB = 2**30
CORES = 16  # of a host, as an example


def text(plan: Plan, target: Target) -> str:
    """The plan as lines of text."""
    memory, per_device = plan.memory, plan.batch // plan.devices
    rows = [
        ('devices', f'{plan.devices} in {plan.hosts} host{"s" * (plan.hosts > 1)}'),
        ('batch', f'{plan.batch} x {plan.seconds_of_audio:g} s, {per_device} per device'),
        ('memory per device', f'arguments {memory["arguments"] / GIB:.2f}, temporaries '
                              f'{memory["temporaries"] / GIB:.2f}, peak {memory["peak"] / GIB:.2f} of '
                              f'{memory["limit"] / GIB:.1f} GiB: {"fits" if plan.fits else "does not fit"}'),
        ('FLOP per device', f'{plan.flops:.4g}, of products and convolutions'),
        ('bytes per device', f'{plan.moved:.4g}, read and written by operations'),
        ('collectives', ', '.join(f'{cost.count:g} {kind} of {cost.moved / 1e6:.3g} MB' for kind, cost in
                                  plan.collectives.items()) or 'none'),
        ('time', f'{1e3 * plan.seconds:.4g} ms ({plan.basis}, not measured)'),
        ('utilisation', f'{100 * plan.utilisation:.2g} % of {target.limits.flops / 1e12:.4g} TFLOP/s'),
        ('examples per second', f'{plan.examples_per_second:.4g}'),
        *([('hours', f'{plan.hours:.3g} for all steps, without validation')] if plan.hours is not None else []),
        *([('data', f'{plan.cores:.2g} cores per device, so that {CORES} cores feed {CORES / plan.cores:.3g} devices '
                    '(by the speed of a core in docs/benchmarks.md)')] if plan.cores is not None else []),
        ('compiled in', f'{plan.compile_seconds:.0f} s')]
    width = max(len(name) for name, _ in rows)
    lines = [f'{plan.system}, {plan.what} on {plan.target}', *(f'  {name:{width}}  {value}' for name, value in rows)]
    lines += ['  operations that cost most:', *(
        f'  {1e3 * seconds:9.3f} ms {100 * seconds / plan.seconds:5.1f} %  {source}' for seconds, source in plan.costs)]
    if plan.loops:
        lines += ['  loops that cost most:', *(
            f'  {1e3 * seconds:9.3f} ms {100 * seconds / plan.seconds:5.1f} %  {trips} x {source}'
            for seconds, trips, source in plan.loops)]
    return '\n'.join(lines)


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as a dict of plain values, with its fields as keys, and 'fits'."""
    found = dataclasses.asdict(plan)
    found['collectives'] = {kind: {'count': cost.count, 'bytes': cost.moved} for kind, cost in plan.collectives.items()}
    found['costs'] = [{'seconds': seconds, 'source': source} for seconds, source in plan.costs]
    found['loops'] = [{'seconds': seconds, 'runs': trips, 'source': source} for seconds, trips, source in plan.loops]
    return found | {'fits': plan.fits}


def headline(plan: Plan) -> str:
    """The plan in a few words."""
    what = 'step' if plan.what == STEP else 'enhancement'
    return (f'{plan.batch // plan.devices} per device, peak {plan.memory["peak"] / GIB:.2f} of '
            f'{plan.memory["limit"] / GIB:.1f} GiB, {1e3 * plan.seconds:.4g} ms per {what} ({plan.basis}), '
            f'{plan.examples_per_second:.4g} examples per second')
