"""Live enhancement: blocks of samples in, blocks of samples out."""

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse import pretrained, runs
from jax_diffse.errors import UserError
from jax_diffse.runs import Run
from jax_diffse.systems.base import Streaming, Variables

UNKNOWN_END = 1 << 30  # hops of a recording that is still running: 77 days at 100 samples and 16 kHz


class Timing(NamedTuple):
    """The algorithmic delay of a streaming system, in seconds; the compute time of a hop comes on top."""

    look_ahead: float  # input further ahead changes an output sample by less than 1e-4
    latency: float  # from input to output of a sample, at most: the look-ahead plus the wait for complete hops


def timing(run: Run) -> Timing:
    """Returns the delays of a run's system.

    Raises:
      UserError: the system cannot stream.
    """
    system = _streaming(run)
    return Timing(system.look_ahead / system.sample_rate, (system.delay + 1) * system.hop / system.sample_rate)


def _streaming(run: Run) -> Streaming:
    if not isinstance(run.system, Streaming):
        raise UserError(f'{run.workdir}: {type(run.system).__name__} needs the whole recording and cannot stream; use '
                        'a DCCRN run, or enhance whole files')
    return run.system


def load(run: str | os.PathLike | None = None, *, num_channels: int = 1,
         checkpoint: int | str = 'best') -> 'StreamingEnhancer':
    """Loads the streaming enhancer of a trained or converted run, or the one that comes with the package.

    Args:
      run: the folder that training or conversion wrote. Default: the packaged enhancer, which a line of the log says.
      num_channels: of the recordings.
      checkpoint: 'best', 'latest' or a step.

    Raises:
      UserError: no such run or checkpoint, or its system cannot stream.
    """
    return StreamingEnhancer(runs.load(pretrained.or_packaged(run), step=checkpoint), num_channels)


