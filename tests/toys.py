"""Systems small enough to know what comes out."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.spectral import mask_frames, rms_gain
from jax_diffse.training.checkpoints import Run

FIR = np.hanning(161).astype(np.float32) / np.hanning(161).sum()  # symmetric, 5 ms to either side at 16 kHz


@dataclasses.dataclass(frozen=True)
class Toy:
    """A system that scales `noisy` by 0.5, at unit level like the real ones."""

    sample_rate: int = 16_000
    front_end: Any = None
    losses: Any = dataclasses.field(default_factory=dict)

    def init(self, key):
        return {'params': {}}

    def gain(self, noisy, num_samples):
        return rms_gain(noisy, num_samples)

    def enhance(self, variables, noisy, num_samples, key, *, gain=None, steps=None, processed=None):
        gain = self.gain(noisy, num_samples) if gain is None else gain
        return mask_frames(self.process(noisy * gain[:, None], key, steps) / gain[:, None], num_samples)

    def process(self, x, key, steps):
        return 0.5 * x


class Gate(Toy):
    """Keeps the samples above the level of the recording."""

    def process(self, x, key, steps):
        return jnp.where(jnp.abs(x) > 1, x, 0.0)


class LowPass(Toy):
    """A filter of known support."""

    def process(self, x, key, steps):
        return jax.vmap(lambda row: jnp.convolve(row, jnp.asarray(FIR), mode='same'))(x)


class Noise(Toy):
    """Replaces the signal with a draw."""

    def process(self, x, key, steps):
        return jax.vmap(lambda k: jax.random.normal(k, x.shape[1:]))(key)


class Constant(Toy):
    """Gives a constant even for silence, as a network with biases does."""

    def process(self, x, key, steps):
        return jnp.full_like(x, 0.25)


class Stepped(Toy):
    """Divides by the number of steps, of which it takes at most ten."""

    def process(self, x, key, steps):
        if steps is not None and not 1 <= steps <= 10:
            raise ValueError('takes 1 to 10 sampling steps')
        return x / (steps or 1)


class Broken(Toy):
    """Gives NaN."""

    def process(self, x, key, steps):
        return x * jnp.nan


def run(system) -> Run:
    return Run(system, system.init(None), None, 7, 'abc', pathlib.Path('toy'))
