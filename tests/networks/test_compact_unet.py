"""The compact U-Net: against the notebook's PyTorch code through the converter, and its mathematics."""

import dataclasses
import functools
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jax_diffse import conversion
from jax_diffse.conversion import compact_unet as names
from jax_diffse.conversion import layouts
from jax_diffse.diffusion.schedule import guided
from jax_diffse.errors import UserError
from jax_diffse.networks import compact_unet
from jax_diffse.networks.compact_unet import (
    ACTIVATIONS,
    Attention,
    CompactUNet,
    CompactUNetConfig,
    ResBlock,
    SeparableConv,
)
from jax_diffse.networks.guided_unet import step_embedding
from tests import reference

# Programs that run once: compiled faster.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
TINY = CompactUNetConfig(widths=(4,), dropout=0.5)


def turned(x):
    """`[..., C, F, T]` <-> `[..., T, F, C]`."""
    return np.swapaxes(np.asarray(x), -1, -3)


@functools.cache
def shapes(config):
    """Of the network's variables."""
    x = jnp.zeros((1, config.multiple, config.multiple, 2))
    return jax.eval_shape(CompactUNet(config).init, jax.random.key(0), x, jnp.zeros(1))


def converted(state_dict):
    """The network's variables."""
    return {'params': conversion.from_weights('compact-unet', state_dict)['params']['prior']}


@functools.cache
def public():
    return converted(reference.load('compact_unet').state_dict())


def chosen(activation):
    """The weights of the activations in their sum: so that one program has them all."""
    return np.float32([name == activation for name in ACTIVATIONS])


def with_activation(weights):
    """Lets networks be built with the activation 'chosen'."""
    functions = list(ACTIVATIONS.values())
    return mock.patch.dict(ACTIVATIONS, chosen=lambda x: sum(w * f(x) for w, f in zip(weights, functions, strict=True)))


with with_activation(()):
    RELEASED = CompactUNet(CompactUNetConfig(activation='chosen', released_attention=True))


@functools.partial(jit, static_argnames='network')
def with_features(weights, variables, x, t, network=RELEASED):
    """The output, and what each module of the network returned, by its name."""
    with with_activation(weights):
        y, state = network.apply(variables, x, t, mutable=['intermediates'], capture_intermediates=(
            lambda module, name: name == '__call__' and len(module.path) == 1))
    return y, {name: calls['__call__'][0] for name, calls in state['intermediates'].items()}


def by_their_names(features):
    """The notebook's modules: ours, with one row of the step's embedding, which there is of all examples."""
    table = {'middle1': 'mid_block.res1', 'attention': 'mid_block.attn', 'middle2': 'mid_block.res2'}
    for i in range(3):
        table |= {f'down{i}': f'down_block{i + 1}', f'up{i}': f'up_block{i + 1}', f'join{i}': f'proj{i + 1}'}
    return ({'time_embed': features['step2'][:1]} |
            {theirs: turned(features[ours]) for ours, theirs in table.items()})


# ------------------------------------------------------------------------------------------------------ released code


@pytest.mark.parity
@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_outputs_and_features_of_the_released_network(activation):
    fixture, run = reference.load('compact_unet'), functools.partial(with_features, chosen(activation))
    x, steps = turned(fixture.inputs['x']), fixture.inputs['t'].astype(np.float32)
    found = [run(public(), x, np.full(len(x), t)) for t in steps]
    fixture.check(f'{activation}/out', turned(np.stack([y for y, _ in found])))
    fixture.check_table(f'{activation}/features', by_their_names(found[1][1]))
    fixture.check(f'{activation}/single', turned(run(public(), x[:1], steps[1:])[0]))


@pytest.mark.parity
def test_the_step_is_embedded_as_in_the_released_code():
    fixture = reference.load('compact_unet')
    fixture.check('time_embedding', step_embedding(jnp.asarray(fixture.inputs['t_embedding']), 32))


