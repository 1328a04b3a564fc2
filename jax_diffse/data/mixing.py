"""Speech plus noise: crops of files, levels of noise, and their sum."""

import dataclasses

import numpy as np

from jax_diffse.data.recordings import AudioFile
from jax_diffse.data.scan import is_silent
from jax_diffse.errors import UserError

_TRIES = 10  # random places that are tried before the loudest one of a file is used


def mix(clean: np.ndarray, noise: np.ndarray, snr_db: float) -> tuple[np.ndarray, np.ndarray]:
    """Adds `noise` to `clean` (`[N]` each) at an SNR over all N samples -> (clean, noisy).

    The noise must not be silent. Nothing is added to silent speech. The speech keeps its level, unless a sample would
    leave [-1, 1]. Then both are scaled down together.
    """
    return blend(clean, noise, Level(snr_db).gain(clean, noise))


def blend(clean: np.ndarray, noise: np.ndarray, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns (clean, clean + gain * noise) of `[N]` each, both scaled down if a sample would leave [-1, 1]."""
    return fit(clean, clean + np.float32(gain) * noise)


def fit(clean: np.ndarray, noisy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns `clean` and `noisy` (`[N]` each), both scaled down by the same factor if a sample leaves [-1, 1]."""
    peak = max(np.abs(noisy).max(), np.abs(clean).max())
    return (clean, noisy) if peak <= 1 else (clean / peak, noisy / peak)


def crop(file: AudioFile, num_samples: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Reads `num_samples` from a random place that is not silent; a shorter file is repeated, from a random phase.

    Returns:
      The samples `[num_samples]` and the sample of the file that they start at.

    Raises:
      UserError: the file is silent, or has NaN or infinite samples.
    """
    if file.num_samples < num_samples:
        start = int(rng.integers(file.num_samples))
        return np.resize(np.roll(_sound(file), -start), num_samples), start
    for _ in range(_TRIES):
        start = int(rng.integers(file.num_samples - num_samples + 1))
        samples = file.read(start, start + num_samples)
        if np.isfinite(samples).all() and not is_silent(samples):
            return samples, start
    samples = _sound(file)
    start = int(np.clip(np.abs(samples).argmax() - num_samples // 2, 0, len(samples) - num_samples))
    return samples[start:start + num_samples], start


def _sound(file: AudioFile) -> np.ndarray:
    """Reads a whole file `[N]`, which a check of all samples would have accepted."""
    samples = file.read()
    if not np.isfinite(samples).all() or is_silent(samples):
        raise UserError(f'{file.path}: silent, or has NaN or infinite samples; remove it, or find all such files with '
                        'config.data.check=full')
    return samples


def piece(file: AudioFile, num_samples: int, rng: np.random.Generator, start: int | None) -> tuple[np.ndarray, int]:
    """Reads at most `num_samples`, from `start` on or from a random place that is not silent.

    Returns:
      The samples and the sample of the file that they start at.
    """
    if start is not None:
        return file.read(start, start + num_samples), start
    return crop(file, min(num_samples, file.num_samples), rng)


@dataclasses.dataclass(frozen=True)
class Level:
    """The level of the noise in a mixture: an SNR over all samples, or a factor of the noise's amplitude."""

    value: float
    is_gain: bool = False  # the value is a factor instead of an SNR in dB

    def gain(self, speech: np.ndarray, noise: np.ndarray) -> float:
        """The factor of the amplitude of `noise` (`[N]`, not silent) beside `speech` (`[N]`)."""
        if self.is_gain:
            return self.value
        return np.sqrt(np.dot(speech, speech) / np.dot(noise, noise)) * 10 ** (-self.value / 20)


@dataclasses.dataclass(frozen=True)
class Levels:
    """The levels that noise is added at."""

    snr_db: tuple[float, ...]  # SNRs to draw from
    uniform: bool = False  # draw from the range of the SNRs instead
    gain: tuple[float, ...] = ()  # lowest and highest factor of the noise's amplitude, in place of an SNR

    @property
    def listed(self) -> tuple[float | None, ...]:
        """The SNRs of a list of mixtures, each once; None for gains."""
        return (None,) if self.gain else tuple(dict.fromkeys(self.snr_db))

    def draw(self, rng: np.random.Generator) -> Level:
        """Draws the level of a mixture."""
        if self.gain:
            return Level(rng.uniform(*self.gain), is_gain=True)
        range_ = min(self.snr_db), max(self.snr_db)
        return Level(rng.uniform(*range_) if self.uniform else rng.choice(self.snr_db))
