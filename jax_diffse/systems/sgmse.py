"""SGMSE+ (Richter et al., "Speech Enhancement and Dereverberation with Diffusion-Based Generative Models", IEEE/ACM
TASLP 31, 2023) and the objectives of Richter et al., "Investigating Training Objectives for Generative Speech
Enhancement", ICASSP 2025."""

import dataclasses

from jax_diffse.diffusion import flow, predictor_corrector
from jax_diffse.diffusion.flow import Solver
from jax_diffse.diffusion.preconditioning import Preconditioning
from jax_diffse.diffusion.predictor_corrector import PredictorCorrector
from jax_diffse.diffusion.processes import Bbed, Ouve, Sde
from jax_diffse.diffusion.time_grid import TimeGrid
from jax_diffse.losses import generative
from jax_diffse.systems.continuous import Continuous

CHOICES = {'process': ('ouve', 'bbed'), 'sampler': ('predictor_corrector', *flow.METHODS),
           'loss_weighting': generative.WEIGHTINGS}
OBJECTIVES = ('score_matching', 'denoiser')


@dataclasses.dataclass(frozen=True)
class Sgmse(Continuous):
    """The score of a process from clean to noisy speech, and samplers of the reverse process.

    With the predictor-corrector sampler, each of the N sampling steps takes 1 + corrector_steps network evaluations.
    Steps of the probability flow take one ('euler') or two ('heun', but one in the last step).
    """

    process: str = 'ouve'  # or 'bbed'
    ouve: Ouve = Ouve()  # parameters of the two processes
    bbed: Bbed = Bbed()
    t_max: float = 1.0  # the largest time of training, where sampling starts; below 1 for 'bbed'
    preconditioning: Preconditioning = Preconditioning()
    loss_weighting: str = '1'  # of the objective 'denoiser': '1', 'sigma^2', 'edm'
    sampler: str = 'predictor_corrector'  # or the probability flow by 'euler' or 'heun'
    corrector: str = 'ald'  # of the predictor-corrector sampler; or 'langevin', 'none'
    corrector_steps: int = 1
    snr: float = 0.5  # of corrections
    released: bool = False  # as the authors' code: 'langevin' and the weighting 'edm' depend on the rest of the batch

    def __post_init__(self):
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
        if self.preconditioning.objective not in OBJECTIVES:
            raise ValueError(f'preconditioning.objective must be one of {OBJECTIVES}, as samplers need a score, got '
                             f'{self.preconditioning.objective!r}')
        if self.process == 'bbed' and self.t_max >= 1:
            raise ValueError(f't_max: expected less than 1 for bbed, whose drift is infinite at 1, got {self.t_max:g}')
        super().__post_init__()

    @property
    def sde(self) -> Sde:
        """The chosen process."""
        return self.ouve if self.process == 'ouve' else self.bbed

    @property
    def _last_time(self):
        return self.t_max

    def _rule(self, steps) -> PredictorCorrector | Solver:
        grid = TimeGrid(self.steps if steps is None else steps, self.t_eps, self.t_max)
        if self.sampler == 'predictor_corrector':
            return PredictorCorrector(grid, self.corrector, self.corrector_steps, self.snr, self.released)
        return Solver(grid, self.sampler)

    def _sample(self, network, noisy, num_frames, draw, steps):
        score, rule = self.preconditioning.model(network, noisy, self.sde), self._rule(steps)
        if isinstance(rule, PredictorCorrector):
            return predictor_corrector.sample(score, noisy, self.sde, rule, draw, num_frames=num_frames)
        return flow.probability_flow(score, noisy, self.sde, rule, draw)

    def terms(self, variables, batch, t, noise, axis_name=None):
        (clean, noisy), frames = self.pair(batch), self.padded_frames(batch['num_samples'])
        x, sigma = self.sde.diffuse(clean, noisy, noise, t), self.sde.std(t)
        score = self.preconditioning.model(self.apply(variables, frames), noisy, self.sde)(x, t)
        if self.preconditioning.objective == 'score_matching':
            return {'loss': generative.score_matching(score, noise, sigma, frames)}
        loss = generative.denoiser(score, x, self.sde.mean(clean, noisy, t), sigma, frames)
        weight = generative.denoiser_weight(sigma, self.loss_weighting, self.preconditioning.sigma_data)
        if self.released and self.loss_weighting == 'edm':
            return {'loss': generative.denoiser_of_batch(loss, weight, batch['num_samples'] > 0, axis_name)}
        return {'loss': weight * loss}
