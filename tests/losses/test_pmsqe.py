"""PMSQE: against the original PyTorch code (fixtures), its mathematics and its masking."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.losses import pmsqe
from tests import reference


def released_mean(estimate, target):
    values = pmsqe.pmsqe_released(estimate, target)
    return jnp.mean(values), (values, pmsqe.pairwise_released(estimate, target))


released = jax.jit(jax.value_and_grad(released_mean, argnums=(0, 1), has_aux=True))
of_waveforms = jax.jit(pmsqe.pmsqe_of_waveforms)
power_spectrum = jax.jit(pmsqe.power_spectrum)
of_spectra = jax.jit(pmsqe.pmsqe)
gradients = jax.jit(jax.value_and_grad(lambda x, y: jnp.sum(pmsqe.pmsqe_of_waveforms(x, y)), argnums=(0, 1)))

CASES = {'est,ref': ('est', 'label'), 'ref,est': ('label', 'est'), 'padded': ('padded_est', 'padded_label'),
         'identical': ('label', 'label'), 'silent_est': ('silence', 'label'), 'silent_ref': ('est', 'silence'),
         'silent_both': ('silence', 'silence')}


@pytest.mark.parity
def test_tables():
    impulses = jnp.eye(pmsqe.WINDOW)[None]
    filters = np.asarray(pmsqe.transform(impulses)[0]).T
    reference.load('losses').check_table('pmsqe/tables', {
        'bark_matrix': pmsqe.bark_matrix(), 'abs_thresh_power': pmsqe.THRESHOLD,
        'log10_abs_thresh_power': np.log10(pmsqe.THRESHOLD), 'modified_zwicker_power': pmsqe.zwicker_exponents(),
        'width_of_band_bark': pmsqe.BAND_WIDTH, 'mask_sll': pmsqe.level_weights(),
        'stft_filters': np.concatenate([filters.real, filters.imag])[:, None]})


@jax.jit
def steps(estimate, target):
    """Every intermediate of waveforms `[B, N]`, magnitudes in place of powers, under the fixture's names."""
    magnitudes = [jnp.sqrt(pmsqe.power_spectrum(x) + 1e-8) for x in (estimate, target)]
    estimate, target = (pmsqe.bark_spectrum(pmsqe.equalize_level(x)) for x in magnitudes)
    found = {'magnitudes': magnitudes[0], 'bark_ref': target, 'bark_deg': estimate}
    found['bark_deg_frequency_equalised'] = estimate = pmsqe.equalize_frequency(estimate, target)
    found['bark_deg_gain_equalised'] = estimate = pmsqe.equalize_gain(estimate, target)
    return found | {'loudness_ref': pmsqe.loudness(target), 'loudness_deg': pmsqe.loudness(estimate),
                    'frame_distortion': pmsqe.frame_disturbance(estimate, target)}


@pytest.mark.parity
def test_every_step():
    fixture = reference.load('losses')
    found = steps(*(fixture.inputs[key].reshape(6, 16_000) for key in ('est', 'label')))
    fixture.check('pmsqe/magnitudes', jnp.swapaxes(found.pop('magnitudes'), 1, 2).reshape(2, 3, 257, 61))
    for name, x in found.items():
        fixture.check(f'pmsqe/{name}', x[:1])


@pytest.mark.parity
@pytest.mark.parametrize('case', CASES)
def test_released_values(case):
    fixture = reference.load('losses')
    items = len(fixture[f'pmsqe/{case}/value'])
    (_, (values, pairs)), _ = released(*(np.resize(fixture.inputs[key], (2, 48_000)) for key in CASES[case]))
    fixture.check(f'pmsqe/{case}/pairwise', pairs[:items])
    fixture.check(f'pmsqe/{case}/value', values[:items])
    if f'pmsqe/{case}/permutation' in fixture:
        orders = np.array(list(itertools.permutations(range(3))))
        best = orders[np.argmin(np.mean(np.asarray(pairs)[:items, orders, np.arange(3)], axis=-1), axis=-1)]
        np.testing.assert_array_equal(best, fixture[f'pmsqe/{case}/permutation'])


@pytest.mark.parity
def test_released_pieces_find_their_partners():
    fixture = reference.load('losses')
    label = fixture.inputs['label']
    permuted = label.reshape(2, 3, 16_000)[:, [1, 2, 0]].reshape(2, 48_000)
    (mean, _), _ = released(permuted, label)
    fixture.check('pmsqe/permuted_label/value', mean)
    assert np.all(of_waveforms(permuted, label) > 0.3)  # the corrected loss notices


@pytest.mark.parity
@pytest.mark.parametrize(('case', 'argument'), [('est,ref', 0), ('ref,est', 1)])
def test_released_gradients(case, argument):
    fixture = reference.load('losses')
    (value, _), gradient = released(*(fixture.inputs[key] for key in CASES[case]))
    fixture.check(f'term/PMSQE({case})', value)
    fixture.check(f'term/PMSQE({case})/grad', gradient[argument])


