"""Spectral regression losses: against the original PyTorch code (fixtures), and their masking."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.losses import regression
from tests import reference

RELEASED = {'com_mse_loss': regression.complex_mse, 'com_mag_mse_loss': regression.ri_mag}
LOSSES = (regression.complex_mse, regression.magnitude_mse, regression.ri_mag)


def to_jax(spec):
    return jnp.moveaxis(jnp.asarray(spec), 1, -1)


def batch_loss(loss, estimate, target, num_frames):
    """The mean over all real entries of the batch, as the released code takes it."""
    return jnp.sum(loss(estimate, target, num_frames) * num_frames) / jnp.sum(num_frames)


def check(fixture, name, estimate, target, frames, gradient_key):
    value, gradient = jax.value_and_grad(
        lambda x: batch_loss(RELEASED[name], x, to_jax(target), jnp.asarray(frames)))(to_jax(estimate))
    fixture.check(name if name in fixture else f'losses/{name}', value)
    fixture.check(gradient_key, jnp.moveaxis(gradient, -1, 1))


@pytest.mark.parity
@pytest.mark.parametrize('name', RELEASED)
def test_released_losses_and_gradients(name):
    fixture = reference.load('dr_diffuse_nets')
    estimate, target, frames = (fixture.inputs[f'losses/{key}'] for key in ('esti', 'label', 'frame_list'))
    check(fixture, name, estimate, target, frames, f'losses/{name}_grad')


@pytest.mark.parity
@pytest.mark.parametrize('name', RELEASED)
def test_golden_losses_and_gradients(name):
    golden = reference.load_golden('dr_diffuse/losses.npz')
    check(golden, name, golden['esti'], golden['label'], golden['frame_list'], f'{name}_grad_esti')


@pytest.mark.parametrize('loss', LOSSES)
def test_padding_takes_no_part(loss):
    rng = np.random.default_rng(0)
    estimate, target = (jnp.asarray(rng.standard_normal((2, 7, 5, 2)), jnp.float32) for _ in range(2))
    frames = jnp.array([7, 4])
    garbage = estimate.at[1, 4:].set(jnp.nan)
    np.testing.assert_allclose(loss(garbage, target, frames)[1], loss(estimate[1:, :4], target[1:, :4])[0], rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(loss(x, target, frames)))(estimate)
    assert not np.any(gradient[1, 4:]) and np.all(gradient[0] != 0)


@pytest.mark.parametrize('loss', LOSSES)
def test_examples_do_not_meet(loss):
    rng = np.random.default_rng(1)
    estimate, target = (jnp.asarray(rng.standard_normal((3, 4, 5, 2)), jnp.float32) for _ in range(2))
    frames = jnp.array([4, 2, 3])
    alone = [loss(estimate[i:i + 1], target[i:i + 1], frames[i:i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(loss(estimate, target, frames), alone, rtol=1e-6)


def test_values_by_hand():
    estimate = jnp.array([3.0, 4.0]).reshape(1, 1, 1, 2)  # magnitude 5
    target = jnp.array([0.0, 1.0]).reshape(1, 1, 1, 2)  # magnitude 1
    np.testing.assert_allclose(regression.complex_mse(estimate, target), [(9 + 9) / 2])
    np.testing.assert_allclose(regression.magnitude_mse(estimate, target), [16])
    np.testing.assert_allclose(regression.ri_mag(estimate, target), [(9 + 16) / 2])


@pytest.mark.parametrize('loss', LOSSES)
def test_silence_and_no_frames_are_finite(loss):
    zeros = jnp.zeros((1, 3, 4, 2))
    value, gradient = jax.value_and_grad(lambda x: loss(x, zeros, jnp.array([0]))[0])(zeros)
    assert value == 0 and not np.any(gradient)
    assert np.all(np.isfinite(jax.grad(lambda x: loss(x, zeros + 1)[0])(zeros)))
