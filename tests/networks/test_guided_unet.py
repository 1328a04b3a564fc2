"""The U-Net of guided diffusion: against the original PyTorch code through the converter, and its mathematics."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import traverse_util

from jax_diffse import conversion
from jax_diffse.conversion import diffiner
from jax_diffse.networks import guided_unet
from jax_diffse.networks.guided_unet import Attention, GuidedUNet, ResBlock, UNetConfig, step_embedding
from tests import reference
from tests.diffusion.released import golden_network

# Programs that run once: compiled faster.
jit, jit_large = (functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': i}) for i in (0, 1))
TINY = UNetConfig(channels=8, multipliers=(1,), blocks=1, attention=(1,), heads=2, groups=4)
SMALL = UNetConfig(channels=8, multipliers=(1, 2), blocks=1, attention=(2,), heads=2, groups=4)
# What the weights of the fixture's variant do not tell.
VARIANT = {'head_channels': 16, 'qkv_order': 'new'}


def to_jax(x):
    return jnp.asarray(np.transpose(x, (0, 3, 2, 1)))


def to_torch(x):
    return np.transpose(np.asarray(x), (0, 3, 2, 1))


def released(state_dict, **options):
    """The network and its variables."""
    network = GuidedUNet(UNetConfig(**diffiner.model(state_dict)['network'], **options))
    return network, {'params': conversion.from_weights('diffiner', state_dict)['params']['prior']}


@functools.cache
def small_released():
    return released(reference.load('diffiner').state_dict('model.'))


def with_features(network, variables, x, t):
    """The output, and what each module of the network returned, by its name."""
    y, state = network.apply(variables, x, t, mutable=['intermediates'], capture_intermediates=(
        lambda module, name: name == '__call__' and len(module.path) == 1))
    return y, {name: calls['__call__'][0] for name, calls in state['intermediates'].items()}


def by_their_names(features):
    """The released code's blocks: ours. Where a level ends in a rising block of its own, that ends theirs."""
    named = {'middle_block': to_torch(features['middle'])}
    for ours, theirs in (('down', 'input_blocks'), ('up', 'output_blocks'), ('rise', 'output_blocks')):
        named |= {f'{theirs}.{name.removeprefix(ours)}': to_torch(x) for name, x in features.items()
                  if name.startswith(ours)}
    return named


# ------------------------------------------------------------------------------------------------------ released code


@pytest.mark.parity
def test_outputs_and_features_of_the_released_network():
    fixture = reference.load('diffiner')
    network, variables = small_released()
    run, x = jit(functools.partial(with_features, network)), to_jax(fixture.inputs['x'])
    y, features = run(variables, x, jnp.asarray(fixture.inputs['t_int'], jnp.float32))
    fixture.check('unet/int', to_torch(y))
    named = by_their_names(features)
    fixture.check_table('unet/features', named)
    for name in ('input_blocks.1', 'input_blocks.3', 'middle_block', 'output_blocks.1', 'output_blocks.3'):
        fixture.check(f'unet/{name}', named[name])
    y, _ = run(variables, x, jnp.asarray(fixture.inputs['t_float']))
    fixture.check('unet/float', to_torch(y))


@pytest.mark.parity
def test_the_step_is_embedded_as_in_the_released_code():
    fixture = reference.load('diffiner')
    network, variables = small_released()
    t = jnp.asarray(fixture.inputs['t_embedding'])
    fixture.check('timestep_embedding', step_embedding(t, 128))
    x = jnp.zeros((len(t), 2, 2, 2))
    fixture.check('time_embed', jit(lambda v: with_features(network, v, x, t)[1]['step2'])(variables))


@pytest.mark.parity
def test_a_variant_with_the_other_options():
    """Residual blocks that change resolution, three levels, a step that is added, heads of 16 in the new order."""
    fixture = reference.load('diffiner')
    network, variables = released(fixture.state_dict('variant.'), **VARIANT)
    y, features = jit(functools.partial(with_features, network))(
        variables, to_jax(fixture.inputs['x_p']), jnp.asarray(fixture.inputs['t_int']))
    fixture.check('variant/out', to_torch(y))
    fixture.check_table('variant/features', by_their_names(features))


