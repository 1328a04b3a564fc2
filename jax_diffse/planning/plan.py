"""Compiles a training step, or an enhancement, for accelerators that are not at hand, and reads what it will cost."""

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jax_diffse import flops, platforms, systems
from jax_diffse.config import from_config_dict
from jax_diffse.errors import UserError
from jax_diffse.inference.programs import Rows, enhance_chunks
from jax_diffse.planning.programs import Cost, Program, total
from jax_diffse.planning.targets import Target
from jax_diffse.systems.base import System, check_steps, shapes
from jax_diffse.training import state as state_lib
from jax_diffse.training.parallel import MAPPERS, Parallel
from jax_diffse.training.settings import ParallelConfig, TrainConfig

LAUNCH = 3e-6  # seconds that a GPU takes to start a kernel, about
# That a core reads, mixes and transforms per second: 420 crops of 3 s on two cores, docs/benchmarks/benchmarks.md.
SAMPLES_PER_CORE = 420 * 3 * 16_000 / 2
LISTED = 10  # operations and loops that are named
STEP, ENHANCEMENT = 'training step', 'enhancement'
LARGEST = 4096  # examples per device that `largest_batch` tries at most


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one execution of a program takes, per device unless said otherwise."""

    what: str  # STEP or ENHANCEMENT
    system: str
    target: str
    devices: int
    hosts: int
    batch: int  # examples, over all devices
    seconds_of_audio: float  # per example
    compile_seconds: float
    memory: dict[str, float]  # bytes: 'arguments', 'temporaries', 'peak' and 'limit'
    flops: float  # of products and convolutions
    moved: float  # bytes that operations read and write
    collectives: dict[str, Cost]
    seconds: float  # one execution
    basis: str  # what `seconds` is
    utilisation: float  # FLOP per second over the peak of the device
    examples_per_second: float  # over all devices
    hours: float | None  # of a training of config.train.steps steps
    cores: float | None  # of a host's processors, about, that prepare the examples of a device
    costs: list[tuple[float, str]]  # seconds of the operations that cost most, by module
    loops: list[tuple[float, int, str]]  # seconds of the loops that cost most, their number of runs, their module

    @property
    def fits(self) -> bool:
        """Whether the program fits into the memory of a device."""
        return self.memory['peak'] <= self.memory['limit']


class DoesNotFitError(UserError):
    """The compiler says that a program does not fit into the memory of a device."""

    def __init__(self, message: str, needed: float | None):
        super().__init__(message)
        self.needed = needed  # bytes, if the compiler says how many


def plan_step(config: ConfigDict, target: Target) -> Plan:
    """Plans the training step of a config, mapped over the devices as `train` maps it.

    Raises:
      UserError: an invalid config, a batch that does not divide among the devices, another mapper than shard_map, or an
        error of the compiler.
      DoesNotFitError: the compiler gives up for lack of memory.
    """
    settings = from_config_dict(TrainConfig, config.train, 'config.train')
    optimizer = from_config_dict(state_lib.OptimizerConfig, config.optimizer, 'config.optimizer')
    mapper = from_config_dict(ParallelConfig, config.parallel, 'config.parallel').mapper
    if mapper != MAPPERS[0]:
        raise UserError(f'config.parallel.mapper={mapper}: plans are made with {MAPPERS[0]}; leave the key out')
    system, mapping = systems.build(config.system, config.model), Parallel(mapper, target.devices)
    mapping.check_batch_size(settings.batch_size, settings.accumulate)
    step = state_lib.make_train_step(system, optimizer, steps=settings.steps, seed=settings.seed,
                                     ema_decay=settings.ema_decay, accumulate=settings.accumulate)
    state = jax.eval_shape(lambda drawn: state_lib.create(system, optimizer, settings.ema_decay, drawn), shapes(system))
    batch = jax.eval_shape(lambda: _batch(system, settings.batch_size, settings.crop_samples(system.sample_rate)))
    found = _compiled(mapping.map(step, donate=True), target, mapping.shaped(state, batch))
    per_second, count = settings.batch_size / found['seconds'], len(target.devices)
    cores = per_second * settings.crop_samples(system.sample_rate) / SAMPLES_PER_CORE / count
    return Plan(STEP, config.system, target.name, count, target.hosts, settings.batch_size, settings.crop_seconds,
                hours=found['seconds'] * settings.steps / 3600, cores=cores, examples_per_second=per_second, **found)


def plan_enhancement(config: ConfigDict, target: Target, per_device: int, seconds: float,
                     steps: int | None = None) -> Plan:
    """Plans the enhancement of `per_device` recordings of `seconds` on each device; `steps` of sampling.

    Raises:
      UserError: an invalid config, less than one sample, a number of steps that the system does not take, or an error
        of the compiler.
      DoesNotFitError: the compiler gives up for lack of memory.
    """
    system, mapping = systems.build(config.system, config.model), Parallel(devices=target.devices)
    rows, num_samples = per_device * len(target.devices), round(seconds * system.sample_rate)
    if num_samples < 1:
        raise UserError(f'--seconds={seconds:g}: expected a sample or more at {system.sample_rate} Hz')
    try:
        check_steps(system, steps)
    except ValueError as error:
        raise UserError(f'--steps={steps}: {error}') from error

    def enhance(variables, chunks):
        return list(enhance_chunks(system, variables, chunks, steps).values())[-1]

    noisy, lengths, level, seeds = (jax.ShapeDtypeStruct((rows, *shape), dtype) for shape, dtype in (
        ((num_samples,), jnp.float32), ((), jnp.int32), ((), jnp.float32), ((4,), jnp.uint32)))
    chunks = Rows(noisy, lengths, level, seeds, noisy if system.follows else None)
    found = _compiled(mapping.map(enhance, sharded=True), target, mapping.shaped(shapes(system), chunks))
    return Plan(ENHANCEMENT, config.system, target.name, len(target.devices), target.hosts, rows, seconds, hours=None,
                cores=None, examples_per_second=rows / found['seconds'], **found)


def largest_batch(plan: Callable[[int], Plan], known: int = 1) -> tuple[int, Plan | None]:
    """Finds by bisection the most examples per device that fit.

    Args:
      plan: examples per device -> their plan; may raise `DoesNotFitError`.
      known: where to begin.

    Returns:
      The number and its plan; 0 and None if not even one example fits.
    """
    best: tuple[int, Plan | None] = (0, None)
    low, high, size = 0, None, known
    while high is None or high - low > 1:
        found = _fitting(plan, size)
        if found:
            low, best = size, (size, found)
        else:
            high = size
        if low >= LARGEST:
            return best
        size = (low + high) // 2 if high else 2 * low
    return best


def _fitting(plan, size) -> Plan | None:
    try:
        found = plan(size)
    except DoesNotFitError:
        return None
    return found if found.fits else None


def _batch(system: System, batch_size: int, num_samples: int) -> dict[str, jax.Array]:
    """A batch in the form of the data pipeline."""
    lengths = jnp.full(batch_size, num_samples, jnp.int32)
    waves = {name: jnp.zeros((batch_size, num_samples)) for name in ('clean', 'noisy')}
    specs = {f'{name}_spec': system.front_end.analyze(x, lengths) for name, x in waves.items() if system.front_end}
    return {**waves, **specs, 'num_samples': lengths, 'index': jnp.arange(batch_size)}


def _compiled(mapped, target: Target, arguments: tuple[Any, Any]) -> dict[str, Any]:
    """Compiles a mapped function and reads what it costs."""
    started = time.perf_counter()
    with platforms.exporting({target.platform}):
        traced = mapped.trace(*arguments)
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' in str(error):
            raise _does_not_fit(str(error), target) from error
        raise UserError(f'{target.name}: the compiler failed ({" ".join(str(error).split())[:300]}); '
                        'the config is not at fault, but another batch or dtype may compile') from error
    elapsed = time.perf_counter() - started
    program, counted = Program(compiled.as_text()), flops.count(traced.jaxpr)
    everything = total(program.operations())
    seconds, basis = _time(everything, counted, target)
    return {'compile_seconds': elapsed, 'memory': _memory(compiled.memory_analysis(), target), 'flops': counted,
            'moved': everything.moved, 'collectives': program.collectives(), 'seconds': seconds, 'basis': basis,
            'utilisation': counted / seconds / target.limits.flops, 'costs': _costs(program, target),
            'loops': _loops(program, target)}


def _does_not_fit(message: str, target: Target) -> DoesNotFitError:
    used = re.search(r'Used ([\d.]+)([KMGT]) of', message)
    needed = float(used[1]) * 1024 ** ('KMGT'.index(used[2]) + 1) if used else None
    said = f'needs {needed / 2**30:.1f} GiB' if needed else 'needs more memory than there is'
    return DoesNotFitError(f'{said} on each device of {target.name}, which has '
                           f'{target.limits.memory / 2**30:.1f} GiB', needed)


def _memory(stats, target: Target) -> dict[str, float]:
    arguments, temporaries = stats.argument_size_in_bytes, stats.temp_size_in_bytes
    own = stats.output_size_in_bytes - stats.alias_size_in_bytes  # results that do not take the place of arguments
    return {'arguments': arguments, 'temporaries': temporaries,
            'peak': arguments + temporaries + own + stats.generated_code_size_in_bytes, 'limit': target.limits.memory}


def _time(cost: Cost, counted: float, target: Target) -> tuple[float, str]:
    if target.platform == 'tpu':
        return cost.cycles / target.limits.clock, "compiler's estimate"
    work = max(counted / target.limits.flops, cost.moved / target.limits.bandwidth)
    return work + LAUNCH * cost.count, 'roofline bound'


def _seconds(cost: Cost, target: Target) -> float:
    if target.platform == 'tpu':
        return cost.cycles / target.limits.clock
    return cost.moved / target.limits.bandwidth + LAUNCH * cost.count


def _costs(program: Program, target: Target) -> list[tuple[float, str]]:
    found = sorted(((_seconds(cost, target), _plain(source)) for source, cost in program.by_source().items()),
                   reverse=True)
    return found[:LISTED]


def _loops(program: Program, target: Target) -> list[tuple[float, int, str]]:
    found = sorted(((_seconds(cost, target), trips, _plain(source)) for source, trips, cost in program.loops()),
                   reverse=True)
    return found[:LISTED]


def _plain(source: str) -> str:
    """The path of modules without the parts that all of them have."""
    return re.sub(r'^jit\([^)]*\)/(?:jit\(shmap_body\)|shard_map)/', '', source) or 'not attributed'
