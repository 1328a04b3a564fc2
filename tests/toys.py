"""Systems small enough to know what comes out."""

import dataclasses
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.losses.regression import complex_mse
from jax_diffse.networks.layers import BatchNorm, Dense
from jax_diffse.spectral import FrontEnd, mask_frames, rms_gain
from jax_diffse.systems.base import LossOutput
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


class _Network(nn.Module):
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, num_frames=None, *, train=False):
        y = BatchNorm(self.axis_name)(Dense(4)(x), train, num_frames)
        return x * nn.sigmoid(Dense(2)(nn.tanh(y)))


@dataclasses.dataclass(frozen=True)
class Trainable:
    """A gated layer with batch normalisation on spectrograms: compiles in a moment."""

    front_end: FrontEnd = FrontEnd()

    @property
    def sample_rate(self):
        return self.front_end.sample_rate

    @property
    def losses(self):
        return {'toy': self._loss}

    def init(self, key):
        variables = _Network().init(key, jnp.zeros((1, 2, self.front_end.num_bins, 2)))
        return {collection: {'toy': tree} for collection, tree in variables.items()}

    def _loss(self, variables, batch, key, train=True):
        frames = self.front_end.num_frames(batch['num_samples'])
        own = {collection: groups['toy'] for collection, groups in variables.items()}
        estimate, new = _Network('data' if train else None).apply(
            own, batch['noisy_spec'], frames, train=train, mutable=['batch_stats'])
        weight = jnp.where(batch['num_samples'] > 0, frames, 0).astype(jnp.float32)
        loss = complex_mse(estimate, batch['clean_spec'], frames)
        return LossOutput(loss, weight, {'toy': new['batch_stats']}, {'twice': 2 * loss})

    def gain(self, noisy, num_samples):
        return self.front_end.gain(noisy, num_samples)

    def enhance(self, variables, noisy, num_samples, key, *, gain=None, steps=None, processed=None):
        gain = (self.gain(noisy, num_samples) if gain is None else gain)[:, None]
        spec = self.front_end.analyze(noisy * gain, num_samples)
        own = {collection: groups['toy'] for collection, groups in variables.items()}
        spec = _Network().apply(own, spec, self.front_end.num_frames(num_samples))
        return self.front_end.synthesize(spec, num_samples, noisy.shape[1]) / gain


def run(system) -> Run:
    return Run(system, system.init(None), None, 7, 'abc', pathlib.Path('toy'))
