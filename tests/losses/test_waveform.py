"""Losses between waveforms: against the original PyTorch code where it is right, and their mathematics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.losses import waveform
from tests import reference

LOSSES = (waveform.mse, waveform.sdr, waveform.si_sdr, waveform.si_snr)


def signals(batch=2, length=400, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.standard_normal((batch, length))
    return tuple(jnp.asarray(x, jnp.float32) for x in (target + 0.1 * rng.standard_normal(target.shape), target))


@pytest.mark.parity
def test_released_values_per_item():
    """Theirs of SI-SNR is our SI-SDR, as it leaves the means in; theirs of SDR is twice the true one in dB."""
    fixture = reference.load('losses')
    estimate, label = (jnp.asarray(fixture.inputs[name]) for name in ('est', 'label'))
    fixture.check('item/SI-SNR', -waveform.si_sdr(estimate, label))
    fixture.check('item/SI-SDR(est,label)', -waveform.si_sdr(estimate, label))
    fixture.check('item/SDR', -2 * waveform.sdr(estimate, label))


def test_ratios_of_a_known_recording():
    """SI-SNR without and with removal of the means, SDR and MSE of p232_001, by the authors' tools."""
    noisy, clean = (x[None] for x in reference.known_recording())
    values = [-float(loss(noisy, clean)[0]) for loss in (waveform.si_sdr, waveform.si_snr, waveform.sdr)]
    np.testing.assert_allclose(values, [15.4705, 15.4717, 15.4739], atol=1e-4)
    np.testing.assert_allclose(waveform.mse(noisy, clean), [2.3139e-4], rtol=1e-4)


@pytest.mark.parity
def test_golden_ratios():
    """Of every pair, by torchmetrics and asteroid."""
    golden = reference.load_golden('metrics.npz')
    pairs = [(golden[f'deg_{i}'][None], golden[f'clean_{k}'][None]) for i, k in enumerate(golden['clean_index'])]
    for loss, key in ((waveform.si_sdr, 'torchmetrics_nozeromean'), (waveform.si_snr, 'torchmetrics'),
                      (waveform.si_snr, 'asteroid')):
        np.testing.assert_allclose([-float(loss(*pair)[0]) for pair in pairs], golden[f'score_si_sdr_{key}'], atol=1e-4)


def test_ratios_by_construction():
    """A target plus orthogonal noise of a hundredth of its energy: 20 dB, however the sum is scaled."""
    target = jnp.asarray(np.sin(2 * np.pi * np.arange(400) / 40), jnp.float32)[None]
    noise = 0.1 * jnp.asarray(np.cos(2 * np.pi * np.arange(400) / 40), jnp.float32)[None]
    np.testing.assert_allclose(waveform.sdr(target + noise, target), -20, atol=1e-3)
    for loss in (waveform.si_sdr, waveform.si_snr):
        np.testing.assert_allclose(loss(3 * (target + noise), target), -20, atol=1e-3)
    np.testing.assert_allclose(waveform.si_snr(target + noise + 0.5, target - 0.3), -20, atol=1e-3)
    np.testing.assert_allclose(waveform.mse(target + noise, target), np.mean(np.square(noise)), rtol=1e-5)


@pytest.mark.parametrize('loss', LOSSES)
def test_padding_takes_no_part_and_examples_do_not_meet(loss):
    estimate, target = signals()
    spoilt = estimate.at[1, 300:].set(jnp.nan)
    values = loss(spoilt, target, jnp.array([400, 300]))
    np.testing.assert_allclose(values[1], loss(estimate[1:, :300], target[1:, :300])[0], rtol=1e-5)
    np.testing.assert_allclose(values[0], loss(estimate[:1], target[:1])[0], rtol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(loss(x, target, jnp.array([400, 300]))))(estimate)
    assert not np.any(gradient[1, 300:]) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize('loss', LOSSES)
def test_silence_is_finite(loss):
    zeros, ones = jnp.zeros((1, 50)), jnp.ones((1, 50))
    for estimate, target in ((zeros, ones), (ones, zeros), (zeros, zeros)):
        value, gradient = jax.value_and_grad(lambda x, target=target: loss(x, target, jnp.array([40]))[0])(estimate)
        assert np.isfinite(value) and np.all(np.isfinite(gradient))
