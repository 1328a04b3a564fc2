"""How a network's input and output relate to the score or the clean speech.

Source: Richter et al., "Investigating Training Objectives for Generative Speech Enhancement", ICASSP 2025; the 'edm'
choices are those of Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022,
table 1.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jax_diffse.diffusion.processes import Process, per_example
from jax_diffse.diffusion.scan import Model

Network = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # (x_t, y, t) -> [B, T, F, 2]

CHOICES = {
    'objective': ('score_matching', 'denoiser', 'data_prediction'),
    'network_scaling': ('none', '1/sigma', '1/t'),
    'c_in': ('1', 'edm'),
    'c_out': ('1', 'sigma', '1/sigma', 'edm'),
    'c_skip': ('0', 'edm'),
}


@dataclasses.dataclass(frozen=True)
class Preconditioning:
    """With the process's standard deviation sigma at t, s = sigma_data and F = scaling * network(c_in x_t, c_in y, t):

    - 'score_matching': the score is c_skip x_t + c_out F.
    - 'denoiser': the score is (F - x_t) / sigma^2, so F is the estimate; c_skip and c_out take no part.
    - 'data_prediction': the estimate of x_0 is c_skip x_t + c_out F.

    'edm' is 1 / sqrt(sigma^2 + s^2) for c_in, sigma s / sqrt(sigma^2 + s^2) for c_out and s^2 / (sigma^2 + s^2) for
    c_skip.

    Raises:
      ValueError: an unknown choice, or sigma_data not positive.
    """

    objective: str = 'score_matching'
    network_scaling: str = 'none'
    c_in: str = '1'
    c_out: str = '1'
    c_skip: str = '0'
    sigma_data: float = 0.1

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f'{name} must be one of {choices}, got {getattr(self, name)!r}')
        if self.sigma_data <= 0:
            raise ValueError(f'sigma_data: expected a positive number, got {self.sigma_data:g}')

    def model(self, network: Network, noisy: jax.Array, process: Process) -> Model:
        """The score, or the estimate of x_0, as a function of x_t `[B, T, F, 2]` and t `[B]`; `noisy` is y."""
        def at(x, t):
            sigma = per_example(process.std(t), x)
            scale = self._scale_in(sigma)
            out = network(scale * x, scale * noisy, t)
            if self.network_scaling != 'none':
                out = out / (sigma if self.network_scaling == '1/sigma' else per_example(t, x))
            if self.objective == 'denoiser':
                return (out - x) / sigma**2
            out = self._scale_out(sigma) * out
            return out if self.c_skip == '0' else out + self.sigma_data**2 / self._total(sigma) * x

        return at

    def _total(self, sigma):
        return sigma**2 + self.sigma_data**2

    def _scale_in(self, sigma):
        return 1.0 if self.c_in == '1' else 1 / jnp.sqrt(self._total(sigma))

    def _scale_out(self, sigma):
        if self.c_out == 'edm':
            return sigma * self.sigma_data / jnp.sqrt(self._total(sigma))
        return {'1': 1.0, 'sigma': sigma, '1/sigma': 1 / sigma}[self.c_out]
