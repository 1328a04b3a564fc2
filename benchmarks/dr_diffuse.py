"""Time and memory of DR-DiffuSE's condition generator: `python -m benchmarks.dr_diffuse [--batch 4] [--seconds 3]`.

Prints medians, and a 2048 x 2048 float32 matrix product to compare machines by. TensorFlow is not needed. Run it with
`GLIBC_TUNABLES=` in front to see what `launch.use_huge_pages` is worth.
"""

import argparse
import resource
import statistics
import time

import jax
import jax.numpy as jnp

from jax_diffse import launch
from jax_diffse.systems.dr_diffuse import DrDiffuse
from jax_diffse.training import state as state_lib
from jax_diffse.training.parallel import Parallel, wait_for_each_step


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--seconds', type=float, default=3.0)
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
    parser.add_argument('--repeats', type=int, default=5)
    args = parser.parse_args()
    wait_for_each_step()
    print(f'{jax.devices()[0].device_kind}, {len(jax.devices())} device(s), jax {jax.__version__}')
    square = jax.random.normal(jax.random.key(0), (2048, 2048))
    product = jax.jit(jnp.matmul).lower(square, square).compile()
    print(f'matrix product 2048: {median_seconds(lambda: product(square, square), args.repeats):.3f} s')

    system = DrDiffuse(dtype=args.dtype)
    num_samples = round(args.seconds * system.sample_rate)
    noisy = jax.random.normal(jax.random.key(1), (args.batch, num_samples))
    lengths = jnp.full(args.batch, num_samples)
    spec = system.front_end.analyze(noisy, lengths)
    config = state_lib.OptimizerConfig()
    state = state_lib.create(system, config, 0.0, jax.random.key(0))

    forward, note = compiled(jax.jit(lambda v, x: system._network().apply(
        {name: groups['c_gen'] for name, groups in v.items()}, x)), state.variables, spec)
    print(f'forward {args.batch} x {args.seconds:g} s: '
          f'{median_seconds(lambda: forward(state.variables, spec), args.repeats):.3f} s ({note})')

    keys = jax.random.split(jax.random.key(0), args.batch)
    enhance, note = compiled(jax.jit(system.enhance), state.variables, noisy, lengths, keys)
    seconds = median_seconds(lambda: enhance(state.variables, noisy, lengths, keys), args.repeats)
    print(f'waveform to waveform: {seconds:.3f} s, real-time factor {seconds / args.batch / args.seconds:.3f} ({note})')

    parallel = Parallel(devices=jax.devices()[:1])
    batch = parallel.shard({'clean_spec': spec, 'noisy_spec': spec, 'num_samples': lengths})
    step, note = compiled(parallel.map(state_lib.make_train_step(system, config, steps=1, seed=0)), state, batch)
    print(f'training step {args.batch} x {args.seconds:g} s: '
          f'{median_seconds(lambda: step(state, batch), args.repeats):.3f} s ({note})')
    print(f'peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB')


if __name__ == '__main__':
    launch.use_huge_pages()
    main()
