"""Applies a function of blocks of frames, or of samples, to signals of any length."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse import platforms


def num_blocks(num_frames, size: int, overlap: int):
    """The number of blocks of `size` frames, overlapping by `overlap`, that cover `num_frames` (int or array)."""
    further = num_frames - size if isinstance(num_frames, int) else jnp.asarray(num_frames) - size
    more = -(-further // (size - overlap))
    return 1 + (max(more, 0) if isinstance(more, int) else jnp.maximum(more, 0))


def padded(num_frames: int, size: int, overlap: int) -> int:
    """The total frames of the blocks that cover `num_frames`."""
    return size + (num_blocks(num_frames, size, overlap) - 1) * (size - overlap)


def blockwise(function: Callable, num_frames: jax.Array, size: int, overlap: int) -> Callable:
    """Makes a function that computes `[B, T, ...]` block by block and cross-fades the results where blocks overlap.

    A sampler around such a denoiser works on the whole signal, so there is one sample without seams instead of one per
    block (Bar-Tal et al., "MultiDiffusion", ICML 2023). Blocks lie at fixed places, and blocks beyond the end of an
    example have no weight, so results do not depend on padding.

    Args:
      function: `(x [R, size, ...], *others [R])` -> like x, each row independent of the others.
      num_frames: `[B]`, real frames.
      size: frames of a block.
      overlap: frames that neighbouring blocks share, at most half a block.

    Returns:
      The function `(x [B, T, ...], *others [B])` -> like x. T must be `padded(...)` of some number of frames; otherwise
      it raises a ValueError.
    """
    stride = size - overlap

    def whole(x, *others):
        batch, (count, rest) = x.shape[0], divmod(x.shape[1] - overlap, stride)
        if rest:
            raise ValueError(f'expected the frames of whole blocks of {size} that overlap by {overlap}, got '
                             f'{x.shape[1]}')
        blocks = jnp.stack([x[:, k * stride:k * stride + size] for k in range(count)], axis=1)
        rows = (blocks.reshape(batch * count, *blocks.shape[2:]), *(jnp.repeat(other, count) for other in others))
        results = _by_rows(function, rows).reshape(blocks.shape)
        active = jnp.arange(count)[None] < num_blocks(num_frames, size, overlap)[:, None]
        weight = active[:, :, None] * jnp.asarray(_fades(count, size, overlap), jnp.float32)[None]
        wide = weight.reshape(*weight.shape, *(1,) * (x.ndim - 2))
        total, weights = (_overlap_add(part, stride) for part in (wide * results, wide))
        return total / jnp.maximum(weights, 1e-8)

    return whole


def _by_rows(function, rows):
    """Computes all rows together; on CPUs one after the other, which needs the memory of one row."""
    if len(rows[0]) == 1:
        return function(*rows)

    def one_by_one(*rows):
        return jax.lax.map(lambda row: function(*(x[None] for x in row))[0], rows)

    return platforms.per_platform(one_by_one, function, *rows)


def _fades(count: int, size: int, overlap: int) -> np.ndarray:
    """Weights `[count, size]` that rise and fall linearly over the overlaps."""
    rise = np.minimum((np.arange(size) + 0.5) / max(overlap, 1), 1.0)
    weights = np.tile(rise * rise[::-1], (count, 1))
    weights[0, :size // 2], weights[-1, size // 2:] = 1.0, 1.0
    return weights


def _overlap_add(blocks, stride):
    """Adds blocks `[B, K, size, ...]` where they overlap -> `[B, (K - 1) stride + size, ...]`."""
    count, size = blocks.shape[1:3]
    length = (count - 1) * stride + size
    rest = ((0, 0),) * (blocks.ndim - 3)
    return sum(jnp.pad(blocks[:, k], ((0, 0), (k * stride, length - k * stride - size), *rest)) for k in range(count))