@pytest.mark.parity
def test_the_released_attention():
    fixture, x = reference.load('compact_unet'), turned(reference.load('compact_unet').inputs['attention_x'])
    run = jit(Attention(2, 2, True, jnp.float32).apply)
    variables = {'params': public()['params']['attention']}
    fixture.check('attention/out', turned(run(variables, x)))
    fixture.check('attention/single', turned(run(variables, x[:1])))


def training(fixture):
    """The clean spectrograms as they are trained on, the noisy ones, the noise, the step."""
    data = fixture.inputs['data'][:, 0].astype(np.float64)
    data -= data.mean((-1, -2), keepdims=True)
    data /= data.std((-1, -2), ddof=1, keepdims=True)
    t, noise = fixture.inputs['data_t'], turned(fixture.inputs['data_noise'])
    level = guided('cosine', 50, largest=0.9999).alpha_bar[t]
    x = np.sqrt(level) * turned(data) + np.sqrt(1 - level) * noise
    return data, x.astype(np.float32), noise, np.full(len(x), t[0], np.float32)


@jit
def gradients(weights, params, x, noise, t):
    """The loss and the output, and the gradient."""
    def loss(params):
        with with_activation(weights):
            y = RELEASED.apply({'params': params}, x, t)
        return jnp.mean((y - noise)**2), y

    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.mark.parity
@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_loss_and_gradients_of_the_released_network(activation):
    """Without dropout. The layers that blocks hold and do not use have no gradient."""
    fixture = reference.load('compact_unet')
    data, x, noise, t = training(fixture)
    fixture.check('train/zscore', data)

    (value, y), gradient = gradients(chosen(activation), public()['params'], x, noise, t)
    fixture.check(f'train/{activation}/pred', turned(y))
    fixture.check(f'train/{activation}/loss', value)
    gradient = layouts.to_torch(names.entries(names.model(fixture.state_dict())), {'params': {'prior': gradient}})
    unused, rounding = ([str(name) for name in fixture[key]] for key in ('train/unused', f'grad/{activation}/rounding'))
    assert not any(np.any(gradient.pop(name)) for name in unused)
    largest = max(np.linalg.norm(g) for g in gradient.values())
    for name in rounding:  # in front of a normalisation of one channel each: zero in exact arithmetic
        assert np.linalg.norm(gradient[name]) < 1e-5 * largest, name
    fixture.check_table(f'grad/{activation}', gradient, of_largest=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_golden_outputs(activation):
    golden = reference.load_golden('segan_diffiner_nb/unet.npz')
    weights = conversion.read_state_dict(reference.golden(f'segan_diffiner_nb/unet_{activation}.pt'))
    with with_activation(()):
        config = dataclasses.replace(RELEASED.config, **names.model(weights)['network'])
    variables, x = converted(weights), turned(golden['x'])
    run = functools.partial(with_features, chosen(activation), network=CompactUNet(config))
    found = [run(variables, x, np.full(len(x), t, np.float32)) for t in golden['t']]
    golden.check(f'{activation}_out', turned(np.stack([y for y, _ in found])))
    attention = jit(Attention(config.heads, config.groups, True, jnp.float32).apply)
    y = attention({'params': variables['params']['attention']}, turned(golden[f'{activation}_attn_in']))
    golden.check(f'{activation}_attn_out', turned(y))


@pytest.mark.parity
def test_weights_saved_with_the_diffusion_model_are_the_same():
    """The notebook trains, and saves, its `DiffusionModel`."""
    weights = reference.load('compact_unet').state_dict()
    prefixed = {f'unet_model.{name}': value for name, value in weights.items()}
    assert conversion.describe({'compact-unet': prefixed}) == conversion.describe({'compact-unet': weights})
    jax.tree.map(np.testing.assert_array_equal, converted(prefixed), public())


def test_weights_of_another_network_are_named():
    with pytest.raises(UserError, match='not the weights of this network; missing: down_block1'):
        converted({'en.conv1.l.weight': np.zeros(3)})


# --------------------------------------------------------------------------------------------------------------- parts


def test_parameter_count_of_the_specification():
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes(CompactUNetConfig()))) == 46_210


