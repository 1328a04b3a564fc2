"""Diffiner's priors: `python -m benchmarks.diffiner [--network full] [--dtype bfloat16] [--batch 8] [--steps 200]`.

One forward pass over blocks of 256 frames (4.1 s), the training step, and the refinement of as many seconds from
waveform to waveform. Prints medians, what compilation took, the compiler's temporaries and the multiply-adds of the
network, counted by the compiler as two operations each. TensorFlow is not needed.
"""

import argparse
import dataclasses
import resource

import jax
import jax.numpy as jnp

from benchmarks.systems import compiled, median_seconds
from configs import compact_diffiner, diffiner, diffiner_small
from jax_diffse import launch, systems
from jax_diffse.systems.diffiner import Diffiner
from jax_diffse.training import state as state_lib
from jax_diffse.training.parallel import Parallel, wait_for_each_step

NETWORKS = {'full': diffiner, 'small': diffiner_small, 'compact': compact_diffiner}
SECONDS = 4.08  # that fill a block


def make_system(network: str, dtype: str, remat: bool) -> Diffiner:
    """The system of a config."""
    config = NETWORKS[network].get_config()
    system = systems.build(config.system, config.model)
    changes = {'dtype': dtype} | ({'remat': True} if remat else {})  # the compact network has no remat
    return dataclasses.replace(system, network=dataclasses.replace(system.network, **changes))


def report(what: str, seconds: float, note: str, operations: float) -> None:
    """A line with what was measured."""
    print(f'{what}: {seconds:.3f} s, {operations / seconds / 1e12:.3f} TFLOP/s ({note})', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--network', choices=tuple(NETWORKS), default='small')
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--steps', type=int, default=20, help='of sampling (default: 20)')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--remat', action='store_true', help='recompute blocks in the gradient')
    parser.add_argument('--only', choices=('forward', 'training', 'refinement'), help='one of the three')
    args = parser.parse_args()
    wait_for_each_step()
    system = make_system(args.network, args.dtype, args.remat)
    variables, batch = jax.device_put(system.init(jax.random.key(0))), args.batch
    count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}: {args.network} network, {count} parameters, '
          f'{args.dtype}, batches of {batch}')

    def apply(variables, x, t):
        return system.unet.apply({'params': variables['params']['prior']}, x, t)

    x, t = jax.random.normal(jax.random.key(1), (batch, system.block_frames, 256, 2)), jnp.full(batch, 17)
    forward, note = compiled(jax.jit(apply), variables, x, t)
    operations = forward.cost_analysis()['flops']
    if args.only in (None, 'forward'):
        report('forward pass', median_seconds(lambda: forward(variables, x, t), args.repeats), note, operations)

    if args.only in (None, 'refinement'):
        noisy = 0.1 * jax.random.normal(jax.random.key(2), (batch, round(SECONDS * system.sample_rate)))
        lengths, keys = jnp.full(batch, noisy.shape[1]), jax.random.split(jax.random.key(3), batch)
        refine, note = compiled(jax.jit(lambda variables, noisy, processed: system.enhance(
            variables, noisy, lengths, keys, steps=args.steps, processed=processed)), variables, noisy, noisy / 2)
        seconds = median_seconds(lambda: refine(variables, noisy, noisy / 2), args.repeats)
        factor = seconds / (batch * SECONDS)
        report(f'refinement in {args.steps} steps, real-time factor {factor:.3f}', seconds, note,
               args.steps * operations)

    if args.only in (None, 'training'):
        spec = jax.random.normal(jax.random.key(4), (batch, system.block_frames, 257, 2))
        examples = {'clean_spec': spec, 'num_samples': jnp.full(batch, 65_280), 'index': jnp.arange(batch)}
        config, parallel = state_lib.OptimizerConfig(), Parallel(devices=jax.devices()[:1])
        state = state_lib.create(system, config, 0.0, variables)
        step, note = compiled(parallel.map(state_lib.make_train_step(system, config, steps=1, seed=0)), state,
                              parallel.shard(examples))
        seconds = median_seconds(lambda: step(state, examples), args.repeats)
        report(f'training step, {batch / seconds:.2f} examples per second', seconds, note, 3 * operations)
    print(f'peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB')


if __name__ == '__main__':
    launch.tune()
    main()
