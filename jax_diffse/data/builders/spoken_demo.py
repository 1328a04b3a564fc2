"""spoken_demo: sentences spoken by a synthesiser in generated noise. It needs no download, and is made in seconds.

The voices are those of espeak-ng (the `demo` extra). Training, validation and test have different voices, both in the
variant of the voice and in the sentences, and two kinds of noise occur only in the test set. The data set shows that
everything works, and lets you judge a change within minutes. It says nothing about quality on real recordings.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds

from jax_diffse import audio
from jax_diffse.data.builders import noises, pairs, sentences
from jax_diffse.data.builders.espeak import Synthesizer

# Variants with breath (f1 to f5, Annie, belinda ...) are left out: they sound a little different every time, presumably
# because espeak-ng makes breath from memory that it does not initialise.
VOICES = {
    'train': ('en-us+m1', 'en-gb-x-rp+m2', 'en-gb-scotland+m4', 'en-us+m6', 'en-gb-x-gbclan+john', 'en-029+robert',
              'en-us+anika', 'en-gb-x-rp+grandma', 'en-gb-x-gbcwmd+Mario', 'en-us+norbert', 'en-gb-scotland+linda',
              'en-029+aunty'),
    'validation': ('en-gb-x-rp+m5', 'en-us+shelby'),
    'test': ('en-us+m3', 'en-gb-x-rp+m7', 'en-gb-scotland+steph', 'en-us+Andrea'),
}
SENTENCES = {'train': sentences.TRAIN, 'validation': sentences.VALIDATION, 'test': sentences.TEST}
SEEN = ('white', 'pink', 'hum', 'impulsive')
NOISES = {'train': SEEN, 'validation': SEEN, 'test': (*SEEN, 'modulated', 'babble')}
TRAIN_SNR_DB = (0.0, 20.0)  # lowest and highest
LISTED_SNR_DB = (5, 10, 15)  # of validation and test
TALKERS = 6  # of babble
_STREAM = {'train': 0, 'validation': 1, 'test': 2}  # of random numbers, one per split


@dataclasses.dataclass(eq=False)
class SpokenDemoConfig(tfds.core.BuilderConfig):
    """The number of utterances of each split, and the seed of all random numbers."""

    train: int = 480
    validation: int = 24
    test: int = 36
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Speech:
    """A sentence, and the way it is spoken."""

    voice: str
    sentence: str
    rate: int  # words per minute
    pitch: int  # 50 is normal


@dataclasses.dataclass(frozen=True)
class Utterance:
    """The plan of one example of the data set."""

    name: str
    speech: Speech
    noise: str
    snr_db: float
    talkers: tuple[Speech, ...]  # of babble
    index: int  # in its split


class SpokenDemo(tfds.core.GeneratorBasedBuilder):
    """Builder `spoken_demo`."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [SpokenDemoConfig(name='standard', description='about half an hour of training material')]

    def _info(self) -> tfds.core.DatasetInfo:
        return pairs.info(self, __doc__, homepage='https://github.com/espeak-ng/espeak-ng')

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        return {split: self._generate_examples(split) for split in VOICES}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        count, seed = getattr(self.builder_config, split), self.builder_config.seed
        yield from generate(split, plan(split, count, seed), seed)


def plan(split: str, count: int, seed: int) -> list[Utterance]:
    """Plans sentences, voices and noises so that kinds of noise, listed SNRs and voices occur equally often."""
    rng = np.random.default_rng([seed, _STREAM[split], 0])
    spoken = _cycle(rng, list(itertools.product(VOICES[split], SENTENCES[split])), count)
    # Neighbours differ in noise, then in SNR, so that the first few utterances already have every kind.
    conditions = [(noise, snr_db) for snr_db in LISTED_SNR_DB for noise in NOISES[split]]
    utterances = []
    for i, (voice, sentence) in enumerate(spoken):
        noise, snr_db = conditions[i % len(conditions)]
        if split == 'train':
            snr_db = round(rng.uniform(*TRAIN_SNR_DB), 1)
        talkers = _talkers(rng, sentence) if noise == 'babble' else ()
        utterances.append(Utterance(f'{split}_{i:03d}_{noise}_{snr_db:g}dB', _speech(rng, voice, sentence), noise,
                                    snr_db, talkers, i))
    return utterances


def _cycle(rng, combinations: list, count: int) -> list:
    """Orders `count` of the (voice, sentence) combinations: another order each round, with voices in turn."""
    rounds = []
    while len(rounds) < count:
        shuffled = [combinations[i] for i in rng.permutation(len(combinations))]
        turns = {}
        for voice, sentence in shuffled:
            turns.setdefault(voice, []).append((voice, sentence))
        rounds += [pair for turn in zip(*turns.values(), strict=True) for pair in turn]
    return rounds[:count]


def _speech(rng, voice, sentence) -> Speech:
    return Speech(voice, sentence, int(rng.integers(140, 201)), int(rng.integers(30, 71)))


def _talkers(rng, sentence) -> tuple[Speech, ...]:
    """Draws the talkers of babble: training voices, which no target of the test set has, with other sentences."""
    others = [other for other in sentences.TEST if other != sentence]
    voices = rng.choice(VOICES['train'], TALKERS, replace=False)
    return tuple(_speech(rng, str(voice), str(rng.choice(others))) for voice in voices)


def generate(split: str, utterances: Sequence[Utterance], seed: int) -> Iterator[tuple[str, dict]]:
    """Makes the examples of a split in order, each a `pairs.example`.

    Raises:
      UserError: the `demo` extra is not installed.
    """
    synthesizer = Synthesizer()
    for utterance in utterances:
        rng = np.random.default_rng([seed, _STREAM[split], 1, utterance.index])
        clean, noisy = _render(utterance, synthesizer, rng)
        yield pairs.example(utterance.name, clean, noisy, utterance.speech.voice, utterance.noise, utterance.snr_db)


def _render(utterance: Utterance, synthesizer: Synthesizer, rng) -> tuple[np.ndarray, np.ndarray]:
    clean = _speak(utterance.speech, synthesizer)
    if utterance.noise == 'babble':
        noise = noises.babble(rng, len(clean), [_speak(talker, synthesizer) for talker in utterance.talkers])
    else:
        noise = getattr(noises, utterance.noise)(rng, len(clean))
    return noises.mix(clean, noise, utterance.snr_db, level_db=rng.uniform(-32, -20))


def _speak(speech: Speech, synthesizer: Synthesizer) -> np.ndarray:
    spoken = synthesizer.speak(speech.sentence, speech.voice, speech.rate, speech.pitch)
    return audio.resample(spoken, synthesizer.sample_rate, pairs.SAMPLE_RATE).astype(np.float64)
