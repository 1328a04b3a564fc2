"""DR-DiffuSE (Tai et al., "Revisiting Denoising Diffusion Probabilistic Models for Speech Enhancement", AAAI 2023)."""

import dataclasses

import jax
import jax.numpy as jnp

from jax_diffse.diffusion import ddpm, step_sampling
from jax_diffse.diffusion.schedule import Schedule, fast, linear, respaced
from jax_diffse.losses.regression import complex_mse, ri_mag
from jax_diffse.networks.two_branch_unet import ConditionalUNet, TwoBranchUNet
from jax_diffse.spectral import FrontEnd
from jax_diffse.systems.base import LossOutput, Sampling

CHOICES = {
    'stage': ('c_gen', 'diffusion', 'refiner'),
    'denoiser': ('diffuse', 'diffusec'),
    'condition': ('c_gen', 'noisy'),
    'schedule': ('fast', 'linear'),
    'start': ('condition', 'noise'),
    'dtype': ('float32', 'bfloat16'),
}
TRAINING = linear()  # 200 steps
VALIDATION_GRID = 8  # steps t at which a denoiser is validated, one per utterance


@dataclasses.dataclass(frozen=True)
class DrDiffuse(Sampling):
    """The chain of DR-DiffuSE up to `stage`.

    Stage `c_gen`: the condition generator, a regression network on square-root-compressed spectrograms.
    Stage `diffusion`: a DDPM on clean spectrograms, its denoiser conditioned on c_gen's output.
    Stage `refiner`: a network like c_gen that maps the mean of the DDPM's sample and the noisy input to clean speech.

    Each stage's variables include those of the earlier stages, frozen, so the last one is the whole enhancer.
    """

    stage: str = 'c_gen'
    channels: int = 64  # of the U-Nets; the paper's networks have 64
    temporal_groups: int = 3  # groups of six temporal units; the paper's networks have 3
    compression: str = 'sqrt'  # 'none', 'sqrt', 'cubic', 'log1x'
    mask_padding: bool = True  # False: padding frames take part in the network, as in the released code
    dtype: str = 'float32'  # of activations and products: 'float32' or 'bfloat16'
    denoiser: str = 'diffuse'  # 'diffuse' (two-branch) or 'diffusec' (concatenation)
    condition: str = 'c_gen'  # 'noisy': without a condition generator
    steps: int = 6  # default number of sampling steps
    schedule: str = 'fast'  # of sampling: see diffusion/schedule.py; 'linear': training's schedule, respaced
    start: str = 'condition'  # of sampling: the diffused condition; or 'noise', as in the paper
    guidance: str = 'x0'  # see ddpm.Guidance
    guidance_weight: float = 0.5
    refiner_mix: float = 0.5  # share of the sample in the refiner's input; the rest is the noisy spectrogram

    def __post_init__(self):
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
        if not 0 <= self.refiner_mix <= 1:
            raise ValueError(f'refiner_mix must be between 0 and 1, got {self.refiner_mix:g}')
        _ = self.front_end
        self._guidance().check(self._schedule(None))

    @property
    def front_end(self) -> FrontEnd:
        return FrontEnd(n_fft=320, hop=160, compression=self.compression, unit_rms=True)

    @property
    def sample_rate(self) -> int:
        return self.front_end.sample_rate

    @property
    def default_steps(self) -> int | None:
        return None if self.stage == 'c_gen' else self.steps

    @property
    def baselines(self) -> tuple[str, ...]:
        return ('condition',) if 'c_gen' in self._groups() else ()

    def check_steps(self, steps):
        if self.stage == 'c_gen':
            raise ValueError('DrDiffuse at stage c_gen does not sample, so it takes no sampling steps')
        self._guidance().check(self._schedule(steps))

    @property
    def losses(self):
        match self.stage:
            case 'c_gen':
                return {'c_gen': self._c_gen_loss}
            case 'diffusion':
                return {'denoiser': self._denoiser_loss}
            case 'refiner':
                return {'refiner': self._refiner_loss}

    @property
    def origins(self):
        """The refiner starts as a copy of c_gen, unless the earlier run has one."""
        return {'refiner': ('refiner', 'c_gen')}

    def init(self, key):
        spec = jax.ShapeDtypeStruct((1, 2, self.front_end.num_bins, 2), jnp.float32)
        inputs = {'denoiser': (spec, spec, jax.ShapeDtypeStruct((1,), jnp.float32))}
        variables: dict = {'params': {}, 'batch_stats': {}}
        for i, group in enumerate(self._groups()):
            # lazy_init computes only parameters, in half the time.
            drawn = self._network(group).lazy_init(jax.random.fold_in(key, i), *inputs.get(group, (spec,)))
            for collection, tree in drawn.items():
                variables[collection][group] = tree
        return variables

    def _groups(self) -> tuple[str, ...]:
        """Parameter groups of this stage."""
        first = ('c_gen',) if self.condition == 'c_gen' or self.stage == 'c_gen' else ()
        return first + {'c_gen': (), 'diffusion': ('denoiser',), 'refiner': ('denoiser', 'refiner')}[self.stage]

    def _network(self, group: str, axis_name=None):
        fields = (self.channels, self.temporal_groups, axis_name, jnp.dtype(self.dtype))
        return ConditionalUNet(self.denoiser == 'diffuse', *fields) if group == 'denoiser' else TwoBranchUNet(*fields)

    def _guidance(self) -> ddpm.Guidance:
        return ddpm.Guidance(self.guidance, self.guidance_weight)

    def _schedule(self, steps: int | None) -> Schedule:
        spaced = fast if self.schedule == 'fast' else respaced
        return spaced(TRAINING, self.steps if steps is None else steps)

    # ---------------------------------------------------------------------------------------------------- enhancement

    def gain(self, noisy, num_samples):
        return self.front_end.gain(noisy, num_samples)

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        """'condition', 'diffusion' and 'refined', as far as `stage` goes."""
        gain = gain[:, None]
        spec = self.front_end.analyze(noisy * gain, num_samples)
        frames = self.front_end.num_frames(num_samples)
        return {name: self.front_end.synthesize(estimate, num_samples, noisy.shape[1]) / gain
                for name, estimate in self._estimates(variables, spec, frames, key, steps).items()}

    def _estimates(self, variables, spec, frames, key, steps):
        """Stage -> compressed spectrogram, in order."""
        condition = self._condition(variables, spec, frames)
        found = {'condition': condition} if 'c_gen' in self._groups() else {}
        if self.stage == 'c_gen':
            return found
        found['diffusion'] = x = self._sample(variables, condition, frames, ddpm.draws(key, spec.shape[1:]), steps)
        if self.stage == 'refiner':
            found['refined'] = self._apply('refiner', variables, frames, self._refiner_input(x, spec))
        return found

    def _condition(self, variables, spec, frames):
        return self._apply('c_gen', variables, frames, spec) if 'c_gen' in self._groups() else spec

    def _apply(self, group, variables, frames, *inputs):
        """Runs the network of a group with stored statistics."""
        return self._network(group).apply(_own(group, variables), *inputs, frames if self.mask_padding else None)

    def _sample(self, variables, condition, frames, draw, steps=None):
        network, own = self._network('denoiser'), _own('denoiser', variables)
        mask, levels = frames if self.mask_padding else None, self._schedule(steps)
        delivered = network.apply(own, condition, mask, method='deliver')  # once, not at every step

        def denoise(x, t):
            return network.apply(own, x, condition, t, mask, delivered)

        x = ddpm.start(condition, levels, draw, from_condition=self.start == 'condition')
        return ddpm.sample(denoise, x, levels, draw, rule=ddpm.Ancestral(self._guidance()), condition=condition)

    def _refiner_input(self, sample, spec):
        return self.refiner_mix * sample + (1 - self.refiner_mix) * spec

    # --------------------------------------------------------------------------------------------------------- losses

    def _c_gen_loss(self, variables, batch, key, train=True) -> LossOutput:
        """RI + Mag loss of c_gen(noisy)."""
        del key
        return self._loss(ri_mag, 'c_gen', variables, batch, batch['clean_spec'], train, batch['noisy_spec'])

    def _denoiser_loss(self, variables, batch, key, train=True) -> LossOutput:
        """`denoiser_loss` at one step per example: random in training, else from a fixed grid."""
        keys = jax.vmap(jax.random.split)(key)
        if train:
            t = jax.vmap(lambda k: jax.random.randint(k, (), 0, len(TRAINING)))(keys[:, 0])
        else:
            t = step_sampling.grid(batch['index'], len(TRAINING), VALIDATION_GRID)
        noise = jax.vmap(lambda k: jax.random.normal(k, batch['clean_spec'].shape[1:]))(keys[:, 1])
        return self.denoiser_loss(variables, batch, t, noise, train)

    def denoiser_loss(self, variables, batch, t, noise, train=True) -> LossOutput:
        """Mean squared error of the denoiser's estimate of `noise` `[B, T, F, 2]` at the steps `t` `[B]`."""
        condition = self._condition(variables, batch['noisy_spec'], self.front_end.num_frames(batch['num_samples']))
        x_t = ddpm.diffuse(batch['clean_spec'], noise, jnp.asarray(TRAINING.alpha_bar, jnp.float32)[t])
        return self._loss(complex_mse, 'denoiser', variables, batch, noise, train, x_t, condition, t)

    def _refiner_loss(self, variables, batch, key, train=True) -> LossOutput:
        return self.refiner_loss(variables, batch, ddpm.draws(key, batch['noisy_spec'].shape[1:]), train)

    def refiner_loss(self, variables, batch, draw: ddpm.Draw, train=True) -> LossOutput:
        """RI + Mag loss of the refiner on samples drawn on the fly; the sampler's networks are frozen."""
        spec, frames = batch['noisy_spec'], self.front_end.num_frames(batch['num_samples'])
        x = self._sample(variables, self._condition(variables, spec, frames), frames, draw)
        return self._loss(ri_mag, 'refiner', variables, batch, batch['clean_spec'], train, self._refiner_input(x, spec))

    def _loss(self, criterion, group, variables, batch, target, train, *inputs) -> LossOutput:
        """`criterion(network of the group(inputs), target)`, masked to real frames."""
        frames = self.front_end.num_frames(batch['num_samples'])
        batch_stats = variables['batch_stats']
        if train:
            estimate, new = self._network(group, 'data').apply(
                _own(group, variables), *inputs, frames if self.mask_padding else None, train=True,
                mutable=['batch_stats'])
            batch_stats = {**batch_stats, group: new['batch_stats']}
        else:
            estimate = self._apply(group, variables, frames, *inputs)
        weight = jnp.where(batch['num_samples'] > 0, frames, 0).astype(jnp.float32)
        return LossOutput(criterion(estimate, target, frames), weight, batch_stats, {})


def _own(group, variables):
    return {collection: groups[group] for collection, groups in variables.items()}
