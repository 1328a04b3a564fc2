"""NISQA's network: against the original PyTorch code through the converter, and its parts against torch."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jax_diffse.conversion import nisqa as convert_nisqa
from jax_diffse.metrics import nisqa as scorer
from jax_diffse.networks import nisqa
from jax_diffse.networks.nisqa import Nisqa
from tests import reference

# Programs that run once: compiled faster.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
PREFIXES = {'nisqa_v2': 'dim', 'nisqa_v2_mos_only': 'mos_only', 'nisqa_tts': 'tts'}


def parts(network, variables, segments, num_segments):
    """The scores, what every module returned, and what the last layer of every head sees."""
    pooled = []

    def note(call, args, kwargs, context):
        if context.module.name == 'score' and context.method_name == '__call__':
            pooled.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        scores, state = network.apply(variables, segments, num_segments, mutable=['intermediates'],
                                      capture_intermediates=True)
    return scores, state['intermediates'], jnp.stack(pooled)


@functools.cache
def released(model):
    """The compiled network with the fixture's weights: (segments, num_segments) -> `parts`."""
    state_dict = reference.load('nisqa').state_dict(f'{PREFIXES[model]}/')
    run = jit(functools.partial(parts, Nisqa(scorer.MODELS[model])))
    return functools.partial(run, convert_nisqa.variables(model, state_dict))


def padded_batch(items, width):
    """Segments `[W, 15, 48]` of several files -> `[B, width, 15, 48]`, what is behind them not zero."""
    batch = np.full((len(items), width, 15, 48), -17.0, np.float32)
    for row, item in zip(batch, items, strict=True):
        row[:len(item)] = item
    return batch, np.array([len(item) for item in items], np.int32)


@functools.cache
def waveform_segments(model):
    """Of the fixture's two signals."""
    fixture, config, found = reference.load('nisqa'), scorer.MODELS[model], []
    for name, rate in zip(('wav0', 'wav1'), fixture['sample_rates'], strict=True):
        mel, = scorer.FrontEnd(int(rate), config.max_hz)([fixture.inputs[name]])
        found.append(np.stack([mel[i:i + 15] for i in range(0, len(mel) - 14, config.hop)]))
    return found


def check_parts(fixture, prefix, model, items, width):
    """Compares all that the fixture holds for these segments; its arrays are without padding, file after file."""
    segments, counts = padded_batch(items, width)
    scores, found, pooled = released(model)(segments, counts)
    real = (np.arange(width) < counts[:, None]).ravel()

    def per_segment(x):
        x = np.asarray(x['__call__'][0])
        return x.reshape(-1, *x.shape[1 if len(x) == len(real) else 2:])[real]

    time = found['time']
    arrays = {'scores': scores, 'pooled': pooled, 'cnn': per_segment(found['cnn']),
              'time_dependency': per_segment(time)}
    if 'layer0' in time:
        layer = time['layer0']
        heads = [found[f'pools_{i}']['importance'] for i in range(scores.shape[1])]
        arrays |= {'time_dependency.linear': per_segment(time['project']),
                   'time_dependency.norm1': per_segment(time['norm']),
                   'time_dependency.layers.0.self_attn': per_segment(layer['attention']),
                   'time_dependency.layers.0': per_segment(layer),
                   'pool_logits': np.stack([per_segment(head)[:, 0] for head in heads])}
    held = [key for key in arrays if f'{prefix}/{key}' in fixture or f'{prefix}/{key}/sub' in fixture]
    for key in held:
        fixture.check(f'{prefix}/{key}', arrays[key])
    if f'{prefix}/layers/names' in fixture:
        fixture.check_table(f'{prefix}/layers', {
            f'bn{i}': per_segment(found['cnn'][f'block{i}']).transpose(0, 3, 2, 1) for i in range(1, 7)})
    return held


@pytest.mark.parity
@pytest.mark.parametrize('model', PREFIXES)
def test_scores_and_features_of_a_padded_batch(model):
    fixture, items = reference.load('nisqa'), waveform_segments(model)
    assert [len(item) for item in items] == list(fixture[f'{PREFIXES[model]}/n_wins'])
    held = check_parts(fixture, PREFIXES[model], model, items, len(items[0]))
    assert len(held) == (4 if model == 'nisqa_tts' else 9)


@pytest.mark.parity
@pytest.mark.parametrize('model', PREFIXES)
def test_the_network_alone(model):
    """On segments of noise, in a program for longer files."""
    fixture = reference.load('nisqa')
    segments = fixture.inputs['segments'][:, :, 0].swapaxes(2, 3)
    items = [item[:count] for item, count in zip(segments, fixture['formula/n_wins'], strict=True)]
    held = check_parts(fixture, f'{PREFIXES[model]}/formula', model, items, len(waveform_segments(model)[0]))
    assert held == ['scores', 'pooled', 'cnn', 'time_dependency']


@pytest.mark.parametrize('model', ['nisqa_v2', 'nisqa_tts'])
def test_what_lies_behind_a_file_does_not_matter(model):
    batch, counts = padded_batch(waveform_segments(model), len(waveform_segments(model)[0]))
    scores, *_ = released(model)(batch, counts)
    batch[1, counts[1]:] = 40 * np.random.default_rng(0).standard_normal(batch[1, counts[1]:].shape)
    again, *_ = released(model)(batch, counts)
    np.testing.assert_allclose(again, scores, atol=1e-6)
    more, *_ = released(model)(batch, counts + [0, 3])
    assert np.abs(more - scores)[1].max() > 1e-3


# --------------------------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize(('size', 'count'), [(15, 7), (7, 5), (5, 3), (8, 4), (5, 5), (9, 2)])
def test_adaptive_pooling_equals_torch(size, count):
    x = np.random.default_rng(0).standard_normal((2, size, 6, 3)).astype(np.float32)
    expected = torch.nn.functional.adaptive_max_pool2d(torch.tensor(x.transpose(0, 3, 1, 2)), (count, 3))
    ours = nisqa.max_pool(jnp.asarray(x), nisqa.adaptive_windows(size, count))
    np.testing.assert_array_equal(ours, expected.permute(0, 2, 3, 1))


def test_attention_in_slices_of_queries_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    module, x = nisqa.Attention(), jnp.asarray(rng.standard_normal((2, 8, 4)), jnp.float32)
    real = jnp.asarray(np.arange(8) < np.array([[8], [5]]))
    variables = reference.random_variables(jax.eval_shape(module.init, jax.random.key(0), x, real))
    whole = jit(module.apply)(variables, x, real)
    monkeypatch.setattr(nisqa, 'QUERIES', 3)
    np.testing.assert_allclose(jit(lambda x: module.apply(variables, x, real))(x), whole, atol=1e-6)


def test_masked_softmax_equals_the_softmax_of_what_is_real():
    logits = np.array([[1.0, -2.0, 3.0, 90.0], [5.0, 4.0, 3.0, 2.0]], np.float32)
    weights = nisqa.masked_softmax(jnp.asarray(logits), jnp.asarray([[True, True, True, False], [False] * 4]))
    np.testing.assert_allclose(weights[0, :3], torch.softmax(torch.tensor(logits[0, :3]), 0), atol=1e-6)
    assert weights[0, 3] == 0 and np.all(np.isfinite(weights))


def test_reversal_turns_the_real_part_round():
    x = jnp.arange(12.0).reshape(2, 6, 1)
    turned = nisqa.reverse(x, jnp.array([6, 4]))[..., 0]
    np.testing.assert_array_equal(turned[0], [5, 4, 3, 2, 1, 0])
    np.testing.assert_array_equal(turned[1, :4], [9, 8, 7, 6])
