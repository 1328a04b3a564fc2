"""Diffusion from clean speech to the noisy recording, with a Gaussian mixture as its reverse process (DiffGMM).

In "DiffGMM" (Wang et al., arXiv 2406.09154) a network estimates the noise of the reverse process as a mixture (pi_k,
mu_k, Sigma_k), which is subtracted step by step. Its equations are not public; these are ours. With the noisy recording
x, clean speech y and the noise n = x - y, the chain shifts y towards x (Yue et al., "ResShift", NeurIPS 2023, eq. 1):

    x_t = y + a_t n + kappa sqrt(a_t) z,    0 = a_0 < a_1 < ... < a_S = 1,    z ~ N(0, I)

    q(x_{t-1} | x_t, y) = N(rho x_t + (1 - rho) y, v),    rho = a_{t-1} / a_t,    v = kappa^2 rho (a_t - a_{t-1})

Only y = x - n is unknown there. A mixture sum_k pi_k N(mu_k, sigma_k^2) of n, sample by sample, thus gives

    p(x_{t-1} | x_t, x) = sum_k pi_k N(rho x_t + (1 - rho) (x - mu_k), v + (1 - rho)^2 sigma_k^2).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.diffusion.ddpm import Draw
from jax_diffse.diffusion.scan import over_levels

STEP, COMPONENT, NOISE, START = range(4)  # the draws of a level
LOG_SIGMA = (-7.0, 1.0)  # bounds of log sigma_k; the lower one bounds the likelihood of silent noise


class Mixture(NamedTuple):
    """A Gaussian mixture of each entry of `[...]`. Components come first, which leaves samples in TPUs' lanes."""

    log_weight: jax.Array  # [K, ...], log pi_k
    mean: jax.Array  # [K, ...], mu_k
    sigma: jax.Array  # [K, ...], sigma_k


def mixture(parameters: jax.Array) -> Mixture:
    """Mixtures of any real `parameters` `[3, K, ...]`: softmax for the weights, softly clamped log sigma_k."""
    logits, mean, log_sigma = parameters
    low, high = LOG_SIGMA
    below = high - jax.nn.softplus(high - log_sigma)  # a hard bound would have no gradient beyond it
    return Mixture(jax.nn.log_softmax(logits, axis=0), mean, jnp.exp(low + jax.nn.softplus(below - low)))


def expectation(mix: Mixture) -> jax.Array:
    """The mean of each mixture, sum_k pi_k mu_k: `[...]`."""
    return jnp.sum(jnp.exp(mix.log_weight) * mix.mean, axis=0)


def variance(mix: Mixture) -> jax.Array:
    """The variance of each mixture, `[...]`: that of its components and that between them."""
    between = (mix.mean - expectation(mix)[None])**2
    return jnp.sum(jnp.exp(mix.log_weight) * (mix.sigma**2 + between), axis=0)


def log_density(mix: Mixture, value: jax.Array) -> jax.Array:
    """The natural logarithm of each mixture's density at `value` `[...]`."""
    distance = (value[None] - mix.mean) / mix.sigma
    each = mix.log_weight - 0.5 * distance**2 - jnp.log(mix.sigma) - 0.5 * np.log(2 * np.pi).astype(np.float32)
    return jax.nn.logsumexp(each, axis=0)


def drawn(mix: Mixture, component: jax.Array, noise: jax.Array, temperature: float = 1.0) -> jax.Array:
    """Draws from each mixture: mu_k + temperature sigma_k noise, with k drawn from pi.

    Args:
      mix: `[K, ...]`.
      component: `[...]`, standard normal; its quantile picks k.
      noise: `[...]`, standard normal.
      temperature: 1 for the mixture itself, 0 for the means of its components.
    """
    below = jnp.cumsum(jnp.exp(mix.log_weight), axis=0)[:-1]
    k = jnp.sum(jax.scipy.stats.norm.cdf(component)[None] > below, axis=0, keepdims=True)
    mean, sigma = (jnp.take_along_axis(x, k, axis=0)[0] for x in (mix.mean, mix.sigma))
    return mean + temperature * sigma * noise


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """The levels of the process, from the least noise (0) to the noisy recording (S - 1); float64, on the host."""

    shift: np.ndarray  # [S], a_1 ... a_S, increasing to 1
    noise_scale: float  # kappa, in units of the signal

    def __len__(self) -> int:
        return len(self.shift)

    @property
    def previous(self) -> np.ndarray:
        """a_{t-1}; 0 below level 0."""
        return np.append(0.0, self.shift[:-1])

    @property
    def ratio(self) -> np.ndarray:
        """rho."""
        return self.previous / self.shift

    @property
    def variance(self) -> np.ndarray:
        """v, of q(x_{t-1} | x_t, y); 0 at level 0."""
        return self.noise_scale**2 * self.ratio * (self.shift - self.previous)


