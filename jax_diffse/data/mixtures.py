"""Speech and noise that are mixed on the fly, anew for each training example or as a fixed list."""

import dataclasses
import functools
import json
import os
import zlib
from collections.abc import Sequence

import numpy as np

from jax_diffse import files
from jax_diffse.data.mixer import OFF, Mixer, Recipe
from jax_diffse.data.mixing import Level, Levels, blend, crop
from jax_diffse.data.recordings import AudioFile, AudioFiles
from jax_diffse.data.scan import SILENCE

_GAIN, _RECIPE = 1, 2  # random streams of a mixture's gain and recipe; that of its noise is another


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A fixed mixture of the middle of an utterance and a noise; `id` also seeds the place in the noise file."""

    id: str
    speech: AudioFile
    noise: AudioFile
    level: Level
    num_samples: int
    mixer: Mixer = OFF
    recipe: Recipe = Recipe()

    @property
    def num_read(self) -> int:
        """The number of samples of the utterance, which are in its middle."""
        return min(self.recipe.num_read(self.num_samples), self.speech.num_samples)

    @property
    def speech_start(self) -> int:
        """The sample of the utterance that the mixture starts at."""
        return (self.speech.num_samples - self.num_read) // 2

    def read_speech(self) -> np.ndarray:
        """Reads the speech `[num_samples]`, at its speed."""
        return self.recipe.at_speed(self.speech.read(self.speech_start, self.speech_start + self.num_read)
                                    )[:self.num_samples]

    def read_noise(self) -> tuple[np.ndarray, int]:
        """Reads the piece of noise `[num_samples]`, and returns the sample of its file that it starts at."""
        return crop(self.noise, self.num_samples, _stream(self.id))

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Makes the mixture: (clean `[num_samples]`, noisy `[num_samples]`)."""
        return self.mixer.make(self.recipe, self.read_speech(), self.read_noise()[0], self.level)

    @property
    def snr_db(self) -> float:
        """The SNR over all samples; with a factor of the amplitude, the files are read to measure it."""
        if not self.level.is_gain:
            return self.level.value
        _, speech, noise = self.mixer.parts(self.recipe, self.read_speech(), self.read_noise()[0])
        clean, noisy = blend(speech, noise, self.level.value)
        energy = max(np.mean(clean**2), SILENCE**2)
        return float(10 * np.log10(energy / np.mean((noisy - clean)**2)))

    def row(self) -> dict[str, object]:
        """What the mixture is made of, for a list: column -> value."""
        row = {'id': self.id, 'speech': self.speech.path, 'noise': self.noise.path,
               'noise_start': self.read_noise()[1], 'noise_class': self.noise.noise_class,
               'snr_db': f'{self.snr_db:g}', 'speech_start': self.speech_start, 'num_samples': self.num_samples}
        if not self.mixer.on:
            return row
        recipe, target = self.recipe, self.mixer.target
        further = [[file.path, start] for file, (_, start) in zip(
            recipe.noises, self.mixer.further(recipe, self.num_samples), strict=True)]
        return row | {
            'speed': recipe.speed, 'rir': recipe.rir.path if recipe.rir else '',
            'further_noises': json.dumps(further), 'noise_rirs': json.dumps([file.path for file in recipe.noise_rirs]),
            'band_hz': recipe.band_hz or '', 'level_db': '' if recipe.level_db is None else recipe.level_db,
            'clip_level': recipe.clip_level or '', 'target_reverb': target.reverb,
            'target_early_ms': f'{target.early_ms:g}', 'target_band': target.band}


def _stream(name: str, *purpose: int) -> np.random.Generator:
    """The random stream of the mixture of this id, for a purpose."""
    return np.random.default_rng([zlib.crc32(name.encode()), *purpose])


