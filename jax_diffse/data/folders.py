"""Folders of audio files as a `Source`: pairs of clean and noisy speech, speech and noise to mix, or speech."""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping

import numpy as np

from jax_diffse import audio_files
from jax_diffse.data import esc, packed
from jax_diffse.data.config import DataConfig
from jax_diffse.data.facts import Rules
from jax_diffse.data.mixer import Mixer
from jax_diffse.data.mixing import Levels, piece
from jax_diffse.data.mixtures import MixSource, Mixtures
from jax_diffse.data.recordings import AudioFile, AudioFiles
from jax_diffse.data.scan import partners, report_bad_files, survey, survey_rirs
from jax_diffse.data.share import choose_share, count
from jax_diffse.data.speakers import Speakers, speakers
from jax_diffse.errors import UserError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PairSource:
    """Pairs of files with equal names or file ids; an utterance has the name of its noisy file."""

    sample_rate: int  # Hz
    clean: AudioFiles
    noisy: AudioFiles
    used: str = ''  # how many utterances of how many, if a share is used

    @property
    def in_store(self) -> bool:
        """Whether samples come from object storage."""
        return self.clean.in_store or self.noisy.in_store

    def __len__(self) -> int:
        return len(self.clean)

    def info(self, i: int) -> dict:
        """`{'id', 'num_samples'}` of pair i."""
        clean, noisy = self._pair(i)
        return {'id': noisy.name, 'num_samples': clean.num_samples}

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads the whole pair i: (clean `[N]`, noisy `[N]`)."""
        clean, noisy = self._pair(i)
        return clean.read(), noisy.read()

    def draw(self, i: int, num_samples: int, rng: np.random.Generator,
             start: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Reads at most `num_samples` of pair i, from `start` or a random place on."""
        clean, noisy = self._pair(i)
        length = min(num_samples, clean.num_samples)
        if start is None:
            start = int(rng.integers(clean.num_samples - length + 1))
        return clean.read(start, start + length), noisy.read(start, start + length)

    def _pair(self, i: int) -> tuple[AudioFile, AudioFile]:
        clean, noisy = self.clean[i], self.noisy[i]
        if clean.num_samples != noisy.num_samples:  # where nothing is known of files before they are read
            raise UserError(f'{noisy.path}: {noisy.num_samples} samples, but {clean.num_samples} in {clean.path}')
        return clean, noisy


@dataclasses.dataclass(frozen=True)
class CleanSource:
    """Clean speech without a noisy counterpart, for priors; the clean speech also stands in for the noisy speech."""

    sample_rate: int  # Hz
    clean: AudioFiles
    used: str = ''  # how many utterances of how many, if a share is used

    @property
    def in_store(self) -> bool:
        """Whether samples come from object storage."""
        return self.clean.in_store

    def __len__(self) -> int:
        return len(self.clean)

    def info(self, i: int) -> dict:
        """`{'id', 'num_samples'}` of utterance i."""
        return {'id': self.clean[i].name, 'num_samples': self.clean[i].num_samples}

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads the whole utterance i, and returns it twice."""
        return (self.clean[i].read(),) * 2

    def draw(self, i: int, num_samples: int, rng: np.random.Generator,
             start: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Reads at most `num_samples` of utterance i, from `start` or a random place on, and returns them twice."""
        return (piece(self.clean[i], num_samples, rng, start)[0],) * 2


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


def _survey(root, config, role) -> tuple[AudioFiles, dict[str, str]]:
    """The good and the bad recordings of a folder, or of a packed data set."""
    index = packed.index(root)
    rules = Rules(config.sample_rate, config.min_seconds, config.resample, config.check)
    return index.survey(role, rules) if index else survey(rules, root)


def _open_pairs(config, split, folders, shared) -> PairSource:
    (clean, bad_clean), (noisy, bad_noisy) = (_survey(getattr(folders, role), config, role)
                                              for role in ('clean', 'noisy'))
    total = sum(map(len, (clean, bad_clean, noisy, bad_noisy)))
    clean, noisy, bad = partners(clean, noisy, (bad_clean, bad_noisy))
    report_bad_files(bad, total, config.skip_bad)
    chosen, used = _utterances(clean.names(), config, split, folders.clean, shared)
    return PairSource(config.sample_rate, clean.take(chosen), noisy.take(chosen), used)


