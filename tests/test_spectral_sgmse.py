"""Front end of SGMSE+: against the released code (fixtures), numpy, and itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse import spectral
from jax_diffse.spectral import FrontEnd
from tests import reference
from tests.spectral_backends import BACKENDS, padded, random_waves

SGMSE = {'unit_rms': False, 'unit_peak': True, 'whole_hops': False, 'n_fft': 510, 'hop': 128}


def sgmse_front_end(fields):
    """The front end of the released code's fields, where absent those of 16 kHz."""
    log = fields.get('transform_type') == 'log'
    return FrontEnd(**SGMSE | {
        'n_fft': fields.get('n_fft', 510), 'hop': fields.get('hop_length', 128),
        'compression': 'log1x' if log else 'power', 'factor': fields.get('spec_factor', 0.15),
        'exponent': fields.get('spec_abs_exponent', 0.5), 'sqrt_hann': fields.get('window') == 'sqrthann'})


def by_bins(spec):
    """`[B, T, F, 2]` -> `[B, 2, F, T]`."""
    return np.transpose(np.asarray(spec), (0, 3, 2, 1))


def at_peak(wave):
    return np.asarray(wave / np.abs(wave).max(), np.float32)[None]


SGMSE_KINDS = pytest.mark.parametrize('kind', ['16k', '48k', 'log', 'sqrthann'])


@pytest.mark.parity
@BACKENDS
@SGMSE_KINDS
def test_spectrograms_of_sgmse(backend, kind):
    fixture = reference.load('sgmse_sampling')
    front_end = sgmse_front_end(fixture.json('config')['front_ends'][kind])
    fixture.check(f'front/{kind}/spec', by_bins(backend.analyze(front_end, at_peak(fixture.inputs['wave']))))


@pytest.mark.parity
@SGMSE_KINDS
def test_waveforms_of_sgmse(kind):
    """All padded frames overlap and add."""
    fixture = reference.load('sgmse_sampling')
    front_end = sgmse_front_end(fixture.json('config')['front_ends'][kind])
    wave = at_peak(fixture.inputs['wave'])
    num_samples = jnp.array([wave.shape[1]])
    spec, frames = front_end.analyze(jnp.asarray(wave), num_samples), front_end.num_frames(num_samples)
    modes = {key.split('/')[0] for key in fixture.after(f'front/{kind}/wave/')}
    assert 'zero_pad' in modes
    for mode in modes:
        padded = spectral.pad_frames(spec, frames, 64, reflect=mode == 'reflection')
        if f'front/{kind}/reflected/sub' in fixture and mode == 'reflection':
            fixture.check(f'front/{kind}/reflected', by_bins(padded))
        back = front_end.synthesize(padded, num_samples, wave.shape[1], jnp.array([padded.shape[1]]))
        fixture.check(f'front/{kind}/wave/{mode}', back[0])