@pytest.mark.slow
@pytest.mark.parity
def test_the_network_as_published():
    fixture = reference.load('diffiner_full')
    network, variables = released(fixture.state_dict())
    assert network.config == UNetConfig()
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == fixture['parameter_count']
    y, features = jit_large(functools.partial(with_features, network))(
        variables, to_jax(fixture.inputs['x']), jnp.asarray(fixture.inputs['t']))
    named = by_their_names(features)
    fixture.check('out', to_torch(y))
    fixture.check('middle_block', named['middle_block'])
    fixture.check_table('features', named)


@pytest.mark.parity
def test_golden_outputs():
    golden = reference.load_golden('diffiner/unet_forward.npz')
    weights, fields = golden_network()
    network = GuidedUNet(UNetConfig(**fields['network']))
    variables = {'params': conversion.from_weights('diffiner', weights)['params']['prior']}
    for case in golden.after('x_'):
        x = jnp.concatenate([to_jax(golden[f'x_{case}'])] * 2)
        t = jnp.concatenate([jnp.asarray(golden[f't_{kind}_{case}'], jnp.float32) for kind in ('int', 'float')])
        for kind, y in zip(('int', 'float'), np.split(to_torch(jit(network.apply)(variables, x, t)), 2), strict=True):
            golden.check(f'out_{kind}_{case}', y)


@functools.cache
def published_shapes():
    return jax.eval_shape(GuidedUNet().init, jax.random.key(0), jnp.zeros((1, 32, 32, 2)), jnp.zeros(1))


@pytest.mark.parity
def test_golden_names_and_shapes_of_the_published_weights():
    published = json.loads(reference.golden('diffiner/full_config_keys.json').read_text())
    weights = {name: np.broadcast_to(np.float32(0), shape) for name, shape in published['keys'].items()}
    fields = diffiner.model(weights)
    assert UNetConfig(**fields['network']) == UNetConfig()
    shapes = traverse_util.flatten_dict({'params': {'prior': published_shapes()['params']}})
    table = {entry.name: entry.layout.torch_shape(shapes.pop(entry.path).shape) for entry in diffiner.entries(fields)}
    assert table == {name: tuple(shape) for name, shape in published['keys'].items()}
    assert not shapes


def test_parameter_count_of_the_specification():
    assert sum(leaf.size for leaf in jax.tree.leaves(published_shapes())) == 164_303_618


# --------------------------------------------------------------------------------------------------------------- parts