def test_convolutions_equal_torch():
    rng = np.random.default_rng(0)
    x, across, kernel = (rng.standard_normal(s).astype(np.float32) for s in ((2, 5, 6, 3), (3, 3, 3), (4, 4, 3, 2)))
    theirs = torch.tensor(x.transpose(0, 3, 1, 2))
    expected = torch.nn.functional.conv2d(theirs, torch.tensor(across.transpose(2, 0, 1)[:, None]), padding=1, groups=3)
    np.testing.assert_allclose(compact_unet.depthwise(x, across), expected.permute(0, 2, 3, 1), atol=1e-5)
    expected = torch.nn.functional.conv_transpose2d(theirs, torch.tensor(kernel.transpose(2, 3, 0, 1)), stride=2,
                                                    padding=1)
    np.testing.assert_allclose(compact_unet.conv_transpose(x, kernel), expected.permute(0, 2, 3, 1), atol=1e-5)


def test_kernels_are_drawn_as_in_torch():
    """Uniformly, up to 1 / sqrt(fan in); those of single channels have a fan in of 9."""
    params = jit(SeparableConv(64, jnp.float32).init)(jax.random.key(0), jnp.zeros((1, 3, 3, 256)))['params']
    for kernel, bound in ((params['depthwise'], 1 / 3), (params['pointwise']['kernel'], 1 / 16)):
        assert 0.99 * bound < np.max(np.abs(kernel)) <= bound
        assert np.std(kernel) == pytest.approx(bound / np.sqrt(3), rel=0.05)


@functools.cache
def attention(released):
    """(x) -> its attention by random weights, and these weights. Each of its eight channels is a group."""
    module = Attention(2, 8, released, jnp.float32)
    shape = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 3, 4, 8)))
    variables = reference.random_variables(shape)
    return jit(functools.partial(module.apply, variables)), variables['params']


def attention_input():
    return np.random.default_rng(1).standard_normal((2, 3, 4, 8)).astype(np.float32)


def test_attention_equals_its_definition():
    """In float64, example by example and head by head."""
    run, params = attention(False)
    x, params = attention_input(), jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    for item, found in zip(x.reshape(2, 12, 8).astype(np.float64), run(x), strict=True):
        normed = (item - item.mean(0)) / np.sqrt(item.var(0) + 1e-5) * params['norm']['scale'] + params['norm']['bias']
        query, key, value = np.split(normed @ params['qkv']['kernel'] + params['qkv']['bias'], 3, axis=1)
        heads = []
        for part in (slice(0, 4), slice(4, 8)):
            weights = np.exp(query[:, part] @ key[:, part].T / 2)
            heads.append(weights / weights.sum(1, keepdims=True) @ value[:, part])
        y = np.concatenate(heads, axis=1)
        for name in ('heads', 'out'):
            y = y @ params[name]['kernel'] + params[name]['bias']
        np.testing.assert_allclose(found, (item + y).reshape(3, 4, 8), atol=1e-5)


@pytest.mark.parametrize('released', [False, True])
def test_attention_commutes_with_what_has_no_order(released):
    """Positions, and examples of a batch; in the released code neither."""
    run, x = attention(released)[0], attention_input()
    order = np.random.default_rng(2).permutation(12)

    def moved(x):
        return x.reshape(2, 12, 8)[:, order].reshape(x.shape)

    assert np.allclose(run(moved(x)), moved(np.asarray(run(x))), atol=1e-5) != released
    assert np.allclose(run(x[::-1]), run(x)[::-1], atol=1e-5) != released
    assert np.allclose(run(np.stack([x[0], 2 * x[0]]))[0], run(x)[0], atol=1e-5) != released


# ----------------------------------------------------------------------------------------------------------- behaviour


