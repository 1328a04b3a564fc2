"""Rows of bins: `[B, T, F, C]` kept as `[B, T, M, G C]`, with G neighbouring bins in each of M rows.

TPUs keep the last axis in registers of 128 lanes: 32 channels alone would use a quarter of each register, of the memory
bandwidth and of the matrix unit. A row of four such bins fills it. What is done to single bins is done to rows with the
vector repeated, or the matrix repeated along a diagonal; a convolution over bins becomes one over rows, part of whose
kernel is zero. Variables are the same in either form. On platforms other than TPUs a row is one bin.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse import platforms

LANES = 128


class Fold(NamedTuple):
    """How the bins of an array lie in rows. Bins of the last row beyond the real ones hold anything finite."""

    bins: int  # F, real ones
    group: int = 1  # G, in a row

    @property
    def rows(self) -> int:
        """M."""
        return -(-self.bins // self.group)

    def pack(self, x: jax.Array) -> jax.Array:
        """`[B, T, F, C]` -> `[B, T, M, G C]`, zeros beyond F."""
        if self.group == 1:
            return x
        x = jnp.pad(x, ((0, 0), (0, 0), (0, self.rows * self.group - self.bins), (0, 0)))
        return x.reshape(*x.shape[:2], self.rows, -1)

    def unpack(self, x: jax.Array) -> jax.Array:
        """`[B, T, M, G C]` -> `[B, T, F, C]`."""
        return x.reshape(*x.shape[:2], self.rows * self.group, -1)[:, :, :self.bins] if self.group > 1 else x

    def mask(self, x: jax.Array, parts: int = 1) -> jax.Array:
        """Sets bins beyond the real ones to zero; `parts` arrays may lie side by side, `[B, T, M, parts G C]`."""
        if self.rows * self.group == self.bins:
            return x
        real = np.arange(self.rows * self.group).reshape(1, 1, self.rows, self.group) < self.bins
        real = np.tile(np.repeat(real, x.shape[-1] // (parts * self.group), axis=-1), parts)
        return jnp.where(real, x, jnp.zeros((), x.dtype))


Folds = tuple[Fold, Fold]  # of an operation's input and result


def filling(channels: float) -> int:
    """How many bins of so many channels, a power of two, fill the registers of a TPU; 1 on other platforms."""
    return 1 << int(max(1, LANES // channels)).bit_length() - 1 if platforms.tpu_only() else 1


def regrouped(x: jax.Array, group: int, new: int) -> jax.Array:
    """Other rows of the same bins, `[..., F / G, G C]` -> `[..., F / G', G' C]`; G' must divide F."""
    return x if group == new else x.reshape(*x.shape[:-2], x.shape[-2] * group // new, -1)


def halving(bins: Sequence[int], channels: int) -> list[Fold]:
    """How arrays lie, each of which has half the bins of the one before; the second one has so many channels.

    Its rows fill the registers, and so do the next ones if their channels are doubled. Each has rows of half as many
    bins as the one before, down to single bins.
    """
    group = filling(channels / 2)
    return [Fold(count, max(1, group >> i)) for i, count in enumerate(bins)]


def over_rows(kernel: jax.Array, group: int, padding: int, stride: int = 2,
              transposed: bool = False) -> tuple[jax.Array, int]:
    """The kernel that does to rows what `kernel` does to bins, see `convolutions.conv`.

    Rows have `group` bins where bins are more, in the input of `conv` or the result of `conv_transpose`, and
    `group / stride` on the other side, so that rows are as many.

    Args:
      kernel: `[kt, kf, C, D]`.
      group: G, a multiple of the stride.
      padding: as in `conv` and `conv_transpose`.
      stride: S, over bins.
      transposed: of `conv_transpose`.

    Returns:
      `[kt, kb, G C, G/S D]`, transposed `[kt, kb, G/S C, G D]`; the first of the kb rows that belong to row 0 of the
      other side, which may be negative.
    """
    taps, first = _taps(kernel.shape[1], group, padding, stride)
    if transposed:
        # Flipped by a product: given a reversed kernel, the compiler would reverse whole arrays in its gradient.
        flip = jnp.asarray(np.eye(kernel.shape[0])[::-1], kernel.dtype)
        kernel = jnp.einsum('ti,ijcd->tjcd', flip, kernel, precision='highest')
        taps = taps[::-1].swapaxes(1, 2)
    rows = jnp.einsum('bghj,ijcd->ibgchd', jnp.asarray(taps, kernel.dtype), kernel, precision='highest')
    kt, kb, *sizes = rows.shape
    return rows.reshape(kt, kb, sizes[0] * sizes[1], sizes[2] * sizes[3]), first


def _taps(size: int, group: int, padding: int, stride: int) -> tuple[np.ndarray, int]:
    """`[kb, G, G/S, kf]`, one where tap j of a bin at stride S falls onto a bin of row b; the first such row."""
    places = stride * np.arange(group // stride)[:, None] + np.arange(size)[None] - padding  # [G/S, kf]
    first, last = places.min() // group, places.max() // group
    bins = np.arange(first * group, (last + 1) * group).reshape(-1, group)
    return (bins[:, :, None, None] == places[None, None]).astype(np.float32), int(first)
