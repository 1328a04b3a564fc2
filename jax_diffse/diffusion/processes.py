"""Processes in continuous time between clean speech x_0 (t = 0) and the noisy recording y (t = 1, or close to it).

States are spectrograms `[B, T, F, 2]`. At time t a state is

    x_t = a(t) x_0 + b(t) y + std(t) z

with complex standard normal noise z, whose real and imaginary parts have variance 1/2 each (`complex_noise`).

Functions of time accept NumPy values, which they evaluate in float64 (weights of samplers, on the host), and JAX
arrays, which stay float32 (random times in training). Both use the same formula, written so that float32 suffices.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
import scipy.special


def complex_noise(normal: jax.Array) -> jax.Array:
    """Complex standard normal noise z from standard normal parts, both `[..., 2]`: z has variance 1 in total."""
    return normal * np.float32(np.sqrt(0.5))


def random_times(uniform: jax.Array, t_eps: float = 0.03, t_max: float = 1.0) -> jax.Array:
    """Training's times `[B]`, uniform between `t_eps` and `t_max`, from numbers in [0, 1)."""
    return jnp.minimum(uniform * (t_max - t_eps) + t_eps, t_max)


def per_example(values: jax.Array, x: jax.Array) -> jax.Array:
    """Reshapes a scalar or `[B]` so that it multiplies the examples of `x` `[B, ...]`."""
    return jnp.reshape(values, (-1,) + (1,) * (x.ndim - 1))


def _numpy(t):
    """The module that computes with `t`."""
    return jnp if isinstance(t, jax.Array) else np


def _positive(process, *names: str) -> None:
    for name in names:
        if not 0 < getattr(process, name) < np.inf:
            raise ValueError(f'{name}: expected a positive number, got {getattr(process, name):g}')