@pytest.mark.parity
@pytest.mark.parametrize(('case', 'argument'), [('est_ref', 0), ('ref_est', 1)])
def test_golden_values_and_gradients(case, argument):
    golden = reference.load_golden('dccrn/losses.npz')
    (value, (_, pairs)), gradient = released(*(golden[{'est': 'est', 'ref': 'label'}[key]] for key in case.split('_')))
    golden.check(f'PMSQE/pairwise_{case}', pairs)
    golden.check(f'PMSQE_{case}/value', value)
    golden.check(f'PMSQE_{case}/grad_strided', gradient[argument][:, ::int(golden['grad_stride'])])
    golden.check(f'PMSQE_{case}/grad_norm', np.linalg.norm(np.asarray(gradient[argument], np.float64), axis=1))


@pytest.mark.parity
def test_voicebank_example():
    """p232_001, noisy against clean; the values come from asteroid's PMSQE on the spectra named."""
    noisy, clean = (jnp.asarray(x)[None] for x in reference.known_recording())
    np.testing.assert_allclose(of_waveforms(noisy, clean), [0.62677], atol=1e-5)
    np.testing.assert_allclose(of_waveforms(clean, noisy), [0.68756], atol=1e-5)
    magnitudes = [jnp.sqrt(power_spectrum(x) + 1e-8) for x in (noisy, clean)]
    np.testing.assert_allclose(of_spectra(*magnitudes), [0.64192], atol=1e-5)


def speech(num_samples=8000):
    """Two clean and two noisy waveforms `[2, N]`."""
    clean = np.stack([reference.waveform('pmsqe', f'clean{i}', num_samples) for i in range(2)])
    noise = np.stack([reference.array('pmsqe', f'noise{i}', [num_samples]) for i in range(2)])
    return jnp.asarray(clean), jnp.asarray(clean + 0.05 * noise)


def test_power_spectrum_is_a_tight_frame():
    """In the middle of a waveform every sample lies in two frames, whose squared windows add up to one."""
    x = jnp.asarray(reference.array('pmsqe', 'frame', [1, 4 * 512])).at[:, :256].set(0).at[:, -256:].set(0)
    power = power_spectrum(x)
    assert power.shape == (1, 7, 257)
    np.testing.assert_allclose(jnp.sum(power), jnp.sum(x**2), rtol=1e-5)
    assert power_spectrum(x[:, :100]).shape == (1, 1, 257)


def test_equal_signals_cost_nothing_at_any_level():
    clean, noisy = speech()
    assert np.all(of_waveforms(clean, clean) < 1e-3)
    np.testing.assert_allclose(of_waveforms(0.1 * noisy, clean), of_waveforms(noisy, clean), rtol=1e-4)


def test_more_noise_costs_more_and_the_order_matters():
    clean, noisy = speech()
    loss = of_waveforms(noisy, clean)
    assert np.all(of_waveforms(noisy + (noisy - clean), clean) > loss)
    assert np.all(np.abs(of_waveforms(clean, noisy) - loss) > 0.01)


def test_padding_takes_no_part_and_examples_do_not_meet():
    clean, noisy = speech()
    garbage = noisy.at[1, 300:].set(jnp.nan)  # shorter than a window
    loss, gradient = jax.jit(jax.value_and_grad(
        lambda x: pmsqe.pmsqe_of_waveforms(x, clean, jnp.array([8000, 300])) @ jnp.array([1.0, 2.0])))(garbage)
    whole, short = of_waveforms(noisy, clean)[0], of_waveforms(noisy[1:, :300], clean[1:, :300])[0]
    np.testing.assert_allclose(loss, whole + 2 * short, rtol=1e-5)
    assert np.all(np.isfinite(gradient)) and np.any(gradient[0]) and not np.any(gradient[1, 300:])


def test_padded_frames_may_hold_anything():
    power = [power_spectrum(x) for x in speech()]
    frames = jnp.array([0, 17])
    garbage = power[1].at[1, 17:].set(jnp.nan)
    loss, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(pmsqe.pmsqe(x, power[0], frames))))(garbage)
    np.testing.assert_allclose(loss, of_spectra(power[1][1:, :17], power[0][1:, :17])[0], rtol=1e-5)
    assert np.all(np.isfinite(gradient)) and not np.any(gradient[1, 17:]) and not np.any(gradient[0])


@pytest.mark.parametrize('gain', [0, 1e-18, 1e-9, 1e-6])
def test_silence_has_finite_gradients(gain):
    clean, noisy = speech()
    for pair in ((gain * noisy, clean), (noisy, gain * clean), (gain * noisy, gain * clean)):
        value, (first, second) = gradients(*pair)
        assert np.isfinite(value) and np.all(np.isfinite(first)) and np.all(np.isfinite(second))
