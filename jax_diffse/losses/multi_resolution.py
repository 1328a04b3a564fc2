"""The multi-resolution distance of spectra, per example and unreduced.

Yamamoto et al., "Parallel WaveGAN", ICASSP 2020, eqs. 4-6; resolutions are ours.
"""

import jax
import jax.numpy as jnp

from jax_diffse.spectral import mask_frames, stft

RESOLUTIONS = (512, 1024, 2048)  # samples of a transform; a quarter of it is the hop
FLOOR = 0.01  # smallest magnitude, some 60 dB below that of white noise of unit RMS


def multi_resolution(estimate: jax.Array, target: jax.Array, num_samples: jax.Array) -> jax.Array:
    """Mean over resolutions of spectral convergence and the mean absolute distance of log magnitudes.

    Spectral convergence is |S - S_hat| / |S|, over all bins and frames.

    Args:
      estimate: `[B, N]`, of about unit RMS: magnitudes are at least `FLOOR`.
      target: `[B, N]`.
      num_samples: `[B]`; later samples are ignored.

    Returns:
      `[B]`.
    """
    padding = ((0, 0), (0, max(0, max(RESOLUTIONS) - estimate.shape[1])))
    pair = [jnp.pad(mask_frames(x, num_samples), padding) for x in (estimate, target)]
    return sum(_distance(*pair, num_samples, n_fft) for n_fft in RESOLUTIONS) / len(RESOLUTIONS)


def _distance(estimate, target, num_samples, n_fft):
    hop, end = n_fft // 4, jnp.maximum(num_samples, n_fft)
    frames = end // hop + 1
    estimate, target = (_magnitude(stft(x, n_fft, hop, end)) for x in (estimate, target))
    error, reference = mask_frames(estimate - target, frames), mask_frames(target, frames)
    convergence = jnp.sqrt(_energy(error) + FLOOR**2) / jnp.sqrt(_energy(reference))
    distance = mask_frames(jnp.abs(jnp.log(estimate) - jnp.log(target)), frames)
    return convergence + jnp.sum(distance, axis=(1, 2)) / (frames * target.shape[2])


def _magnitude(spec):
    return jnp.sqrt(jnp.maximum(spec[..., 0]**2 + spec[..., 1]**2, FLOOR**2))


def _energy(x):
    return jnp.sum(x**2, axis=(1, 2))
