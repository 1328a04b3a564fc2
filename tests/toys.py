"""Toy systems with known outputs."""

import dataclasses
import pathlib
from types import MappingProxyType

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.losses.regression import complex_mse
from jax_diffse.networks.layers import BatchNorm, Dense
from jax_diffse.runs import Run
from jax_diffse.spectral import FrontEnd, mask_frames, rms_gain
from jax_diffse.systems import base
from jax_diffse.systems.base import LossOutput, System

FIR = np.hanning(161).astype(np.float32) / np.hanning(161).sum()  # symmetric, 5 ms to either side at 16 kHz


@dataclasses.dataclass(frozen=True)
class Toy(System):
    """A system that scales `noisy` by 0.5, at unit level like the real ones."""

    sample_rate: int = 16_000
    front_end = None
    losses = MappingProxyType({})

    def init(self, key):
        return {'params': {}}

    def gain(self, noisy, num_samples):
        return rms_gain(noisy, num_samples)

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        gain = gain[:, None]
        return {stage: mask_frames(estimate / gain, num_samples)
                for stage, estimate in self.estimates(noisy * gain, key, steps).items()}

    def estimates(self, x, key, steps):
        return {'enhanced': self.process(x, key, steps)}

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


class Staged(Toy):
    """Three stages, not in alphabetical order: half the signal, the same filtered, and the latter plus noise."""

    def estimates(self, x, key, steps):
        half = 0.5 * x
        filtered = LowPass.process(self, half, key, steps)
        return {'half': half, 'filtered': filtered, 'drawn': filtered + Noise.process(self, x, key, steps)}


class Stepped(base.Sampling, Toy):
    """Divides by the number of steps, which is at most ten."""

    default_steps = 3

    def check_steps(self, steps):
        if not 1 <= steps <= 10:
            raise ValueError('takes 1 to 10 sampling steps')

    def process(self, x, key, steps):
        return x / (self.default_steps if steps is None else steps)


class Refiner(base.Sampling, base.Refiner, Toy):
    """Half of `noisy` and a quarter of `processed`; takes any number of steps."""

    default_steps = 1

    def generate(self, variables, key, num_samples, *, steps=None):
        return jnp.zeros((len(key), num_samples))

    def check_steps(self, steps):
        """Accepts any number of steps."""

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        return {'refined': mask_frames(0.5 * noisy + 0.25 * processed, num_samples)}


class Broken(Toy):
    """Gives NaN."""

    def process(self, x, key, steps):
        return x * jnp.nan


class _Network(nn.Module):
    width: int = 4
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, num_frames=None, *, train=False):
        y = BatchNorm(self.axis_name)(Dense(self.width)(x), train, num_frames)
        return x * nn.sigmoid(Dense(2)(nn.tanh(y)))


@dataclasses.dataclass(frozen=True)
class Trainable(System):
    """A gated layer with batch normalisation on spectrograms: compiles in a moment.

    At the stage `late` it is frozen, and a second one on top of it is trained, which starts as its copy.
    """

    stage: str = 'toy'
    width: int = 4
    front_end: FrontEnd = FrontEnd()
    origins = {'late': ('late', 'toy')}

    @property
    def sample_rate(self):
        return self.front_end.sample_rate

    @property
    def losses(self):
        return {self.stage: self._loss}

    def _groups(self):
        return ('toy', 'late')[:1 + (self.stage == 'late')]

    def init(self, key):
        variables = {'params': {}, 'batch_stats': {}}
        for i, group in enumerate(self._groups()):
            spec = jnp.zeros((1, 2, self.front_end.num_bins, 2))
            for collection, tree in _Network(self.width).init(jax.random.fold_in(key, i), spec).items():
                variables[collection][group] = tree
        return variables

    def _apply(self, group, variables, spec, frames, train=False):
        own = {collection: groups[group] for collection, groups in variables.items()}
        network = _Network(self.width, 'data' if train else None)
        return network.apply(own, spec, frames, train=train, mutable=['batch_stats'])

    def _loss(self, variables, batch, key, train=True):
        frames, spec = self.front_end.num_frames(batch['num_samples']), batch['noisy_spec']
        for group in self._groups()[:-1]:
            spec, _ = self._apply(group, variables, spec, frames)
        estimate, new = self._apply(self.stage, variables, spec, frames, train)
        weight = jnp.where(batch['num_samples'] > 0, frames, 0).astype(jnp.float32)
        loss = complex_mse(estimate, batch['clean_spec'], frames)
        batch_stats = {**variables['batch_stats'], self.stage: new['batch_stats']}
        return LossOutput(loss, weight, batch_stats, {'twice': 2 * loss})

    def gain(self, noisy, num_samples):
        return self.front_end.gain(noisy, num_samples)

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        gain = gain[:, None]
        spec = self.front_end.analyze(noisy * gain, num_samples)
        for group in self._groups():
            spec, _ = self._apply(group, variables, spec, self.front_end.num_frames(num_samples))
        return {'enhanced': self.front_end.synthesize(spec, num_samples, noisy.shape[1]) / gain}


def run(system, workdir='toy') -> Run:
    return Run(system, system.init(None), None, 7, 'abc', pathlib.Path(workdir))