def test_the_step_embedding_is_accurate():
    """Against float64, where a float32 product with t in the thousands is off by 1e-4 (cosines first, then sines)."""
    t = np.append(np.arange(0, 4000, 13.0), [3999, 0.25, 17.25, 999.5, 271.75])
    angles = t[:, None] * np.exp(-np.log(10_000) * np.arange(64) / 64)
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    for function in (step_embedding, jax.jit(step_embedding, static_argnums=1)):
        np.testing.assert_allclose(function(jnp.asarray(t, jnp.float32), 128), expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize('groups', [3, 12])  # 12: of one channel each
def test_group_norm_equals_torch(groups):
    rng = np.random.default_rng(0)
    x = (100 + rng.standard_normal((2, 5, 4, 12))).astype(np.float32)
    scale, shift, gain, bias = (rng.standard_normal(s).astype(np.float32) for s in ((2, 12), (2, 12), 12, 12))
    normed = torch.nn.functional.group_norm(torch.tensor(x.transpose(0, 3, 1, 2)).double(), groups,
                                            torch.tensor(gain).double(), torch.tensor(bias).double(), 1e-5)
    normed = normed.numpy().transpose(0, 2, 3, 1)
    params = {'params': {'scale': gain, 'bias': bias}}
    plain = guided_unet.GroupNorm(groups, silu=False).apply(params, jnp.asarray(x))
    np.testing.assert_allclose(plain, normed, atol=1e-4)
    shifted = normed * (1 + scale[:, None, None]) + shift[:, None, None]
    y = guided_unet.GroupNorm(groups).apply(params, jnp.asarray(x), jnp.asarray(scale), jnp.asarray(shift))
    np.testing.assert_allclose(y, shifted / (1 + np.exp(-shifted)), atol=3e-4)


def test_changes_of_resolution_equal_torch():
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype(np.float32)
    theirs = torch.tensor(x.transpose(0, 3, 1, 2))
    up = torch.nn.functional.interpolate(theirs, scale_factor=2, mode='nearest')
    np.testing.assert_array_equal(guided_unet.upsample(jnp.asarray(x)), up.permute(0, 2, 3, 1))
    down = torch.nn.functional.avg_pool2d(theirs, 2)  # odd frames lose the last one
    np.testing.assert_allclose(guided_unet.average_pool(jnp.asarray(x)), down.permute(0, 2, 3, 1), atol=1e-6)


def random_attention(order, channels=8):
    module = Attention(heads=2, groups=channels, order=order, dtype=jnp.float32)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, 4, channels)), jnp.float32)
    return module, reference.random_variables(jax.eval_shape(module.init, jax.random.key(0), x)), x


def numpy_attention(params, x, heads, order):
    """In float64, query by query; each channel is a group of its own."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    y = np.array(x, np.float64)
    for b, item in enumerate(np.asarray(x, np.float64)):
        flat = item.reshape(-1, item.shape[-1])
        normed = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5) * params['norm']['scale'] + params['norm']['bias']
        qkv = normed @ params['qkv']['kernel'] + params['qkv']['bias']
        size = flat.shape[1] // heads
        found = []
        for head in range(heads):
            starts = [head * size + i * flat.shape[1] if order == 'new' else (3 * head + i) * size for i in range(3)]
            query, key, value = (qkv[:, start:start + size] for start in starts)
            weights = np.exp(query @ key.T / np.sqrt(size))
            found.append(weights / weights.sum(1, keepdims=True) @ value)
        out = np.concatenate(found, axis=1) @ params['out']['kernel'] + params['out']['bias']
        y[b] += out.reshape(item.shape)
    return y


@pytest.mark.parametrize('order', ['legacy', 'new'])
def test_attention_equals_its_definition(order):
    module, variables, x = random_attention(order)
    np.testing.assert_allclose(jit(module.apply)(variables, x), numpy_attention(variables['params'], x, 2, order),
                               atol=1e-5)


def test_the_orders_of_attention_are_one_function_of_permuted_weights():
    module, variables, x = random_attention('legacy')
    order = np.arange(24).reshape(2, 3, 4).swapaxes(0, 1).ravel()  # heads, (query, key, value), features
    params = variables['params']
    permuted = {**params, 'qkv': {name: p[..., order] for name, p in params['qkv'].items()}}
    other = module.clone(order='new')
    y = jit(module.apply)(variables, x)
    np.testing.assert_allclose(jit(other.apply)({'params': permuted}, x), y, atol=1e-6)
    assert np.abs(jit(other.apply)(variables, x) - y).max() > 0.1


# ----------------------------------------------------------------------------------------------------------- behaviour


def heads_of(config):
    """Heads of attention by block, as the network builds them."""
    found = {}

    def note(call, args, kwargs, context):
        if isinstance(context.module, Attention):
            found[context.module.path[-2]] = context.module.heads
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(GuidedUNet(config).init, jax.random.key(0), jnp.zeros((1, 4, 4, 2)), jnp.zeros(1))
    return found


@pytest.mark.parametrize(('fields', 'expected'), [
    ({}, (2, 2, 2, 2)), ({'heads_up': 4}, (2, 2, 2, 4)), ({'head_channels': 4}, (2, 4, 4, 4)),
    ({'head_channels': 8, 'heads_up': 4}, (1, 2, 2, 2))])
def test_heads_of_each_block(fields, expected):
    """In levels of 8 and 16 channels with attention in both: down1 has 8 channels, all others listed 16."""
    heads = heads_of(dataclasses.replace(SMALL, attention=(1, 2), **fields))
    assert tuple(heads[name] for name in ('down1', 'down3', 'middle', 'up0')) == expected
    assert set(heads) == {'down1', 'down3', 'middle', 'up0', 'up1', 'up2', 'up3'}


@functools.cache
def tiny():
    """Variables of `TINY`, an input and steps."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 6, 4, 2)), jnp.float32)
    t = jnp.asarray([3.0, 120.5, 3999.0])
    return reference.random_variables(jax.eval_shape(GuidedUNet(TINY).init, jax.random.key(0), x, t)), x, t