def chain(num_steps: int, power: float = 1.5, noise_scale: float = 0.05) -> Chain:
    """The chain with a_t = (t / num_steps)^power.

    Raises:
      ValueError: no steps, a power that is not positive, or a negative noise_scale.
    """
    if num_steps < 1 or power <= 0 or noise_scale < 0:
        raise ValueError('expected one or more steps, a positive power and a noise_scale of 0 or more, got '
                         f'{num_steps} steps, power={power:g}, noise_scale={noise_scale:g}')
    return Chain((np.arange(1, num_steps + 1) / num_steps)**power, noise_scale)


def respaced(full: Chain, num_steps: int) -> Chain:
    """`num_steps` levels of a chain at about equal distances, the noisy recording among them.

    The levels between two of them are left out exactly: the process has the same marginals.

    Raises:
      ValueError: `num_steps` is not between 1 and the length of the chain.
    """
    if not 1 <= num_steps <= len(full):
        raise ValueError(f'expected 1 to {len(full)} sampling steps, got {num_steps}')
    place = np.floor(np.arange(1, num_steps + 1) * len(full) / num_steps + 0.5).astype(int) - 1
    return Chain(full.shift[place], full.noise_scale)


def diffuse(clean: jax.Array, noisy: jax.Array, noise: jax.Array, shift: jax.Array, noise_scale: float) -> jax.Array:
    """x_t = y + a_t (x - y) + kappa sqrt(a_t) z, all `[B, ...]`; `shift` a_t is a scalar or `[B]`."""
    shift = _wide(shift, clean)
    return clean + shift * (noisy - clean) + noise_scale * jnp.sqrt(shift) * noise


def posterior_mean(x: jax.Array, clean: jax.Array, ratio: jax.Array) -> jax.Array:
    """The mean of q(x_{t-1} | x_t, y), rho x_t + (1 - rho) y; `ratio` rho is a scalar or `[B]`."""
    ratio = _wide(ratio, x)
    return ratio * x + (1 - ratio) * clean


def reverse(mix: Mixture, x: jax.Array, noisy: jax.Array, ratio: jax.Array, variance: jax.Array) -> Mixture:
    """p(x_{t-1} | x_t, x) of `x` `[B, ...]`, with the mixture of the noise; `ratio` and `variance` scalar or `[B]`."""
    def component(mean, sigma):
        own = (1 - _wide(ratio, x)) * sigma
        return posterior_mean(x, noisy - mean, ratio), jnp.sqrt(_wide(variance, x) + own**2)

    return Mixture(mix.log_weight, *jax.vmap(component)(mix.mean, mix.sigma))


def _wide(value, like):
    """A scalar or `[B, 1 ...]` with as many axes as `like`."""
    value = jnp.asarray(value)
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim)) if value.ndim else value


def sample(estimate: Callable[[jax.Array, jax.Array], Mixture], x: jax.Array, noisy: jax.Array, levels: Chain,
           draw: Draw, *, temperature: float = 0.0, trajectory: bool = False):
    """Subtracts the estimated noise step by step, in one `lax.scan`.

    Args:
      estimate: (x_t `[B, ...]`, a_t `[B]`) -> the mixture of the noise; called once per level.
      x: `[B, ...]` at the last level.
      noisy: `[B, ...]`.
      levels: of the chain, S.
      draw: noise, see `ddpm.draws`.
      temperature: 0 subtracts the mixture's mean; else mu_k + temperature sigma_k z, with k drawn from pi.
      trajectory: also return what every step computed.

    Returns:
      x_0 `[B, ...]`; with `trajectory` a tuple of it, the samples after each step and the noise that was subtracted,
      both `[S, B, ...]` in the order of sampling.
    """
    def step(x, level):
        mix = estimate(x, jnp.full(x.shape[0], level['shift']))
        noise = expectation(mix)
        if temperature:
            noise = drawn(mix, draw(level['index'], COMPONENT), draw(level['index'], NOISE), temperature)
        new = posterior_mean(x, noisy - noise, level['ratio'])
        if levels.noise_scale:
            new = new + level['sigma'] * draw(level['index'], STEP)
        return new, (new, noise)

    coefficients = {'shift': levels.shift, 'ratio': levels.ratio, 'sigma': np.sqrt(levels.variance)}
    return over_levels(step, x, coefficients, trajectory)
