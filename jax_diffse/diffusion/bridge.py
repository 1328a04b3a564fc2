"""Sampling of the Schroedinger bridge, from the noisy recording to clean speech.

Source: Jukic et al., "Schroedinger Bridge for Generative Speech Enhancement", Interspeech 2024, the first-order
solutions of the reverse equations (after Chen et al., "Schroedinger Bridges Beat Diffusion Models on Text-to-Speech
Synthesis", 2023).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.diffusion.ddpm import STEP, Draw
from jax_diffse.diffusion.processes import SbVe, complex_noise
from jax_diffse.diffusion.scan import Model, over_levels
from jax_diffse.diffusion.time_grid import check_steps

KINDS = ('ode', 'sde')


@dataclasses.dataclass(frozen=True)
class BridgeSampler:
    """Equidistant steps from t = 1 down to `t_min`, without noise ('ode') or with it ('sde', except in the last step).

    At `t_min` 0 the result is the network's last estimate; at the authors' 1e-4 it is 3e-5 of the way to y from there.

    Raises:
      ValueError: no step, an unknown kind, or t_min not in [0, 1).
    """

    num_steps: int = 50
    kind: str = 'ode'
    t_min: float = 1e-4

    def __post_init__(self):
        check_steps(self.num_steps)
        if self.kind not in KINDS:
            raise ValueError(f'kind must be one of {KINDS}, got {self.kind!r}')
        if not 0 <= self.t_min < 1:
            raise ValueError(f't_min: expected 0 or more and below 1, got {self.t_min:g}')

    @property
    def evaluations(self) -> int:
        """Network evaluations of a run."""
        return self.num_steps

    @property
    def times(self) -> np.ndarray:
        """`[num_steps + 1]`, decreasing."""
        return np.linspace(1.0, self.t_min, self.num_steps + 1)


def sample(estimate: Model, noisy: jax.Array, process: SbVe, rule: BridgeSampler, draw: Draw, *,
           trajectory: bool = False):
    """Samples from y on, in one `lax.scan`.

    Args:
      estimate: of x_0, given x_t; called once per step with the time of x_t or, as in the authors' code with
        `process.released`, with the time that the step leads to.
      noisy: y, `[B, T, F, 2]`.
      process: the bridge.
      rule: of the steps.
      draw: standard normal noise, one draw per step of 'sde'.
      trajectory: also return what every step computed.

    Returns:
      x `[B, T, F, 2]`; with `trajectory` a tuple of it, the states before each step and the estimates of x_0, both
      `[S, B, T, F, 2]` in the order of sampling.

    Raises:
      ValueError: t_min is 0 with a released process, whose network is asked at that time.
    """
    if process.released and not rule.t_min:
        raise ValueError('t_min: expected more than 0 with a released process, got 0')

    def step(x, level):
        x_0 = estimate(x, jnp.full(x.shape[0], level['t']))
        new = level['x'] * x + level['x_0'] * x_0 + level['y'] * noisy
        if rule.kind == 'sde':
            new = new + level['noise'] * complex_noise(draw(level['index'], STEP))
        return new, (x, x_0)

    return over_levels(step, noisy, _coefficients(process, rule), trajectory)


def _coefficients(process: SbVe, rule: BridgeSampler) -> dict[str, np.ndarray]:
    """Numbers of each step, `[S]`, the last one first: weights of the state, of the estimate, of y and of noise."""
    t, eps = rule.times, process.eps
    before, after = t[:-1], t[1:]
    s_p, s, s_T = process.sigma(before), process.sigma(after), process.sigma(1.0)
    levels = {'t': after if process.released else before}
    if rule.kind == 'sde':
        ratio = s**2 / (s_p**2 + eps)
        levels |= {'x': ratio, 'x_0': 1 - ratio, 'y': 0 * t[1:],
                   'noise': s * np.sqrt(1 - ratio) * (np.arange(len(s)) < len(s) - 1)}
    else:
        b_p, b = process.sigma_bar(before), process.sigma_bar(after)
        b_p[0] = b_p[0] or 1.0  # 0 at t = 1 without eps, where its terms are replaced below
        of_x = s * b / (s_p * b_p + eps)
        of_x_0 = (b**2 - b_p * s * b / (s_p + eps)) / (s_T**2 + eps)
        of_y = (s**2 - s_p * s * b / (b_p + eps)) / (s_T**2 + eps)
        # The first state is y. Weights of thousands that cancel would leave few digits in float32, so both are added.
        if process.released:
            of_y[0] += of_x[0]
        else:
            of_x_0[0], of_y[0] = b[0]**2 / s_T**2, s[0]**2 / s_T**2
        of_x[0] = 0.0
        levels |= {'x': of_x, 'x_0': of_x_0, 'y': of_y}
    return {name: value[::-1] for name, value in levels.items()}