tiny_network = jit(GuidedUNet(TINY).apply)


def test_a_fresh_network_estimates_zero():
    variables, x, t = tiny()
    fresh = jit(lambda key: GuidedUNet(TINY).init(key, x, t)['params']['out'])(jax.random.key(0))
    assert not np.any(tiny_network({'params': {**variables['params'], 'out': fresh}}, x, t))
    assert np.any(tiny_network(variables, x, t))


@pytest.mark.parametrize('module', [Attention(heads=2, groups=2, order='legacy', dtype=jnp.float32),
                                    ResBlock(features=4, groups=2, scale_shift=True, dropout=0.0, dtype=jnp.float32)])
def test_residual_branches_start_as_nothing(module):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4, 4)), jnp.float32)
    inputs = (x, jnp.ones((2, 8))) if isinstance(module, ResBlock) else (x,)
    y, _ = jit(module.init_with_output)(jax.random.key(0), *inputs)
    np.testing.assert_array_equal(y, x)


def squares(config, keys=None):
    """(params) -> the sum of squares of an output, and the output."""
    def loss(params):
        y = GuidedUNet(config).apply({'params': params}, *tiny()[1:], keys)
        return jnp.sum(y**2), y

    return loss


def test_recomputed_blocks_give_the_same_output_and_gradients():
    def run(remat):
        loss, params = squares(dataclasses.replace(TINY, remat=remat)), tiny()[0]['params']
        first = {name: params[name] for name in ('down0', 'down1')}  # through all others
        return jit(jax.value_and_grad(lambda first: loss({**params, **first}), has_aux=True))(first)

    ((_, y), plain), ((_, again), recomputed) = run(False), run(True)
    np.testing.assert_allclose(again, y, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max() + 1e-5), recomputed, plain)


def test_recomputed_blocks_keep_less_for_the_gradient():
    """Of a network with every kind of block, in training."""
    def kept(remat):
        config = dataclasses.replace(SMALL, remat=remat, dropout=0.3, resample_blocks=True)
        params = jax.eval_shape(GuidedUNet(config).init, jax.random.key(0), *tiny()[1:])['params']
        loss = squares(config, jax.random.split(jax.random.key(0), 3))
        residuals = jax.eval_shape(lambda params: jax.vjp(loss, params, has_aux=True)[1], params)
        return sum(leaf.size for leaf in jax.tree.leaves(residuals))

    assert kept(True) < 0.5 * kept(False)


def test_bfloat16_stays_close_and_returns_float32():
    """Its rounding, 2**-9 of a number, adds up to one or two per cent of the output."""
    exact = tiny_network(*tiny())
    rough = jit(GuidedUNet(dataclasses.replace(TINY, dtype='bfloat16')).apply)(*tiny())
    assert rough.dtype == jnp.float32
    assert 0 < np.sqrt(np.mean((rough - exact)**2)) < 0.05 * np.sqrt(np.mean(exact**2))