def _open_mix(config, split, folders, shared) -> MixSource:
    speech, bad_speech = _survey(folders.speech, config, 'speech')
    noise, bad_noise = _survey(folders.noise, config, 'noise')
    rirs, bad_rirs = _survey_rirs(folders.rir, config) if folders.rir else ([], {})
    bad = bad_speech | bad_noise | bad_rirs
    report_bad_files(bad, len(speech) + len(noise) + len(rirs) + len(bad), config.skip_bad)
    chosen, used = _utterances(speech.names(), config, split, folders.speech, shared)
    speech = speech.take(chosen)
    names = noise.names()
    below = [audio_files.stem(path) for path in noise.facts.paths]
    labels, said = _noises(names, below, config, split, folders.noise, shared)
    if said:
        print(said, flush=True)
    noise = noise.take([i for i, name in enumerate(names) if name in labels],
                       [labels[name] for name in names if name in labels])
    levels = Levels(config.test_snr_db) if split == 'test' else Levels(config.snr_db, config.snr_uniform,
                                                                       config.noise_gain)
    if folders.rir:
        rirs = _rirs(rirs, config, split, folders.rir, shared)
    mixer = Mixer(config.mixer_of(split), config.target, rirs, config.sample_rate)
    if split == 'train':  # mixed anew for each example; the list only names the utterances
        mixtures = Mixtures(speech, noise, levels, len(speech))
    else:
        conditions = len(set(noise.noise_classes())) * len(levels.listed)
        clip, pad = (round(seconds * config.sample_rate) for seconds in (config.clip_seconds, config.pad_seconds))
        mixtures = Mixtures(speech, noise, levels, max(len(speech), conditions), clip, pad, mixer)
    seen = _training_classes(config, noise) if split == 'test' else None
    return MixSource(config.sample_rate, mixtures, noise, levels, mixer, seen, used)


def _survey_rirs(root, config) -> tuple[list[AudioFile], dict[str, str]]:
    if packed.index(root):
        raise UserError(f'{root}: a packed data set, expected a folder of audio files, as room impulse responses are '
                        'not packed')
    return survey_rirs(root, config.sample_rate)


def _rirs(found, config, split, root, shared) -> list[AudioFile]:
    """Selects the room impulse responses of a split; single files are held out if validation shares the material."""
    _check_enough(found, root, 2 if shared else 1)
    held = held_out({file.name: file.name for file in found}, config.held_out) if shared else set()
    return [file for file in found if not shared or (file.name in held) == (split == 'validation')]


def _open_clean(config, split, folders, shared) -> CleanSource:
    speech, bad = _survey(folders.speech, config, 'speech')
    report_bad_files(bad, len(speech) + len(bad), config.skip_bad)
    chosen, used = _utterances(speech.names(), config, split, folders.speech, shared)
    return CleanSource(config.sample_rate, speech.take(chosen), used)


def _training_classes(config, noise) -> frozenset[str] | None:
    """The classes of the training noise, from the names of its files alone.

    Returns None and logs the reason if they are not known, or if `noise` has files outside class folders.
    """
    root = config.train.noise
    shared = not config.validation.kind('config.data.validation')
    try:
        if not root:
            raise UserError('config.data.train.noise names no directory')
        index = packed.index(root)
        names = index.names() if index else [audio_files.stem(path) for path in audio_files.list_paths(root)]
        classes = set(_noises(names, names, config, 'train', root, shared)[0].values())
        for where, those in ((root, classes), (config.test.noise, set(noise.labels))):
            if '' in those:
                raise UserError(f'{where}: has files outside class folders')
        return frozenset(classes)
    except UserError as error:
        log.warning('the noise classes of the training are not known: %s', error)
        return None


