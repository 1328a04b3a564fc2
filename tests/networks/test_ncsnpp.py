"""NCSN++: against the released PyTorch code through the converter, and its mathematics."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.signal
from flax import traverse_util

from jax_diffse.conversion import ncsnpp as conversion
from jax_diffse.networks import ncsnpp
from jax_diffse.networks.layers import Dense, GroupNorm
from jax_diffse.networks.ncsnpp import BACKBONES, Attention, Conv, Ncsnpp, NcsnppConfig, ResBlock
from tests import reference

# Programs that run once: compiled faster.
jit, jit_large = (functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': i}) for i in (0, 1))
TINY = NcsnppConfig(channels=8, multipliers=(1, 2), blocks=1, attention=(4,))


def to_jax(x):
    return jnp.asarray(np.transpose(x, (0, 3, 2, 1)))


def to_torch(x):
    return np.transpose(np.asarray(x), (0, 3, 2, 1)) if np.ndim(x) == 4 else np.asarray(x)


def small(fixture, name):
    """A network of the fixture with 32 bins, and its variables."""
    model = fixture.json('config')['model']
    config = dataclasses.replace(
        BACKBONES[name], channels=model['nf'], multipliers=tuple(model['ch_mult']), blocks=model['num_res_blocks'],
        attention=tuple(model['attn_resolutions']))
    return Ncsnpp(config), conversion.variables(fixture.state_dict(f'{name}.'), config, model['image_size'])


def with_features(network, bins, variables, x, y, t):
    """The output, and what each layer returned, under the released code's names."""
    found, calls = {}, []

    def note(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if context.method_name == '__call__' and len(context.module.path) == 1:
            calls.append((context.module.name, out))
        return out

    sampled = {'downsample': [], 'upsample': []}
    with pytest.MonkeyPatch.context() as patch, nn.intercept_methods(note):
        patch.setattr(ncsnpp, 'fourier_embedding', _noted(ncsnpp.fourier_embedding, calls, 'frequencies'))
        for name, of_pyramid in sampled.items():
            patch.setattr(ncsnpp, name, _of_pyramid(getattr(ncsnpp, name), of_pyramid))
        out = network.apply(variables, x, y, t)
    numbers = {name: i for i, (_, name) in enumerate(conversion._modules(network.config, bins))}
    for name, value in calls:
        if name.startswith('combine'):  # theirs adds what the level before returns
            value = value + dict(calls)[name.replace('combine', 'shrink')]
        found['output_layer' if name == 'out' else f'all_modules.{numbers[name]}'] = value
    for name, values in sampled.items():
        found |= {f'pyramid_{name}.{k}': value for k, value in enumerate(values)}
    return out, found


def _noted(function, calls, name):
    def noted(*args):
        calls.append((name, function(*args)))
        return calls[-1][1]

    return noted


def _of_pyramid(function, found):
    """`function`, which notes what it returns for the four channels of the pyramids."""
    def noted(x):
        out = function(x)
        if x.shape[-1] == 4:
            found.append(out)
        return out

    return noted


# ------------------------------------------------------------------------------------------------------ released code


@pytest.mark.parity
@pytest.mark.parametrize('name', BACKBONES)
def test_outputs_and_features_of_the_released_networks(name):
    fixture = reference.load('sgmse_nets')
    network, variables = small(fixture, name)
    x, y, t = to_jax(fixture.inputs['x']), to_jax(fixture.inputs['y']), jnp.asarray(fixture.inputs['t'])
    out, features = jit(functools.partial(with_features, network, x.shape[2]))(variables, x, y, t)
    fixture.check(f'{name}/out', to_torch(out))
    named = {key: to_torch(value) for key, value in features.items()}
    fixture.check_table(f'{name}/features', named)
    listed = {key.split('/')[0] for key in fixture.after(f'{name}/all_modules.')}
    assert listed
    for number in listed:
        fixture.check(f'{name}/all_modules.{number}', named[f'all_modules.{number}'])
    if name == 'ncsnpp':  # FlowSE's velocity, of the same weights
        fixture.check('flow/velocity', -to_torch(out))


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize('name', BACKBONES)
def test_the_networks_as_published(name):
    fixture = reference.load('sgmse_full')
    suffix, bins = ('_48k', 768) if name == 'ncsnpp_48k' else ('', 256)
    network = Ncsnpp(BACKBONES[name])
    variables = conversion.variables(fixture.state_dict(f'ncsnpp{suffix}.'), network.config, bins)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == fixture[f'{name}/parameter_count']
    x, y, t = (jnp.asarray(fixture.inputs[key]) for key in (f'x{suffix}', f'y{suffix}', 't'))
    out, features = jit_large(functools.partial(with_features, network, bins))(variables, to_jax(x), to_jax(y), t)
    fixture.check(f'{name}/out', to_torch(out))
    if name != 'ncsnpp_v2':
        named = {key: to_torch(value) for key, value in features.items()}
        fixture.check_table(f'{name}/features', named)
        fixture.check(f'{name}/middle', named[f'all_modules.{25 if suffix else 33}'])


@pytest.mark.parity
@pytest.mark.parametrize('name', BACKBONES)
def test_published_sizes(name):
    """Counts, names and shapes of the released networks."""
    fixture = reference.load('sgmse_full')
    prefix, bins = ('ncsnpp_48k.', 768) if name == 'ncsnpp_48k' else ('ncsnpp.', 256)
    spec = jnp.zeros((1, 64, bins, 2))
    shapes = jax.eval_shape(Ncsnpp(BACKBONES[name]).init, jax.random.key(0), spec, spec, jnp.ones(1))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == fixture[f'{name}/parameter_count']
    shapes = traverse_util.flatten_dict(shapes)
    table = {entry.name: entry.layout.torch_shape(shapes.pop(entry.path).shape)
             for entry in conversion.entries(BACKBONES[name], bins)}
    published = fixture.json('weights')['weights']
    assert table == {key.removeprefix(prefix): tuple(shape) for key, (shape, _, _) in published.items()
                     if key.startswith(prefix)}
    assert not shapes


@pytest.mark.parity
def test_resampling_of_the_released_code():
    fixture = reference.load('sgmse_nets')
    for name in ('fir_x', 'fir_odd'):
        x = to_jax(fixture.inputs[name])
        fixture.check(f'{name}/down', to_torch(jit(ncsnpp.downsample)(x)))
        fixture.check(f'{name}/up', to_torch(jit(ncsnpp.upsample)(x)))


@pytest.mark.parity
def test_time_embedding_of_the_released_code():
    fixture = reference.load('sgmse_nets')
    t, frequencies = (jnp.asarray(fixture.inputs[name]) for name in ('t_fourier', 'fourier_W'))
    fixture.check('fourier', jit(ncsnpp.fourier_embedding)(t, frequencies))


# --------------------------------------------------------------------------------------------------------------- parts


def test_time_embedding_is_that_of_its_definition():
    """Against float64 but for the one product in float32, which rounds the number of turns."""
    t = np.linspace(1e-4, 1, 50, dtype=np.float32)
    frequencies = (16 * np.random.default_rng(0).standard_normal(8)).astype(np.float32)
    angles = 2 * np.pi * np.log(t.astype(np.float64))[:, None] * frequencies
    found = jit(ncsnpp.fourier_embedding)(jnp.asarray(t), jnp.asarray(frequencies))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.concatenate([np.sin(angles), np.cos(angles)], axis=1), atol=5e-4)


