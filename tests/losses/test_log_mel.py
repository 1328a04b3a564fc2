"""Log-mel distance: against the original PyTorch code (fixtures), its mathematics and its masking."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.losses import log_mel
from tests import reference

BANDS = (16, 32, 64)


def frames_first(magnitudes):
    """`[B, F, T]` of the original code -> `[B, T, F]`."""
    return jnp.swapaxes(jnp.asarray(magnitudes), 1, 2)


@jax.jit
def magnitudes(x):
    """`[B, N]` -> `[B, T, 257]`: DCCRN's front end, 400-sample Hann window every 100, 300 zeros at both ends."""
    x = jnp.pad(x, ((0, 0), (300, 300)))
    starts = np.arange(0, x.shape[1] - 399, 100)
    window = jnp.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400), jnp.float32)
    spec = jnp.fft.rfft(x[:, starts[:, None] + np.arange(400)[None]] * window[None, None], 512)
    return log_mel.magnitude_for_log(jnp.stack([spec.real, spec.imag], axis=-1))


def batch_mean(spectra):
    """The released loss: the batch's mean with each example's value, and the gradient, of what `spectra` takes."""
    def mean(estimate, target):
        values = rmse(spectra(estimate), spectra(target), released=True)
        return jnp.mean(values), values

    return jax.jit(jax.value_and_grad(mean, has_aux=True))


rmse = jax.jit(log_mel.log_mel_rmse, static_argnames=('power', 'released'))
of_magnitudes, of_waveforms = batch_mean(lambda x: x), batch_mean(magnitudes)


def random_pair(frames=7):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.uniform(0.1, 9, (3, frames, 257)), jnp.float32) for _ in range(2)]


@pytest.mark.parity
@pytest.mark.parametrize('num_bands', BANDS)
def test_filters_and_spectra(num_bands):
    fixture = reference.load('losses')
    filters = log_mel.mel_filters(num_bands)
    fixture.check(f'mel/{num_bands}', filters)
    fixture.check(f'mel/{num_bands}/row_sum', filters.sum(axis=1))
    rows = jnp.asarray(fixture.inputs['est_mags'][0].reshape(1, -1, 257))  # the memory, as the original code reads it
    fixture.check(f'lms/est_mags0_log_mel_{num_bands}', log_mel.log_mel(rows, num_bands)[0])


@pytest.mark.parity
def test_released_loss_of_magnitudes():
    fixture = reference.load('losses')
    (mean, values), gradient = of_magnitudes(*(frames_first(fixture.inputs[key]) for key in ('est_mags', 'clean_mags')))
    fixture.check('item/LMS_of_magnitudes', values)
    fixture.check('term/LMS_of_magnitudes', mean)
    fixture.check('term/LMS_of_magnitudes/grad', frames_first(gradient))


@pytest.mark.parity
def test_released_loss_of_waveforms():
    fixture = reference.load('losses')
    (mean, values), gradient = of_waveforms(fixture.inputs['est'], fixture.inputs['label'])
    fixture.check('item/LMS', values)
    fixture.check('term/LMS', mean)
    fixture.check('term/LMS/grad', gradient)


@pytest.mark.parity
def test_golden_loss_of_magnitudes():
    golden = reference.load_golden('dccrn/lms_magnitudes.npz')
    (mean, _), gradient = of_magnitudes(frames_first(golden['est_mags']), frames_first(golden['clean_mags']))
    golden.check('value', mean)
    golden.check('grad_est_mags', frames_first(gradient))


@pytest.mark.parity
def test_golden_loss_of_speech():
    golden = reference.load_golden('dccrn/losses.npz')
    (mean, values), gradient = of_waveforms(golden['est'], golden['label'])
    golden.check('LMS/per_item', values)
    golden.check('LMS/value', mean)
    golden.check('LMS/grad_strided', gradient[:, ::int(golden['grad_stride'])])
    golden.check('LMS/grad_norm', np.linalg.norm(np.asarray(gradient, np.float64), axis=1))


@pytest.mark.parametrize(('scrambled', 'expected'), [(False, 0.84864), (True, 0.84243)])
def test_voicebank_example(scrambled, expected):
    """p232_001, noisy against clean; the values come from the original code, corrected and as released."""
    noisy, clean = (magnitudes(jnp.asarray(x)[None]) for x in reference.known_recording())
    np.testing.assert_allclose(rmse(noisy, clean, released=scrambled), [expected], atol=1e-5)


@pytest.mark.parametrize(('power', 'expected'), [(False, np.log(2)), (True, 2 * np.log(2))])
def test_a_gain_costs_its_logarithm(power, expected):
    _, target = random_pair()
    estimate = 2 * target
    assert all(log_mel.mel_filters(bands).sum(axis=1).min() >= 1 for bands in BANDS)  # no band is empty
    for scrambled in (False, True):
        loss = rmse(estimate, target, power=power, released=scrambled)
        np.testing.assert_allclose(loss, [expected] * 3, rtol=1e-4)
    np.testing.assert_allclose(rmse(target, target), [1e-7**0.5] * 3, rtol=1e-6)


def test_filters_act_along_frequency_unless_released():
    """The order of frames is nothing to the corrected loss; the released one mixes neighbouring frames."""
    estimate, target = random_pair()
    order = np.random.default_rng(1).permutation(7)
    for scrambled, changes in ((False, False), (True, True)):
        loss, shuffled = (rmse(estimate[:, frames], target[:, frames], released=scrambled)
                          for frames in (np.arange(7), order))
        assert np.allclose(loss, shuffled, rtol=1e-5) != changes


@pytest.mark.parametrize('power', [False, True])
def test_padding_takes_no_part_and_examples_do_not_meet(power):
    estimate, target = random_pair()
    garbage = estimate.at[1, 4:].set(jnp.nan).at[2].set(jnp.nan)
    loss, gradient = jax.jit(jax.value_and_grad(
        lambda x: rmse(x, target, jnp.array([7, 4, 0]), power=power) @ jnp.array([1.0, 3.0, 5.0])))(garbage)
    whole, short = rmse(estimate, target, power=power)[0], rmse(estimate[1:2, :4], target[1:2, :4], power=power)[0]
    np.testing.assert_allclose(loss, whole + 3 * short, rtol=1e-6)
    assert np.all(np.isfinite(gradient)) and np.any(gradient[1, 3])
    assert not np.any(gradient[1, 4:]) and not np.any(gradient[2])


@pytest.mark.parametrize('scrambled', [False, True])
def test_silence_is_finite(scrambled):
    gradient = jax.jit(jax.grad(lambda x: rmse(log_mel.magnitude_for_log(x), jnp.ones((1, 3, 257)),
                                               released=scrambled)[0]))(jnp.zeros((1, 3, 257, 2)))
    assert np.all(np.isfinite(gradient))
