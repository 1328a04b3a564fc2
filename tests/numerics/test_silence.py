"""Losses and gradients of silent, very quiet and very loud signals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.networks.compact_unet import CompactUNetConfig
from jax_diffse.networks.gmm_unet import GmmUNetConfig
from jax_diffse.networks.guided_unet import UNetConfig
from jax_diffse.networks.ncsnpp import NcsnppConfig
from jax_diffse.networks.noise_unet import NoiseUNetConfig
from jax_diffse.systems.base import shapes
from jax_diffse.systems.bridge import SchroedingerBridge
from jax_diffse.systems.compact_diffiner import CompactDiffiner
from jax_diffse.systems.dccrn import Dccrn, LossWeights
from jax_diffse.systems.diffgmm import DiffGmm
from jax_diffse.systems.diffiner import Diffiner
from jax_diffse.systems.dr_diffuse import DrDiffuse
from jax_diffse.systems.flowse import FlowSe
from jax_diffse.systems.noise_unet import NoiseUnet
from jax_diffse.systems.segan import Segan
from jax_diffse.systems.sgmse import Sgmse
from jax_diffse.training import state as state_lib
from jax_diffse.training.parallel import Parallel
from jax_diffse.training.vector import to_trees
from tests.numerics.precision import LOSSES
from tests.reference import random_variables

LENGTH = 1600
ALL_TERMS = LossWeights(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
SMALL = {'channels': (2, 4), 'lstm_units': 4, 'lstm_layers': 1}
UNET = UNetConfig(channels=4, multipliers=(1, 1), blocks=1, attention=(), heads=1, groups=2)
SCORE = {'network': NcsnppConfig(4, (1,), 1, ()), 'n_fft': 126, 'hop': 32}
SYSTEMS = {
    'dr_diffuse': DrDiffuse(channels=2, temporal_groups=0),
    'dr_diffuse, denoiser': DrDiffuse('diffusion', 2, 0, denoiser='diffusec', condition='noisy'),
    'dccrn': Dccrn(**SMALL, loss=ALL_TERMS),
    # Released, PMSQE takes the place of the mean squared error beside it.
    'dccrn, released': Dccrn(**SMALL, loss=LossWeights(0.0, 1.0, 1.0, 1.0, 1.0, 1.0), released_losses=True,
                             mask_padding=False, clamp=True, norm='complex'),
    'segan': Segan(channels=(2, 4), segment=64, overlap=16),
    'segan, emphasis': Segan(channels=(2, 4), segment=64, overlap=16, pre_emphasis=0.95, white_noise_db=(5.0,),
                             adversary=False),
    'diffgmm': DiffGmm(GmmUNetConfig(2, (2, 4), 1, 3, 2), nll_warmup=0),
    'noise_unet': NoiseUnet(network=NoiseUNetConfig((2, 4))),
    'noise_unet, released': NoiseUnet(network=NoiseUNetConfig((2, 4)), released=True),
    'sgmse': Sgmse(**SCORE),
    'bridge': SchroedingerBridge(**SCORE, pesq_weight=5e-4),
    'flowse': FlowSe(**SCORE, objective='mae'),
    'diffiner': Diffiner(UNET, block_frames=64, respacing='ddim4'),
    'compact_diffiner, released': CompactDiffiner(CompactUNetConfig((2, 4)), block_frames=128, released=True),
}

SLOW = ('sgmse', 'flowse')  # what they do, the bridge does too


def pairs():
    """Name -> clean and noisy waveforms `[2, LENGTH]`, and their lengths."""
    noise, other = 0.1 * np.random.default_rng(0).standard_normal((2, 2, LENGTH))
    whole, silence = [LENGTH, LENGTH], np.zeros((2, LENGTH))
    click = silence.copy()
    click[:, 700] = 1.0
    return {'silence': (silence, silence, whole), 'near silence': (1e-30 * noise, 2e-30 * noise, whole),
            'smallest numbers': (np.full_like(silence, 1e-45), np.full_like(silence, 1e-40), whole),
            'clean silence': (silence, noise, whole), 'noisy silence': (noise, silence, whole),
            'equal': (noise, noise, whole), 'constant': (silence + 0.5, silence + 0.5, whole),
            'a click': (click, click, whole), 'anti-phase': (noise, -noise, whole),
            'loud': (1e4 * noise, 1e4 * (noise + other), whole),
            'one of them padding': (noise * [[1], [0]], (noise + other) * [[1], [0]], [LENGTH, 0]),
            'nothing but padding': (silence, silence, [0, 0]), 'one sample': (click, click, [1, LENGTH])}


@functools.cache
def gradients(name):
    """The gradient of every group as a training step takes it, their losses and the statistics behind them."""
    system = SYSTEMS[name]
    front_end = system.front_end

    def step(variables, batch):
        if front_end is not None:
            gain = front_end.gain(batch['noisy'], batch['num_samples'])[:, None]
            batch = batch | {f'{kind}_spec': front_end.analyze(batch[kind] * gain, batch['num_samples'])
                             for kind in ('clean', 'noisy')}
        keys = jax.random.split(jax.random.key(0), len(batch['clean']))
        return to_trees({group: state_lib.group_gradient(loss, group, variables, batch, keys, 1)
                         for group, loss in system.losses.items()})

    return Parallel(devices=jax.devices()[:1]).map(step), random_variables(shapes(system))


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in SYSTEMS])
def test_training_continues_with_any_batch(name):
    step, variables = gradients(name)
    variables = jax.tree.map(lambda leaf, shape: leaf.astype(shape.dtype), variables, shapes(SYSTEMS[name]))
    for what, (clean, noisy, lengths) in pairs().items():
        real = np.arange(LENGTH) < np.array(lengths)[:, None]
        batch = {'clean': np.float32(clean * real), 'noisy': np.float32(noisy * real),
                 'num_samples': np.array(lengths, np.int32), 'index': np.arange(2)}
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(step(variables, batch))):
            assert np.all(np.isfinite(leaf)), f'{what}: {jax.tree_util.keystr(path)}'


@functools.cache
def values_and_gradients():
    def of(function, arguments):
        value, pull = jax.vjp(lambda first: function(first, *arguments[1:]), arguments[0])
        return value, pull(jnp.ones_like(value))

    return jax.jit(lambda arguments: {name: of(LOSSES[name].make('float32'), arguments[name]) for name in arguments})


LEVELS = {'silence': (0, 0), 'near silence': (1e-30, 1e-30), 'smallest numbers': (1e-44, 1e-40),
          'quiet': (1e-20, 1e-20), 'silent estimate': (0, 1), 'silent target': (1, 0), 'loud': (1e4, 1e4)}


def check_finite(arguments):
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(values_and_gradients()(arguments))):
        assert np.all(np.isfinite(leaf)), jax.tree_util.keystr(path)


@pytest.mark.parametrize('levels', LEVELS.values(), ids=LEVELS)
def test_losses_and_their_gradients_are_finite_at_any_level(levels):
    check_finite({name: tuple((level * array.astype(np.float64)).astype(np.float32)
                              for level, array in zip(levels, case.arguments()))
                  for name, case in LOSSES.items()})


def test_losses_and_their_gradients_are_finite_where_nothing_differs():
    check_finite({name: (case.arguments()[1],) * 2 if 'gmm' not in name else case.arguments()
                  for name, case in LOSSES.items()})
