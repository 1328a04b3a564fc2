"""Speech and noise that are mixed on the fly, anew for each training example or as a fixed list."""

import dataclasses
import functools
import os
import zlib
from collections.abc import Sequence

import numpy as np

from jax_diffse import files
from jax_diffse.data.recordings import AudioFile, AudioFiles
from jax_diffse.data.scan import SILENCE, is_silent

_TRIES = 10  # random places that are tried before the loudest one of a file is used
_GAIN = 1  # the random stream of a mixture's gain; that of its noise is another


def mix(clean: np.ndarray, noise: np.ndarray, snr_db: float) -> tuple[np.ndarray, np.ndarray]:
    """Adds `noise` to `clean` (`[N]` each) at an SNR over all N samples -> (clean, noisy).

    The noise must not be silent. Nothing is added to silent speech. The speech keeps its level, unless a sample would
    leave [-1, 1]. Then both are scaled down together.
    """
    return blend(clean, noise, np.sqrt(np.dot(clean, clean) / np.dot(noise, noise)) * 10 ** (-snr_db / 20))


def blend(clean: np.ndarray, noise: np.ndarray, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns (clean, clean + gain * noise) of `[N]` each, both scaled down if a sample would leave [-1, 1]."""
    noisy = clean + np.float32(gain) * noise
    peak = max(np.abs(noisy).max(), np.abs(clean).max())
    return (clean, noisy) if peak <= 1 else (clean / peak, noisy / peak)


def crop(file: AudioFile, num_samples: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Reads `num_samples` from a random place that is not silent; a shorter file is repeated, from a random phase.

    Returns:
      The samples `[num_samples]` and the sample of the file that they start at.
    """
    if file.num_samples < num_samples:
        start = int(rng.integers(file.num_samples))
        return np.resize(np.roll(file.read(), -start), num_samples), start
    for _ in range(_TRIES):
        start = int(rng.integers(file.num_samples - num_samples + 1))
        samples = file.read(start, start + num_samples)
        if not is_silent(samples):
            return samples, start
    samples = file.read()
    start = int(np.clip(np.abs(samples).argmax() - num_samples // 2, 0, len(samples) - num_samples))
    return samples[start:start + num_samples], start


def piece(file: AudioFile, num_samples: int, rng: np.random.Generator, start: int | None) -> np.ndarray:
    """Reads at most `num_samples`, from `start` on or from a random place that is not silent."""
    if start is not None:
        return file.read(start, start + num_samples)
    return crop(file, min(num_samples, file.num_samples), rng)[0]


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

    def mix(self, clean: np.ndarray, noise: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Adds `noise` to `clean` (`[N]` each) at a random level -> (clean, noisy)."""
        if self.gain:
            return blend(clean, noise, rng.uniform(*self.gain))
        range_ = min(self.snr_db), max(self.snr_db)
        return mix(clean, noise, rng.uniform(*range_) if self.uniform else rng.choice(self.snr_db))


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A fixed mixture of the middle of an utterance and a noise; `id` also seeds the place in the noise file."""

    id: str
    speech: AudioFile
    noise: AudioFile
    level_db: float | None  # the SNR; None: `gain`
    num_samples: int  # in the middle of the utterance
    gain: float | None = None  # factor of the noise's amplitude

    @property
    def speech_start(self) -> int:
        """The sample of the utterance that the mixture starts at."""
        return (self.speech.num_samples - self.num_samples) // 2

    def read_noise(self) -> tuple[np.ndarray, int]:
        """Reads the piece of noise `[num_samples]`, and returns the sample of its file that it starts at."""
        return crop(self.noise, self.num_samples, np.random.default_rng(zlib.crc32(self.id.encode())))

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Makes the mixture: (clean `[num_samples]`, noisy `[num_samples]`)."""
        clean = self.speech.read(self.speech_start, self.speech_start + self.num_samples)
        noise, _ = self.read_noise()
        return mix(clean, noise, self.level_db) if self.gain is None else blend(clean, noise, self.gain)

    @functools.cached_property
    def snr_db(self) -> float:
        """The SNR over all samples; with a `gain`, the files are read to measure it."""
        if self.level_db is not None:
            return self.level_db
        clean, noisy = self.read()
        speech = max(np.mean(clean**2), SILENCE**2)
        return float(10 * np.log10(speech / np.mean((noisy - clean)**2)))


class Mixtures(Sequence[Mixture]):
    """`count` fixed mixtures, spread evenly over the utterances and over the conditions (noise class, SNR).

    The numbers of mixtures per condition differ by one at most. Conditions are shuffled, so that they do not follow
    the order of the speakers. Longer utterances are cut to `clip` samples, unless it is 0. Where levels are gains, the
    conditions are the noise classes, and the gain of a mixture follows from its id. A mixture is made when it is asked
    for.
    """

    def __init__(self, speech: Sequence[AudioFile], noise: AudioFiles, levels: Levels, count: int, clip: int = 0):
        self._speech, self._noise, self._levels, self._count, self._clip = speech, noise, levels, count, clip

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, k):
        if not 0 <= k < self._count:
            raise IndexError(k)
        places, levels = self._chosen
        utterance, file, level = self.utterance(k), self._noise[places[k]], levels[k]
        name = f'{utterance.name}_{file.name.replace("/", "-")}' + ('' if level is None else f'_{level:g}dB')
        seed = [zlib.crc32(name.encode()), _GAIN]
        gain = np.random.default_rng(seed).uniform(*self._levels.gain) if self._levels.gain else None
        length = min(utterance.num_samples, self._clip or utterance.num_samples)
        return Mixture(name, utterance, file, level, length, gain)

    def utterance(self, k: int) -> AudioFile:
        """The utterance of mixture k."""
        return self._speech[k % len(self._speech)]

    @functools.cached_property
    def _chosen(self) -> tuple[np.ndarray, list[float | None]]:
        """The place of the noise of every mixture, and its SNR."""
        classes: dict[str, list[int]] = {}
        for place, kind in enumerate(self._noise.noise_classes()):
            classes.setdefault(kind, []).append(place)
        conditions = [(places, snr) for _, places in sorted(classes.items()) for snr in self._levels.listed]
        places, levels = np.zeros(self._count, np.int64), []
        for k in range(self._count):
            if k % len(conditions) == 0:
                rng = np.random.default_rng(k)
                order = rng.permutation(len(conditions))
            among, snr = conditions[order[k % len(conditions)]]
            places[k] = among[rng.integers(len(among))]
            levels.append(snr)
        return places, levels


@dataclasses.dataclass(frozen=True)
class MixSource:
    """Speech and noise, mixed anew for every training example; `read` returns the fixed mixtures of a list."""

    sample_rate: int  # Hz
    mixtures: Mixtures
    noise: AudioFiles  # that `draw` draws from
    levels: Levels  # that `draw` draws from
    seen: frozenset[str] | None = None  # noise classes of training, if `info` is to tell seen from unseen ones
    used: str = ''  # how many utterances of how many, if a share is used

    def __len__(self) -> int:
        return len(self.mixtures)

    def info(self, i: int) -> dict:
        """`{'id', 'num_samples', 'snr_db', 'noise'}` of the fixed mixture i; 'noise' is the noise's class.

        The SNR of a mixture with a gain is rounded to whole dB. With `seen` also 'noise_kind': 'seen' in training, or
        'unseen'.
        """
        mixture = self.mixtures[i]
        snr_db = mixture.snr_db if mixture.gain is None else float(round(mixture.snr_db))
        noise = mixture.noise.noise_class
        info = {'id': mixture.id, 'num_samples': mixture.num_samples, 'snr_db': snr_db, 'noise': noise}
        if self.seen is not None:
            info['noise_kind'] = 'seen' if noise in self.seen else 'unseen'
        return info

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Makes the fixed mixture i: (clean `[N]`, noisy `[N]`)."""
        return self.mixtures[i].read()

    def draw(self, i: int, num_samples: int, rng: np.random.Generator,
             start: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mixes at most `num_samples` of utterance i, from `start` or a random place on, with a random piece of noise.

        An SNR is that of these samples. Speech that is silent from `start` on then stays silent.
        """
        clean = piece(self.mixtures.utterance(i), num_samples, rng, start)
        noise, _ = crop(self.noise[rng.integers(len(self.noise))], len(clean), rng)
        return self.levels.mix(clean, noise, rng)

    def write_manifest(self, path: str | os.PathLike) -> None:
        """Writes the list of fixed mixtures as tab-separated values, atomically."""
        lines = ['id\tspeech\tnoise\tnoise_start\tnoise_class\tsnr_db\tspeech_start\tnum_samples']
        for mixture in self.mixtures:
            lines.append(f'{mixture.id}\t{mixture.speech.path}\t{mixture.noise.path}\t{mixture.read_noise()[1]}\t'
                         f'{mixture.noise.noise_class}\t{mixture.snr_db:g}\t{mixture.speech_start}\t{mixture.num_samples}')
        files.write_text(path, '\n'.join(lines) + '\n')


