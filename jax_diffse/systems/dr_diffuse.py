"""DR-DiffuSE (Tai et al., "Revisiting Denoising Diffusion Probabilistic Models for Speech Enhancement", AAAI 2023)."""

import dataclasses

import jax.numpy as jnp

from jax_diffse.losses.regression import ri_mag
from jax_diffse.networks.two_branch_unet import TwoBranchUNet
from jax_diffse.spectral import FrontEnd
from jax_diffse.systems.base import LossOutput

STAGES = ('c_gen',)


@dataclasses.dataclass(frozen=True)
class DrDiffuse:
    """The chain of DR-DiffuSE up to `stage`; a `System`.

    Stage `c_gen`: the condition generator, a regression network on square-root-compressed spectrograms.
    """

    stage: str = 'c_gen'
    channels: int = 64  # of the U-Net; the paper's networks have 64
    temporal_groups: int = 3  # groups of six temporal units; the paper's networks have 3
    compression: str = 'sqrt'  # 'none', 'sqrt', 'cubic', 'log1x'
    mask_padding: bool = True  # False: padding frames take part in the network, as in the released code
    dtype: str = 'float32'  # of activations and products: 'float32' or 'bfloat16'

    def __post_init__(self):
        for name, value, known in (('stage', self.stage, STAGES), ('dtype', self.dtype, ('float32', 'bfloat16'))):
            if value not in known:
                raise ValueError(f'{name} must be one of {known}, got {value!r}')
        _ = self.front_end

    @property
    def front_end(self) -> FrontEnd:
        return FrontEnd(n_fft=320, hop=160, compression=self.compression, unit_rms=True)

    @property
    def sample_rate(self) -> int:
        return self.front_end.sample_rate

    @property
    def losses(self):
        return {'c_gen': self._c_gen_loss}

    def _network(self, axis_name=None) -> TwoBranchUNet:
        return TwoBranchUNet(self.channels, self.temporal_groups, axis_name, jnp.dtype(self.dtype))

    def _num_frames(self, num_samples):
        return self.front_end.num_frames(num_samples)

    def init(self, key):
        variables = self._network().init(key, jnp.zeros((1, 2, self.front_end.num_bins, 2)))
        return {collection: {'c_gen': tree} for collection, tree in variables.items()}

    def _c_gen_loss(self, variables, batch, key, train=True) -> LossOutput:
        """RI + Mag loss of c_gen(noisy), masked to real frames."""
        del key
        frames = self._num_frames(batch['num_samples'])
        own = {collection: groups['c_gen'] for collection, groups in variables.items()}
        network, mask = self._network('data' if train else None), frames if self.mask_padding else None
        if train:
            estimate, new = network.apply(own, batch['noisy_spec'], mask, train=True, mutable=['batch_stats'])
            batch_stats = {**variables['batch_stats'], 'c_gen': new['batch_stats']}
        else:
            estimate, batch_stats = network.apply(own, batch['noisy_spec'], mask), variables['batch_stats']
        weight = jnp.where(batch['num_samples'] > 0, frames, 0).astype(jnp.float32)
        return LossOutput(ri_mag(estimate, batch['clean_spec'], frames), weight, batch_stats, {})

    def gain(self, noisy, num_samples):
        return self.front_end.gain(noisy, num_samples)

    def enhance(self, variables, noisy, num_samples, key, *, gain=None, steps=None, processed=None):
        """See `System.enhance`; c_gen draws nothing, takes no steps and refines nothing."""
        del key
        if steps is not None or processed is not None:
            raise ValueError('the condition generator takes neither sampling steps nor a preceding enhancement')
        gain = (self.gain(noisy, num_samples) if gain is None else gain)[:, None]
        spec = self.front_end.analyze(noisy * gain, num_samples)
        own = {collection: groups['c_gen'] for collection, groups in variables.items()}
        estimate = self._network().apply(own, spec, self._num_frames(num_samples) if self.mask_padding else None)
        return self.front_end.synthesize(estimate, num_samples, noisy.shape[1]) / gain
