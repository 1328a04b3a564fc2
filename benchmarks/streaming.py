"""Real-time factor of streaming with the full-size DCCRN on one core: `python -m benchmarks.streaming [--seconds 10]`.

Noise and random weights; medians over hops, of the time that went by and of the time that the processor was at it,
which are the same where nothing else runs. A hop that takes longer than it lasts, a factor above 1, is a gap in a live
stream unless there is a buffer.
"""

import argparse
import pathlib
import time

import numpy as np

from jax_diffse import launch
from jax_diffse.errors import exit_with


def drawn_run():
    """A run of the default system, variables drawn with NumPy: a tenth of the time that `init` takes."""
    import jax

    from jax_diffse.systems.dccrn import Dccrn
    from jax_diffse.training.checkpoints import Run

    def draw(path, leaf):
        if 'var' in jax.tree_util.keystr(path):  # of batch normalisation
            return np.ones(leaf.shape, leaf.dtype)
        return (0.05 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    rng, system = np.random.default_rng(0), Dccrn()
    variables = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(system.init, jax.random.key(0)))
    return Run(system, variables, None, 0, '', pathlib.Path('drawn'))


def hop_seconds(stream, num_hops: int) -> np.ndarray:
    """What each hop of noise takes `[num_hops, 2]`: wall and processor time."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((num_hops, stream.hop, stream.num_channels))
    times = []
    for block in noise.astype(np.float32):
        started = time.perf_counter(), time.process_time()
        stream(block)
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    return np.array(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=10.0)
    parser.add_argument('--channels', type=int, default=1)
    flags = parser.parse_args()
    launch.use_one_core()

    from jax_diffse.evaluation.streaming import StreamingEnhancer

    stream = StreamingEnhancer(drawn_run(), flags.channels)
    duration = stream.hop / stream.sample_rate
    factors = hop_seconds(stream, max(1, round(flags.seconds / duration))) / duration
    (wall, busy), late = np.median(factors, axis=0), np.quantile(factors[:, 0], 0.99)
    print(f'{launch.cores()}, {flags.channels} channel(s), compiled in {stream.compile_seconds:.1f} s, look-ahead '
          f'{1000 * stream.look_ahead_seconds:g} ms, latency {1000 * stream.latency_seconds:g} ms')
    print(f'real-time factor {wall:.3f} (processor time {busy:.3f}), 99 of 100 hops below {late:.3f}')


if __name__ == '__main__':
    launch.tune()
    exit_with(main)
