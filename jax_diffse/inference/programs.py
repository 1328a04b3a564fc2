"""Chunks of recordings in batches of equal length, and the compiled programs that enhance them."""

import functools
import time
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from jax_diffse.errors import UserError
from jax_diffse.runs import Run
from jax_diffse.systems.base import System, Variables


class Chunk(NamedTuple):
    """One row of a program: a chunk of one channel of an utterance."""

    samples: np.ndarray  # [N]
    utterance: str
    rms: float  # of the whole channel
    peak: float  # of the whole channel
    channel: int = 0
    chunk: int = 0
    processed: np.ndarray | None = None  # [N], another enhancer's output, if given


class Programs:
    """The system of a run, compiled for each shape of batches on first use.

    Args:
      run: the run.
      preceding: the programs of the run whose output this one refines.
      longest: samples of a chunk, at most.
      seed: of the noise of systems that sample.
    """

    def __init__(self, run: Run, preceding: 'Programs | None', longest: int, seed: int):
        self.run = run
        self.stages: tuple[str, ...] = ()  # of the system, in order; known after the first compilation
        self._preceding, self._longest, self._seed = preceding, longest, seed
        self._compile_seconds = 0.0
        self.compiled = {}  # (rows, samples, steps, whether it returns all stages) -> program

    @property
    def compile_seconds(self) -> float:
        """Compile time so far, including that of the preceding system."""
        return self._compile_seconds + (self._preceding.compile_seconds if self._preceding else 0.0)

    def rows(self, length: int, count: int) -> int:
        """Rows of a batch, equally many on all devices; a device gets about as many samples as the longest chunk has.

        The rows spread `count` chunks evenly over the batches, because an empty row costs as much as any other.
        """
        devices = jax.local_device_count()
        batches = -(-count // (max(1, self._longest // length) * devices))
        return -(-count // (batches * devices)) * devices

    def bucket(self, num_samples: int) -> int:
        """The padded length: 1, 2, 3, 4, 6, 9 ... seconds, up to the longest chunk. Each length needs a compilation."""
        seconds, rate = 1, self.run.system.sample_rate
        while seconds * rate < num_samples:
            seconds = max(seconds + 1, seconds * 3 // 2)
        return min(seconds * rate, self._longest)

    def __call__(self, chunks: Sequence[Chunk], rows: int, length: int, steps: int | None,
                 all_stages: bool) -> np.ndarray:
        """Enhances up to `rows` chunks of up to `length` samples.

        Returns:
          `[K, rows, length]`: the output, or all stages in order, preceded by a refiner's input.

        Raises:
          UserError: the output is not finite.
        """
        if not self.run.system.follows:
            return self._enhanced(chunks, None, rows, length, steps, all_stages)
        if self._preceding:
            processed = self._preceding(chunks, rows, length, None, False)[0]
        else:
            processed = np.zeros((rows, length), np.float32)
            for i, chunk in enumerate(chunks):
                processed[i, :len(chunk.processed)] = chunk.processed
        refined = self._enhanced(chunks, processed, rows, length, steps, all_stages)
        return np.concatenate([processed[None], refined]) if all_stages else refined

    def _enhanced(self, chunks: Sequence[Chunk], processed: np.ndarray | None, rows: int, length: int,
                  steps: int | None, all_stages: bool) -> np.ndarray:
        """Enhances chunks with the run's own system, in one program -> `[K, rows, length]`."""
        noisy, num_samples = np.zeros((rows, length), np.float32), np.zeros(rows, np.int32)
        seeds, level = np.zeros((rows, 4), np.uint32), np.zeros(rows, np.float32)
        of_peak = self.run.system.level == 'peak'
        for i, chunk in enumerate(chunks):
            noisy[i, :len(chunk.samples)], num_samples[i] = chunk.samples, len(chunk.samples)
            level[i] = chunk.peak if of_peak else chunk.rms
            seeds[i] = self._seed, zlib.crc32(chunk.utterance.encode()), chunk.channel, chunk.chunk
        if not noisy.any() and (self.stages or not all_stages):  # else only the program knows the stages
            return np.zeros((len(self.stages) if all_stages else 1, rows, length), np.float32)
        program = self._program(rows, length, steps, all_stages)
        enhanced = np.array(program(noisy, num_samples, level, seeds, processed))
        for i, chunk in enumerate(chunks):
            if not np.all(np.isfinite(enhanced[:, i])):
                raise UserError(f'{chunk.utterance or "noisy"}: the system gave NaN or infinity; is the checkpoint of '
                                f'step {self.run.step} of {self.run.workdir} sound?')
        return enhanced

    def _program(self, rows: int, length: int, steps: int | None, all_stages: bool):
        """The compiled system for `[rows, length]`; it returns all stages or only the last, `[K, rows, length]`."""
        kind = rows, length, steps, all_stages
        if kind not in self.compiled:
            system, started = self.run.system, time.perf_counter()

            def program(variables, noisy, num_samples, level, seeds, processed):
                found = enhance_chunks(system, variables, Rows(noisy, num_samples, level, seeds, processed), steps)
                self.stages = tuple(found)  # jit would sort the keys of a returned dict
                return jnp.stack(list(found.values())[0 if all_stages else -1:])

            everywhere, split = _placement(rows)
            variables = jax.device_put(self.run.variables, everywhere)
            arguments = [jax.ShapeDtypeStruct(shape, dtype, sharding=split) for shape, dtype in (
                ((rows, length), jnp.float32), ((rows,), jnp.int32), ((rows,), jnp.float32), ((rows, 4), jnp.uint32))]
            processed = arguments[0] if system.follows else None
            compiled = jax.jit(program).lower(variables, *arguments, processed).compile()
            self.compiled[kind] = functools.partial(compiled, variables)
            self._compile_seconds += time.perf_counter() - started
        return self.compiled[kind]


class Rows(NamedTuple):
    """Chunks of recordings as a program takes them."""

    noisy: jax.Array  # [B, N], zero beyond num_samples
    num_samples: jax.Array  # [B]
    level: jax.Array  # [B], of the whole recording that a chunk belongs to: RMS or peak, see `System.level`
    seeds: jax.Array  # [B, 4] uint32, for the random draws: seed, hash of the utterance's id, channel and chunk
    processed: jax.Array | None = None  # [B, N], for refiners


def enhance_chunks(system: System, variables: Variables, rows: Rows, steps: int | None) -> dict[str, jax.Array]:
    """Applies `System.enhance_stages` to chunks of recordings; digital silence stays silent.

    Args:
      system, variables: of the run.
      rows: the chunks.
      steps: sampling steps, for systems that sample.

    Returns:
      Stage -> `[B, N]`, in the system's order.
    """
    gain = system.gain(rows.level[:, None], jnp.ones(len(rows.noisy)))  # one sample's RMS and peak are its magnitude
    found = system.enhance_stages(variables, rows.noisy, rows.num_samples, jax.vmap(_key)(rows.seeds), gain=gain,
                                  steps=steps, processed=rows.processed)
    sound = jnp.any(rows.noisy != 0, axis=1, keepdims=True)
    return {stage: jnp.where(sound, waveform, 0.0) for stage, waveform in found.items()}


def _placement(rows: int) -> tuple[jax.sharding.Sharding, jax.sharding.Sharding]:
    """Shardings of variables and rows: all local devices if they divide the rows evenly, else the first."""
    devices = jax.local_devices()
    if rows % len(devices):
        return (SingleDeviceSharding(devices[0]),) * 2
    mesh = jax.make_mesh((len(devices),), ('data',), (AxisType.Auto,), devices=devices)
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec('data'))


def _key(seed: jax.Array) -> jax.Array:
    """The key of (seed, utterance, channel, chunk) `[4]`."""
    key = jax.random.key(seed[0])
    for number in seed[1:]:
        key = jax.random.fold_in(key, number)
    return key
