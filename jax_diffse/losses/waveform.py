"""Losses between waveforms `[B, N]`, per example and unreduced: each returns `[B]`, over the first `num_samples` `[B]`.

The ratios are in dB and negated, so that lower is better.
"""

import jax
import jax.numpy as jnp

from jax_diffse.spectral import mask_frames

EPSILON = 1e-8  # of energies and ratios


def mse(estimate: jax.Array, target: jax.Array, num_samples: jax.Array | None = None) -> jax.Array:
    """Mean squared error."""
    return _energy(mask_frames(estimate - target, num_samples)) / _count(estimate, num_samples)


def l1(estimate: jax.Array, target: jax.Array, num_samples: jax.Array | None = None) -> jax.Array:
    """Mean absolute error."""
    error = jnp.abs(mask_frames(estimate - target, num_samples))
    return jnp.sum(error, axis=1) / _count(estimate, num_samples)


def sdr(estimate: jax.Array, target: jax.Array, num_samples: jax.Array | None = None) -> jax.Array:
    """Negative signal-to-distortion ratio, |x|^2 / |x - estimate|^2, in dB."""
    target = mask_frames(target, num_samples)
    return _negative_db(_energy(target), _energy(mask_frames(estimate, num_samples) - target))


def si_sdr(estimate: jax.Array, target: jax.Array, num_samples: jax.Array | None = None) -> jax.Array:
    """Negative scale-invariant SDR in dB (Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, eq. 3)."""
    return _negative_db(*projection(mask_frames(estimate, num_samples), mask_frames(target, num_samples)))


def si_snr(estimate: jax.Array, target: jax.Array, num_samples: jax.Array | None = None) -> jax.Array:
    """Negative scale-invariant SNR in dB: SI-SDR of the signals without their means (Luo and Mesgarani, 2019)."""
    def centred(x):
        x = mask_frames(x, num_samples)
        return x - (jnp.sum(x, axis=1) / _count(x, num_samples))[:, None]

    return si_sdr(centred(estimate), centred(target), num_samples)


def projection(estimate: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Energies `[B]` of the estimate's part along the target and of the rest."""
    scale = jnp.sum(estimate * target, axis=1) / (_energy(target) + EPSILON)
    along = scale[:, None] * target
    return _energy(along), _energy(estimate - along)


def _negative_db(signal, noise):
    return -10 * jnp.log10(signal / (noise + EPSILON) + EPSILON)


def _energy(x):
    return jnp.sum(x**2, axis=1)


def _count(x, num_samples):
    return x.shape[1] if num_samples is None else jnp.maximum(num_samples, 1)