@functools.cache
def tiny():
    """Variables of `TINY`, an input and steps."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4, 6, 2)), jnp.float32)
    return reference.random_variables(shapes(TINY)), x, jnp.asarray([3.0, 20.5, 49.0])


@functools.cache
def tiny_network(**fields):
    return jit(CompactUNet(dataclasses.replace(TINY, **fields)).apply)


@pytest.mark.parametrize('released', [False, True])
def test_an_example_does_not_depend_on_its_neighbours(released):
    """In the released network it does."""
    variables, x, t = tiny()
    run = tiny_network(released_attention=released)
    y = run(variables, x, t)
    assert y.shape == x.shape
    others = run(variables, x.at[1].set(1).at[2].set(2), t.at[1:].set(7))
    assert np.allclose(others[0], y[0], atol=1e-5) != released
    assert np.all(np.abs(others - y)[1:].max((1, 2, 3)) > 0.01)


def test_the_step_matters_and_may_lie_between_two():
    variables, x, t = tiny()
    x = jnp.broadcast_to(x[:1], x.shape)
    below, between, above = tiny_network()(variables, x, jnp.array([20.0, 20.5, 21.0]))
    assert np.abs(above - below).max() > 1e-3
    np.testing.assert_allclose(between, (below + above) / 2, atol=0.2 * np.abs(above - below).max())


def test_bfloat16_stays_close_and_returns_float32():
    exact, rough = tiny_network()(*tiny()), tiny_network(dtype='bfloat16')(*tiny())
    assert rough.dtype == jnp.float32
    assert 0 < np.sqrt(np.mean((rough - exact)**2)) < 0.05 * np.sqrt(np.mean(exact**2))


@jit
def dropped(x, t, keys):
    """The output, and the keys that each residual block was given."""
    given = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, ResBlock):
            given.append(jax.random.key_data(args[2]))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        return CompactUNet(TINY).apply(tiny()[0], x, t, keys), jnp.stack(given)


def test_dropout_depends_on_the_key_of_an_example_alone():
    variables, x, t = tiny()
    keys = jax.random.split(jax.random.key(1), 3)
    y, given = dropped(x, t, keys)
    assert np.all(np.abs(y - tiny_network()(variables, x, t)).max((1, 2, 3)) > 0.03)
    order = np.array([2, 0, 1])
    again, _ = dropped(x.at[1].set(0)[order], t[order], keys[order])
    np.testing.assert_allclose(again[:2], y[order[:2]], atol=1e-5)
    redrawn, _ = dropped(x, t, jax.random.split(jax.random.key(2), 3))
    assert np.all(np.abs(redrawn - y).max((1, 2, 3)) > 0.03)
    blocks = 2 * len(TINY.widths) + 2
    assert len(np.unique(np.asarray(given).reshape(3 * blocks, -1), axis=0)) == 3 * blocks  # each drops something else


@pytest.mark.parametrize(('fields', 'message'), [
    ({'activation': 'tanh'}, r"activation must be one of \('silu', 'relu', 'gelu'\), got 'tanh'"),
    ({'dtype': 'float16'}, r"dtype must be one of \('float32', 'bfloat16'\), got 'float16'"),
    ({'widths': ()}, r'widths of 1 or more channels, .*, got widths=\(\), dropout=0.1$'),
    ({'widths': (0, 8)}, r'widths of 1 or more channels, .*, got widths=\(0, 8\), dropout=0.1$'),
    ({'dropout': 1.0}, r'a dropout from 0 to below 1, got widths=\(4, 8, 16\), dropout=1$'),
    ({'groups': 4}, r'groups: levels of \(4, 8, 16\) channels, and the 2 .*, are not divisible by 4 groups'),
    ({'widths': (3, 8)}, r'groups: levels of \(3, 8\) channels, .* are not divisible by 2 groups'),
    ({'groups': 0}, 'are not divisible by 0 groups'),
    ({'heads': 3}, 'heads: 16 channels are not divisible by 3 heads'),
    ({'heads': 0}, 'heads: 16 channels are not divisible by 0 heads'),
])
def test_configs_that_make_no_network_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CompactUNetConfig(**fields)
