"""Enhances raw audio from a pipe to a pipe, live; implements `jax-diffse enhance --stdin-pcm`."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jax_diffse import launch, runs
from jax_diffse.errors import UserError
from jax_diffse.inference import streams
from jax_diffse.inference.streaming import StreamingEnhancer

RATES = (1000, 384_000)  # Hz
SAMPLE = np.dtype('<i2')  # signed, 16 bits, little-endian
SCALE = 2 ** 15  # full scale
CONTAINERS = {b'RIFF': 'WAV', b'fLaC': 'FLAC', b'OggS': 'Ogg'}  # first bytes of files that are not raw


class LiveEnhancer:
    """Enhances one recording of raw PCM, block by block, and counts what the report says.

    Args:
      enhancer: for one channel.
      sample_rate: of the samples, Hz; other rates than the system's are resampled both ways.

    Attributes:
      block: samples that are best given at a time, about one hop.
      num_samples, written: samples taken and returned so far.
      latency_seconds: algorithmic, from input to output of a sample, at most; with resampling, the largest so far.
    """

    def __init__(self, enhancer: StreamingEnhancer, sample_rate: int):
        enhancer(np.zeros((enhancer.hop, 1), np.float32))  # the first call of a program is slow
        enhancer.reset()
        self._enhancer, self.sample_rate = enhancer, sample_rate
        self._before = streams.Resampler(sample_rate, enhancer.sample_rate, 1)
        self._after = streams.Resampler(enhancer.sample_rate, sample_rate, 1)
        self.block = -(-enhancer.hop * sample_rate // enhancer.sample_rate)
        self.latency_seconds = enhancer.latency_seconds
        self.num_samples = self.written = self.blocks = self.late = 0
        self.seconds = self.slowest = 0.0

    def __call__(self, data: bytes) -> bytes:
        """Takes the next samples as bytes, an even number, and returns those that are final now."""
        started = time.perf_counter()
        noisy = np.frombuffer(data, SAMPLE).astype(np.float32)[:, None] / SCALE
        self.num_samples += len(noisy)
        self.latency_seconds = max(self.latency_seconds, (self.num_samples - self.written) / self.sample_rate)
        found = self._coded(self._after(self._enhancer(self._before(noisy))))
        spent = time.perf_counter() - started
        self.blocks, self.seconds, self.slowest = self.blocks + 1, self.seconds + spent, max(self.slowest, spent)
        self.late += spent > len(noisy) / self.sample_rate
        return found

    def flush(self) -> bytes:
        """Ends the recording and returns its remaining samples; the output is then as long as the input."""
        parts = [self._after(self._enhancer(self._before.flush())), self._after(self._enhancer.flush()),
                 self._after.flush()]
        return self._coded(np.concatenate(parts))

    def _coded(self, samples):
        samples = samples[:self.num_samples - self.written]  # resampling both ways may add a sample or two
        self.written += len(samples)
        return np.clip(np.rint(samples * SCALE), -SCALE, SCALE - 1).astype(SAMPLE).tobytes()

    def report(self) -> str:
        """The latency and the processing time, in words."""
        per_block = 1000 * self.block / self.sample_rate
        lines = [f'live: {self.num_samples / self.sample_rate:.2f} s at {self.sample_rate} Hz on {launch.cores()}; '
                 f'algorithmic latency {1000 * self.latency_seconds:.4g} ms']
        if self.blocks:
            lines.append(f'processing: {1000 * self.seconds / self.blocks:.2f} ms per block of {per_block:.4g} ms on '
                         f'average, {1000 * self.slowest:.2f} ms at most; {self.late} of {self.blocks} blocks took '
                         'longer than they last')
        return '\n'.join(lines)


def enhance_pcm(workdir: str | os.PathLike, sample_rate: int, *, checkpoint: int | str = 'best',
                model: Mapping[str, Any] | None = None) -> None:
    """Enhances raw PCM from standard input to standard output until the input ends or the output is closed.

    Both are one channel of signed 16-bit little-endian samples. Nothing else goes to standard output; the report goes
    to standard error, also after Ctrl-C.

    Args:
      workdir: the run, or `pretrained.NAME`.
      sample_rate: of input and output, Hz.
      checkpoint: 'best', 'latest' or a step.
      model: fields of config.model to override.

    Raises:
      UserError: a rate out of range, standard input or output is a terminal or closed, no such run, a system that
        cannot stream, or an input that starts like an audio file.
    """
    if not RATES[0] <= sample_rate <= RATES[1]:
        raise UserError(f'--stdin-pcm={sample_rate}: expected a sample rate from {RATES[0]} to {RATES[1]} Hz')
    _check_pipes()
    with _output() as write:
        run = runs.load(workdir, step=checkpoint, model=model or {})
        live = LiveEnhancer(StreamingEnhancer(run), sample_rate)
        odd = False
        try:
            odd = _through(live, write)
        except BrokenPipeError:
            pass  # whoever reads has enough
        except KeyboardInterrupt:
            _tell(live.report())
            raise
        _tell(live.report())
        if odd:
            _tell('live: the input ends within a sample; its last byte was dropped')


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _through(live: LiveEnhancer, write) -> bool:
    """Reads, enhances and writes until the end of the input -> whether a byte was left over."""
    size = live.block * SAMPLE.itemsize
    data = _read(size)
    if data[:4] in CONTAINERS:
        raise UserError(f'--stdin-pcm: standard input is a {CONTAINERS[data[:4]]} file, expected raw 16-bit samples, '
                        'such as those of sox in.wav -t raw -')
    while len(data) == size:
        write(live(data))
        data = _read(size)
    even = len(data) - len(data) % SAMPLE.itemsize
    if even:
        write(live(data[:even]))
    write(live.flush())
    return even < len(data)


def _read(size: int) -> bytes:
    """The next bytes of standard input; fewer than `size` only at its end."""
    found = b''
    while len(found) < size and (part := os.read(0, size - len(found))):
        found += part
    return found


def _check_pipes() -> None:
    for stream, descriptor, words in ((sys.stdin, 0, 'input'), (sys.stdout, 1, 'output')):
        if stream is None:
            raise UserError(f'--stdin-pcm: standard {words} is closed, expected a pipe or a file')
        if os.isatty(descriptor):
            raise UserError(f'--stdin-pcm: standard {words} is a terminal, expected raw samples through a pipe, as in '
                            'sox in.wav -t raw - | jax-diffse enhance ... | play -t raw ... -')


@contextlib.contextmanager
def _output() -> Iterator:
    """Keeps standard output for samples: yields a function that writes bytes to it; prints go to standard error."""
    sys.stdout.flush()
    samples = os.dup(1)
    os.dup2(2, 1)

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(samples, data):]

    try:
        yield write
    finally:
        sys.stdout.flush()
        os.dup2(samples, 1)
        os.close(samples)
