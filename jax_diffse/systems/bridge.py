"""The Schroedinger bridge for speech enhancement (Jukic et al., Interspeech 2024), in the form of Richter et al.,
"Investigating Training Objectives for Generative Speech Enhancement", ICASSP 2025."""

import dataclasses

from jax_diffse.diffusion import bridge
from jax_diffse.diffusion.bridge import BridgeSampler
from jax_diffse.diffusion.preconditioning import Preconditioning
from jax_diffse.diffusion.processes import SbVe
from jax_diffse.losses import pesq_loss
from jax_diffse.losses.generative import DataPrediction
from jax_diffse.networks.ncsnpp import BACKBONES, NcsnppConfig
from jax_diffse.systems.continuous import Continuous


@dataclasses.dataclass(frozen=True)
class SchroedingerBridge(Continuous):
    """An estimate of clean speech from any state of a bridge between clean and noisy speech.

    `released` conditions the network on the time that a step leads to, as the authors' sampler does, and keeps their
    small numbers beside divisors; by default it is asked at the time of its input, as in training.
    """

    network: NcsnppConfig = BACKBONES['ncsnpp_v2']
    padding: str = 'reflection'
    steps: int = 50
    k: float = 2.6  # of the diffusion coefficient sqrt(c) k^t
    c: float = 0.4
    t_min: float = 1e-4  # the last time of sampling
    preconditioning: Preconditioning = Preconditioning('data_prediction')
    sampler: str = 'ode'  # or 'sde', with noise
    l1_weight: float = 1e-3  # of the distance of waveforms
    pesq_weight: float = 0.0  # of the PESQ loss, at 16 kHz; 5e-4 in the authors' command
    released: bool = False

    def __post_init__(self):
        if self.preconditioning.objective != 'data_prediction':
            raise ValueError("preconditioning.objective must be 'data_prediction' in a bridge, got "
                             f'{self.preconditioning.objective!r}')
        inverse = [name for name in ('network_scaling', 'c_out') if getattr(self.preconditioning, name) == '1/sigma']
        if inverse and not self.released:
            raise ValueError(f'preconditioning.{inverse[0]}: 1/sigma is infinite at t = 1, where sampling starts; only '
                             'released=True avoids that time')
        if self.pesq_weight and self.sample_rate != pesq_loss.SAMPLE_RATE:
            raise ValueError(f'pesq_weight: expected 0, as PESQ needs {pesq_loss.SAMPLE_RATE} Hz, got '
                             f'{self.pesq_weight:g} at {self.sample_rate} Hz')
        _ = self._process, self._criterion
        super().__post_init__()

    @property
    def _process(self) -> SbVe:
        return SbVe(self.k, self.c, self.released)

    @property
    def _criterion(self) -> DataPrediction:
        return DataPrediction(self.l1_weight, self.pesq_weight, self.released)

    @property
    def _last_time(self):
        return 1.0

    def _rule(self, steps) -> BridgeSampler:
        return BridgeSampler(self.steps if steps is None else steps, self.sampler, self.t_min)

    def _sample(self, network, noisy, num_frames, draw, steps):
        estimate = self.preconditioning.model(network, noisy, self._process)
        return bridge.sample(estimate, noisy, self._process, self._rule(steps), draw)

    def terms(self, variables, batch, t, noise, axis_name=None):
        num_samples = batch['num_samples']
        (clean, noisy), frames = self.pair(batch), self.padded_frames(num_samples)
        x = self._process.diffuse(clean, noisy, noise, t)
        estimate = self.preconditioning.model(self.apply(variables, frames), noisy, self._process)(x, t)
        waves = [self.front_end.synthesize(spec, num_samples, batch['clean'].shape[1], frames)
                 for spec in (estimate, clean)]
        return self._criterion.terms((estimate, clean), tuple(waves), frames, num_samples)
