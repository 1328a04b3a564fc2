"""NISQA: `python -m benchmarks.nisqa [--models nisqa_v2,nisqa_tts] [--rates 16000,48000] [--files 32] [--seconds 3]`.

From waveforms to scores, with random weights, so that nobody needs the released ones: the whole, and its parts, as
multiples of real time. Prints medians, and a 2048 x 2048 float32 matrix product to compare machines by.
"""

import argparse
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.systems import median_seconds
from jax_diffse import launch
from jax_diffse.evaluation import nisqa
from jax_diffse.networks.nisqa import MELS, SEGMENT, Nisqa


def random_variables(config):
    """Variables of a network as it starts."""
    segments = jnp.zeros((1, 1, SEGMENT, MELS))
    return jax.jit(Nisqa(config).init)(jax.random.key(0), segments, jnp.ones(1, jnp.int32))


def measure(model: str, sample_rate: int, files: int, seconds: float, repeats: int) -> None:
    """Prints a line for a model at a rate."""
    config, audio = nisqa.MODELS[model], files * seconds
    variables = random_variables(config)
    waveforms = list(np.random.default_rng(0).normal(0, 0.1, (files, round(seconds * sample_rate))).astype(np.float32))
    front_end = nisqa.FrontEnd(sample_rate, config.max_hz)
    started = time.perf_counter()
    nisqa.predict(config, variables, waveforms, sample_rate)
    first = time.perf_counter() - started
    whole = median_seconds(lambda: nisqa.predict(config, variables, waveforms, sample_rate), repeats)
    spectra = median_seconds(lambda: front_end(waveforms), repeats)
    print(f'{model} at {sample_rate} Hz, {files} x {seconds:g} s: {whole:.3f} s, {audio / whole:.0f} times faster than '
          f'real time; the front end alone {spectra:.3f} s (first call {first:.1f} s)', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', default=','.join(nisqa.MODELS), metavar='A,B,...', help='default: all')
    parser.add_argument('--rates', default='16000,48000', metavar='A,B,...', help='in Hz (default: %(default)s)')
    parser.add_argument('--files', type=int, default=32)
    parser.add_argument('--seconds', type=float, default=3.0)
    parser.add_argument('--repeats', type=int, default=5)
    args = parser.parse_args()
    print(f'{jax.devices()[0].device_kind}, {len(jax.devices())} device(s), jax {jax.__version__}')
    square = jax.random.normal(jax.random.key(0), (2048, 2048))
    product = jax.jit(jnp.matmul).lower(square, square).compile()
    print(f'matrix product 2048: {median_seconds(lambda: product(square, square), args.repeats):.3f} s')
    for model in args.models.split(','):
        for rate in args.rates.split(','):
            measure(model, int(rate), args.files, args.seconds, args.repeats)
    print(f'peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB')


if __name__ == '__main__':
    launch.tune()
    main()
