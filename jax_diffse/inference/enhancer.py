"""Applies a trained system to recordings of any length, sample rate and number of channels."""

import collections
import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_diffse import audio, pretrained, runs
from jax_diffse.errors import UserError
from jax_diffse.inference import streams
from jax_diffse.inference.programs import Chunk, Programs
from jax_diffse.inference.setting import check_preceding, check_processed, check_seed, check_steps
from jax_diffse.inference.streaming import StreamingEnhancer, timing
from jax_diffse.runs import Run

CHUNK_SECONDS = 16.0


class Batch(NamedTuple):
    """Utterances that were enhanced together."""

    indices: list[int]
    stages: dict[str, list[np.ndarray]]  # stage -> [N] each
    seconds: float  # enhancement time without compilation


def load(run: str | os.PathLike | None = None, *, checkpoint: int | str = 'best',
         model: Mapping[str, Any] | None = None, preceding: str | os.PathLike | None = None,
         steps: int | None = None, seed: int = 0, chunk_seconds: float = CHUNK_SECONDS) -> 'Enhancer':
    """Loads the enhancer of a trained or converted run, or the one that comes with the package.

    Args:
      run: the folder that training or conversion wrote. Default: the packaged enhancer, with a warning in the log.
      checkpoint: 'best', 'latest' or a step.
      model: fields of config.model to override, such as those of the sampler.
      preceding: for a refiner: the run whose output it refines; its best checkpoint is used.
      steps: sampling steps, for systems that sample; default: the run's own.
      seed: of the sampler's noise.
      chunk_seconds: longer recordings are enhanced in overlapping chunks of this length; shorter chunks need less
        memory.

    Raises:
      UserError: no such run or checkpoint, settings that the system does not take, or incompatible runs.
    """
    loaded = runs.load(pretrained.or_packaged(run), step=checkpoint, model=model)
    preceding_run = None if preceding is None else runs.load(preceding)
    return Enhancer(loaded, preceding=preceding_run, steps=steps, seed=seed, chunk_seconds=chunk_seconds)


