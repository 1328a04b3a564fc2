"""Objectives of score models, bridges and flows: against NumPy's complex numbers, their optima and their masking."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.losses import generative
from jax_diffse.losses.generative import DataPrediction
from jax_diffse.losses.pesq_loss import pesq_loss

SIGMA = np.float32([0.1, 0.3, 0.7])


def spectra(count, seed=0, shape=(3, 6, 5, 2)):
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def as_complex(x):
    x = np.asarray(x, np.float64)
    return x[..., 0] + 1j * x[..., 1]


def sums(x):
    return 0.5 * np.sum(x, axis=(1, 2))


def test_values_of_complex_numbers():
    score, other, mean = spectra(3)
    s, z, m = (as_complex(x) for x in (score, other, mean))
    sigma = SIGMA[:, None, None].astype(np.float64)
    for found, expected in (
            (generative.score_matching(score, other, SIGMA), sums(np.abs(s * sigma + z)**2)),
            (generative.denoiser(score, other, mean, SIGMA), sums(np.abs(s * sigma**2 + z - m)**2)),
            (generative.flow_matching(score, other), sums(np.abs(s - z)**2)),
            (generative.flow_matching_mae(score, other), sums(np.abs(s - z)))):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize('weighting, expected', [
    ('1', [1, 1, 1]), ('sigma^2', [0.01, 0.09, 0.49]), ('edm', [0.02 / 1e-4, 0.1 / 9e-4, 0.5 / 49e-4])])
def test_weights_of_the_denoiser(weighting, expected):
    np.testing.assert_allclose(generative.denoiser_weight(SIGMA, weighting), expected, rtol=1e-5)


def test_the_exact_score_is_optimal():
    """-z / sigma; then the denoiser is the mean of x_t."""
    mean, noise = spectra(2)
    score, x = -noise / SIGMA[:, None, None, None], mean + SIGMA[:, None, None, None] * noise
    np.testing.assert_allclose(generative.score_matching(score, noise, SIGMA), 0, atol=1e-8)
    np.testing.assert_allclose(generative.denoiser(score, x, mean, SIGMA), 0, atol=1e-8)
    worse = 1.1 * score
    np.testing.assert_allclose(generative.denoiser(worse, x, mean, SIGMA),
                               SIGMA**2 * generative.score_matching(worse, noise, SIGMA), rtol=1e-4)


def test_data_prediction():
    """By its formula: half the mean of complex squares, and of absolute samples."""
    estimate, clean = spectra(2)
    waves = np.random.default_rng(1).standard_normal((2, 3, 700)).astype(np.float32)
    terms = DataPrediction(l1_weight=0.25, pesq_weight=2.0).terms((estimate, clean), tuple(waves))
    spectral = 0.5 * np.mean(np.abs(as_complex(estimate) - as_complex(clean))**2, axis=(1, 2))
    absolute = 0.5 * np.mean(np.abs(waves[0].astype(np.float64) - waves[1]), axis=1)
    np.testing.assert_allclose(terms['spectral'], spectral, rtol=1e-5)
    np.testing.assert_allclose(terms['l1'], absolute, rtol=1e-5)
    np.testing.assert_allclose(terms['pesq'], pesq_loss(*waves), rtol=1e-6)
    np.testing.assert_allclose(terms['loss'], spectral + 0.25 * absolute + 2 * terms['pesq'], rtol=1e-5)
    assert 'pesq' not in DataPrediction().terms((estimate, clean), tuple(waves))


def test_released_data_prediction_loses_the_waveform_term_in_batches_of_one():
    (estimate, clean), waves = spectra(2), tuple(np.random.default_rng(1).standard_normal((2, 3, 50)))
    released, ours = DataPrediction(released=True), DataPrediction()
    for count, share in ((3, 1), (1, 50)):
        batch = [tuple(x[:count] for x in pair) for pair in ((estimate, clean), waves)]
        np.testing.assert_allclose(released.terms(*batch)['l1'], ours.terms(*batch)['l1'] / share, rtol=1e-6)


def test_released_denoiser_crosses_weights():
    """Its mean over a batch is mean(w) sum(L); the mean over real examples where some do not count."""
    losses, weights = jnp.array([1.0, 2.0, 5.0]), jnp.array([3.0, 4.0, 9.0])
    found = generative.denoiser_of_batch(losses, weights, jnp.array([True, True, False]), None)
    assert np.mean(found[:2]) == pytest.approx(np.mean([3, 4]) * np.sum([1, 2]))
    spread = jax.vmap(lambda loss, weight: generative.denoiser_of_batch(
        loss[None], weight[None], jnp.array([True]), 'data')[0], axis_name='data')(losses[:2], weights[:2])
    np.testing.assert_allclose(spread, found[:2])


LOSSES = {
    'score': lambda a, b, frames: generative.score_matching(a, b, SIGMA[:len(a)], frames),
    'denoiser': lambda a, b, frames: generative.denoiser(a, b, 0 * b, SIGMA[:len(a)], frames),
    'flow': generative.flow_matching,
    'flow_mae': generative.flow_matching_mae,
    'data': lambda a, b, frames: DataPrediction().terms((a, b), (a[:, :, 0, 0], b[:, :, 0, 0]), frames, frames)['loss'],
}


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_padding_takes_no_part(loss):
    estimate, target = (jnp.asarray(x) for x in spectra(2))
    frames = jnp.array([6, 4, 0])
    garbage = estimate.at[1, 4:].set(1e3)
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(loss(x, target, frames)))(garbage)
    alone = [loss(estimate[:, :6], target, None)[0], loss(estimate[:, :4], target[:, :4], None)[1], 0.0]
    np.testing.assert_allclose(loss(garbage, target, frames), alone, rtol=1e-5)
    assert np.isfinite(value) and not np.any(gradient[1, 4:]) and not np.any(gradient[2])
    assert np.all(np.isfinite(gradient)) and np.all(gradient[0, :, 0] != 0)


def test_equal_velocities_have_finite_gradients():
    x = jnp.asarray(spectra(1)[0])
    assert not np.any(jax.grad(lambda v: jnp.sum(generative.flow_matching_mae(v, x)))(x))


@pytest.mark.parametrize('build, message', [
    (lambda: generative.denoiser_weight(SIGMA, 'sigma'), "loss_weighting must be one of .*, got 'sigma'"),
    (lambda: DataPrediction(l1_weight=-1.0), 'l1_weight: expected 0 or more, got -1'),
    (lambda: DataPrediction(pesq_weight=-0.5), 'pesq_weight: expected 0 or more, got -0.5'),
])
def test_options_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
