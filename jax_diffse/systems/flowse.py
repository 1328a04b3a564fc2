"""FlowSE (Lee et al., "FlowSE: Flow Matching-based Speech Enhancement", ICASSP 2025)."""

import dataclasses

from jax_diffse.diffusion import flow
from jax_diffse.diffusion.flow import Solver
from jax_diffse.diffusion.processes import FlowPath
from jax_diffse.diffusion.time_grid import TimeGrid
from jax_diffse.losses import generative
from jax_diffse.systems.continuous import Continuous

LOSSES = {'mse': generative.flow_matching, 'mae': generative.flow_matching_mae}


@dataclasses.dataclass(frozen=True)
class FlowSe(Continuous):
    """The velocity along straight paths between clean and noisy speech with noise, followed from the noisy end.

    A sampling step takes one network evaluation ('euler') or two ('heun', but one in the last step).
    """

    steps: int = 5
    sigma_min: float = 0.0  # standard deviation of the noise at the clean end
    sigma_max: float = 0.487  # and at the noisy end
    t_max: float = 1.0  # the largest time of training, where sampling starts
    objective: str = 'mse'  # squared errors of the velocity; or 'mae', absolute ones
    sampler: str = 'euler'  # or 'heun'

    def __post_init__(self):
        for name, known in (('objective', tuple(LOSSES)), ('sampler', flow.METHODS)):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
        _ = self._path
        super().__post_init__()

    @property
    def _path(self) -> FlowPath:
        return FlowPath(self.sigma_min, self.sigma_max)

    @property
    def _last_time(self):
        return self.t_max

    def _rule(self, steps) -> Solver:
        return Solver(TimeGrid(self.steps if steps is None else steps, self.t_eps, self.t_max), self.sampler)

    def _sample(self, network, noisy, num_frames, draw, steps):
        return flow.sample(lambda x, t: network(x, noisy, t), noisy, self._path, self._rule(steps), draw)

    def terms(self, variables, batch, t, noise, axis_name=None):
        (clean, noisy), frames = self.pair(batch), self.padded_frames(batch['num_samples'])
        velocity = self.apply(variables, frames)(self._path.diffuse(clean, noisy, noise, t), noisy, t)
        target = self._path.velocity(clean, noisy, noise)
        return {'loss': LOSSES[self.objective](velocity, target, frames)}