def _utterances(names: list[str], config, split, root, shared) -> tuple[np.ndarray, str]:
    """Selects the utterances of a split by their places in `names`, and says how many of how many if it uses a share.

    Whole speakers are held out for validation if it shares the training material.
    """
    share, seed = config.share_of(split)
    _check_enough(names, root, 2 if shared else 1)
    chosen = np.arange(len(names))
    if not shared and share == 1:
        return chosen, ''
    level = config.speaker_level if shared or split == 'train' else 0
    groups = speakers(names, level, 'config.data.speaker_level')
    if shared:
        held = held_out(groups.of, config.held_out)
        if split == 'validation':
            print(_describe(root, groups, held), flush=True)
        chosen = np.flatnonzero([(name in held) == (split == 'validation') for name in names])
    if share == 1:
        return chosen, ''
    among = [names[i] for i in chosen.tolist()]
    kept = choose_share({name: groups.of[name] if groups.found else '' for name in among}, share, seed)
    return chosen[[name in kept for name in among]], count(len(kept), len(among))


def _noises(names, below, config, split, root, shared) -> tuple[dict[str, str], str]:
    """Selects the noises of a split: name -> class, '' for files outside class folders; and what to say of them.

    Whole recordings are held out for validation if it shares the training material. A recording is a file, unless
    several clips of ESC were cut from it. `below` names all files of the folder, also the bad ones.
    """
    _check_enough(names, root)
    index = packed.index(root)
    of_esc = index.clips() if index else esc.clips(root, below)
    known = of_esc or {name: esc.Clip(name.rpartition('/')[0].rpartition('/')[2], name) for name in names}
    clips = {name: known[name] for name in names}
    if of_esc and config.esc_test_fold:
        clips = _of_folds(clips, config.esc_test_fold, split, root)
    clips = _of_classes(clips, config, split, root)
    if shared:
        recordings = {name: clip.recording for name, clip in clips.items()}
        _check_enough(set(recordings.values()), root, 2, 'recording' if of_esc else 'file')
        held = held_out(recordings, config.held_out)
        clips = {name: clip for name, clip in clips.items() if (name in held) == (split == 'validation')}
    fold = f'fold {config.esc_test_fold} is' if config.esc_test_fold else 'no fold is kept'
    classes = len({clip.noise_class for clip in clips.values()})
    said = (f'{root}: ESC; {len(clips)} of {len(known)} clips, of {classes} class(es), are for {split}; {fold} for '
            'tests alone (config.data.esc_test_fold)') if of_esc else ''
    return {name: clip.noise_class for name, clip in clips.items()}, said


def _of_folds(clips: dict[str, esc.Clip], test_fold, split, root) -> dict[str, esc.Clip]:
    """Selects the clips of one fold for tests, and of the others for all else."""
    found = {name: clip for name, clip in clips.items() if (clip.fold == test_fold) == (split == 'test')}
    if not found:
        raise UserError(f'{root}: has no clips for {split}: config.data.esc_test_fold={test_fold} keeps this fold for '
                        'tests alone; 0 keeps none')
    return found


def _of_classes(clips: dict[str, esc.Clip], config, split, root) -> dict[str, esc.Clip]:
    """Selects the clips of the classes that the config names for a split; it may name none, for all."""
    key, flag = ('test_noise_classes', ' (evaluate: --noise-classes)') if split == 'test' else ('noise_classes', '')
    wanted = {audio_files.normal(name) for name in getattr(config, key)}
    known = {clip.noise_class for clip in clips.values()} - {''}
    unknown = sorted(wanted - known)
    if unknown:
        named = ', '.join(name or "''" for name in unknown)
        raise UserError(f'config.data.{key}{flag}: no class {named} in {root}, expected some of '
                        f'{", ".join(sorted(known)) or "its class folders, but it has none"}')
    return {name: clip for name, clip in clips.items() if not wanted or clip.noise_class in wanted}


def _check_enough(names, root, least=1, what='file') -> None:
    if not names:
        raise UserError(f'{root}: all audio files are bad and were left out, expected at least one good file')
    if len(names) < least:
        raise UserError(f'{root}: has a single {what}, so none can be held out for validation; set '
                        'config.data.validation')


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
