"""Speech and noise that are mixed on the fly, anew for each training example or as a fixed list."""

import dataclasses
import os
import zlib
from collections.abc import Sequence

import numpy as np

from jax_diffse import files
from jax_diffse.data.scan import AudioFile, is_silent

_TRIES = 10  # random places that are tried before the loudest one of a file is used


def mix(clean: np.ndarray, noise: np.ndarray, snr_db: float) -> tuple[np.ndarray, np.ndarray]:
    """Adds `noise` to `clean` (`[N]` each) at an SNR over all N samples -> (clean, noisy).

    The noise must not be silent. Nothing is added to silent speech. The speech keeps its level, unless a sample would
    leave [-1, 1]. Then both are scaled down together.
    """
    gain = np.sqrt(np.dot(clean, clean) / np.dot(noise, noise)) * 10 ** (-snr_db / 20)
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
class Mixture:
    """A fixed mixture of the middle of an utterance and a noise; `id` also seeds the place in the noise file."""

    id: str
    speech: AudioFile
    noise: AudioFile
    snr_db: float
    num_samples: int  # in the middle of the utterance

    @property
    def speech_start(self) -> int:
        """The sample of the utterance that the mixture starts at."""
        return (self.speech.num_samples - self.num_samples) // 2

    def read_noise(self) -> tuple[np.ndarray, int]:
        """Reads the piece of noise `[num_samples]`, and returns the sample of its file that it starts at."""
        return crop(self.noise, self.num_samples, np.random.default_rng(zlib.crc32(self.id.encode())))


@dataclasses.dataclass(frozen=True)
class MixSource:
    """Speech and noise, mixed anew for every training example; `read` returns the fixed mixtures of a list."""

    sample_rate: int  # Hz
    mixtures: Sequence[Mixture]
    noise: Sequence[AudioFile]  # that `draw` draws from
    snr_db: tuple[float, ...]  # that `draw` draws from
    snr_uniform: bool = False  # draw from the range of `snr_db` instead
    seen: frozenset[str] | None = None  # noise classes of training, if `info` is to tell seen from unseen ones
    used: str = ''  # how many utterances of how many, if a share is used

    def __len__(self) -> int:
        return len(self.mixtures)

    def info(self, i: int) -> dict:
        """`{'id', 'num_samples', 'snr_db', 'noise'}` of the fixed mixture i; 'noise' is the noise's folder.

        With `seen` also 'noise_kind': 'seen' in training, or 'unseen'.
        """
        mixture = self.mixtures[i]
        info = {'id': mixture.id, 'num_samples': mixture.num_samples, 'snr_db': mixture.snr_db,
                'noise': mixture.noise.folder}
        if self.seen is not None:
            info['noise_kind'] = 'seen' if mixture.noise.folder in self.seen else 'unseen'
        return info

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Makes the fixed mixture i: (clean `[N]`, noisy `[N]`)."""
        mixture = self.mixtures[i]
        clean = mixture.speech.read(mixture.speech_start, mixture.speech_start + mixture.num_samples)
        return mix(clean, mixture.read_noise()[0], mixture.snr_db)

    def draw(self, i: int, num_samples: int, rng: np.random.Generator,
             start: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mixes at most `num_samples` of utterance i, from `start` or a random place on, with a random piece of noise.

        The SNR is that of these samples. Speech that is silent from `start` on stays silent.
        """
        clean = piece(self.mixtures[i].speech, num_samples, rng, start)
        noise, _ = crop(self.noise[rng.integers(len(self.noise))], len(clean), rng)
        return mix(clean, noise, self._draw_snr(rng))

    def _draw_snr(self, rng) -> float:
        return rng.uniform(min(self.snr_db), max(self.snr_db)) if self.snr_uniform else rng.choice(self.snr_db)

    def write_manifest(self, path: str | os.PathLike) -> None:
        """Writes the list of fixed mixtures as tab-separated values, atomically."""
        lines = ['id\tspeech\tnoise\tnoise_start\tnoise_class\tsnr_db\tspeech_start\tnum_samples']
        for mixture in self.mixtures:
            lines.append(f'{mixture.id}\t{mixture.speech.path}\t{mixture.noise.path}\t{mixture.read_noise()[1]}\t'
                         f'{mixture.noise.folder}\t{mixture.snr_db:g}\t{mixture.speech_start}\t{mixture.num_samples}')
        files.write_text(path, '\n'.join(lines) + '\n')


def list_mixtures(speech: Sequence[AudioFile], noise: Sequence[AudioFile], snr_db: Sequence[float],
                  count: int, clip: int = 0) -> list[Mixture]:
    """Lists `count` fixed mixtures, spread evenly over the utterances and over the conditions (noise folder, SNR).

    The numbers of mixtures per condition differ by one at most. Conditions are shuffled, so that they do not follow
    the order of the speakers. Longer utterances are cut to `clip` samples, unless it is 0.
    """
    classes = {}
    for file in noise:
        classes.setdefault(file.folder, []).append(file)
    conditions = [(files, snr) for _, files in sorted(classes.items()) for snr in snr_db]
    mixtures = []
    for k in range(count):
        if k % len(conditions) == 0:
            rng = np.random.default_rng(k)
            order = rng.permutation(len(conditions))
        files, snr = conditions[order[k % len(conditions)]]
        utterance, file = speech[k % len(speech)], files[rng.integers(len(files))]
        mixtures.append(Mixture(f'{utterance.name}_{file.name.replace("/", "-")}_{snr:g}dB', utterance, file, snr,
                                min(utterance.num_samples, clip or utterance.num_samples)))
    return mixtures
