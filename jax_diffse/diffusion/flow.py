"""Sampling by ordinary differential equations with fixed steps: flow matching and the probability flow of an SDE.

Source: Lee et al., "FlowSE: Flow Matching-based Speech Enhancement", ICASSP 2025; Song et al., "Score-Based Generative
Modeling through Stochastic Differential Equations", ICLR 2021, eq. 13.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.diffusion.ddpm import START, Draw
from jax_diffse.diffusion.processes import FlowPath, Sde, complex_noise
from jax_diffse.diffusion.scan import Model, over_levels
from jax_diffse.diffusion.time_grid import TimeGrid

METHODS = ('euler', 'heun')


@dataclasses.dataclass(frozen=True)
class Solver:
    """Steps along a slope dx/dt, down the times of a grid.

    - 'euler': along the slope at the start of the step; error of first order in the step.
    - 'heun': along the mean of the slopes at both ends; second order. The last step, to 0, is Euler's, as networks are
      not defined at 0.

    Raises:
      ValueError: an unknown method.
    """

    grid: TimeGrid = TimeGrid(5)
    method: str = 'euler'

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f'method must be one of {METHODS}, got {self.method!r}')

    @property
    def evaluations(self) -> int:
        """Network evaluations of a run."""
        steps = self.grid.num_steps
        return steps if self.method == 'euler' else 2 * steps - 1


def sample(velocity: Model, noisy: jax.Array, path: FlowPath, solver: Solver, draw: Draw, *, trajectory: bool = False):
    """Follows the velocity from y + sigma_max z on, in one `lax.scan` with one evaluation per iteration.

    The start has the noise of t = 1 for any `t_max`, as in the authors' code.

    Args:
      velocity: dx/dt; called once per iteration.
      noisy: y, `[B, T, F, 2]`.
      path: of training.
      solver: of the equation.
      draw: standard normal noise, one draw for the start.
      trajectory: also return where the network was evaluated.

    Returns:
      x `[B, T, F, 2]`; with `trajectory` a tuple of it and the states at each evaluation, `[S, B, T, F, 2]`.
    """
    x = noisy + path.sigma_max * complex_noise(draw(jnp.int32(solver.evaluations), START))
    return _solve(lambda x, t, level: velocity(x, t), x, _levels(solver), trajectory)


def probability_flow(score: Model, noisy: jax.Array, process: Sde, solver: Solver, draw: Draw, *,
                     trajectory: bool = False):
    """Samples an SDE without noise: dx/dt = pull (y - x) - g^2 score / 2 from y + std(t_max) z on.

    The last step, from t_eps to 0, is the reverse diffusion's without its noise: with g^2 instead of g^2 / 2.

    Args:
      score: gradient of the log density of x_t; called once per iteration.
      noisy: y, `[B, T, F, 2]`.
      process: whose marginals the equation has.
      solver: of the equation.
      draw: standard normal noise, one draw for the start.
      trajectory: also return where the network was evaluated.

    Returns:
      x `[B, T, F, 2]`; with `trajectory` a tuple of it and the states at each evaluation, `[S, B, T, F, 2]`.
    """
    def slope(x, t, level):
        return level['pull'] * (noisy - x) - level['score'] * score(x, t)

    levels = _levels(solver)
    squared = process.diffusion(levels['t'])**2
    levels |= {'pull': process.pull(levels['t']), 'score': np.where(levels['last'], squared, 0.5 * squared)}
    start = process.std(np.float64(solver.grid.t_max)).astype(np.float32)
    x = noisy + start * complex_noise(draw(jnp.int32(solver.evaluations), START))
    return _solve(slope, x, levels, trajectory)


def _levels(solver: Solver) -> dict[str, np.ndarray]:
    """Numbers of each evaluation, `[S]`, the last one first: its time, and the step it belongs to."""
    grid, per_step = solver.grid, 1 if solver.method == 'euler' else 2
    evaluation = np.arange(solver.evaluations)
    step, again = evaluation // per_step, evaluation % per_step  # again: the second slope of a step, at its end
    levels = {'t': grid.times[step + again], 'h': grid.steps[step], 'again': again, 'last': step == grid.num_steps - 1}
    return {name: value[::-1] for name, value in levels.items()}


def _solve(slope, x, levels, trajectory):
    """One evaluation per iteration, so that a compiled program holds the network once, whatever the method."""
    def step(state, level):
        x, start, first = state
        here = slope(x, jnp.full(x.shape[0], level['t']), level)
        again = level['again'] > 0
        start = jnp.where(again, start, x)
        mean = jnp.where(again, 0.5 * (first + here), here)
        return (start - level['h'] * mean, start, mean), (x,)

    found = over_levels(step, (x, x, x), levels, trajectory)
    return (found[0][0], found[1]) if trajectory else found[0]
