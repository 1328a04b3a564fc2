"""The multi-resolution distance against its formula in NumPy, on SciPy's transform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from jax_diffse.losses.multi_resolution import FLOOR, multi_resolution

jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
distance = jit(multi_resolution)
gradient = jit(jax.value_and_grad(lambda *args: jnp.sum(multi_resolution(*args))))


def waves(length, count=2, seed=0):
    return np.random.default_rng(seed).standard_normal((count, length)).astype(np.float32)


def magnitudes(x, n_fft):
    """Centred frames, reflected ends, a periodic Hann window, floored."""
    x = np.pad(x.astype(np.float64), n_fft // 2, mode='reflect')
    transform = scipy.signal.ShortTimeFFT(scipy.signal.windows.hann(n_fft, sym=False), n_fft // 4, 1)
    spec = transform.stft(x, p0=2, p1=2 + (len(x) - n_fft) // (n_fft // 4) + 1)
    return np.maximum(np.abs(spec), FLOOR)


def expected(estimate, target):
    """Yamamoto et al. (2020), eqs. 4 and 5, averaged over resolutions."""
    total = 0.0
    for n_fft in (512, 1024, 2048):
        ours, theirs = magnitudes(estimate, n_fft), magnitudes(target, n_fft)
        total += np.linalg.norm(theirs - ours) / np.linalg.norm(theirs) + np.mean(np.abs(np.log(ours / theirs)))
    return total / 3


def test_against_the_formula():
    estimate, target = waves(8192)
    found = distance(estimate[None], target[None], jnp.array([8192]))
    assert float(found[0]) == pytest.approx(expected(estimate, target), rel=1e-5)


def test_scaling_is_seen_by_both_parts():
    """c times the target: |1 - c| for the convergence and |ln c| for the log magnitudes."""
    target = waves(6000)
    found = distance(0.5 * target, target, jnp.array([6000, 5000]))
    np.testing.assert_allclose(found, np.full(2, 0.5 + np.log(2)), rtol=1e-4)


def test_equal_waveforms_are_at_distance_zero():
    assert float(distance(waves(4096), waves(4096), jnp.full(2, 4096)).max()) < 1e-3


@pytest.mark.parametrize('length', [700, 5000])
def test_padding_takes_no_part(length):
    """Neither its length nor what stands there; also in recordings shorter than a transform."""
    estimate, target = waves(length, 4).reshape(2, 2, length)
    padded = [np.concatenate([x, waves(2000, seed=1)], axis=1) for x in (estimate, target)]
    found = distance(*padded, jnp.full(2, length))
    np.testing.assert_allclose(found, distance(estimate, target, jnp.full(2, length)), rtol=1e-5)


@pytest.mark.parametrize('estimate', [0.0, 1e-4, 1.0])
def test_gradients_on_silence_are_finite(estimate):
    target, num_samples = jnp.zeros((2, 3000)), jnp.array([3000, 0])
    found, slope = gradient(jnp.full((2, 3000), estimate), target, num_samples)
    assert np.isfinite(found) and np.isfinite(slope).all()
