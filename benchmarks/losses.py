"""Milliseconds of the perceptual losses, forward and backward: `python -m benchmarks.losses [--batch 2] [--seconds 3]`.

Medians over noise. The log-mel distance starts from DCCRN's spectra, PMSQE from waveforms.
"""

import argparse

import jax
import jax.numpy as jnp

from benchmarks.systems import median_seconds
from jax_diffse.errors import exit_with
from jax_diffse.losses import log_mel, pmsqe

SAMPLE_RATE, HOP = 16_000, 100


def lms(estimate: jax.Array, target: jax.Array, **options) -> jax.Array:
    """The distance of complex spectra `[B, T, 257, 2]`."""
    return log_mel.log_mel_rmse(*map(log_mel.magnitude_for_log, (estimate, target)), **options)


def measure(name: str, loss, pair: jax.Array, repeats: int) -> None:
    """Prints a line: `loss` of the two arrays in `pair`, and its gradient for the first."""
    step = jax.jit(jax.value_and_grad(lambda estimate, target: jnp.sum(loss(estimate, target))))
    print(f'{name:16}  {1000 * median_seconds(lambda: step(*pair), repeats):6.2f}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--seconds', type=float, default=3.0)
    parser.add_argument('--repeats', type=int, default=50)
    flags = parser.parse_args()
    num_samples = int(flags.seconds * SAMPLE_RATE)
    waves = 0.1 * jax.random.normal(jax.random.key(0), (2, flags.batch, num_samples))
    specs = jax.random.normal(jax.random.key(1), (2, flags.batch, num_samples // HOP + 3, 257, 2))
    print(f'{flags.batch} x {flags.seconds:g} s on {jax.devices()[0]}\nloss                  ms')
    measure('LMS', lms, specs, flags.repeats)
    measure('LMS, released', lambda *pair: lms(*pair, released=True), specs, flags.repeats)
    measure('PMSQE', pmsqe.pmsqe_of_waveforms, waves, flags.repeats)
    measure('PMSQE, released', pmsqe.pmsqe_released, waves, flags.repeats)


if __name__ == '__main__':
    exit_with(main)
