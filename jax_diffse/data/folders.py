"""Folders of audio files as a `Source`: pairs of clean and noisy speech, speech and noise to mix, or speech."""

import dataclasses
import hashlib
import logging
import os
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from jax_diffse import audio_files, files
from jax_diffse.data.config import DataConfig
from jax_diffse.data.scan import AudioFile, is_silent, report_bad_files, survey
from jax_diffse.data.speakers import Speakers, speakers
from jax_diffse.errors import UserError

_TRIES = 10  # random places that are tried before the loudest one of a file is used

log = logging.getLogger(__name__)


def mix(clean: np.ndarray, noise: np.ndarray, snr_db: float) -> tuple[np.ndarray, np.ndarray]:
    """Adds `noise` to `clean` (`[N]` each, not silent) at an SNR over all N samples -> (clean, noisy).

    The speech keeps its level, unless a sample would leave [-1, 1]. Then both are scaled down together.
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


@dataclasses.dataclass(frozen=True)
class PairSource:
    """Pairs of files with equal names."""

    sample_rate: int  # Hz
    clean: Sequence[AudioFile]
    noisy: Sequence[AudioFile]

    def __len__(self) -> int:
        return len(self.clean)

    def info(self, i: int) -> dict:
        """`{'id', 'num_samples'}` of pair i."""
        return {'id': self.clean[i].name, 'num_samples': self.clean[i].num_samples}

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads the whole pair i: (clean `[N]`, noisy `[N]`)."""
        return self.clean[i].read(), self.noisy[i].read()

    def draw(self, i: int, num_samples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Reads a random crop of pair i, at most `num_samples` long."""
        length = min(num_samples, self.clean[i].num_samples)
        start = int(rng.integers(self.clean[i].num_samples - length + 1))
        return self.clean[i].read(start, start + length), self.noisy[i].read(start, start + length)


@dataclasses.dataclass(frozen=True)
class CleanSource:
    """Clean speech without a noisy counterpart, for priors; the clean speech also stands in for the noisy speech."""

    sample_rate: int  # Hz
    clean: Sequence[AudioFile]

    def __len__(self) -> int:
        return len(self.clean)

    def info(self, i: int) -> dict:
        """`{'id', 'num_samples'}` of utterance i."""
        return {'id': self.clean[i].name, 'num_samples': self.clean[i].num_samples}

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads the whole utterance i, and returns it twice."""
        return (self.clean[i].read(),) * 2

    def draw(self, i: int, num_samples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Reads a random crop of utterance i, at most `num_samples` long, and returns it twice."""
        return (crop(self.clean[i], min(num_samples, self.clean[i].num_samples), rng)[0],) * 2


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

    def draw(self, i: int, num_samples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Mixes a random crop of utterance i, at most `num_samples` long, with noise at an SNR (over the crop)."""
        speech = self.mixtures[i].speech
        clean, _ = crop(speech, min(num_samples, speech.num_samples), rng)
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


def open_folders(config: DataConfig, split: str) -> PairSource | MixSource | CleanSource:
    """Opens the folders of a split, or the part of the training folders that is held out for validation.

    Raises:
      UserError: no folders are named, or they do not exist; bad files; too few files to hold any out.
    """
    key, folders, shared = config.folders_of(split)
    kind = folders.kind(key)
    if not kind:
        raise UserError(f'{key}: no folders named, expected {key}.clean and .noisy, {key}.speech and .noise, '
                        f'{key}.speech alone (for priors), or {key}.arrays (a file)')
    openers = {'pairs': _open_pairs, 'mix': _open_mix, 'clean': _open_clean}
    return openers[kind](config, split, folders, shared)


def _survey(root, config) -> tuple[dict[str, AudioFile], dict[str, str]]:
    return survey(root, config.sample_rate, config.min_seconds, config.resample)


def _open_pairs(config, split, folders, shared) -> PairSource:
    clean, bad_clean = _survey(folders.clean, config)
    noisy, bad_noisy = _survey(folders.noisy, config)
    spoiled = {audio_files.name(path, root) for bad, root in ((bad_clean, folders.clean), (bad_noisy, folders.noisy))
               for path in bad}
    bad = bad_clean | bad_noisy
    total = len(clean) + len(noisy) + len(bad)
    for own, others, root in ((clean, noisy, folders.noisy), (noisy, clean, folders.clean)):
        bad |= {own[name].path: f'unpaired: no file of this name in {root}'
                for name in own.keys() - others.keys() - spoiled}
    for name in clean.keys() & noisy.keys():
        if clean[name].num_samples != noisy[name].num_samples:
            bad[noisy[name].path] = (f'{noisy[name].num_samples} samples, '
                                     f'but {clean[name].num_samples} in {clean[name].path}')
    report_bad_files(bad, total, config.skip_bad)
    names = [name for name in clean if name in noisy and noisy[name].path not in bad]
    names = _choose(names, config, split, folders.clean, shared)
    return PairSource(config.sample_rate, [clean[name] for name in names], [noisy[name] for name in names])


def _open_mix(config, split, folders, shared) -> MixSource:
    speech, bad_speech = _survey(folders.speech, config)
    noise, bad_noise = _survey(folders.noise, config)
    bad = bad_speech | bad_noise
    report_bad_files(bad, len(speech) + len(noise) + len(bad), config.skip_bad)
    pad = round(config.pad_seconds * config.sample_rate) if split != 'train' else 0
    speech = [speech[name].extended(pad) for name in _choose(speech, config, split, folders.speech, shared)]
    noise = [noise[name] for name in _choose(noise, config, split, folders.noise, shared, by_file=True)]
    snr_db = config.test_snr_db if split == 'test' else config.snr_db
    conditions = len({file.folder for file in noise}) * len(snr_db)
    count = len(speech) if split == 'train' else max(len(speech), conditions)
    mixtures = list_mixtures(speech, noise, snr_db, count, round(config.clip_seconds * config.sample_rate))
    seen = _training_classes(config, noise) if split == 'test' else None
    return MixSource(config.sample_rate, mixtures, noise, snr_db, config.snr_uniform, seen)


def _open_clean(config, split, folders, shared) -> CleanSource:
    speech, bad = _survey(folders.speech, config)
    report_bad_files(bad, len(speech) + len(bad), config.skip_bad)
    return CleanSource(config.sample_rate,
                       [speech[name] for name in _choose(speech, config, split, folders.speech, shared)])


def _training_classes(config, noise) -> frozenset[str] | None:
    """The classes of the training noise, from the names of its files alone.

    Returns None and logs the reason if they are not known, or if `noise` has files outside class folders.
    """
    root = config.train.noise
    shared = not config.validation.kind('config.data.validation')
    try:
        if not root:
            raise UserError('config.data.train.noise names no directory')
        found = [audio_files.name(path, root) for path in audio_files.find(root)]
        names = _choose(found, config, 'train', root, shared, by_file=True)
        for where, those in ((root, names), (config.test.noise, [file.name for file in noise])):
            if not all('/' in name for name in those):
                raise UserError(f'{where}: has files outside class folders')
        return frozenset(name.split('/')[-2] for name in names)
    except UserError as error:
        log.warning('the noise classes of the training are not known: %s', error)
        return None


def _choose(names, config, split, root, shared, by_file=False) -> list[str]:
    """Selects the names that belong to a split: all, unless train and validation share the training material."""
    if not names:
        raise UserError(f'{root}: all audio files are bad and were left out, expected at least one good file')
    if not shared:
        return list(names)
    if len(names) < 2:
        raise UserError(f'{root}: has a single file, so none can be held out for validation; set '
                        'config.data.validation')
    groups = Speakers({name: name for name in names}, '') if by_file else speakers(
        names, config.speaker_level, 'config.data.speaker_level')
    held = held_out(groups.of, config.held_out)
    if split == 'validation' and not by_file:
        print(_describe(root, groups, held), flush=True)
    return [name for name in names if (name in held) == (split == 'validation')]


def held_out(groups: Mapping[str, str], share: float) -> set[str]:
    """Chooses a share of the groups by hash, at least one, and returns the names in them.

    Args:
      groups: name -> group.
      share: of the groups.
    """
    ranked = sorted(set(groups.values()), key=lambda group: hashlib.sha256(group.encode()).digest())
    chosen = set(ranked[:max(1, min(round(share * len(ranked)), len(ranked) - 1))])
    return {name for name, group in groups.items() if group in chosen}


def _describe(root, groups: Speakers, held: set[str]) -> str:
    """The line that says which speakers were held out."""
    if not groups.found:
        return (f'{root}: found no folders of speakers; {len(held)} of {len(groups.of)} files are held out for '
                'validation, and their speakers may also be in training (docs/data.md lists the layouts that name '
                'speakers)')
    out = sorted({groups.of[name] for name in held})
    named = ', '.join(out[:5]) + (f' and {len(out) - 5} more' if len(out) > 5 else '')
    total = len(set(groups.of.values()))
    doubt = (f'; {groups.doubt} recur in several of them: if these are the speakers, they are also in training; then '
             'set config.data.validation to other folders, or config.data.speaker_level to their level'
             ) if groups.doubt else ''
    return (f'{root}: using {groups.found} as speakers; {len(out)} of {total} are held out for validation: '
            f'{named}{doubt}')
