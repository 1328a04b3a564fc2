"""The forms of the networks for TPUs do what those for CPUs do, and have the same variables."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse import platforms
from jax_diffse.networks.compact_unet import CompactUNet, CompactUNetConfig
from jax_diffse.networks.dccrn import Dccrn
from jax_diffse.networks.folding import Fold, halving
from jax_diffse.networks.gmm_unet import GmmUNet, GmmUNetConfig
from jax_diffse.networks.guided_unet import GuidedUNet, UNetConfig
from jax_diffse.networks.ncsnpp import Ncsnpp, NcsnppConfig
from jax_diffse.networks.noise_unet import NoiseUNet, NoiseUNetConfig
from jax_diffse.networks.segan import Discriminator, Generator
from jax_diffse.networks.two_branch_unet import ConditionalUNet
from tests.numerics import precision

jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})  # programs that run once
LENGTHS = jnp.array([6, 4])
SHARES = jnp.array([0.3, 0.8])
STEPS = jnp.array([3.0, 7.5])


def noise(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).standard_normal(shape), jnp.float32)


def spec(bins, channels=2, frames=6):
    return noise(2, frames, bins, channels)


CASES = {  # network, inputs, keywords; numbers of bins that leave the last row unfilled where a network allows it
    'two branches': (ConditionalUNet(True, 8, 0), (spec(161), spec(161), STEPS, LENGTHS), {'train': True}),
    'dccrn': (Dccrn((8, 16, 32, 32), 'complex', 16, 1), (spec(209), LENGTHS), {'train': True}),
    'dccrn, complex norm': (Dccrn((4, 64, 300), 'real', 16, 1, 'complex'), (spec(209), LENGTHS), {'train': True}),
    'dccrn, long': (Dccrn((8, 16), 'real', 4, 1), (spec(65, frames=20), LENGTHS), {'train': False}),
    'generator': (Generator((8, 16, 32)), (noise(2, 8 * 31),), {}),
    'discriminator': (Discriminator((8, 16, 32)), (noise(2, 8 * 31), noise(2, 8 * 31)), {'train': True}),
    'guided': (GuidedUNet(UNetConfig(8, (1, 2), 1, (2,), 2, groups=4)), (spec(16), STEPS), {}),
    'mixture': (GmmUNet(GmmUNetConfig(2, (8, 48, 16), 1, 5)), (noise(2, 70), noise(2, 70), SHARES, jnp.array([70, 37])),
                {}),
    'compact': (CompactUNet(CompactUNetConfig((4, 8))), (spec(16, frames=8), STEPS), {}),
    'ncsnpp': (Ncsnpp(NcsnppConfig(8, (1, 2), 1, (8,))), (spec(16), spec(16), STEPS, LENGTHS), {}),
    'noise': (NoiseUNet(NoiseUNetConfig((4, 8, 8))), (spec(32, 1, 8),), {}),
}
SINGLE = ('two branches', 'dccrn', 'dccrn, complex norm')
LONG = ('two branches', 'ncsnpp', 'guided')


def shapes(network, inputs):
    return jax.eval_shape(lambda: network.init(jax.random.key(0), *inputs))


def weights(network, inputs):
    """Variables that are neither zero nor one; variances are positive."""
    def drawn(path, leaf):
        x = 0.2 * noise(*leaf.shape, 1)[..., 0]
        return 1 + jnp.abs(x) if 'var' in jax.tree_util.keystr(path) else x

    return jax.tree_util.tree_map_with_path(drawn, shapes(network, inputs))


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else [])
                                  for name in CASES])
def test_the_form_for_tpus_gives_what_that_for_cpus_gives(name):
    """In double precision, which leaves no rounding to allow for, but for networks that take minutes in it."""
    network, inputs, keywords = CASES[name]
    single = name in SINGLE
    variables = weights(network, inputs)
    with platforms.exporting({'tpu'}):
        assert jax.tree.map(jnp.shape, shapes(network, inputs)) == jax.tree.map(jnp.shape, variables)
    if not single:
        variables, inputs = precision.wide(variables), precision.wide(inputs)

    @jit
    def run(variables):
        """Value, gradients and batch statistics."""
        def objective(params):
            y, state = network.apply({**variables, 'params': params}, *inputs, **keywords, mutable=['batch_stats'])
            return jnp.sum(jnp.sin(jnp.arange(y.size)).reshape(y.shape) * y), (y, state)

        (_, rest), gradients = jax.value_and_grad(objective, has_aux=True)(variables['params'])
        return rest, gradients

    def scale(tree):
        return max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree))

    with contextlib.nullcontext() if single else precision.double():
        with platforms.exporting({'cpu'}):
            (expected, stats), gradients = run(variables)
        with platforms.exporting({'tpu'}):
            (found, found_stats), found_gradients = run(variables)
    # In single precision a dozen batch norms over ten frames magnify rounding.
    close = functools.partial(np.testing.assert_allclose, rtol=0)
    for a, b in ((found, expected), (found_stats, stats), (found_gradients, gradients)):
        if jax.tree.leaves(b):
            jax.tree.map(functools.partial(close, atol=(3e-4 if single else 1e-9) * scale(b)), a, b)


def test_streams_continue_in_the_form_for_tpus():
    """Frame by frame, after the look-ahead, a stream is what the whole is."""
    network, (x, _), _ = CASES['dccrn']
    variables, depth, frames = weights(network, (x,)), len(network.channels), x.shape[1]
    with platforms.exporting({'tpu'}):
        whole = jit(lambda x: network.apply(variables, x))(x)
        step = jit(functools.partial(network.apply, variables, method='step'))
        state, masks = network.apply(variables, 2, x.shape[2], method='start'), []
        for t in range(frames + depth):
            frame = x[:, t:t + 1] if t < frames else jnp.zeros_like(x[:, :1])
            mask, state = step(frame, state, jnp.full(2, t), jnp.full(2, frames))
            masks.append(mask)
    np.testing.assert_allclose(jnp.concatenate(masks[depth:], axis=1), whole, rtol=0,
                               atol=1e-5 * float(jnp.max(jnp.abs(whole))))


@pytest.mark.parametrize(('platform', 'channels', 'groups'), [
    ('tpu', 32, [8, 4, 2, 1]), ('tpu', 16, [16, 8, 4, 2]), ('tpu', 48, [4, 2, 1, 1]), ('tpu', 128, [2, 1, 1, 1]),
    ('tpu', 256, [1, 1, 1, 1]), ('tpu', 300, [1, 1, 1, 1]), ('cpu', 16, [1, 1, 1, 1]), ('cuda', 16, [1, 1, 1, 1])])
def test_rows_fill_the_registers_of_a_tpu(platform, channels, groups):
    """Registers have 128 lanes: the second array's rows have so many numbers, or almost, if its channels are fewer."""
    with platforms.exporting({platform}):
        assert halving((161, 79, 39, 19), channels) == [
            Fold(*pair) for pair in zip((161, 79, 39, 19), groups, strict=True)]
