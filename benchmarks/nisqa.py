"""Times NISQA from waveforms to scores, with random weights, so that the released weights are not needed."""

import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.figures import Figure, figure
from benchmarks.measure import timed
from jax_diffse.metrics import nisqa
from jax_diffse.networks.nisqa import MELS, SEGMENT, Nisqa

SECONDS = 3


def run(models: list[str], rates: list[int], files: int, repeats: int) -> Iterator[Figure]:
    """Yields figures for `files` files of 3 s: of all of NISQA, and of its front end alone."""
    for model in models:
        config = nisqa.MODELS[model]
        variables = jax.jit(Nisqa(config).init)(jax.random.key(0), jnp.zeros((1, 1, SEGMENT, MELS)), jnp.ones(1, int))
        for rate in rates:
            yield from at_rate(model, variables, rate, files, repeats)


def at_rate(model: str, variables, sample_rate: int, files: int, repeats: int) -> Iterator[Figure]:
    """Yields the figures of a model at a sample rate."""
    config, settings = nisqa.MODELS[model], {'files': files, 'seconds': SECONDS, 'sample_rate': sample_rate}
    waveforms = list(np.random.default_rng(0).normal(0, 0.1, (files, SECONDS * sample_rate)).astype(np.float32))
    front_end = nisqa.FrontEnd(sample_rate, config.max_hz)

    def predict():
        return nisqa.predict(config, variables, waveforms, sample_rate)

    subject, started = f'{model}, {sample_rate} Hz', time.perf_counter()
    predict()
    first = time.perf_counter() - started
    seconds, count = timed(predict, repeats)
    yield figure(subject, 'time', 'first call', first, 's', 1, settings)
    yield figure(subject, 'time', 'all files', seconds, 's', count, settings)
    yield figure(subject, 'files per second', 'all files', files / seconds, '1/s', count, settings)
    seconds, count = timed(lambda: front_end(waveforms), repeats)
    yield figure(subject, 'time', 'front end alone', seconds, 's', count, settings)