class Process(abc.ABC):
    """Mean and standard deviation of the states x_t, given x_0 and y."""

    @abc.abstractmethod
    def weights(self, t):
        """The weights a(t) of x_0 and b(t) of y in the mean, each of the shape of `t`."""

    @abc.abstractmethod
    def std(self, t):
        """Standard deviation of x_t, of real and imaginary part together, of the shape of `t`."""

    def mean(self, clean: jax.Array, noisy: jax.Array, t: jax.Array) -> jax.Array:
        """a(t) x_0 + b(t) y of `[B, ...]` at the times `t` `[B]`."""
        of_clean, of_noisy = (per_example(weight, clean) for weight in self.weights(t))
        return of_clean * clean + of_noisy * noisy

    def diffuse(self, clean: jax.Array, noisy: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
        """x_t `[B, ...]` at the times `t` `[B]`; `noise` z is complex standard normal."""
        return self.mean(clean, noisy, t) + per_example(self.std(t), clean) * noise


class Sde(Process):
    """A process dx = pull(t) (y - x) dt + g(t) dw, where dw is complex: its variance dt is that of both parts."""

    @abc.abstractmethod
    def pull(self, t):
        """The factor of y - x in the drift, of the shape of `t`."""

    @abc.abstractmethod
    def diffusion(self, t):
        """The diffusion coefficient g(t), of the shape of `t`."""

    def drift(self, x: jax.Array, noisy: jax.Array, t: jax.Array) -> jax.Array:
        """pull(t) (y - x) of `[B, ...]` at the times `t` `[B]`."""
        return per_example(self.pull(t), x) * (noisy - x)


@dataclasses.dataclass(frozen=True)
class Ouve(Sde):
    """The Ornstein-Uhlenbeck process with exploding variance of SGMSE+.

    Source: Richter et al., "Speech Enhancement and Dereverberation with Diffusion-Based Generative Models", IEEE/ACM
    TASLP 31, 2023. The defaults are those at 16 kHz; at 48 kHz theta is 2, and sigma goes from 0.1 to 1.

    Raises:
      ValueError: a parameter that is not positive, or sigma_max not above sigma_min.
    """

    theta: float = 1.5  # stiffness
    sigma_min: float = 0.05
    sigma_max: float = 0.5

    def __post_init__(self):
        _positive(self, 'theta', 'sigma_min', 'sigma_max')
        if self.sigma_max <= self.sigma_min:
            raise ValueError(f'sigma_max: expected more than sigma_min = {self.sigma_min:g}, got {self.sigma_max:g}')

    @property
    def _log_ratio(self) -> float:
        return np.log(self.sigma_max / self.sigma_min)

    def weights(self, t):
        xp = _numpy(t)
        return xp.exp(-self.theta * t), -xp.expm1(-self.theta * t)

    def std(self, t):
        xp, rate = _numpy(t), self.theta + self._log_ratio
        # exp(2 L t) - exp(-2 theta t) without the cancellation at small t
        growth = xp.exp(-2 * self.theta * t) * xp.expm1(2 * rate * t)
        return self.sigma_min * xp.sqrt(self._log_ratio / rate * growth)

    def pull(self, t):
        return self.theta + 0 * t

    def diffusion(self, t):
        return self.sigma_min * np.sqrt(2 * self._log_ratio) * _numpy(t).exp(self._log_ratio * t)


@dataclasses.dataclass(frozen=True)
class Bbed(Sde):
    """The Brownian bridge with exponential diffusion coefficient (BBED): its mean reaches y at t = 1.

    g(t) = sqrt(c) k^t. The drift grows without bound towards t = 1, so training and sampling stop before, at 0.999 in
    the paper.

    Source: Lay et al., "Reducing the Prior Mismatch of Stochastic Differential Equations for Diffusion-based Speech
    Enhancement", Interspeech 2023. The variance solves dV/dt = -2 V / (1 - t) + g^2 with V(0) = 0 (exponential
    integral Ei). As in the authors' code, c is the square of the factor in g.

    Raises:
      ValueError: c is not positive, or k not above 1.
    """

    k: float = 2.6
    c: float = 0.51

    def __post_init__(self):
        _positive(self, 'c')
        _check_base(self.k)

    def weights(self, t):
        return 1 - t, t

    def std(self, t):
        xp, log_k = _numpy(t), np.log(self.k)
        integral = jax.scipy.special.expi if xp is jnp else scipy.special.expi
        between = integral(-2 * log_k * (1 - t)) - scipy.special.expi(-2 * log_k)
        inner = xp.exp(2 * log_k * t) - (1 - t) + 2 * log_k * self.k**2 * (1 - t) * between
        return xp.sqrt(self.c * (1 - t) * inner)

    def pull(self, t):
        return 1 / (1 - t)

    def diffusion(self, t):
        return np.sqrt(self.c) * _numpy(t).exp(np.log(self.k) * t)


@dataclasses.dataclass(frozen=True)
class SbVe(Process):
    """The Schroedinger bridge with exploding variance between x_0 and y: both ends are free of noise.

    It is made of the process dx = g(t) dw with g = sqrt(c) k^t, whose variance sigma_t^2 grows from 0 to sigma_1^2.

    Source: Jukic et al., "Schroedinger Bridge for Generative Speech Enhancement", Interspeech 2024; Richter et al.,
    "Investigating Training Objectives for Generative Speech Enhancement", ICASSP 2025.

    Raises:
      ValueError: c is not positive, or k not above 1.
    """

    k: float = 2.6
    c: float = 0.4
    released: bool = False  # as the authors' code: 1e-8 beside divisors; its sampler asks the network at later times

    def __post_init__(self):
        _positive(self, 'c')
        _check_base(self.k)

    @property
    def eps(self) -> float:
        """What is added to divisors, and to sigma_bar^2."""
        return 1e-8 if self.released else 0.0

    def sigma(self, t):
        """sigma_t, of the noise that g has added until t."""
        xp, log_k = _numpy(t), np.log(self.k)
        return xp.sqrt(self.c / (2 * log_k) * xp.expm1(2 * log_k * t))

    def sigma_bar(self, t):
        """sqrt(sigma_1^2 - sigma_t^2), of the noise that g adds after t."""
        xp, log_k = _numpy(t), np.log(self.k)
        left = xp.exp(2 * log_k * t) * xp.expm1(2 * log_k * (1 - t))  # a difference of powers would cancel near 1
        return xp.sqrt(self.c / (2 * log_k) * left + self.eps)

    def weights(self, t):
        whole = self.sigma(1.0)**2 + self.eps
        return self.sigma_bar(t)**2 / whole, self.sigma(t)**2 / (whole * (1 + self.eps))

    def std(self, t):
        return self.sigma_bar(t) * self.sigma(t) / (self.sigma(1.0) + self.eps)

    def diffusion(self, t):
        """g(t) of the process that the bridge is made of, which has no drift."""
        return np.sqrt(self.c) * _numpy(t).exp(np.log(self.k) * t)


@dataclasses.dataclass(frozen=True)
class FlowPath(Process):
    """The straight path of conditional flow matching, from x_0 to y with noise.

    Source: Lee et al., "FlowSE: Flow Matching-based Speech Enhancement", ICASSP 2025. Time runs as in the other
    processes, clean speech at 0.

    Raises:
      ValueError: sigma_min is negative, or sigma_max not above it.
    """

    sigma_min: float = 0.0
    sigma_max: float = 0.487

    def __post_init__(self):
        if not 0 <= self.sigma_min < self.sigma_max < np.inf:
            raise ValueError('expected 0 <= sigma_min < sigma_max, got '
                             f'sigma_min={self.sigma_min:g}, sigma_max={self.sigma_max:g}')

    def weights(self, t):
        return 1 - t, t

    def std(self, t):
        return (1 - t) * self.sigma_min + t * self.sigma_max

    def velocity(self, clean: jax.Array, noisy: jax.Array, noise: jax.Array) -> jax.Array:
        """dx/dt along the path with the noise z, all `[B, ...]`: the target of training."""
        return (self.sigma_max - self.sigma_min) * noise + noisy - clean


def _check_base(k: float) -> None:
    if not 1 < k < np.inf:
        raise ValueError(f'k: expected a number above 1, got {k:g}')
