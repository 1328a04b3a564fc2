"""What is done to mixtures besides adding a noise: reverberation, speed, several noises, band limit, level, clipping.

A `Mixer` draws a `Recipe` for each mixture, and makes the mixture by it.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jax_diffse import audio
from jax_diffse.data import reverb
from jax_diffse.data.mixing import Level, crop, fit, piece
from jax_diffse.data.recordings import AudioFile
from jax_diffse.data.scan import is_silent
from jax_diffse.errors import UserError

_SPEEDS = 10_000  # a speed is a whole number of this part of the original one
_NEEDS = {'band_probability': 'band_hz', 'clip_probability': 'clip_level'}  # key -> the key that turns it on


@dataclasses.dataclass(frozen=True)
class MixerConfig:
    """What is drawn for each mixture; by default nothing is, and speech and noise are only added.

    A range is (lowest, highest), drawn from uniformly, or (), which turns it off.
    """

    rir_probability: float = 1.0  # of reverberant speech, in splits that name a folder `rir`
    rir_noise: bool = False  # also reverberate the noises of these mixtures, each with a RIR of its own
    speed: tuple[float, ...] = ()  # range of the speed of the speech, which changes tempo and pitch
    max_noises: int = 1  # a mixture has 1 to so many noises, of equal energy
    band_hz: tuple[float, ...] = ()  # range of the upper frequency limit, Hz
    band_probability: float = 1.0  # of a band limit
    level_db: tuple[float, ...] = ()  # range of the level of the noisy signal: its RMS, dB of full scale
    clip_level: tuple[float, ...] = ()  # range of the level that the noisy signal is clipped at, as a share of its peak
    clip_probability: float = 1.0  # of clipping

    @property
    def changed(self) -> dict[str, object]:
        """The values that differ from their defaults, by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)
                if getattr(self, field.name) != field.default}

    def check(self, key: str, sample_rate: int) -> None:
        """Checks the values of `key`, such as 'config.data.mixer'.

        Raises:
          UserError: a value that cannot be used.
        """
        for name, lowest, highest, example in (
                ('speed', 0.5, 2.0, '(0.9,1.1)'), ('level_db', -90.0, 0.0, '(-35,-15)'),
                ('band_hz', 100.0, sample_rate / 2, '(2000,6000)'), ('clip_level', 0.01, 1.0, '(0.2,0.8)')):
            given = getattr(self, name)
            if given and not (len(given) == 2 and lowest <= given[0] <= given[1] <= highest):
                raise UserError(f'{key}.{name}: expected () or a range from {lowest:g} to {highest:g}, as {example}, '
                                f'got {given!r}')
        for name in ('rir_probability', 'band_probability', 'clip_probability'):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f'{key}.{name}: expected a number from 0 to 1, got {getattr(self, name):g}')
        for name, needed in _NEEDS.items():
            if name in self.changed and not getattr(self, needed):
                raise UserError(f'{key}.{name}: has no effect without {key}.{needed}; set this range, too')
        if self.max_noises < 1:
            raise UserError(f'{key}.max_noises: expected 1 or more, got {self.max_noises}')


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """What the clean signal of a mixture is, in all splits."""

    reverb: str = 'early'  # of reverberant speech: 'early' part, 'dry' speech, or 'reverberant' as in the mixture
    early_ms: float = 50.0  # the early part ends so long after the direct path, ms
    band: str = 'full'  # of mixtures with a band limit: the 'full' band, or 'limited' as the mixture

    def __post_init__(self):
        for name, known in (('reverb', ('early', 'dry', 'reverberant')), ('band', ('full', 'limited'))):
            if getattr(self, name) not in known:
                raise UserError(f'config.data.target.{name}: expected one of {", ".join(known)}, got '
                                f'{getattr(self, name)!r}')
        if not 0 <= self.early_ms < math.inf:
            raise UserError(f'config.data.target.early_ms: expected 0 or more (ms), got {self.early_ms:g}')


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is done to one mixture; by default nothing."""

    speed: float = 1.0  # of the speech
    rir: AudioFile | None = None  # of the speech
    noise_rirs: tuple[AudioFile, ...] = ()  # of all noises
    noises: tuple[AudioFile, ...] = ()  # besides the first one
    seed: int = 0  # of the places in these files
    band_hz: int = 0  # upper frequency limit; 0: none
    level_db: float | None = None  # RMS of the noisy signal, dB of full scale
    clip_level: float = 0.0  # as a share of the peak; 0: not clipped

    def num_read(self, num_samples: int) -> int:
        """The number of samples of speech that `num_samples` of the mixture are made of."""
        return -(-num_samples * round(self.speed * _SPEEDS) // _SPEEDS)

    def num_made(self, num_samples: int) -> int:
        """The number of samples of the mixture that `num_samples` of speech make."""
        return audio.num_resampled(num_samples, round(self.speed * _SPEEDS), _SPEEDS)

    def at_speed(self, samples: np.ndarray) -> np.ndarray:
        """Plays `[N]` at the speed -> `[num_made(N)]`."""
        return audio.resample(samples, round(self.speed * _SPEEDS), _SPEEDS)

    def read_speech(self, file: AudioFile, num_samples: int, rng: np.random.Generator,
                    start: int | None = None) -> np.ndarray:
        """Reads speech at the speed, at most `num_samples`, from `start` on or from a place that is not silent.

        `rng` draws the same place at every speed, as far as the file allows.
        """
        samples, place = piece(file, num_samples, rng, start)
        if self.speed == 1:
            return samples
        needed = self.num_read(num_samples)
        if needed > len(samples):
            place = place if start is not None else min(place, max(file.num_samples - needed, 0))
            samples = file.read(place, place + needed)
        elif is_silent(samples[:needed]):
            samples = samples[-needed:]
        return self.at_speed(samples[:needed])[:num_samples]


@dataclasses.dataclass(frozen=True)
class Mixer:
    """Draws recipes and makes mixtures by them."""

    config: MixerConfig = MixerConfig()
    target: TargetConfig = TargetConfig()
    rirs: Sequence[AudioFile] = ()
    sample_rate: int = 16_000  # Hz

    @property
    def on(self) -> bool:
        """Whether recipes do anything."""
        return bool(self.rirs or self.config.changed.keys() - {'rir_probability', 'rir_noise'})

    def draw(self, rng: np.random.Generator, noise: Sequence[AudioFile]) -> Recipe:
        """Draws the recipe of a mixture, whose further noises are from `noise`.

        Every operation draws from a child of `rng` of its own, so that none changes the draws of another one, nor the
        numbers that `rng` draws later.
        """
        if not self.on:
            return Recipe()
        config = self.config
        rir, speed, several, band, level, clip = rng.spawn(6)
        count = int(several.integers(1, config.max_noises + 1))
        further = tuple(noise[k] for k in several.integers(len(noise), size=count - 1))
        reverberant = rir.random() < config.rir_probability and bool(self.rirs)
        rirs = [self.rirs[k] for k in rir.integers(len(self.rirs), size=1 + count)] if reverberant else []
        limited, clipped = band.random() < config.band_probability, clip.random() < config.clip_probability
        return Recipe(
            speed=_uniform(speed, config.speed, 1.0),
            rir=rirs[0] if rirs else None, noise_rirs=tuple(rirs[1:]) if config.rir_noise else (),
            noises=further, seed=int(several.integers(2**32)),
            band_hz=round(_uniform(band, config.band_hz, 0.0)) if limited else 0,
            level_db=_uniform(level, config.level_db, None),
            clip_level=_uniform(clip, config.clip_level, 0.0) if clipped else 0.0)

    def make(self, recipe: Recipe, speech: np.ndarray, noise: np.ndarray,
             level: Level) -> tuple[np.ndarray, np.ndarray]:
        """Makes a mixture of speech at its speed and of the first noise (`[N]` each) -> (clean `[N]`, noisy `[N]`)."""
        target, speech, noise = self.parts(recipe, speech, noise)
        clean, noisy = target, speech + np.float32(level.gain(speech, noise)) * noise
        if recipe.band_hz:
            noisy = _limit(noisy, recipe.band_hz, self.sample_rate)
            clean = _limit(clean, recipe.band_hz, self.sample_rate) if self.target.band == 'limited' else clean
        if recipe.level_db is not None and not is_silent(noisy):
            gain = 10 ** (recipe.level_db / 20) / float(np.sqrt(np.mean(noisy**2)))
            clean, noisy = gain * clean, gain * noisy
        clean, noisy = fit(clean, noisy)
        if recipe.clip_level:
            peak = recipe.clip_level * float(np.abs(noisy).max())
            noisy = np.clip(noisy, -peak, peak)
        return clean, noisy

    def parts(self, recipe: Recipe, speech: np.ndarray,
              noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the target, the speech of the mixture and the sum of its noises (`[N]` each), before the SNR is set.

        Further noises are scaled to the energy of the first one.
        """
        noises = [noise, *(samples for samples, _ in self.further(recipe, len(noise)))]
        for k, file in enumerate(recipe.noise_rirs):
            noises[k] = reverb.reverberate(noises[k], *reverb.align(file.read()))
        noise = noises[0]
        for other in noises[1:]:
            noise = noise + float(np.linalg.norm(noises[0]) / np.linalg.norm(other)) * other
        if recipe.rir is None:
            return speech, speech, noise
        rir, direct = reverb.align(recipe.rir.read())
        wet = reverb.reverberate(speech, rir, direct)
        if self.target.reverb == 'early':
            early = reverb.early_part(rir, direct, self.sample_rate, self.target.early_ms)
            return reverb.reverberate(speech, early, direct), wet, noise
        return wet if self.target.reverb == 'reverberant' else speech, wet, noise

    def further(self, recipe: Recipe, num_samples: int) -> list[tuple[np.ndarray, int]]:
        """Reads the noises besides the first one: samples `[num_samples]`, and where in their file they start."""
        rng = np.random.default_rng(recipe.seed)
        return [crop(file, num_samples, rng) for file in recipe.noises]


OFF = Mixer()


def _uniform(rng: np.random.Generator, range_: tuple[float, ...], default):
    """Draws from a range with four significant digits, which a list of mixtures can hold; `default` without one."""
    return float(f'{rng.uniform(*range_):.4g}') if range_ else default


def _limit(samples: np.ndarray, band_hz: int, sample_rate: int) -> np.ndarray:
    """Removes what lies above `band_hz` from `[N]`, by resampling to twice this rate and back."""
    lower = audio.resample(samples, sample_rate, 2 * band_hz)
    return audio.resample(lower, 2 * band_hz, sample_rate)[:len(samples)]
