"""Functions of blocks, applied to long signals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.blocks import blockwise, num_blocks, padded

SIZE, OVERLAP = 8, 3  # blocks start at 0, 5, 10, ...
FRAMES = jnp.array([8, 12, 18])  # covered by 1, 2 and 3 blocks


def signals(num_frames: int, seed: int = 0):
    """Three examples with two numbers per frame: of any length the beginning of the same ones."""
    return np.random.default_rng(seed).standard_normal((64, 3, 2)).astype(np.float32)[:num_frames].swapaxes(0, 1)


def pointwise(x, t):
    return 2 * x + t[:, None, None]


def summed(x, t):
    """Remembers everything since the start of its block."""
    return jnp.cumsum(x, axis=1) + t[:, None, None]


def estimate(denoise, x, frames=FRAMES):
    t = jnp.arange(len(x), dtype=jnp.float32)
    return np.asarray(jax.jit(blockwise(denoise, frames, SIZE, OVERLAP))(x, t))


def test_a_denoiser_without_memory_is_the_same_in_blocks():
    x = signals(18)
    np.testing.assert_allclose(estimate(pointwise, x, jnp.full(3, 18)), pointwise(x, np.arange(3)), atol=1e-6)


def test_overlapping_estimates_are_cross_faded_linearly():
    """Three blocks: 0-7, 5-12, 10-17. The later block has 1/6, 3/6 and 5/6 of the three frames that two share."""
    x, rise = signals(18), np.array([1, 3, 5])[None, :, None] / 6
    one, two, three = (np.cumsum(x[:, s:s + 8], axis=1) + np.arange(3)[:, None, None] for s in (0, 5, 10))
    expected = np.concatenate([one[:, :5], (1 - rise) * one[:, 5:] + rise * two[:, :3], two[:, 3:5],
                               (1 - rise) * two[:, 5:] + rise * three[:, :3], three[:, 3:]], axis=1)
    np.testing.assert_allclose(estimate(summed, x, jnp.full(3, 18)), expected, atol=1e-5)


def test_padding_changes_nothing():
    """Two blocks more, with whatever in them: the estimates of every example's own blocks stay the same."""
    x, longer = signals(18), signals(28)
    own = [8, 13, 18]  # frames that the blocks of each example have
    for i, frames in enumerate(own):
        longer[i, frames:] = 1e6
    expected, actual = estimate(summed, x), estimate(summed, longer)
    for i, frames in enumerate(own):
        np.testing.assert_allclose(actual[i, :frames], expected[i, :frames], atol=1e-5)


def test_examples_do_not_depend_on_their_neighbours():
    x, other = signals(18), signals(18, seed=1)
    other[1] = x[1]
    np.testing.assert_allclose(estimate(summed, other)[1], estimate(summed, x)[1], atol=1e-5)


def test_blocks_without_overlap_are_concatenated():
    x = signals(16)
    run = jax.jit(blockwise(summed, jnp.full(3, 16), SIZE, 0))
    expected = np.cumsum(x.reshape(3, 2, 8, 2), axis=2).reshape(x.shape)
    np.testing.assert_allclose(run(x, jnp.zeros(3)), expected, atol=1e-5)


def test_frames_that_blocks_do_not_make_up_are_refused():
    with pytest.raises(ValueError, match='whole blocks of 8 that overlap by 3, got 17'):
        estimate(pointwise, signals(17))


@pytest.mark.parametrize('size, overlap', [(8, 3), (8, 4), (8, 0), (5, 1)])
def test_the_fewest_blocks_that_cover(size, overlap):
    lengths = np.arange(1, 40)
    fewest = [next(k for k in range(1, 99) if size + (k - 1) * (size - overlap) >= n) for n in lengths]
    assert [num_blocks(int(n), size, overlap) for n in lengths] == fewest
    np.testing.assert_array_equal(num_blocks(jnp.asarray(lengths), size, overlap), fewest)
    assert [padded(int(n), size, overlap) for n in lengths] == [size + (k - 1) * (size - overlap) for k in fewest]
