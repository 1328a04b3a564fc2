"""Time and memory of the systems: `python -m benchmarks.systems [--systems dccrn,c_gen] [--batch 4] [--seconds 3]`.

Enhancement from waveform to waveform, and the training step; DR-DiffuSE by its stages. Prints medians, what compilation
took and the compiler's temporaries, and a 2048 x 2048 float32 matrix product to compare machines by. TensorFlow is not
needed. SEGAN and DiffGMM train on segments: `--systems segan,diffgmm_small --batch 8 --seconds 1.024`. Run it with
`GLIBC_TUNABLES=` in front to see what `launch.tune` is worth.
"""

import argparse
import functools
import resource
import statistics
import time

import jax
import jax.numpy as jnp

from configs import diffgmm
from jax_diffse import launch, systems
from jax_diffse.systems.base import System
from jax_diffse.systems.dccrn import Dccrn
from jax_diffse.systems.dr_diffuse import DrDiffuse
from jax_diffse.systems.segan import Segan
from jax_diffse.training import state as state_lib
from jax_diffse.training.parallel import Parallel, wait_for_each_step


def make_diffgmm(variant: str, dtype: str) -> System:
    """That of the config."""
    config = diffgmm.get_config(variant).unlock()
    config.model.network.dtype = dtype
    return systems.build(config.system, config.model)


SYSTEMS = {'c_gen': functools.partial(DrDiffuse, 'c_gen'), 'diffusion': functools.partial(DrDiffuse, 'diffusion'),
           'refiner': functools.partial(DrDiffuse, 'refiner'), 'dccrn': Dccrn, 'segan': Segan,
           'diffgmm': functools.partial(make_diffgmm, ''), 'diffgmm_small': functools.partial(make_diffgmm, 'small')}


def median_seconds(function, repeats: int) -> float:
    """Median time of `function()`, which returns arrays, after one call that is not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def compiled(function, *args):
    """The compiled function and a line on what it took."""
    started = time.perf_counter()
    program = function.lower(*args).compile()
    seconds, memory = time.perf_counter() - started, program.memory_analysis()
    return program, f'compiled in {seconds:.1f} s, temporaries {memory.temp_size_in_bytes / 1e9:.2f} GB'


def make_inputs(system: System, batch: int, num_samples: int) -> dict[str, jax.Array]:
    """A batch of noise."""
    lengths = jnp.full(batch, num_samples)
    waves = {name: 0.1 * jax.random.normal(jax.random.key(i), (batch, num_samples))
             for i, name in enumerate(('clean', 'noisy'))}
    specs = {f'{name}_spec': system.front_end.analyze(x, lengths) for name, x in waves.items() if system.front_end}
    return {**waves, **specs, 'num_samples': lengths, 'index': jnp.arange(batch)}


def measure(name: str, system: System, inputs: dict[str, jax.Array], repeats: int, steps: list[int],
            training: bool) -> None:
    """Prints a line for enhancement, at each number of sampling steps, and one for the training step."""
    noisy, lengths = inputs['noisy'], inputs['num_samples']
    size = f'{len(noisy)} x {noisy.shape[1] / system.sample_rate:g} s'
    config = state_lib.OptimizerConfig()
    state = state_lib.create(system, config, 0.0, system.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(0), len(noisy))

    for count in steps if system.default_steps else [None]:
        enhance = jax.jit(functools.partial(system.enhance, steps=count))
        enhance, note = compiled(enhance, state.variables, noisy, lengths, keys)
        seconds = median_seconds(lambda enhance=enhance: enhance(state.variables, noisy, lengths, keys), repeats)
        sampled, factor = f', {count} sampling steps' if count else '', seconds * system.sample_rate / noisy.size
        print(f'{name}, waveform to waveform {size}{sampled}: {seconds:.3f} s, real-time factor {factor:.3f} '
              f'({note})', flush=True)
    if not training:
        return

    parallel = Parallel(devices=jax.devices()[:1])
    batch = parallel.shard(inputs)
    step, note = compiled(parallel.map(state_lib.make_train_step(system, config, steps=1, seed=0)), state, batch)
    seconds = median_seconds(lambda: step(state, batch), repeats)
    print(f'{name}, training step {size}: {seconds:.3f} s ({note})', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--seconds', type=float, default=3.0)
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--systems', default=','.join(SYSTEMS), metavar='A,B,...', help='default: all of %(default)s')
    parser.add_argument('--steps', type=lambda text: [int(n) for n in text.split(',')], default=[6], metavar='A,B,...',
                        help='numbers of sampling steps (default: 6)')
    parser.add_argument('--no-training', action='store_true', help='leave the training steps out')
    args = parser.parse_args()
    wait_for_each_step()
    print(f'{jax.devices()[0].device_kind}, {len(jax.devices())} device(s), jax {jax.__version__}')
    square = jax.random.normal(jax.random.key(0), (2048, 2048))
    product = jax.jit(jnp.matmul).lower(square, square).compile()
    print(f'matrix product 2048: {median_seconds(lambda: product(square, square), args.repeats):.3f} s')

    for name in args.systems.split(','):
        system = SYSTEMS[name](dtype=args.dtype)
        inputs = make_inputs(system, args.batch, round(args.seconds * system.sample_rate))
        measure(name, system, inputs, args.repeats, args.steps, not args.no_training)
    print(f'peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB')


if __name__ == '__main__':
    launch.tune()
    main()