@functools.cache
def dropped():
    """(x, t, keys) -> the output at a dropout of 0.5, and the keys that each residual block was given."""
    @jit
    def run(x, t, keys):
        given = []

        def note(call, args, kwargs, context):
            if isinstance(context.module, ResBlock):
                given.append(jax.random.key_data(args[2]))
            return call(*args, **kwargs)

        with nn.intercept_methods(note):
            return GuidedUNet(dataclasses.replace(TINY, dropout=0.5)).apply(tiny()[0], x, t, keys), jnp.stack(given)

    return run


def test_dropout_depends_on_the_key_of_an_example_alone():
    _, x, t = tiny()
    keys = jax.random.split(jax.random.key(1), 3)
    y, _ = dropped()(x, t, keys)
    assert np.all(np.abs(y - tiny_network(*tiny())).max((1, 2, 3)) > 0.1)
    order = np.array([2, 0, 1])
    again, _ = dropped()(x.at[1].set(0)[order], t[order], keys[order])
    np.testing.assert_allclose(again[:2], y[order[:2]], atol=1e-5)
    redrawn, _ = dropped()(x, t, jax.random.split(jax.random.key(2), 3))
    assert np.all(np.abs(redrawn - y).max((1, 2, 3)) > 0.1)


def test_every_block_drops_something_else():
    _, x, t = tiny()
    given = dropped()(x, t, jax.random.split(jax.random.key(1), 3))[1]
    assert given.shape[:2] == (5, 3)
    assert len(np.unique(np.asarray(given).reshape(15, -1), axis=0)) == 15


def test_dropout_keeps_the_expectation():
    """What follows is linear, so the mean over draws tends to the output without any."""
    count = 4000
    block = ResBlock(features=4, groups=2, scale_shift=True, dropout=0.3, dtype=jnp.float32)
    rng = np.random.default_rng(0)
    x, step = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((1, 3, 2, 4), (1, 8)))
    variables = reference.random_variables(jax.eval_shape(block.init, jax.random.key(0), x, step))
    many = (jnp.repeat(x, count, axis=0), jnp.repeat(step, count, axis=0))
    drawn = jit(block.apply)(variables, *many, jax.random.split(jax.random.key(0), count))
    without = jit(block.clone(dropout=0.0).apply)(variables, x, step)
    deviation = np.std(drawn, axis=0)
    assert np.all(deviation > 0.01)
    assert np.all(np.abs(np.mean(drawn, axis=0) - without[0]) < 5 * deviation / np.sqrt(count))
    np.testing.assert_array_equal(jit(block.apply)(variables, x, step), without)  # no keys: nothing is dropped


@pytest.mark.parametrize(('fields', 'message'), [
    ({'channels': 48}, '48 channels are not divisible by 32 groups and 4 or 4 heads'),
    ({'heads': 3}, '128 channels are not divisible by 32 groups and 3 or 3 heads'),
    ({'heads_up': 5}, '128 channels are not divisible by 32 groups and 4 or 5 heads'),
    ({'heads_up': -1}, '128 channels are not divisible by 32 groups and 4 or -1 heads'),
    ({'head_channels': 96}, '128 channels are not divisible by 32 groups and heads of 96'),
    ({'multipliers': (1, 3), 'head_channels': 256}, '128 channels are not divisible by 32 groups and heads of 256'),
    ({'groups': 0}, '128 channels are not divisible by 0 groups'),
    ({'qkv_order': 'old'}, r"qkv_order must be one of \('legacy', 'new'\), got 'old'"),
    ({'dtype': 'float16'}, r"dtype must be one of \('float32', 'bfloat16'\), got 'float16'"),
    ({'multipliers': ()}, r'multipliers of 1 or more, .*, got .*multipliers=\(\), dropout=0$'),
    ({'blocks': 0}, r'blocks and multipliers of 1 or more, .*, got channels=128, blocks=0, .*dropout=0$'),
    ({'dropout': 1.0}, r'a dropout from 0 to below 1, got channels=128, .*dropout=1$'),
    ({'channels': 33, 'groups': 3, 'heads': 3}, 'an even number of channels, .* got channels=33, '),
])
def test_configs_that_make_no_network_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**fields)
