"""A system small enough to compile in a moment: one gated layer with batch normalisation on spectrograms."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from jax_diffse.losses.regression import complex_mse
from jax_diffse.networks.layers import BatchNorm, Dense
from jax_diffse.spectral import FrontEnd
from jax_diffse.systems.base import LossOutput


class Network(nn.Module):
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, num_frames=None, *, train=False):
        y = BatchNorm(self.axis_name)(Dense(4)(x), train, num_frames)
        return x * nn.sigmoid(Dense(2)(nn.tanh(y)))


@dataclasses.dataclass(frozen=True)
class ToySystem:
    front_end: FrontEnd = FrontEnd()

    @property
    def sample_rate(self):
        return self.front_end.sample_rate

    @property
    def losses(self):
        return {'toy': self._loss}

    def init(self, key):
        variables = Network().init(key, jnp.zeros((1, 2, self.front_end.num_bins, 2)))
        return {collection: {'toy': tree} for collection, tree in variables.items()}

    def _loss(self, variables, batch, key, train=True):
        frames = self.front_end.num_frames(batch['num_samples'])
        own = {collection: groups['toy'] for collection, groups in variables.items()}
        estimate, new = Network('data' if train else None).apply(
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
        spec = Network().apply(own, spec, self.front_end.num_frames(num_samples))
        return self.front_end.synthesize(spec, num_samples, noisy.shape[1]) / gain
