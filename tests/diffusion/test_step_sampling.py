"""Drawing of training steps: by hand, and against the authors' resampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.diffusion.step_sampling import SecondMoment, grid
from tests import reference

THREE = SecondMoment(3, history=2, uniform=0.1)


def after(sampler: SecondMoment, t, losses):
    return jax.jit(sampler.update)(sampler.start(), jnp.asarray(t, jnp.int32), jnp.asarray(losses, jnp.float32))


def test_steps_are_uniform_until_all_have_their_history():
    """Then in proportion to sqrt(mean(L^2)), here 5, 1 and 2 of the last two losses, nine tenths of the probability."""
    t, losses = [0, 1, 2, 0, 1, 1, 2], [7.0, 9.0, 2.0, 1.0, 1.0, 1.0, 2.0]
    np.testing.assert_allclose(THREE.probabilities(THREE.start()), [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_allclose(THREE.probabilities(after(THREE, t[:-1], losses[:-1])), [1 / 3] * 3, rtol=1e-6)
    state = after(THREE, t, losses)
    np.testing.assert_allclose(THREE.probabilities(state), 0.9 * np.array([5, 1, 2]) / 8 + 0.1 / 3, rtol=1e-6)


def test_losses_of_a_batch_are_seen_one_after_the_other():
    """The same step several times in a batch: all its losses count, the latest last, the oldest forgotten."""
    state = after(THREE, [1, 1, 0, 1], [5.0, 6.0, 8.0, 7.0])
    np.testing.assert_array_equal(state['losses'], [[0, 8], [6, 7], [0, 0]])
    np.testing.assert_array_equal(state['counts'], [1, 2, 0])


LEARNT = [0, 0, 1, 1, 2, 2], [9.0, 9.0, 1.0, 1.0, 3.0, 3.0]
KEYS = jax.random.split(jax.random.key(0), 5000)
draw = jax.jit(THREE.draw)


def test_weights_keep_the_mean():
    """The expectation of weight times loss is the mean over all steps: p_t weight_t = 1 / T for every t."""
    state = after(THREE, *LEARNT)
    t, weight = draw(state, KEYS)
    assert set(np.asarray(t)) == {0, 1, 2}
    np.testing.assert_allclose(THREE.probabilities(state)[t] * weight, 1 / 3, rtol=1e-6)


def test_drawn_steps_have_these_probabilities():
    """Within four standard errors, by hand."""
    p = 0.9 * np.array([9, 1, 3]) / 13 + 0.1 / 3
    t, _ = draw(after(THREE, *LEARNT), KEYS)
    found = np.bincount(t, minlength=3) / len(KEYS)
    assert np.all(np.abs(found - p) < 4 * np.sqrt(p * (1 - p) / len(KEYS)))


def test_a_draw_depends_on_its_own_key_alone():
    state = after(THREE, *LEARNT)
    np.testing.assert_array_equal(draw(state, KEYS[::-1])[0], draw(state, KEYS)[0][::-1])


def test_losses_that_vanish_do_not_divide_by_zero():
    t, weight = draw(after(THREE, LEARNT[0], np.zeros(6)), KEYS)
    assert np.all((np.asarray(t) >= 0) & (np.asarray(t) < 3)) and np.all(np.isfinite(weight))


def test_the_grid_of_validation():
    """Middles of four equal parts of a hundred steps, by turns."""
    np.testing.assert_array_equal(grid(jnp.arange(6), 100, 4), [12, 37, 62, 87, 12, 37])


@pytest.mark.parity
@pytest.mark.parametrize('name, count', [('cold', 99), ('warm', 120)])
def test_released_probabilities(name, count):
    """The authors draw by their weights, normalised; ones until every step has ten losses, which at 99 one has not."""
    fixture, ten = reference.load('diffiner'), SecondMoment(10)
    losses = np.abs(fixture.inputs['losses'])[:count]
    state = after(ten, np.arange(count) % 10, losses)
    weights = fixture[f'resampler/{name}']
    np.testing.assert_allclose(ten.probabilities(state), weights / np.sum(weights), rtol=1e-5)
    assert (np.ptp(weights) == 0) == (name == 'cold')
