"""DCCRN's network: against the original PyTorch code (fixtures, golden), and its mathematics."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse import conversion, systems
from jax_diffse.networks import dccrn
from tests import reference

PREFIXES = ('clstm/', 'lstm/', 'cbn/')
SMALL = dccrn.Dccrn(channels=(4, 8, 6), lstm_units=8)
BINS = 17


def released(state_dict):
    """The system and its variables."""
    system = systems.build('dccrn', conversion.describe({'dccrn': state_dict})[1])
    return system, conversion.from_weights('dccrn', state_dict)


def golden_network(name):
    """Weights of the larger reference set, and the fields of the system; weights do not tell the hop."""
    weights = conversion.read_state_dict(reference.golden(f'dccrn/dccrn_{name}.pt'))
    config = json.loads(reference.golden('dccrn/configs.json').read_text())[name]
    return weights, conversion.describe({'dccrn': weights})[1] | {'hop': config['win_inc']}


def to_torch(x):
    """Time and frequency exchanged."""
    return np.moveaxis(np.asarray(x), 1, 2)


def released_frames(system, wav):
    """The frames that the released code makes of waveforms whose length is no multiple of the hop."""
    spec = system.front_end.analyze(jnp.asarray(wav), jnp.full(len(wav), wav.shape[1]))
    return spec[:, :(wav.shape[1] + system.window - 2 * system.hop) // system.hop + 1]


def check_modes(reference_file, system, mask, spec, names, label):
    """The masked spectra, and the waveforms, in some masking modes."""
    length = (spec.shape[1] - system.front_end.extra_frames) * system.hop
    for mode in names:
        masked = dccrn.apply_mask(mask, spec, mode)
        wav = np.clip(system.front_end.synthesize(masked, jnp.full(len(spec), length), length), -1, 1)
        for part, name in enumerate(('real', 'imag')):
            reference_file.check(label(mode, name), to_torch(masked[..., part]))
        reference_file.check(label(mode, 'wav'), wav)


@pytest.mark.parity
@pytest.mark.parametrize('prefix', PREFIXES)
def test_layers_masks_and_outputs_of_the_released_network(prefix):
    fixture = reference.load('dccrn')
    system, variables = released(fixture.state_dict(prefix))
    spec = released_frames(system, fixture.inputs[f'{prefix}wav'])
    network = {collection: groups['dccrn'] for collection, groups in variables.items()}
    mask, state = system._network().apply(network, spec, capture_intermediates=True, mutable=['intermediates'])
    inner = state['intermediates']
    for ours, theirs in (('encoder_0', 'encoder.0'), ('encoder_5', 'encoder.5'), ('decoder_0', 'decoder.0')):
        both_parts = np.concatenate(inner[ours]['__call__'][0], axis=-1)
        fixture.check(f'{prefix}{theirs}', both_parts.transpose(0, 3, 2, 1))
    for part, name in enumerate(('mask_real', 'mask_imag')):
        fixture.check(f'{prefix}{name}', to_torch(mask[..., part]))
    check_modes(fixture, system, mask, spec, 'ECR' if prefix == 'clstm/' else 'E',
                lambda mode, name: f'{prefix}{mode}/{name}')


@pytest.mark.parity
@pytest.mark.parametrize('name', ['clstm', 'lstm', 'cbn'])
def test_golden_masks_and_outputs(name):
    golden = reference.load_golden('dccrn/forward.npz')
    weights, fields = golden_network(name)
    system, variables = systems.build('dccrn', fields), conversion.from_weights('dccrn', weights)
    spec = released_frames(system, golden['wav'])
    mask = system._network().apply({c: groups['dccrn'] for c, groups in variables.items()}, spec)
    for part, key in enumerate(('mask_real', 'mask_imag')):
        golden.check(f'{name}_E_{key}', to_torch(mask[..., part]))
    modes = [mode for mode in dccrn.MASKINGS if f'{name}_{mode}_wav' in golden]
    check_modes(golden, system, mask, spec, modes, lambda mode, key: f'{name}_{mode}_{key}')


@pytest.mark.parametrize(('fields', 'expected'), [({}, 3_671_053), ({'lstm': 'real'}, 4_719_629),
                                                  ({'norm': 'complex'}, 3_671_917)])
def test_parameter_counts_of_the_specification(fields, expected):
    shapes = jax.eval_shape(systems.build('dccrn', fields).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes['params'])) == expected


@pytest.mark.parametrize(('mode', 'expected'), [
    ('E', lambda m, y: np.tanh(np.abs(m)) * np.exp(1j * np.angle(m)) * np.sqrt(np.abs(y)**2 + 1e-8)
     * np.exp(1j * np.angle(y))),
    ('C', lambda m, y: m * y),
    ('R', lambda m, y: m.real * y.real + 1j * m.imag * y.imag),
])
def test_masking_equals_complex_arithmetic(mode, expected):
    m, y = (np.random.default_rng(i).standard_normal((1, 2, 3, 2)) for i in range(2))
    actual = dccrn.apply_mask(jnp.asarray(m, jnp.float32), jnp.asarray(y, jnp.float32), mode)
    pairs = expected(*(x[..., 0] + 1j * x[..., 1] for x in (m, y)))
    np.testing.assert_allclose(actual, np.stack([pairs.real, pairs.imag], -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('mode', dccrn.MASKINGS)
def test_masking_is_smooth_where_mask_or_spectrum_are_zero(mode):
    zeros, ones = jnp.zeros((1, 2, 3, 2)), jnp.ones((1, 2, 3, 2))
    for mask, spec in ((zeros, ones), (ones, zeros), (zeros, zeros)):
        y, pull = jax.vjp(lambda m, s: dccrn.apply_mask(m, s, mode), mask, spec)
        assert not np.any(y)  # silence stays silent, and a mask of zero masks
        assert all(np.all(np.isfinite(gradient)) for gradient in pull(ones))


def test_complex_normalisation_whitens():
    """Real and imaginary part come out uncorrelated with unit variance, up to epsilon (Trabelsi et al., eq. 4)."""
    rng = np.random.default_rng(0)
    real = rng.standard_normal((4, 50, 6, 3))
    x = tuple(jnp.asarray(part, jnp.float32) for part in (
        2 * real + 1, 0.5 * real + 0.1 * rng.standard_normal(real.shape)))
    norm = dccrn.ComplexBatchNorm()
    y, stats = norm.apply(norm.init(jax.random.key(0), x, False), x, True, mutable=['batch_stats'])
    for c in range(3):
        pair = np.stack([np.asarray(part[..., c], np.float64).ravel() for part in y], axis=-1)
        np.testing.assert_allclose(pair.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(np.cov(pair.T), np.eye(2), atol=5e-3)
    mean = np.asarray(x[0]).mean((0, 1, 2))
    np.testing.assert_allclose(stats['batch_stats']['mean_real'], 0.1 * mean, rtol=1e-4)


@pytest.fixture(scope='module')
def variables():
    shapes = jax.eval_shape(SMALL.init, jax.random.key(0), jnp.zeros((1, 2, BINS, 2)))
    return reference.random_variables(shapes)


def spectrum(batch, frames, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((batch, frames, BINS, 2)), jnp.float32)


def test_padding_changes_no_real_frame(variables):
    spec = spectrum(2, 12)
    alone = SMALL.apply(variables, spec[1:, :9])
    padded = SMALL.apply(variables, spec, jnp.array([12, 9]))
    np.testing.assert_allclose(padded[1, :9], alone[0], atol=1e-5)
    np.testing.assert_allclose(padded[0], SMALL.apply(variables, spec[:1])[0], atol=1e-5)


def test_it_looks_one_frame_ahead_per_decoder_block(variables):
    spec = spectrum(1, 20)
    jacobian = jax.jacrev(lambda x: jnp.sum(SMALL.apply(variables, x)[0, 8]))(spec)[0]
    reached = np.flatnonzero(np.any(np.asarray(jacobian) != 0, axis=(1, 2)))
    assert reached[0] == 0 and reached[-1] == 8 + len(SMALL.channels)


@pytest.mark.parametrize('size', [1, 3])
def test_steps_over_a_few_frames_give_the_same_mask(variables, size):
    depth, frames = len(SMALL.channels), 12
    spec = spectrum(2, frames)
    lengths = jnp.array([frames, frames])
    state = SMALL.apply(variables, 2, BINS, method='start')
    found = []
    for first in range(0, frames + depth, size):
        block = jnp.pad(spec, ((0, 0), (0, depth + size), (0, 0), (0, 0)), constant_values=9.0)[:, first:first + size]
        ended = first + size > frames  # only then does it have to be known where the signal ends
        mask, state = SMALL.apply(variables, block, state, jnp.full(2, first), lengths if ended else lengths + 999,
                                  method='step')
        found.append(mask)
    np.testing.assert_allclose(jnp.concatenate(found, axis=1)[:, depth:depth + frames],
                               SMALL.apply(variables, spec), atol=1e-5)


def test_bfloat16_stays_close_and_returns_float32(variables):
    spec = spectrum(1, 9)
    exact = SMALL.apply(variables, spec)
    rough = SMALL.clone(dtype=jnp.bfloat16).apply(variables, spec)
    assert rough.dtype == jnp.float32
    assert np.sqrt(np.mean((rough - exact)**2)) < 0.05 * np.sqrt(np.mean(exact**2))