class StreamingEnhancer:
    """Enhances a recording block by block, each channel independently.

    The outputs of `__call__` followed by that of `flush` equal what `Enhancer` returns for the whole recording, unless
    the recording is longer than a chunk: `Enhancer` cross-fades chunks.

    Attributes:
      sample_rate: of the samples, Hz.
      hop: samples that are enhanced at a time; blocks of other sizes are buffered until a hop is complete.
      look_ahead_seconds, latency_seconds: see `Timing`.
      compile_seconds: compile time; the constructor compiles, before the first sample.
      step_seconds: time spent on enhancing hops so far.
    """

    def __init__(self, run: Run, num_channels: int = 1):
        self.look_ahead_seconds, self.latency_seconds = timing(run)
        if num_channels < 1:
            raise UserError(f'num_channels={num_channels}: expected 1 or more')
        self.run, self.num_channels = run, num_channels
        self._system = system = _streaming(run)
        self.sample_rate, self.hop = system.sample_rate, system.hop
        self.step_seconds = 0.0
        started = time.perf_counter()
        self._start = jax.jit(lambda: system.stream_start(num_channels))
        self._program = _compiled(system, run.variables, num_channels)
        self.compile_seconds = time.perf_counter() - started
        self._state: Any = None
        self._pending: np.ndarray = np.zeros((0, num_channels), np.float32)
        self._hops = self._num_samples = 0
        self.reset()

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Takes the next samples of the recording and returns the next final ones.

        Args:
          block: `[n]` (one channel) or `[n, C]`, floating point, n >= 0.

        Returns:
          `[m]` or `[m, C]` float32, like `block`; m is 0 until the look-ahead is filled. `flush` returns the rest.

        Raises:
          UserError: `block` is not finite, not floating point or of another shape; the state is then unchanged. Also if
            the system gives NaN or infinity.
        """
        block = self._checked(block)
        samples = np.concatenate([self._pending, block.reshape(-1, self.num_channels)])
        self._ndim, self._num_samples = block.ndim, self._num_samples + len(block)
        ready = len(samples) - len(samples) % self.hop
        self._pending = samples[ready:]
        return self._enhanced(samples[:ready], UNKNOWN_END)

    def flush(self) -> np.ndarray:
        """Ends the recording, returns its remaining samples like `__call__`, and resets the state."""
        delay, hops = self._system.delay, -(-self._num_samples // self.hop)
        left = self._num_samples - max(0, self._hops - delay) * self.hop
        rest = np.zeros(((hops + delay - self._hops) * self.hop if left else 0, self.num_channels), np.float32)
        rest[:len(self._pending)] = self._pending
        enhanced = self._enhanced(rest, hops)[:left]
        self.reset()
        return enhanced

    def reset(self) -> None:
        """Drops the recording and its remaining samples; the next block starts a new one."""
        self._state, self._hops, self._num_samples = self._start(), 0, 0
        self._pending = np.zeros((0, self.num_channels), np.float32)
        self._ndim = 1 if self.num_channels == 1 else 2  # of the returned arrays: that of the last block

    def through(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Enhances one whole recording: blocks `[n, C]` in, blocks with at least one sample out."""
        self.reset()
        for block in blocks:
            enhanced = self(block)
            if len(enhanced):
                yield enhanced
        rest = self.flush()
        if len(rest):
            yield rest

    def _checked(self, block: np.ndarray) -> np.ndarray:
        block, shape = np.asarray(block), f'[samples, {self.num_channels}]'
        if block.shape[1:] != (self.num_channels,) and not (block.ndim == self.num_channels == 1):
            expected = f'[samples] or {shape}' if self.num_channels == 1 else shape
            raise UserError(f'block: expected the shape {expected}, got {list(block.shape)}')
        if not np.issubdtype(block.dtype, np.floating):
            raise UserError(f'block: expected floating-point samples in [-1, 1], got {block.dtype}; divide integers by '
                            'their full scale')
        block = block.astype(np.float32, copy=False)
        if not np.all(np.isfinite(block)):
            raise UserError('block: holds samples that are NaN or infinite')
        return block

    def _enhanced(self, samples: np.ndarray, num_hops: int) -> np.ndarray:
        """Complete hops of samples `[n, C]` -> the samples that are final now."""
        started, outputs = time.perf_counter(), [np.zeros((0, self.num_channels), np.float32)]
        early = max(0, self._system.delay - self._hops) * self.hop  # output before the first sample
        for hop in samples.reshape(-1, self.hop, self.num_channels):
            output, self._state = self._program(self._state, np.ascontiguousarray(hop.T),
                                                np.full(self.num_channels, num_hops, np.int32))
            outputs.append(np.asarray(output).T)
            self._hops += 1
        self.step_seconds += time.perf_counter() - started
        enhanced = np.concatenate(outputs)[early:]
        if not np.all(np.isfinite(enhanced)):
            raise UserError(f'{self.run.workdir}: the system gave NaN or infinity; is the checkpoint of step '
                            f'{self.run.step} sound?')
        return enhanced if self._ndim == 2 else np.asarray(enhanced[:, 0])


def _compiled(system: Streaming, variables: Variables, num_channels: int) -> jax.stages.Compiled:
    """(state, samples `[C, hop]`, num_hops `[C]`) -> samples `[C, hop]` and the new state; the old one is donated.

    The variables are constants of the program: the compiler then lays them out once instead of at every hop, which
    halves the time.
    """
    def step(state: Any, samples: jax.Array, num_hops: jax.Array) -> tuple[jax.Array, Any]:
        return system.stream_step(variables, state, samples, num_hops)

    state = jax.eval_shape(lambda: system.stream_start(num_channels))
    return jax.jit(step, donate_argnums=0).lower(
        state, jax.ShapeDtypeStruct((num_channels, system.hop), jnp.float32),
        jax.ShapeDtypeStruct((num_channels,), jnp.int32)).compile()
