"""DiffGMM (Wang et al., arXiv 2406.09154): noise as a Gaussian mixture, subtracted in a reverse diffusion.

The paper's abstract, summary and figure give a one-dimensional U-Net, linear layers for pi_k, mu_k and Sigma_k of the
noise, a loss of noise prediction and the evidence lower bound, and repeated subtraction. The equations are ours, see
`diffusion/gmm.py`.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jax_diffse.diffusion import ddpm, gmm, step_sampling
from jax_diffse.losses.multi_resolution import multi_resolution
from jax_diffse.losses.waveform import l1
from jax_diffse.networks.gmm_unet import GmmUNet, GmmUNetConfig
from jax_diffse.spectral import mask_frames, rms_gain
from jax_diffse.systems.base import LossOutput, Sampling

GROUP = 'noise'
DRAWN = 4096  # samples per key, so that padding changes no draw


@dataclasses.dataclass(frozen=True)
class DiffGmm(Sampling):
    """A Gaussian mixture of the noise of each sample, at each level between clean and noisy speech.

    The system works at unit RMS.
    """

    network: GmmUNetConfig = GmmUNetConfig()
    training_steps: int = 10  # levels of the training chain
    power: float = 1.5  # of the levels, (t / training_steps)^power
    noise_scale: float = 0.05  # kappa, the noise that the chain adds, relative to the RMS of the noisy recording
    steps: int = 6  # default number of sampling steps
    temperature: float = 0.0  # of sampling: 0 subtracts the mixtures' means, 1 draws from them
    nll_weight: float = 0.1  # of the negative log-likelihood, relative to noise prediction
    nll_warmup: int = 160_000  # training examples over which that weight rises from 0
    stft_weight: float = 1.0  # of the multi-resolution distance in noise prediction

    sample_rate = 16_000
    front_end = None
    criterion = f'{GROUP}/prediction'

    def __post_init__(self):
        for name in ('temperature', 'nll_weight', 'nll_warmup', 'stft_weight'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name}: expected 0 or more, got {getattr(self, name)}')
        _ = self._levels(None)

    @property
    def default_steps(self) -> int:
        return self.steps

    def check_steps(self, steps):
        _ = self._levels(steps)

    @property
    def losses(self):
        return {GROUP: self._loss}

    @property
    def chain(self) -> gmm.Chain:
        """The chain of training."""
        return gmm.chain(self.training_steps, self.power, self.noise_scale)

    def _levels(self, steps: int | None) -> gmm.Chain:
        return gmm.respaced(self.chain, self.steps if steps is None else steps)

    def init(self, key):
        wave = jax.ShapeDtypeStruct((1, self.network.multiple), jnp.float32)
        drawn = GmmUNet(self.network).lazy_init(key, wave, wave, jax.ShapeDtypeStruct((1,), jnp.float32))
        return {'params': {GROUP: drawn['params']}, 'batch_stats': {GROUP: {'examples': jnp.int32(0)}}}

    def mixture(self, variables, x, noisy, level, num_samples) -> gmm.Mixture:
        """The mixtures `[K, B, N]` of the noise in `noisy` `[B, N]`, given `x` `[B, N]` at `level` `[B]`."""
        own = {'params': variables['params'][GROUP]}
        return gmm.mixture(GmmUNet(self.network).apply(own, x, noisy, level, num_samples))

    # ---------------------------------------------------------------------------------------------------- enhancement

    def gain(self, noisy, num_samples):
        return rms_gain(noisy, num_samples)

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        """'one_step', the clean speech estimated at the first of several steps, and 'enhanced'."""
        gain = gain[:, None]
        levels, noisy = self._levels(steps), noisy * gain
        draw = _draws(key, noisy.shape[1])
        x = noisy + self.noise_scale * draw(jnp.int32(len(levels)), gmm.START)
        x, _, noise = gmm.sample(lambda x, level: self.mixture(variables, x, noisy, level, num_samples), x, noisy,
                                 levels, draw, temperature=self.temperature, trajectory=True)
        found = {'one_step': noisy - noise[0], 'enhanced': x}
        if len(levels) == 1:
            del found['one_step']
        return {name: mask_frames(wave, num_samples) / gain for name, wave in found.items()}

    # --------------------------------------------------------------------------------------------------------- losses

    def _loss(self, variables, batch, key, train=True) -> LossOutput:
        """`mixture_losses` at one step per example: random in training, else from a fixed grid."""
        keys = jax.vmap(lambda k: jax.random.split(k, 3))(key)
        if train:
            t = jax.vmap(lambda k: jax.random.randint(k, (), 0, self.training_steps))(keys[:, 0])
        else:
            t = step_sampling.grid(batch['index'], self.training_steps, self.training_steps)
        noise = [jax.vmap(lambda k: jax.random.normal(k, batch['clean'].shape[1:]))(keys[:, i]) for i in (1, 2)]
        terms = self.mixture_losses(variables, batch, t, *noise)
        weight, batch_stats = self.nll_weight, variables['batch_stats']
        real = batch['num_samples'] > 0
        if train:
            seen = batch_stats[GROUP]['examples']
            if self.nll_warmup:
                weight = weight * jnp.minimum(seen / self.nll_warmup, 1.0)
            seen = seen + jax.lax.psum(jnp.sum(real, dtype=jnp.int32), 'data')
            batch_stats = {**batch_stats, GROUP: {'examples': seen}}
        return LossOutput(terms['prediction'] + weight * terms['nll'], real.astype(jnp.float32), batch_stats, terms)

    def mixture_losses(self, variables, batch, t, noise_before, noise_step) -> dict[str, jax.Array]:
        """The terms of the loss `[B]` at the steps `t` `[B]`, counted from 0.

        'nll' is -log p(x_{t-1} | x_t, x) per sample: the evidence lower bound's term without the entropy of
        q(x_{t-1} | x_t, y). 'l1' and 'stft' are distances between clean speech and noisy speech minus the mixtures'
        means; 'prediction' is their weighted sum. `noise_before` `[B, N]` is the noise of x_{t-1}, `noise_step` is
        added from there to x_t.
        """
        num_samples, levels = batch['num_samples'], self.chain
        gain = rms_gain(batch['noisy'], num_samples)[:, None]
        clean, noisy = batch['clean'] * gain, batch['noisy'] * gain
        shift, before, ratio, variance = (jnp.asarray(values, jnp.float32)[t] for values in (
            levels.shift, levels.previous, levels.ratio, levels.variance))
        x_before = gmm.diffuse(clean, noisy, noise_before, before, self.noise_scale)
        further = (shift - before)[:, None]
        x = x_before + further * (noisy - clean) + self.noise_scale * jnp.sqrt(further) * noise_step
        mix = self.mixture(variables, x, noisy, shift, num_samples)
        density = mask_frames(gmm.log_density(gmm.reverse(mix, x, noisy, ratio, variance), x_before), num_samples)
        estimate = noisy - gmm.expectation(mix)
        terms = {'nll': -jnp.sum(density, axis=1) / jnp.maximum(num_samples, 1),
                 'l1': l1(estimate, clean, num_samples), 'stft': multi_resolution(estimate, clean, num_samples)}
        return terms | {'prediction': terms['l1'] + self.stft_weight * terms['stft']}


def _draws(keys, num_samples) -> ddpm.Draw:
    frames = ddpm.frame_draws(keys, (math.ceil(num_samples / DRAWN), DRAWN))
    return lambda level, which: frames(level, which).reshape(len(keys), -1)[:, :num_samples]
