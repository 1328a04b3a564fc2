"""The losses of DCCRN's released code (seorim0/DCCRN-with-various-loss-functions, `tools_for_loss.py`), mistakes
included, per example `[B]`: for `dccrn:released` and for parity. `waveform.py` has the correct ones.
"""

import jax
import jax.numpy as jnp

from jax_diffse.losses.waveform import EPSILON, projection, si_sdr

SMALLEST = 1e-12  # ratio and divisor: silence costs much, but is not NaN; the released code has no bound


def sdr(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """Negative SDR in dB of squared energies: twice the true value."""
    signal, noise = (jnp.sum(x**2, axis=1)**2 for x in (target, estimate - target))
    return -10 * jnp.log10(jnp.maximum(signal / (noise + EPSILON), SMALLEST))


def si_sdr_of_batch(estimate: jax.Array, target: jax.Array, real: jax.Array, axis_name: str | None) -> jax.Array:
    """Negative SI-SDR in dB of the batch: the log of the mean ratio, the same for each example.

    Args:
      estimate, target: `[B, N]`.
      real: `[B]`, false for examples that do not count.
      axis_name: mapped axis that the batch is spread over, if any.
    """
    signal, noise = projection(estimate, target)
    ratio = jnp.where(real, signal / jnp.where(real, jnp.maximum(noise, SMALLEST), 1.0), 0.0)
    total, count = jnp.sum(ratio), jnp.sum(real)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    return jnp.broadcast_to(-10 * jnp.log10(total / jnp.maximum(count, 1) + EPSILON), real.shape)


def si_snr_of_pieces(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """Mean of the negative SI-SDR of three pieces of one second."""
    pieces = [three_seconds(x).reshape(-1, 16_000) for x in (estimate, target)]
    return jnp.mean(si_sdr(*pieces).reshape(-1, 3), axis=1)


def three_seconds(x: jax.Array) -> jax.Array:
    """Cuts or zero-pads `[B, N]` to 48 000 samples."""
    return jnp.pad(x, ((0, 0), (0, max(0, 48_000 - x.shape[1]))))[:, :48_000]
