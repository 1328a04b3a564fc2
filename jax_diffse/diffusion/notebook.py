"""Refinement as S. Previti's released notebook runs it (github.com/Stefano-Previti/Diffusion_Based_Generative_Refiner).

Only `:released` configurations use it, to reproduce the notebook's results; `ddrm.sample` is the method behind it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.diffusion.ddpm import STEP, Denoise, Draw
from jax_diffse.diffusion.ddrm import Diffiner, Observation
from jax_diffse.diffusion.scan import over_levels
from jax_diffse.diffusion.schedule import Schedule

SKIPPED = 2  # the noisiest levels, at which alpha_bar is almost 0


def sample(denoise: Denoise, x: jax.Array, schedule: Schedule, observation: Observation, rule: Diffiner, draw: Draw, *,
           trajectory: bool = False):
    """Algorithm 1 of Diffiner as the notebook has it, in one `lax.scan`. From the estimate x_0 at a level t it draws

        far from the data, sigma >= sigma_hat:  (1 - eta_b) x_0 + eta_b S + sqrt(sigma^2 - eta_b^2 sigma_hat^2) z
        elsewhere:                              x_0 + eta_a sigma (S - x_0) / sigma_hat + sqrt(1 - eta_a^2) sigma z.

    It is wrong in these points:
    - sigma = sqrt(beta_t), which is not the standard deviation of the noise at any level.
    - The sample is not multiplied by sqrt(alpha_bar), as the network expects, so it grows where sigma_hat is large.
    - S is the enhanced spectrogram, so the observation is not used.
    - eta_a is the observation's share, as in the paper's printed algorithm, not that of fresh noise.
    - It starts with the variance beta_T - sigma_hat^2, two levels above the first that is visited.
    - The last step adds noise too.

    Args:
      denoise: estimates the noise; called once per level but the `SKIPPED` noisiest.
      x: `[B, ...]`, standard normal.
      schedule: S levels.
      observation: S, the preceding enhancer's estimate, and sigma_hat, positive (see `ddrm.noise_map`).
      rule: its eta_a and eta_b are shares of S.
      draw: noise, one draw per level.
      trajectory: also return what every step computed.

    Returns:
      The sample `[B, ...]`; with `trajectory` a tuple of it, the samples before each step and the estimates of x_0,
      both `[S - 2, B, ...]` in the order of sampling.

    Raises:
      ValueError: no level to visit.
    """
    (processed, sigma_hat, _), eta_a, eta_b = observation, rule.eta_a, rule.eta_b
    if len(schedule) <= SKIPPED:
        raise ValueError(f'expected more than {SKIPPED} sampling steps, as the first {SKIPPED} are skipped, got '
                         f'{len(schedule)}')

    def step(x, level):
        x_0 = (x - level['std'] * denoise(x, jnp.full(x.shape[0], level['t']))) / level['mean']
        sigma, z = level['sigma'], draw(level['index'], STEP)
        left = jnp.sqrt(jnp.maximum(sigma**2 - (eta_b * sigma_hat)**2, 0.0))  # the maximum matters to near bins alone
        far = (1 - eta_b) * x_0 + eta_b * processed + left * z
        near = x_0 + eta_a * sigma * (processed - x_0) / sigma_hat + np.sqrt(1 - eta_a**2) * sigma * z
        return jnp.where(sigma < sigma_hat, near, far), (x, x_0)

    visited = {name: values[:-SKIPPED] for name, values in _coefficients(schedule).items()}
    x = x * jnp.sqrt(jnp.maximum(np.float32(schedule.beta[-1]) - sigma_hat**2, 0.0))
    return over_levels(step, x, visited, trajectory)


def _coefficients(schedule: Schedule) -> dict[str, np.ndarray]:
    """Numbers of each level, `[S]`."""
    return {'t': schedule.t, 'mean': np.sqrt(schedule.alpha_bar), 'std': np.sqrt(1 - schedule.alpha_bar),
            'sigma': np.sqrt(schedule.beta)}