class Mixtures(Sequence[Mixture]):
    """Fixed mixtures, spread evenly over the utterances and over the conditions (noise class, SNR).

    The numbers of mixtures per condition differ by one at most. Conditions are shuffled, so that they do not follow
    the order of the speakers. Where levels are gains, the conditions are the noise classes, and the gain of a mixture
    follows from its id, as does its recipe. Further noises are of the class of the first one. A mixture is made when
    it is asked for.

    Args:
      speech, noise: the files.
      levels: the SNRs, or the range of gains.
      count: the number of mixtures.
      clip: longer utterances are cut to so many samples; 0: not cut.
      pad: shorter utterances are extended with zeros to so many samples.
      mixer: draws the recipes.
    """

    def __init__(self, speech: AudioFiles, noise: AudioFiles, levels: Levels, count: int, clip: int = 0,
                 pad: int = 0, mixer: Mixer = OFF):
        self._speech, self._noise, self._levels, self._mixer = speech, noise, levels, mixer
        self._count, self._clip, self._pad = count, clip, pad
        self._measured: dict[int, float] = {}  # mixture -> SNR
        self.in_store = speech.in_store

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, k):
        if not 0 <= k < self._count:
            raise IndexError(k)
        conditions, places = self._chosen
        files, snr = self._conditions[conditions[k]]
        utterance, file = self.utterance(k), files[places[k]]
        name = f'{utterance.name}_{file.name.replace("/", "-")}' + ('' if snr is None else f'_{snr:g}dB')
        level = self._levels.draw(_stream(name, _GAIN)) if snr is None else Level(snr)
        recipe = self._mixer.draw(_stream(name, _RECIPE), files)
        length = max(recipe.num_made(utterance.num_samples), self._pad)
        return Mixture(name, utterance.extended(recipe.num_read(self._pad)), file, level,
                       min(length, self._clip or length), self._mixer, recipe)

    def utterance(self, k: int) -> AudioFile:
        """The whole utterance of mixture k."""
        return self._speech[k % len(self._speech)]

    def measured_snr_db(self, k: int) -> float:
        """The SNR of mixture k, for which files are read once."""
        if k not in self._measured:
            self._measured[k] = self[k].snr_db
        return self._measured[k]

    @functools.cached_property
    def _conditions(self) -> list[tuple[AudioFiles, float | None]]:
        """The noises of a class, and an SNR."""
        classes: dict[str, list[int]] = {}
        for place, kind in enumerate(self._noise.noise_classes()):
            classes.setdefault(kind, []).append(place)
        return [(files, snr) for files in [self._noise.take(places) for _, places in sorted(classes.items())]
                for snr in self._levels.listed]

    @functools.cached_property
    def _chosen(self) -> tuple[np.ndarray, np.ndarray]:
        """The condition of every mixture, and the place of its noise among those of the condition."""
        total = len(self._conditions)
        conditions, places = np.zeros(self._count, np.int64), np.zeros(self._count, np.int64)
        for k in range(self._count):
            if k % total == 0:
                rng = np.random.default_rng(k)
                order = rng.permutation(total)
            conditions[k] = order[k % total]
            places[k] = rng.integers(len(self._conditions[conditions[k]][0]))
        return conditions, places


@dataclasses.dataclass(frozen=True)
class MixSource:
    """Speech and noise, mixed anew for every training example; `read` returns the fixed mixtures of a list."""

    sample_rate: int  # Hz
    mixtures: Mixtures
    noise: AudioFiles  # that `draw` draws from
    levels: Levels  # that `draw` draws from
    mixer: Mixer = OFF  # that `draw` draws from
    seen: frozenset[str] | None = None  # noise classes of training, if `info` is to tell seen from unseen ones
    used: str = ''  # how many utterances of how many, if a share is used

    @property
    def in_store(self) -> bool:
        """Whether samples come from object storage."""
        return self.mixtures.in_store or self.noise.in_store

    def __len__(self) -> int:
        return len(self.mixtures)

    def info(self, i: int) -> dict:
        """`{'id', 'num_samples', 'snr_db', 'noise'}` of the fixed mixture i; 'noise' is the noise's class.

        The SNR of a mixture with a factor of the amplitude is rounded to whole dB. With `seen` also 'noise_kind':
        'seen' in training, or 'unseen'.
        """
        mixture = self.mixtures[i]
        snr_db = float(round(self.mixtures.measured_snr_db(i))) if mixture.level.is_gain else mixture.snr_db
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
        recipe = self.mixer.draw(rng, self.noise)
        speech = recipe.read_speech(self.mixtures.utterance(i), num_samples, rng, start)
        noise, _ = crop(self.noise[rng.integers(len(self.noise))], len(speech), rng)
        return self.mixer.make(recipe, speech, noise, self.levels.draw(rng))

    def write_manifest(self, path: str | os.PathLike) -> None:
        """Writes the list of fixed mixtures as tab-separated values, atomically."""
        rows = [mixture.row() for mixture in self.mixtures]
        lines = ['\t'.join(map(str, values)) for values in (rows[0], *(row.values() for row in rows))]
        files.write_text(path, '\n'.join(lines) + '\n')
