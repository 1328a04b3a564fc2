"""The PESQ loss: against torch-pesq (fixtures), SciPy's filters, and its masking."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from jax_diffse.losses import pesq_loss as module
from jax_diffse.losses.pesq_loss import pesq_loss
from tests import reference

value = jax.jit(pesq_loss)
gradients = jax.jit(jax.value_and_grad(lambda x, y: jnp.mean(pesq_loss(x, y)), argnums=(0, 1)))


@pytest.mark.parity
def test_released_values_and_gradients():
    fixture = reference.load('sgmse_training')
    estimate, clean = (fixture.inputs[f'pesq/{name}'] for name in ('estimate', 'clean'))
    fixture.check('pesq/loss', value(estimate, clean))
    fixture.check('pesq/grad', gradients(estimate, clean)[1][0])


def speech(num_samples=9000):
    """Two clean and two noisy waveforms `[2, N]`."""
    clean = np.stack([reference.waveform('pesq', f'clean{i}', num_samples) for i in range(2)])
    noise = np.stack([reference.array('pesq', f'noise{i}', [num_samples]) for i in range(2)])
    return jnp.asarray(clean), jnp.asarray(clean + 0.03 * noise)


def test_levels_follow_the_band_pass_filtered_power():
    """Filtered by SciPy's recursion in float64."""
    x = np.asarray(speech()[1])
    coefficients = [np.float32(c).astype(np.float64) for c in signal.butter(5, (325, 3250), 'bandpass', fs=16_000)]
    power = np.sum(signal.lfilter(*coefficients, x.astype(np.float64))**2, axis=1) / (9000 + 5120) / 1.04684
    found = module.equalize_level(jnp.asarray(x), jnp.array([9000, 9000]))
    np.testing.assert_allclose(found, x * np.sqrt(1e7 / power)[:, None], rtol=1e-5)


def test_the_handset_filter():
    x = np.asarray(speech(3000)[1], np.float64)
    faded = x.copy()
    faded[:, :15] *= np.arange(1, 16) / 16
    faded[:, -15:] *= np.arange(15, 0, -1) / 16
    expected = signal.lfilter([2.740826, -5.4816519, 2.740826], [1, -1.9444777, 0.94597794], faded)
    found = module.handset(jnp.asarray(x, jnp.float32), jnp.array([3000, 3000]))
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.max(np.abs(expected)))


@pytest.mark.parametrize('num_samples, frames', [(512, 1), (639, 1), (640, 2), (767, 2), (768, 2), (12_928, 50)])
def test_a_waveform_is_extended_by_its_length_modulo_the_hop(num_samples, frames):
    """Not to whole hops, so that up to half a window at the end may be left out, as in torch-pesq."""
    assert module.num_spectra(jnp.int32(num_samples)) == frames
    assert module.power_spectrum(jnp.ones((1, num_samples))).shape[1] >= frames


def test_power_spectra_are_those_of_hann_windows():
    x = np.asarray(speech(1100)[0], np.float64)
    frames = np.stack([x[:, start:start + 512] for start in (0, 256, 512)], axis=1)
    power = np.abs(np.fft.rfft(frames * signal.get_window('hann', 512)))**2
    power[..., 0] = 0
    found = module.power_spectrum(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found[:, :3], power, atol=1e-5 * np.max(power))


def test_means_over_time():
    """By hand: 35 frames are two windows of 20, 10 apart; 7 frames are one."""
    x = np.random.default_rng(0).uniform(0, 40, (2, 41, 2))
    windows = np.mean([np.mean(x[0, start:start + 20]**6, axis=0)**(2 / 6) for start in (0, 10)], axis=0)
    expected = [np.sqrt(windows), np.mean(x[1, :7]**6, axis=0)**(1 / 6)]
    np.testing.assert_allclose(module.mean_over_time(jnp.asarray(x, jnp.float32), jnp.array([35, 7])), expected,
                               rtol=1e-5)


def test_equal_signals_cost_nothing_at_any_level():
    clean, noisy = speech()
    assert np.all(value(clean, clean) < 1e-3)
    np.testing.assert_allclose(value(0.1 * noisy, clean), value(noisy, clean), rtol=1e-3)


def test_more_noise_costs_more_and_the_order_matters():
    clean, noisy = speech()
    loss = value(noisy, clean)
    assert np.all(value(noisy + (noisy - clean), clean) > loss)
    assert np.all(np.abs(value(clean, noisy) - loss) > 0.1)


@pytest.mark.parametrize('length', [6000, 300])
def test_padding_takes_no_part_and_examples_do_not_meet(length):
    clean, noisy = speech()
    garbage = noisy.at[1, length:].set(jnp.nan)
    loss, gradient = jax.jit(jax.value_and_grad(
        lambda x: pesq_loss(x, clean, jnp.array([9000, length])) @ jnp.array([1.0, 2.0])))(garbage)
    whole, short = value(noisy, clean)[0], value(noisy[1:, :length], clean[1:, :length])[0]
    np.testing.assert_allclose(loss, whole + 2 * short, rtol=1e-4)
    assert np.all(np.isfinite(gradient)) and np.any(gradient[0]) and not np.any(gradient[1, length:])


@pytest.mark.parametrize('gain', [0, 1e-18, 1e-9, 1e-6])
def test_silence_has_finite_gradients(gain):
    clean, noisy = speech(3000)
    for pair in ((gain * noisy, clean), (noisy, gain * clean), (gain * noisy, gain * clean)):
        loss, (first, second) = gradients(*pair)
        assert np.isfinite(loss) and np.all(np.isfinite(first)) and np.all(np.isfinite(second))


def test_no_samples_are_finite():
    """As in a batch that is filled up."""
    clean, noisy = speech(3000)
    loss, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(pesq_loss(x, clean, jnp.array([0, 3000])))))(noisy)
    assert np.isfinite(loss) and np.all(np.isfinite(gradient)) and not np.any(gradient[0])
