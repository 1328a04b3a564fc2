"""Exports a run as one file that needs only JAX, for a set of platforms; see docs/export.md."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import jax
import jax.export
import jax.numpy as jnp

from jax_diffse import files, platforms
from jax_diffse.errors import UserError
from jax_diffse.inference.programs import Rows, enhance_chunks
from jax_diffse.inference.setting import check_preceding, check_steps
from jax_diffse.runs import Run
from jax_diffse.spectral import mask_frames

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def export(run: Run, targets: Sequence[str] = ('cpu', 'cuda', 'tpu'), *, chunk_seconds: float = 4.0, batch: int = 1,
           steps: int | None = None, preceding: Run | None = None) -> jax.export.Exported:
    """Traces the enhancer of a run for signals of one length and lowers it, with its weights, for several platforms.

    The function is `(noisy [B, N] float32, num_samples [B] int32, seed uint32) -> enhanced [B, N] float32`. Each row is
    a separate recording of 1 to N samples, enhanced at its own level; samples beyond `num_samples` are ignored, and
    zero in the output. For systems that sample, the seed and the row determine the noise: it equals that of
    `Enhancer(run, seed=seed)` for chunk number `row` of a recording without a name.

    Args:
      run: the run to export.
      targets: some of `PLATFORMS`; none of them is needed here.
      chunk_seconds: N, in seconds.
      batch: B, rows.
      steps: sampling steps, for systems that sample.
      preceding: for a refiner: the run whose output it refines, at its default steps. Without it the function of a
        refiner takes that output as a fourth argument, `[B, N]` float32.

    Raises:
      UserError: an unknown platform or number of steps, no rows, no samples, or incompatible runs.
    """
    system = run.system
    for name in targets:
        if name not in PLATFORMS:
            raise UserError(f'--platforms: unknown platform {name!r}, expected some of {",".join(PLATFORMS)}')
    if batch < 1:
        raise UserError(f'--batch={batch}: expected at least 1')
    if not math.isfinite(chunk_seconds) or round(chunk_seconds * system.sample_rate) < 1:
        raise UserError(f'--chunk-seconds={chunk_seconds:g}: expected a length of at least one sample')
    check_steps(system, steps)
    if preceding is not None:
        check_preceding(run, preceding)

    shape = (batch, round(chunk_seconds * system.sample_rate))
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32),
                 jax.ShapeDtypeStruct((), jnp.uint32)]
    if system.follows and preceding is None:
        arguments.append(arguments[0])
    with platforms.exporting(targets):
        return jax.export.export(jax.jit(_function(run, preceding, steps)), platforms=targets)(*arguments)


def _function(run: Run, preceding: Run | None, steps: int | None) -> Callable[..., jax.Array]:
    """The function to export; its name has the sample rate, as JAX's messages show the name."""
    def enhance(noisy, num_samples, seed, processed=None):
        noisy = mask_frames(noisy, num_samples)
        rms = jnp.sqrt(jnp.sum(noisy**2, axis=1) / jnp.maximum(num_samples, 1))
        peak = jnp.max(jnp.abs(noisy), axis=1)
        rows = jnp.arange(len(noisy), dtype=jnp.uint32)
        zeros = jnp.zeros_like(rows)  # the hash of no name, and the first channel
        seeds = jnp.stack([jnp.broadcast_to(seed, rows.shape), zeros, zeros, rows], axis=1)

        def enhanced(run, processed=None, steps=None):
            level = peak if run.system.level == 'peak' else rms
            chunks = Rows(noisy, num_samples, level, seeds, processed)
            stages = enhance_chunks(run.system, run.variables, chunks, steps)
            return list(stages.values())[-1]

        if preceding is not None:
            processed = enhanced(preceding)
        elif processed is not None:
            processed = mask_frames(processed, num_samples)
        return enhanced(run, processed, steps)

    enhance.__name__ = f'enhance_at_{run.system.sample_rate}_hz'
    return enhance


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Opens a file for an export; it appears under its name when the block ends without an error.

    Raises:
      UserError: the file cannot be written.
    """
    if files.is_folder(path):
        raise UserError(f'{path}: is a folder, expected the name of a file')
    try:
        with files.atomic_write(path) as partial, open(partial, 'wb') as file:
            yield file
    except OSError as error:
        raise UserError(files.unwritable(path, error)) from error

