"""Times the perceptual losses and their gradients: log-mel distance of DCCRN's spectra, PMSQE of waveforms."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from benchmarks.figures import Figure, figure
from benchmarks.measure import timed
from jax_diffse.losses import log_mel, pmsqe

SAMPLE_RATE, HOP = 16_000, 100
BATCH, SECONDS = 2, 3


def run(repeats: int) -> Iterator[Figure]:
    """Yields the figures of each loss, as in its paper and as released."""
    waves = 0.1 * jax.random.normal(jax.random.key(0), (2, BATCH, SECONDS * SAMPLE_RATE))
    specs = jax.random.normal(jax.random.key(1), (2, BATCH, SECONDS * SAMPLE_RATE // HOP + 3, 257, 2))
    cases = (('LMS', lms, specs), ('LMS, released', lambda *pair: lms(*pair, released=True), specs),
             ('PMSQE', pmsqe.pmsqe_of_waveforms, waves), ('PMSQE, released', pmsqe.pmsqe_released, waves))
    for name, loss, pair in cases:
        step = jax.jit(jax.value_and_grad(lambda estimate, target, loss=loss: jnp.sum(loss(estimate, target))))
        seconds, count = timed(lambda step=step, pair=pair: step(*pair), repeats)
        yield figure(name, 'time', 'value and gradient', seconds, 's', count, {'batch': BATCH, 'seconds': SECONDS})


def lms(estimate: jax.Array, target: jax.Array, released: bool = False) -> jax.Array:
    """The log-mel distance of complex spectra `[B, T, 257, 2]`."""
    return log_mel.log_mel_rmse(*map(log_mel.magnitude_for_log, (estimate, target)), released=released)
