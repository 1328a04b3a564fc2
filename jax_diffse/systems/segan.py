"""SEGAN with least-squares losses: a waveform generator trained against a patch discriminator.

Pascual et al., "SEGAN: Speech Enhancement Generative Adversarial Network", Interspeech 2017, in the scaled form of
Stefano-Previti/Diffusion_Based_Generative_Refiner.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jax_diffse import blocks
from jax_diffse.losses import adversarial
from jax_diffse.losses.waveform import l1
from jax_diffse.networks.segan import CHANNELS, Discriminator, Generator
from jax_diffse.spectral import mask_frames
from jax_diffse.systems.base import LossOutput, System


@dataclasses.dataclass(frozen=True)
class Segan(System):
    """A generator of clean waveforms, and in training a discriminator.

    Enhancement cross-fades overlapping segments of the length that the generator was trained on.
    """

    channels: tuple[int, ...] = CHANNELS  # of the generator's encoder and of the discriminator
    segment: int = 16_384  # samples
    overlap: int = 2048  # samples that neighbouring segments share in enhancement
    pre_emphasis: float = 0.0  # c of x[n] - c x[n - 1], undone after the generator; SEGAN: 0.95
    adversary: bool = True  # False: only the L1 distance
    l1_weight: float = 100.0  # relative to the adversarial loss; SEGAN: 100
    white_noise_db: tuple[float, ...] = ()  # SNRs of white noise that replaces the data's noise in training
    released: bool = False  # select checkpoints by the generator's whole loss, as released
    dtype: str = 'float32'  # of activations and products: 'float32' or 'bfloat16'

    sample_rate = 16_000
    front_end = None

    def __post_init__(self):
        if self.dtype not in ('float32', 'bfloat16'):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {self.dtype!r}")
        if not self.channels or self.segment < self.multiple or self.segment % self.multiple:
            raise ValueError(f'segment: expected a multiple of {self.multiple} samples for {len(self.channels)} '
                             f'layers, got {self.segment}')
        if not 0 <= 2 * self.overlap <= self.segment:
            raise ValueError(f'overlap: expected 0 to {self.segment // 2} samples, half a segment, got {self.overlap}')
        if not 0 <= self.pre_emphasis < 1:
            raise ValueError(f'pre_emphasis: expected a number from 0 to below 1, got {self.pre_emphasis:g}')
        if self.l1_weight < 0:
            raise ValueError(f'l1_weight: expected 0 or more, got {self.l1_weight:g}')

    @property
    def multiple(self) -> int:
        """The generator takes a multiple of this many samples."""
        return 2 ** len(self.channels)

    @property
    def losses(self):
        both = {'discriminator': self._discriminator_loss, 'generator': self._generator_loss}
        return both if self.adversary else {'generator': self._generator_loss}

    @property
    def criterion(self) -> str:
        """The distance to clean speech: the adversarial loss changes while the discriminator learns."""
        return 'generator/loss' if self.released else 'generator/l1'

    def init(self, key):
        wave = jax.ShapeDtypeStruct((1, self.multiple), jnp.float32)
        variables: dict = {'params': {}, 'batch_stats': {}}
        for i, (group, network) in enumerate(self.networks.items()):
            waves = (wave,) if group == 'generator' else (wave, wave)
            if group in self.losses:
                for collection, tree in network.lazy_init(jax.random.fold_in(key, i), *waves).items():
                    variables[collection][group] = tree
        return variables

    @property
    def networks(self) -> dict[str, Generator | Discriminator]:
        """The network of each group."""
        return {'generator': Generator(self.channels, jnp.dtype(self.dtype)), 'discriminator': self._discriminator()}

    def _discriminator(self, axis_name: str | None = None) -> Discriminator:
        return Discriminator(self.channels, axis_name, jnp.dtype(self.dtype))

    # ---------------------------------------------------------------------------------------------------- enhancement

    def gain(self, noisy, num_samples):
        return jnp.ones(len(noisy))

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        """The one stage 'enhanced'."""
        length, x = noisy.shape[1], mask_frames(self._emphasized(noisy), num_samples)
        x = jnp.pad(x, ((0, 0), (0, blocks.padded(length, self.segment, self.overlap) - length)))
        generate = blocks.blockwise(lambda rows: self._generate(variables, rows), num_samples, self.segment,
                                    self.overlap)
        return {'enhanced': mask_frames(self._deemphasized(generate(x)[:, :length]), num_samples)}

    def _generate(self, variables, noisy):
        return self.networks['generator'].apply({'params': variables['params']['generator']}, noisy)

    def _emphasized(self, x):
        if not self.pre_emphasis:
            return x
        return x - self.pre_emphasis * jnp.pad(x, ((0, 0), (1, 0)))[:, :-1]

    def _deemphasized(self, x):
        if not self.pre_emphasis:
            return x

        def joined(left, right):
            """Joins two pieces of y[n] = x[n] + c y[n - 1]; each is a factor and an offset of the output before it."""
            return left[0] * right[0], left[1] * right[0] + right[1]

        return jax.lax.associative_scan(joined, (jnp.full_like(x, self.pre_emphasis), x), axis=1)[1]

    # --------------------------------------------------------------------------------------------------------- losses

    def pair(self, batch, key):
        """Clean and noisy waveforms of a batch as the networks take them, zero-padded to `multiple`."""
        clean, noisy = batch['clean'], batch['noisy']
        if self.white_noise_db:
            noisy = jax.vmap(self._with_white_noise)(clean, key)
        padding = ((0, 0), (0, -clean.shape[1] % self.multiple))
        return tuple(jnp.pad(self._emphasized(x), padding) for x in (clean, noisy))

    def _with_white_noise(self, clean, key):
        draw, choose = jax.random.split(key)
        level = jax.random.choice(choose, jnp.asarray(self.white_noise_db, jnp.float32))
        return add_noise(clean, jax.random.normal(draw, clean.shape), level)

    def _judge(self, variables, noisy, candidate, train):
        """The discriminator's judgements, and the updated batch statistics."""
        own: Any = {name: variables[name]['discriminator'] for name in ('params', 'batch_stats')}
        if not train:
            return self._discriminator().apply(own, noisy, candidate), variables['batch_stats']
        judgements, new = self._discriminator('data').apply(own, noisy, candidate, train=True, mutable=['batch_stats'])
        return judgements, {**variables['batch_stats'], 'discriminator': new['batch_stats']}

    def _discriminator_loss(self, variables, batch, key, train=True) -> LossOutput:
        clean, noisy = self.pair(batch, key)
        fake = jax.lax.stop_gradient(self._generate(variables, noisy))
        of_real, batch_stats = self._judge(variables, noisy, clean, train)
        of_fake, batch_stats = self._judge({**variables, 'batch_stats': batch_stats}, noisy, fake, train)
        metrics = {'real': jnp.mean(of_real, axis=1), 'fake': jnp.mean(of_fake, axis=1),
                   'accuracy': adversarial.accuracy(of_real, of_fake)}
        return LossOutput(adversarial.discriminator(of_real, of_fake), _real(batch), batch_stats, metrics)

    def _generator_loss(self, variables, batch, key, train=True) -> LossOutput:
        clean, noisy = self.pair(batch, key)
        estimate, batch_stats = self._generate(variables, noisy), variables['batch_stats']
        distance = l1(estimate, clean, batch['num_samples'])
        if not self.adversary:
            return LossOutput(distance, _real(batch), batch_stats, {'l1': distance})
        of_fake, batch_stats = self._judge(variables, noisy, estimate, train)
        loss = adversarial.generator(of_fake)
        return LossOutput(loss + self.l1_weight * distance, _real(batch), batch_stats,
                          {'l1': distance, 'adversarial': loss})


def add_noise(clean: jax.Array, noise: jax.Array, snr_db: jax.Array) -> jax.Array:
    """Adds `noise` `[N]` to `clean` `[N]` at a signal-to-noise ratio of `snr_db`; silence stays silent."""
    ratio = jnp.sum(clean**2) / jnp.maximum(jnp.sum(noise**2), 1e-12)
    return clean + jnp.sqrt(ratio * 10 ** (-snr_db / 10)) * noise


def _real(batch):
    return (batch['num_samples'] > 0).astype(jnp.float32)