@pytest.mark.parity
@BACKENDS
@pytest.mark.parametrize('case', ['noisy/long', 'noisy/short', 'clean/short', 'not/short'])
def test_validation_items_of_sgmse(backend, case):
    """The middle of a long recording, or zeros on both sides of a short one; then its level, then the transform."""
    fixture = reference.load('sgmse_sampling')
    level, length = case.split('/')
    clean = fixture.inputs[f'clean_{length}']
    waves, target = np.stack([clean, clean + fixture.inputs[f'noise_{length}']]), 255 * 128
    missing = target - waves.shape[1]
    if missing > 0:
        waves = np.pad(waves, ((0, 0), (missing // 2, missing // 2 + missing % 2)))
    else:
        waves = waves[:, -missing // 2:][:, :target]
    if level != 'not':
        waves = waves / np.abs(waves[1 if level == 'noisy' else 0]).max()
    specs = by_bins(backend.analyze(sgmse_front_end({}), waves))
    for name, spec in zip(('clean', 'noisy'), specs, strict=True):
        fixture.check(f'loader/{case}/{name}', spec[None])


@pytest.mark.parametrize('length', [1, 100, 256, 700, 8064, 8065, 8191])
@pytest.mark.parametrize('multiple', [1, 8])
def test_front_end_of_sgmse_returns_every_sample(length, multiple):
    front_end = sgmse_front_end({})
    x, num_samples = jnp.asarray(random_waves(length)[0])[None], jnp.array([length])
    spec = front_end.analyze(x, num_samples)
    assert spec.shape == (1, max(length, 256) // 128 + 1, 256, 2) == (1, front_end.num_frames(length), 256, 2)
    padded = spectral.pad_frames(spec, front_end.num_frames(num_samples), multiple, reflect=True)
    back = front_end.synthesize(padded, num_samples, length)
    np.testing.assert_allclose(back, x, atol=2e-5)


def test_padding_changes_nothing_for_sgmse():
    front_end, waves = sgmse_front_end({}), random_waves(4801, 77, 1300)
    num_samples = jnp.array([len(x) for x in waves])
    frames = front_end.num_frames(num_samples)
    together = front_end.analyze(jnp.asarray(padded(waves)), num_samples)
    together = spectral.pad_frames(together, frames, 8, reflect=True)
    restored = front_end.synthesize(together, num_samples, 4801, -(-frames // 8) * 8)
    for i, x in enumerate(waves):
        alone = front_end.analyze(jnp.asarray(x)[None], num_samples[i:i + 1])
        alone = spectral.pad_frames(alone, frames[i:i + 1], 8, reflect=True)
        np.testing.assert_allclose(together[i, :alone.shape[1]], alone[0], atol=1e-4)
        assert not np.any(together[i, alone.shape[1]:])
        back = front_end.synthesize(alone, num_samples[i:i + 1], len(x), jnp.array([alone.shape[1]]))[0]
        np.testing.assert_allclose(restored[i, :len(x)], back, atol=2e-5)
        assert not np.any(restored[i, len(x):])


@pytest.mark.parametrize('reflect', [True, False])
def test_frames_are_padded_as_by_numpy(reflect):
    """Each example at its own end, whatever stands behind it."""
    rng = np.random.default_rng(0)
    x, real = rng.standard_normal((4, 13, 3, 2)).astype(np.float32), [13, 5, 9, 12]
    found = jax.jit(spectral.pad_frames, static_argnums=(2, 3))(jnp.asarray(x), jnp.array(real), 4, reflect)
    assert found.shape == (4, 16, 3, 2)
    for i, frames in enumerate(real):
        own = -frames % 4
        expected = np.pad(x[i, :frames], ((0, own), (0, 0), (0, 0)), mode='reflect' if reflect else 'constant')
        np.testing.assert_array_equal(found[i, :frames + own], expected)
        assert not np.any(found[i, frames + own:])


def test_frames_that_cannot_be_reflected_are_zero():
    """Of three frames two are reflected, as the last one is not repeated; of one frame none."""
    x = jnp.arange(1.0, 4.0).reshape(1, 3, 1, 1) * jnp.ones((2, 1, 1, 2))
    found = spectral.pad_frames(x, jnp.array([3, 1]), 8, reflect=True)
    np.testing.assert_array_equal(found[:, :, 0, 0], [[1, 2, 3, 2, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]])


@pytest.mark.parametrize(('fields', 'message'), [
    ({'unit_peak': True}, 'expected at most one of unit_rms and unit_peak'),
    ({'exponent': 0.0}, 'exponent: expected a number above 0, got 0'),
    ({'factor': -1.0}, 'factor: expected a number above 0, got -1'),
    ({'n_fft': 512, 'hop': 100, 'window': 400, 'sqrt_hann': True}, 'need centred frames: window=None'),
    ({'whole_hops': False, 'n_fft': 511, 'hop': 100}, 'an even n_fft .*, got n_fft 511, hop 100'),
    ({'whole_hops': False, 'n_fft': 512, 'hop': 129}, 'at most half the bins, got n_fft 512, hop 129')])
def test_front_ends_that_do_not_fit_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        FrontEnd(**fields)
