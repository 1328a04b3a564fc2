"""Reads files that any system made, beside their clean speech: rates, channels, lengths and offsets."""

import concurrent.futures
import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from jax_diffse import audio
from jax_diffse.audio import AudioInfo
from jax_diffse.errors import UserError
from jax_diffse.evaluation import alignment

THREADS = 16  # that read files; those of object storage mostly wait
RATES = (1000, 768_000)  # Hz, that files may be resampled to


class Signal(NamedTuple):
    """A signal to score."""

    samples: np.ndarray | None  # [N]; None: the file cannot be read
    clean: np.ndarray | None = None  # [N]; None: only metrics without a reference are defined
    reason: str = ''  # why there is no clean speech or no signal
    offset: int = 0  # samples by which the file is later than the clean speech
    excess: int = 0  # samples by which the file is longer than the clean speech
    noisy: np.ndarray | None = None  # [N], if a metric needs the noise

    @property
    def key(self) -> str:
        """A hash of what the scores depend on, beside the rate."""
        digest = hashlib.sha256()
        for samples in (self.clean, self.samples, *(() if self.noisy is None else (self.noisy,))):
            content = b'' if samples is None else np.ascontiguousarray(samples, np.float32).tobytes()
            digest.update(b'%d:' % len(content) + content)
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Reading:
    """How files are read and compared.

    Attributes:
      sample_rate: of all signals, Hz.
      resample: resample files of other rates.
      channel: the channel of files with several, from 1 on; None: such files are refused.
      align: remove offsets from the clean speech.
      tolerance: the largest difference in length to the clean speech, in seconds; the longer signal is cut.

    Raises:
      UserError: a value out of range.
    """

    sample_rate: int
    resample: bool = False
    channel: int | None = None
    align: bool = False
    tolerance: float = 0.25

    def __post_init__(self) -> None:
        if not RATES[0] <= self.sample_rate <= RATES[1]:
            raise UserError(f'sample_rate={self.sample_rate}: expected a rate from {RATES[0]} to {RATES[1]} Hz')
        if self.channel is not None and self.channel < 1:
            raise UserError(f'channel={self.channel}: expected 1 (the first channel) or more')
        if not 0 <= self.tolerance < math.inf:
            raise UserError(f'tolerance={self.tolerance:g}: expected 0 or more seconds')

    def check(self, found: Mapping[pathlib.Path, AudioInfo]) -> None:
        """Checks rates and channels of files.

        Raises:
          UserError: a file has another rate although files are not resampled, or lacks the channel.
        """
        others = [path for path, info in found.items() if info.sample_rate != self.sample_rate]
        if others and not self.resample:
            also = f' ({len(others)} of {len(found)} files have another rate)' if len(others) > 1 else ''
            raise UserError(f'{others[0]}: {found[others[0]].sample_rate} Hz, expected {self.sample_rate} Hz{also}; '
                            f'--resample resamples to {self.sample_rate} Hz')
        for path, info in found.items():
            if info.num_channels > 1 and (self.channel is None or self.channel > info.num_channels):
                given = f', but channel={self.channel}' if self.channel else ', expected 1'
                raise UserError(f'{path}: {info.num_channels} channels{given}; take the first one (score: --channel 1)')

    def read(self, path: pathlib.Path) -> np.ndarray:
        """The signal of a file that `check` accepts, `[N]`; a file with one channel has it whatever `channel` says.

        Raises:
          UserError: the file cannot be read.
        """
        samples, rate = audio.read(path)
        index = 0 if samples.shape[1] == 1 else (self.channel or 1) - 1
        return audio.resample(samples[:, index], rate, self.sample_rate)

    def signal(self, path: pathlib.Path, clean: np.ndarray | None, reason: str = '',
               noisy: np.ndarray | None = None) -> Signal:
        """Reads a file beside its clean speech.

        Args:
          path: of the file.
          clean: `[N]`; None: there is none, or it cannot be read.
          reason: why it cannot be read.
          noisy: `[N]`, if a metric needs the noise.
        """
        try:
            samples = self.read(path)
        except UserError as error:
            return Signal(None, reason=str(error).removeprefix(f'{path}: '))
        return Signal(samples, reason=reason) if clean is None else self.compared(samples, clean, noisy)

    def in_time(self, path: pathlib.Path, clean: np.ndarray) -> np.ndarray | None:
        """Reads noisy speech, of the length and, with `align`, at the time of the clean speech `[N]`.

        What the file lacks at its ends is clean speech, so that there is no noise. None: the file cannot be read, or
        lengths differ beyond `tolerance`.
        """
        found = self.signal(path, clean)
        if found.samples is None or found.clean is None:
            return None
        start, whole = max(-found.offset, 0) if self.align else 0, clean.copy()
        whole[start:start + len(found.samples)] = found.samples
        return whole

    def compared(self, samples: np.ndarray, clean: np.ndarray, noisy: np.ndarray | None = None) -> Signal:
        """A signal `[M]` beside clean and noisy speech `[N]`, or without them, if lengths differ beyond `tolerance`."""
        late = alignment.offset(clean, samples, round(alignment.REACH * self.sample_rate)) or 0
        excess, removed = len(samples) - len(clean), late if self.align else 0
        if min(abs(excess), abs(excess - removed)) > self.tolerance * self.sample_rate:
            reason = (f'{len(samples)} samples, but {len(clean)} in the clean speech: the lengths differ by '
                      f'{abs(excess) / self.sample_rate:.2f} s, more than the tolerance of {self.tolerance:g} s')
            return Signal(samples, None, reason, late, excess)
        cut = alignment.aligned(clean, samples, removed)
        noisy = None if noisy is None else noisy[max(-removed, 0):][:len(cut.reference)]
        return Signal(cut.signal, cut.reference, '', late, excess, noisy)


def headers(paths: Iterable[pathlib.Path]) -> dict[pathlib.Path, AudioInfo]:
    """What is known of the files that are audio."""
    def examine(path):
        try:
            return audio.info(path)
        except UserError:
            return None  # for the reader of the file to say why

    paths = list(paths)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        return {path: info for path, info in zip(paths, threads.map(examine, paths), strict=True) if info}