class Enhancer:
    """Enhances arrays and files with the system of a run.

    Recordings longer than `chunk_seconds` are enhanced in chunks that overlap by `overlap_seconds` and are cross-faded.
    All chunks of a recording are scaled to the level of the whole recording, channel by channel: its root mean square
    or its peak, see `System.level`.

    Random draws depend only on the seed, the utterance's id, the channel and the chunk, so the output does not depend
    on the rest of a batch.

    A refiner gets its input chunk by chunk from the system of `preceding`, at that system's default steps, or as
    `processed` in each call.

    Args:
      run: the run.
      preceding: for a refiner: the run whose output it refines.
      steps: sampling steps, for systems that sample; default: the system's own.
      seed: of the sampler's noise, 0 or more.
      chunk_seconds, overlap_seconds: see above.
      stream: enhance hop by hop, as a live stream, for a system that can stream; `__call__` and `enhance_file` only.

    Raises:
      UserError: chunks too short for their overlap, a seed out of range, steps that the system does not take, a system
        that cannot stream, or a preceding run that does not fit `run`.
    """

    def __init__(self, run: Run, *, preceding: Run | None = None, steps: int | None = None, seed: int = 0,
                 chunk_seconds: float = CHUNK_SECONDS, overlap_seconds: float = 2.0, stream: bool = False):
        if not 0 <= 2 * overlap_seconds <= chunk_seconds < math.inf or chunk_seconds < 1:
            raise UserError(f'chunk_seconds={chunk_seconds:g}: expected a number of at least 1 and at least twice '
                            f'the overlap of {overlap_seconds:g} s')
        check_seed(seed)
        check_steps(run.system, steps)
        if preceding is not None:
            check_preceding(run, preceding)
        self.run, self.preceding = run, preceding
        self.sample_rate = run.system.sample_rate
        self.steps, self.seed = steps, seed
        self.stream_timing = timing(run) if stream else None
        self._streams: dict[int, StreamingEnhancer] = {}  # number of channels -> its program
        self._chunk = round(chunk_seconds * self.sample_rate)
        self._overlap = round(overlap_seconds * self.sample_rate)
        preceding_programs = None if preceding is None else Programs(preceding, None, self._chunk, seed)
        self._programs = Programs(run, preceding_programs, self._chunk, seed)

    @property
    def compile_seconds(self) -> float:
        """Compile time so far, in seconds, including that of the preceding system and of streams."""
        return self._programs.compile_seconds + sum(stream.compile_seconds for stream in self._streams.values())

    def busy_seconds(self) -> float:
        """A clock of the time spent on enhancement, in seconds; only differences are meaningful.

        The clock excludes compilation; for streams it counts only the steps.
        """
        if self.stream_timing is not None:
            return sum(stream.step_seconds for stream in self._streams.values())
        return time.perf_counter() - self.compile_seconds

    def __call__(self, noisy: np.ndarray, sample_rate: int, *, strength: float = 1.0, utterance: str = '',
                 processed: np.ndarray | None = None) -> np.ndarray:
        """Enhances one recording.

        Args:
          noisy: `[N]` or `[N, C]`, floating point.
          sample_rate: of `noisy`, Hz. The system works at its own rate: at strength 1 the output has no content above
            half of that rate.
          strength: share of the enhanced signal in the output, 0 to 1; the rest is the input.
          utterance: id that seeds the random draws of a sampling system.
          processed: for a refiner: another enhancer's output for `noisy`, of the same shape.

        Returns:
          float32, the shape of `noisy`.

        Raises:
          UserError: `noisy` is empty, not finite, not floating point or not `[N]` or `[N, C]`; strength outside
            [0, 1]; the same faults of `processed`, another shape, or `processed` missing or given to a system that
            takes none.
        """
        source, partner = streams.from_samples(noisy, sample_rate, utterance or 'noisy'), None
        if processed is not None:
            partner = streams.from_samples(processed, sample_rate, f'{utterance} processed'.lstrip())
        self._check_pair(source, partner)
        pieces = [wet for _, wet in self._stream(source, partner, strength, utterance)]
        return np.concatenate(pieces).reshape(np.shape(noisy))

    def enhance_file(self, path: str | os.PathLike, output: str | os.PathLike, *,
                     noise: str | os.PathLike | None = None, processed: str | os.PathLike | None = None,
                     strength: float = 1.0, utterance: str = '',
                     on_progress: Callable[[float], None] = lambda seconds: None) -> float:
        """Enhances a file of any length in bounded memory; the output has its rate, channels, format and subtype.

        Args:
          path: the noisy file.
          output: the enhanced file; it appears when it is complete.
          noise: a file for the removed noise (input - output).
          processed: for a refiner: another enhancer's output for the noisy file.
          strength, utterance: see `__call__`.
          on_progress: called with the seconds of audio written since the last call.

        Returns:
          The duration in seconds.

        Raises:
          UserError: the file cannot be read, is empty or not finite, or an output cannot be written; the same faults of
            the processed file, another rate, length or number of channels, or a processed file missing or given to a
            system that takes none.
        """
        like, source = audio.info(path), streams.from_file(path)
        partner = None if processed is None else streams.from_file(processed)
        self._check_pair(source, partner)
        with contextlib.ExitStack() as stack:
            write = stack.enter_context(streams.write(output, like))
            write_noise = stack.enter_context(streams.write(noise, like)) if noise else lambda samples: None
            for dry, wet in self._stream(source, partner, strength, utterance):
                wet = audio.clipped(wet, like.subtype)
                write(wet)
                write_noise(dry - wet)
                on_progress(len(wet) / like.sample_rate)
        return like.num_samples / like.sample_rate

    def many(self, waveforms: Sequence[np.ndarray], ids: Sequence[str],
             processed: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """Enhances utterances in batches of similar length; batching does not change the results.

        Args:
          waveforms: `[N]` each, at the system's rate.
          ids: of the utterances.
          processed: for a refiner: another enhancer's output for each, of the same length.

        Returns:
          float32 `[N]` each, in the given order.

        Raises:
          UserError: a waveform or a processed one is empty or not finite; a processed one has another length, is
            missing, or is given to a system that takes none.
        """
        outputs = {i: found[-1] for indices, group in self._grouped(waveforms, ids, processed, False)
                   for i, found in zip(indices, group, strict=True)}
        return [outputs[i] for i in range(len(waveforms))]

    def stages(self, waveforms: Sequence[np.ndarray], ids: Sequence[str],
               processed: Sequence[np.ndarray] | None = None) -> dict[str, list[np.ndarray]]:
        """Like `many`, for all stages of the system (`System.enhance_stages`) at the cost of one.

        Returns:
          Stage -> float32 `[N]` each, in the system's order; the last stage is what `many` returns. For a refiner the
          first stage is 'preceding', its input.
        """
        outputs: dict[str, dict[int, np.ndarray]] = collections.defaultdict(dict)
        for batch in self.in_batches(waveforms, ids, processed):
            for stage, found in batch.stages.items():
                outputs[stage] |= zip(batch.indices, found, strict=True)
        return {stage: [found[i] for i in range(len(waveforms))] for stage, found in outputs.items()}

    def in_batches(self, waveforms: Sequence[np.ndarray], ids: Sequence[str],
                   processed: Sequence[np.ndarray] | None = None) -> Iterator[Batch]:
        """Like `stages`, but yields batches as they are computed: by length, not in the given order."""
        groups = self._grouped(waveforms, ids, processed, True)
        while True:
            started = time.perf_counter() - self.compile_seconds
            found = next(groups, None)
            if found is None:
                return
            indices, group = found
            seconds = time.perf_counter() - self.compile_seconds - started
            names = ('preceding',) * self.run.system.follows + self._programs.stages
            yield Batch(indices, {stage: [stages[s] for stages in group] for s, stage in enumerate(names)}, seconds)

    def _grouped(self, waveforms: Sequence[np.ndarray], ids: Sequence[str], processed: Sequence[np.ndarray] | None,
                 all_stages: bool) -> Iterator[tuple[list[int], list[np.ndarray]]]:
        """Indices of utterances, and the output `[K, N]` of each; K is 1, or the number of stages."""
        buckets, pieces = collections.defaultdict[int, list[int]](list), {}
        given: Sequence[np.ndarray | None] = [None] * len(waveforms) if processed is None else processed
        for i, (waveform, name, refined) in enumerate(zip(waveforms, ids, given, strict=True)):
            source, partner = streams.from_array(waveform[:, None], self.sample_rate, name), None
            if refined is not None:
                partner = streams.from_array(refined[:, None], self.sample_rate, f'{name} processed')
            self._check_pair(source, partner)
            if len(waveform) > self._chunk:
                chunks = self._chunks(source, partner, name, all_stages)
                yield [i], [np.concatenate([x.T for x in chunks], axis=1)]
            else:
                buckets[self._programs.bucket(len(waveform))].append(i)
                rms, peak = (level[0] for level in self._levels(source, partner))
                pieces[i] = Chunk(waveform, name, rms, peak, processed=refined)
        for length, members in sorted(buckets.items()):
            rows = self._programs.rows(length, len(members))
            for start in range(0, len(members), rows):
                group = members[start:start + rows]
                batch = self._programs([pieces[i] for i in group], rows, length, self.steps, all_stages)
                yield group, [batch[:, row, :len(waveforms[i])] for row, i in enumerate(group)]

    def _check_pair(self, source: streams.Stream, processed: streams.Stream | None) -> None:
        check_processed(self.run, self.preceding, processed is not None)
        if processed is not None:
            streams.check_alike(source, processed)

    def _stream(self, source: streams.Stream, processed: streams.Stream | None, strength: float,
                utterance: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Consecutive pieces (noisy, output) `[n, C]` of a recording."""
        if not 0 <= strength <= 1:
            raise UserError(f'strength={strength}: expected a number from 0 to 1')
        if self.stream_timing is None:
            enhanced = self._chunks(source, processed, utterance)
        else:
            self._measure(source)  # only for its checks
            enhanced = self._live(source.num_channels).through(self._at_own_rate(source))
        start, noisy = 0, streams.Window(source.blocks())
        for wet in streams.resampled(enhanced, self.sample_rate, source.sample_rate):
            wet = wet[:source.num_samples - start]  # resampling both ways may add a sample or two
            dry = noisy.read(start, start + len(wet))
            start += len(wet)
            yield dry, strength * wet + (1 - strength) * dry

    def _live(self, num_channels: int) -> StreamingEnhancer:
        if num_channels not in self._streams:
            self._streams[num_channels] = StreamingEnhancer(self.run, num_channels)
        return self._streams[num_channels]

    def _chunks(self, source: streams.Stream, processed: streams.Stream | None, utterance: str,
                all_stages: bool = False) -> Iterator[np.ndarray]:
        """Consecutive enhanced pieces `[n, C * K]` of a recording at the system's rate; K stages of each channel."""
        (rms, peak), channels = self._levels(source, processed), source.num_channels

        def process(chunk: np.ndarray, number: int) -> np.ndarray:
            length = self._programs.bucket(len(chunk))
            refined = [None] * channels if processed is None else chunk.T[channels:]
            pieces = [Chunk(chunk[:, c], utterance, rms[c], peak[c], c, number, refined[c]) for c in range(channels)]
            return np.concatenate([self._programs([piece], 1, length, self.steps, all_stages)[:, 0, :len(chunk)].T
                                   for piece in pieces], axis=1)

        # As channels of one stream, both get the same resampling and the same cuts.
        both = source if processed is None else streams.stack_channels(source, processed)
        window = streams.Window(self._at_own_rate(both))
        yield from streams.cross_faded(window.read, self._length(source), self._chunk, self._overlap, process)

    def _length(self, source: streams.Stream) -> int:
        """Samples at the system's rate."""
        return audio.num_resampled(source.num_samples, source.sample_rate, self.sample_rate)

    def _at_own_rate(self, source: streams.Stream) -> Iterator[np.ndarray]:
        return streams.resampled(source.blocks(), source.sample_rate, self.sample_rate)

    def _levels(self, source: streams.Stream, processed: streams.Stream | None) -> tuple[np.ndarray, np.ndarray]:
        """Checks both recordings and returns the root mean square and the peak of `source`, each `[C]`."""
        levels = self._measure(source)
        if processed is not None:
            self._measure(processed)
        return levels

    def _measure(self, source: streams.Stream) -> tuple[np.ndarray, np.ndarray]:
        """RMS and peak, each `[C]`, at the system's rate; checks that the recording is finite and not empty."""
        if not source.num_samples:
            raise UserError(f'{source.name}: no samples')
        energy, peak, count = np.zeros(source.num_channels), np.zeros(source.num_channels), 0
        for block in self._at_own_rate(source):
            energy += np.sum(np.square(block, dtype=np.float64), axis=0)
            peak = np.maximum(peak, np.max(np.abs(block), axis=0, initial=0.0))
            count += len(block)
        if not np.all(np.isfinite(energy)):
            raise UserError(f'{source.name}: holds samples that are NaN or infinite')
        return np.sqrt(energy / count), peak