@pytest.mark.parametrize('shape', [(2, 6, 8, 3), (1, 7, 5, 2)])
def test_resampling_equals_scipy(shape):
    """`upfirdn` of each axis: a pad of 1 before a filter of length 4 and every second value; zeros in between."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    down, up = x.astype(np.float64), x.astype(np.float64)
    for axis in (1, 2):
        half, size = shape[axis] // 2, shape[axis]
        down = np.take(scipy.signal.upfirdn(np.array([1, 3, 3, 1]) / 8, down, axis=axis), range(2, 2 * half + 2, 2),
                       axis)
        up = np.take(scipy.signal.upfirdn(np.array([1, 3, 3, 1]) / 4, up, up=2, axis=axis), range(1, 2 * size + 1),
                     axis)
    np.testing.assert_allclose(jit(ncsnpp.downsample)(jnp.asarray(x)), down, atol=1e-6)
    np.testing.assert_allclose(jit(ncsnpp.upsample)(jnp.asarray(x)), up, atol=1e-6)


def test_attention_equals_its_definition():
    """In float64, position by position; 8 channels are 2 groups."""
    module = Attention(jnp.float32)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, 4, 8)), jnp.float32)
    variables = reference.random_variables(jax.eval_shape(module.init, jax.random.key(0), x))
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), variables['params'])
    expected = np.array(x, np.float64)
    for b, item in enumerate(expected.copy()):
        flat = item.reshape(12, 8)
        grouped = flat.reshape(12, 2, 4)
        normed = (grouped - grouped.mean((0, 2), keepdims=True)) / np.sqrt(grouped.var((0, 2), keepdims=True) + 1e-6)
        normed = normed.reshape(12, 8) * params['norm']['scale'] + params['norm']['bias']
        query, key, value = (normed @ params[name]['kernel'] + params[name]['bias']
                             for name in ('query', 'key', 'value'))
        weights = np.exp(query @ key.T / np.sqrt(8))
        out = weights / weights.sum(1, keepdims=True) @ value @ params['out']['kernel'] + params['out']['bias']
        expected[b] = (flat + out).reshape(item.shape) / np.sqrt(2)
    np.testing.assert_allclose(jit(module.apply)(variables, x), expected, atol=1e-5)


# ----------------------------------------------------------------------------------------------------------- behaviour


@functools.cache
def tiny():
    """Variables of `TINY`, and inputs."""
    x, y = (jnp.asarray(np.random.default_rng(seed).standard_normal((2, 6, 8, 2)), jnp.float32) for seed in (0, 1))
    t = jnp.asarray([0.05, 0.9])
    return reference.random_variables(jax.eval_shape(Ncsnpp(TINY).init, jax.random.key(0), x, y, t)), x, y, t


NETWORKS = {division: jit(Ncsnpp(dataclasses.replace(TINY, division=division)).apply)
            for division in ('before', 'after', 'none')}
tiny_network = NETWORKS[TINY.division]


def lazily(config, spec):
    """Initial variables, without running the network."""
    t = jax.ShapeDtypeStruct(spec.shape[:1], jnp.float32)
    return jit(lambda key: Ncsnpp(config).lazy_init(key, spec, spec, t))(jax.random.key(0))


@functools.cache
def fresh():
    """Initial variables of a network whose layers have thousands of weights, with every kind of layer."""
    config = NcsnppConfig(channels=64, multipliers=(1, 2), blocks=1, attention=(4,))
    return lazily(config, jax.ShapeDtypeStruct((1, 2, 4, 2), jnp.float32))


def test_initial_weights():
    """Standard deviations of specs: sqrt(s / mean fan), s = 1, 0.1 in attention or 1e-10; biases are zero."""
    flat = traverse_util.flatten_dict(fresh()['params'])
    assert abs(np.std(flat.pop(('frequencies',))) - 16) < 6  # of 64 values
    for path in (('out', 'kernel'), ('out', 'bias')):
        values = flat.pop(path)
        assert 0 < np.abs(values).max() <= 0.5
    for path, value in flat.items():
        if path[-1] == 'bias':
            assert not np.any(value), path
        elif path[-1] == 'scale':
            assert np.all(value == 1), path
        else:
            zero = path[-2] in ('conv_out', 'conv0', 'conv1') or path[-2] == 'out'
            attends = path[-2] in ('query', 'key', 'value')
            fans = np.prod(value.shape[:-2]) * np.mean(value.shape[-2:])
            expected = np.sqrt((1e-10 if zero else 0.1 if attends else 1.0) / fans)
            assert np.std(value) == pytest.approx(expected, rel=0.1), path
            assert np.abs(value).max() <= np.sqrt(3) * expected * 1.001, path  # uniform
            assert np.abs(value).max() > 0.95 * np.sqrt(3) * expected, path


def divided(variables):
    """Outputs of networks that divide by time before the last layer, after it, and not."""
    return (np.asarray(run(variables, *tiny()[1:])) for run in NETWORKS.values())


def test_a_fresh_network_returns_the_bias_of_its_last_layer():
    _, x, _, t = tiny()
    variables = lazily(TINY, jax.ShapeDtypeStruct(x.shape, x.dtype))
    before, after, none = divided(variables)
    bias = np.broadcast_to(variables['params']['out']['bias'], x.shape)
    np.testing.assert_allclose(none, bias, atol=1e-4)
    np.testing.assert_allclose(before, bias, atol=1e-3)
    np.testing.assert_allclose(after, bias / np.asarray(t)[:, None, None, None], rtol=1e-3, atol=1e-3)


def test_the_division_by_time():
    """Before the last layer its bias is not divided, after it is; without, neither."""
    variables, _, _, t = tiny()
    bias, divisor = np.asarray(variables['params']['out']['bias']), np.asarray(t)[:, None, None, None]
    before, after, none = divided(variables)
    np.testing.assert_allclose(after, none / divisor, rtol=1e-5)
    np.testing.assert_allclose(before, (none - bias) / divisor + bias, rtol=1e-4, atol=1e-4)
    assert np.abs(before - after).max() > 0.1


def squares(config):
    """(params) -> the sum of squares of an output, and the output."""
    def loss(params):
        y = Ncsnpp(config).apply({'params': params}, *tiny()[1:])
        return jnp.sum(y**2), y

    return loss


def test_recomputed_blocks_give_the_same_output_and_gradients():
    def run(remat):
        loss, params = squares(dataclasses.replace(TINY, remat=remat)), tiny()[0]['params']
        first = {name: params[name] for name in ('conv_in', 'down0_0', 'time1')}  # through all others
        return jit(jax.value_and_grad(lambda first: loss({**params, **first}), has_aux=True))(first)

    ((_, y), plain), ((_, again), recomputed) = run(False), run(True)
    np.testing.assert_allclose(again, y, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max() + 1e-5), recomputed, plain)


def test_recomputed_blocks_keep_less_for_the_gradient():
    def kept(remat):
        loss = squares(dataclasses.replace(TINY, remat=remat))
        residuals = jax.eval_shape(lambda params: jax.vjp(loss, params, has_aux=True)[1], tiny()[0]['params'])
        return sum(leaf.size for leaf in jax.tree.leaves(residuals))

    assert kept(True) < 0.7 * kept(False)


def test_bfloat16_stays_close_and_returns_float32():
    """Its rounding, 2**-9 of a number, adds up to a few per cent of the output."""
    exact = tiny_network(*tiny())
    network = Ncsnpp(dataclasses.replace(TINY, dtype='bfloat16'))
    rough = jit(network.apply)(*tiny())
    assert rough.dtype == jnp.float32
    assert 0 < np.sqrt(np.mean((rough - exact)**2)) < 0.05 * np.sqrt(np.mean(exact**2))
    shapes = jax.eval_shape(network.init, jax.random.key(0), *tiny()[1:])
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}


def test_convolutions_in_bfloat16():
    """All layers but the last return bfloat16."""
    found = set()

    def note(call, args, kwargs, context):
        out = call(*args, **kwargs)
        layer = isinstance(context.module, (Conv, Attention, ResBlock, GroupNorm, Dense))
        if layer and context.method_name == '__call__':
            found.add((type(context.module).__name__, str(out.dtype)))
        return out

    with nn.intercept_methods(note):
        jax.eval_shape(Ncsnpp(dataclasses.replace(TINY, dtype='bfloat16')).init, jax.random.key(0), *tiny()[1:])
    assert found == {('Conv', 'bfloat16'), ('Attention', 'bfloat16'), ('ResBlock', 'bfloat16'),
                     ('GroupNorm', 'bfloat16'), ('Dense', 'float32')}


def test_examples_do_not_mix():
    variables, x, y, t = tiny()
    out = tiny_network(variables, x, y, t)
    np.testing.assert_allclose(tiny_network(variables, x.at[1].set(0), y, t)[0], out[0], atol=1e-5)


@pytest.mark.parametrize('progressive', [True, False])
def test_later_frames_change_nothing(progressive):
    """An example of 4 frames gives what it gives alone, whatever stands behind it; one of 12 ignores the rest too."""
    config, rng = dataclasses.replace(TINY, progressive=progressive), np.random.default_rng(0)
    run, frames = jit(Ncsnpp(config).apply), jnp.array([4, 12])
    x, y, other = (jnp.asarray(rng.standard_normal((2, 16, 8, 2)), jnp.float32) for _ in range(3))
    t = jnp.asarray([0.05, 0.9])
    variables = reference.random_variables(jax.eval_shape(Ncsnpp(config).init, jax.random.key(0), x, y, t))
    together = run(variables, x, y, t, frames)
    alone = run(variables, x[:1, :4], y[:1, :4], t[:1])
    np.testing.assert_allclose(together[:1, :4], alone, atol=1e-4)
    again = run(variables, x.at[0, 4:].set(other[0, 4:]).at[1, 12:].set(other[1, 12:]), y, t, frames)
    np.testing.assert_allclose(again[1, :12], together[1, :12], atol=1e-5)
    np.testing.assert_allclose(again[0, :4], together[0, :4], atol=1e-5)
    assert np.all(np.isfinite(together))
    changed = run(variables, x.at[1, 11].set(other[1, 11]), y, t, frames)
    assert np.abs(changed[1, :11] - together[1, :11]).max() > 0.01


def test_frequencies_are_not_trained():
    """Adam leaves them as they are, and moves all others."""
    variables, params = tiny(), tiny()[0]['params']
    del variables
    optimizer = optax.adam(1e-2)

    @jit
    def step(params):
        gradient = jax.grad(lambda p: squares(TINY)(p)[0])(params)
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    before, after = (traverse_util.flatten_dict(tree) for tree in (params, step(params)))
    for path, value in before.items():
        moved = np.any(np.asarray(after[path]) != value)
        assert moved == (path != ('frequencies',)), path


def attention_layers(config, bins):
    spec = jnp.zeros((1, 8, bins, 2))
    shapes = jax.eval_shape(Ncsnpp(config).init, jax.random.key(0), spec, spec, jnp.ones(1))
    return {path[0] for path in traverse_util.flatten_dict(shapes['params']) if 'query' in path}


@pytest.mark.parametrize(('attention', 'bins', 'expected'), [
    ((16,), 32, {'down1_0_attention', 'down1_1_attention', 'up1_attention'}),
    ((32, 8), 32, {'down0_0_attention', 'down0_1_attention', 'up0_attention',
                   'down2_0_attention', 'down2_1_attention', 'up2_attention'}),
    ((16,), 48, set()), ((), 32, set())])
def test_levels_with_attention(attention, bins, expected):
    """Where the number of bins is listed: after each block on the way down, once on the way up; and in the middle."""
    config = NcsnppConfig(channels=8, multipliers=(1, 1, 1), blocks=2, attention=attention)
    assert attention_layers(config, bins) == expected | {'middle_attention'}


@pytest.mark.parametrize('shape', [(1, 5, 8, 2), (1, 6, 7, 2)])
def test_sizes_that_cannot_be_halved_are_refused(shape):
    spec = jnp.zeros(shape)
    with pytest.raises(ValueError, match=f'x: expected multiples of 2 frames and bins, got {shape[1]} frames and '
                                         f'{shape[2]} bins'):
        Ncsnpp(TINY).init(jax.random.key(0), spec, spec, jnp.ones(1))


@pytest.mark.parametrize(('fields', 'message'), [
    ({'division': 'sigma'}, r"division must be one of \('before', 'after', 'none'\), got 'sigma'"),
    ({'dtype': 'float16'}, r"dtype must be one of \('float32', 'bfloat16'\), got 'float16'"),
    ({'blocks': 0}, r'expected blocks and multipliers of 1 or more, got blocks=0, multipliers=\(1, 1, '),
    ({'multipliers': ()}, r'got blocks=2, multipliers=\(\)$'),
    ({'channels': 2}, 'channels: expected a multiple of 4 .*, got 2, of which 2 are not divisible by 1'),
    ({'channels': 36, 'multipliers': (1, 4)}, 'got 36, of which 144 are not divisible by 32'),
])
def test_configs_that_make_no_network_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        NcsnppConfig(**fields)
