"""Finds the audio files that cannot be used, before a training or an evaluation starts."""

import concurrent.futures
import contextlib
import contextvars
import functools
import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator

import numpy as np

from jax_diffse import audio, audio_files
from jax_diffse.data.columns import Names
from jax_diffse.data.facts import NAN, SILENT, SOUND, Facts, Finding, Rules
from jax_diffse.data.manifest import Manifest
from jax_diffse.data.places import Bucket, Disk, place
from jax_diffse.data.recordings import HEADER, AudioFile, AudioFiles
from jax_diffse.data.resampling import Resampling
from jax_diffse.errors import UserError
from jax_diffse.files import StoredObject

SILENCE = 1e-5  # RMS, -100 dBFS: the rounding error of 16-bit samples
LONGEST_RIR = 10.0  # seconds; collections of room impulse responses may hold recordings of noise, too
_BLOCK = 1 << 22  # samples that are read at once; bounds the memory for a long file
_PART = 512  # files between two looks at the clock
_SAY_SECONDS, _SAVE_SECONDS = 10, 60  # between lines of progress, and between manifests while files are checked

log = logging.getLogger(__name__)
_surveys: contextvars.ContextVar[dict | None] = contextvars.ContextVar('surveys', default=None)


def is_silent(samples: np.ndarray) -> bool:
    """Whether the RMS of `[N]` is at most the rounding error of 16-bit samples."""
    return float(np.dot(samples, samples)) <= SILENCE**2 * len(samples)


def survey(rules: Rules, root: str, paths: list[str] | None = None) -> tuple[AudioFiles, dict[str, str]]:
    """Finds the audio files below `root`, and looks at those that are new or have changed, in a pool of threads.

    Args:
      rules: which files can be used, and how closely they are looked at.
      root: a directory.
      paths: of some of the files below it, in the order of `audio_files.list_paths`; default: all.

    Returns:
      The good files, in order, and the bad ones: path -> reason.

    Raises:
      UserError: there is no such directory, or it has no audio file.
    """
    return once(_survey, root, rules) if paths is None else _survey(root, rules, paths)


def survey_rirs(root: str, sample_rate: int) -> tuple[list[AudioFile], dict[str, str]]:
    """Reads every room impulse response below `root`, see `survey`.

    They may have any rate and number of channels, and at most `LONGEST_RIR` seconds. The first channel counts, and is
    resampled when it is read.
    """
    return once(_survey_rirs, root, sample_rate)


@contextlib.contextmanager
def folders_once() -> Iterator[None]:
    """Within it, a folder is searched once, however often `survey` or `survey_rirs` is called."""
    outer = _surveys.get()
    token = _surveys.set({} if outer is None else outer)
    try:
        yield
    finally:
        _surveys.reset(token)


def once(look: Callable, *given):
    """Calls a function that looks at a folder, once within `folders_once`."""
    surveys = _surveys.get()
    if surveys is None:
        return look(*given)
    if (look, *given) not in surveys:
        surveys[look, *given] = look(*given)
    return surveys[look, *given]


def _survey(root: str, rules: Rules, paths: list[str] | None = None) -> tuple[AudioFiles, dict[str, str]]:
    where = place(root)
    key = where.key
    if paths is None:
        paths = where.paths()
    else:
        key += '\0' + hashlib.sha256('\0'.join(paths).encode(errors='surrogateescape')).hexdigest()
    if not paths:
        raise UserError(f'{root}: no audio files in this directory')
    facts, failures = _look(Manifest(key, root), where, paths, rules)
    return judge(AudioFiles(where.prefix, facts, rules, np.arange(len(facts)), where.store(facts)), failures)


def judge(files: AudioFiles, failures: dict[int, str]) -> tuple[AudioFiles, dict[str, str]]:
    """Divides files into good ones and bad ones: path -> reason.

    Args:
      files: all files of a folder.
      failures: what is wrong with files that cannot be read: row -> reason.
    """
    problems = files.rules.problems(files.facts, files.rows) | failures
    kept = np.ones(len(files), bool)
    kept[list(problems)] = False
    problems |= _same_names(files, kept)
    kept[list(problems)] = False
    return files.take(np.flatnonzero(kept)), {files.path(row): reason for row, reason in problems.items()}


def _same_names(files: AudioFiles, kept: np.ndarray) -> dict[int, str]:
    """The files, among those that are kept, whose name an earlier one has: row -> reason."""
    names = files.names()
    hashes = np.fromiter(map(hash, names), np.int64, len(names))
    ordered = np.sort(hashes)
    several = ordered[1:][ordered[1:] == ordered[:-1]]
    first, found = {}, {}
    for row in np.flatnonzero(kept & np.isin(hashes, several)).tolist() if len(several) else ():
        other = first.setdefault(names[row], row)
        if other != row:
            found[row] = f'has the same name as {files.path(other)}'
    return found


def _look(manifest: Manifest, where: Disk | Bucket, paths: list[str], rules: Rules) -> tuple[Facts, dict[int, str]]:
    """Finds out what the rules ask of files; only new and changed files are opened, and what is found is kept.

    Args:
      manifest: of the folder.
      where: the folder.
      paths: of the files, below the folder.
      rules: what has to be known.

    Returns:
      The facts, and why files cannot be read: row -> reason.
    """
    facts = Facts.unknown(Names.of(paths))
    trusting = rules.check == 'none' and not where.times_are_listed
    failures = {} if trusting else where.stat(facts, paths)
    del paths
    known = manifest.load()
    if known:
        facts.adopt(known, whatever_changed=trusting)
    if rules.check == 'none':
        return facts, failures
    if set(rules.undecided(facts).tolist()) - failures.keys():
        with manifest.in_turn():
            stored = manifest.load_stored()  # another process may have looked meanwhile
            if stored:
                facts.adopt(stored)
            todo = [row for row in rules.undecided(facts).tolist() if row not in failures]
            if todo:
                failures |= _examine_all(manifest, where, facts, todo, rules)
    if known and facts.equals(known):
        facts = known  # in memory once
    manifest.remember(facts)
    return facts, failures


def _examine_all(manifest: Manifest, where: Disk | Bucket, facts: Facts, rows: list[int],
                 rules: Rules) -> dict[int, str]:
    """Looks at files and stores what is found; returns why files cannot be read: row -> reason."""
    failures, said, saved = {}, time.monotonic(), time.monotonic()
    recordings = AudioFiles(where.prefix, facts, rules, np.arange(len(facts)), where.store(facts))
    block = 0 if rules.check == 'full' else HEADER
    with concurrent.futures.ThreadPoolExecutor(where.workers) as pool:
        try:
            for start in range(0, len(rows), _PART):
                part = rows[start:start + _PART]
                found = pool.map(lambda row: _examine(recordings.source(row, block), rules), part)
                for row, finding in zip(part, found, strict=True):
                    if isinstance(finding, str):
                        failures[row] = finding
                    else:
                        facts.put(row, finding)
                done = start + len(part)
                if time.monotonic() - said > _SAY_SECONDS and done < len(rows):
                    said = time.monotonic()
                    print(f'{manifest.root}: checked {done} of {len(rows)} new files', flush=True)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    manifest.save(facts)
                    saved = time.monotonic()
        finally:
            pool.shutdown(cancel_futures=True)
            manifest.save(facts)
    return failures


def partners(clean: AudioFiles, noisy: AudioFiles,
             bad: tuple[dict[str, str], dict[str, str]]) -> tuple[AudioFiles, AudioFiles, dict[str, str]]:
    """Matches clean and noisy files by name, or by the file ids in their names if no names are equal.

    Args:
      clean, noisy: the good files of two folders.
      bad: the bad files of each: path -> reason.

    Returns:
      The partners, in the order of the clean files, and all bad files: those given, files whose id another file has,
      and files without a partner, at another rate than the partner or of another length.
    """
    problems, shared = bad[0] | bad[1], 'name'
    spoiled = {audio_files.stem(path.removeprefix(files.prefix)) for files, paths in zip((clean, noisy), bad)
               for path in paths}
    names, others = clean.names(), noisy.names()
    partners = {name: k for k, name in enumerate(others)}
    if not any(name in partners for name in names):
        shared, spoiled = 'name or file id', set(map(file_id, spoiled))
        (clean, names, repeated), (noisy, others, repeated_noisy) = map(_by_file_id, (clean, noisy))
        problems |= repeated | repeated_noisy
        partners = {name: k for k, name in enumerate(others)}
    places = np.array([partners.get(name, -1) for name in names], np.int64)
    for files, keys, lone, opposite in ((clean, names, np.flatnonzero(places < 0), noisy),
                                        (noisy, others, np.setdiff1d(np.arange(len(noisy)), places), clean)):
        for i in lone.tolist():
            if keys[i] not in spoiled:
                root = opposite.prefix.removesuffix('/') or '.'
                problems[files.path(files.rows[i])] = f'unpaired: no file of this {shared} in {root}'
    found = np.flatnonzero(places >= 0)
    clean, noisy = clean.take(found), noisy.take(places[found])
    differ = np.zeros(len(found), bool)
    for what, ours, theirs in (('Hz', clean.rates(), noisy.rates()),
                               ('samples', clean.num_samples(), noisy.num_samples())):
        for i in np.flatnonzero((ours != theirs) & (ours >= 0) & (theirs >= 0) & ~differ).tolist():
            differ[i] = True
            problems[noisy.path(noisy.rows[i])] = (f'{theirs[i]} {what}, but {ours[i]} in '
                                                   f'{clean.path(clean.rows[i])}')
    kept = np.flatnonzero(~differ)
    return clean.take(kept), noisy.take(kept), problems


def file_id(name: str) -> str:
    """The part of a name that partners share in the DNS challenge, 'fileid_5' of 'clean_fileid_5', or else the name."""
    folder, _, stem = name.rpartition('/')
    found = re.search(r'(?:^|_)(fileid_\d+)$', stem)
    return f'{folder}/{found[1]}' if found else name


def _by_file_id(files: AudioFiles) -> tuple[AudioFiles, list[str], dict[str, str]]:
    """Returns the first file of each file id, these ids, and the other files: path -> reason."""
    first: dict[str, int] = {}
    repeated = {}
    for i, name in enumerate(files.names()):
        other = first.setdefault(file_id(name), i)
        if other != i:
            repeated[files.path(files.rows[i])] = f'has the same file id as {files.path(files.rows[other])}'
    return files.take(list(first.values())), list(first), repeated


def report_bad_files(bad: dict[str, str], total: int, skip_bad: bool,
                     flag: str = '--config.data.skip_bad=True (evaluate: --skip-bad)') -> None:
    """Raises one `UserError` that lists all bad files, a line each; with `skip_bad`, logs them instead.

    Args:
      bad: path -> reason.
      total: number of files, with the bad ones.
      skip_bad: whether to go on without them.
      flag: what sets `skip_bad`, for the message.
    """
    if not bad:
        return
    lines = '\n'.join(f'  {path}: {reason}' for path, reason in sorted(bad.items()))
    advice = f'leave {{}} out with {flag}'
    if not skip_bad and len(bad) == 1:
        raise UserError(f'{lines.strip()}; repair or remove it, or {advice.format("it")}')
    if not skip_bad:
        raise UserError(f'{len(bad)} of {total} audio files cannot be used: repair or remove them, or '
                        f'{advice.format("them")}\n{lines}')
    log.warning('left out %d of %d audio files:\n%s', len(bad), total, lines)


def _examine(path: str | StoredObject, rules: Rules) -> Finding | str:
    """Looks at a file as closely as the rules ask -> what is found, or why it cannot be read."""
    try:
        header = Finding(*audio.info(path)[:3])
        if rules.check != 'full' or rules.refuses(header):
            return header
        content = _content(path, header.num_samples)
        resampled = 0
        if content == SOUND and rules.sample_rate not in (0, header.sample_rate):
            change = Resampling(header.num_samples, header.sample_rate, rules.sample_rate)
            silent = is_silent(change.read(functools.partial(_first_channel, path)))
            resampled = -rules.sample_rate if silent else rules.sample_rate
        return header._replace(content=content, resampled=resampled)
    except UserError as error:
        return str(error).removeprefix(f'{path}: ')


def _first_channel(path: str | StoredObject, start: int = 0, stop: int | None = None) -> np.ndarray:
    return audio.read(path, start, stop)[0][:, 0]


def _survey_rirs(root: str, sample_rate: int) -> tuple[list[AudioFile], dict[str, str]]:
    where = place(root)
    paths = where.paths()
    if not paths:
        raise UserError(f'{root}: no audio files in this directory')
    facts = Facts.unknown(Names.of(paths))
    if where.times_are_listed:
        where.stat(facts, paths)
    recordings = AudioFiles(where.prefix, facts, Rules(sample_rate, 0.0), np.arange(len(facts)), where.store(facts))
    with concurrent.futures.ThreadPoolExecutor(where.workers) as pool:
        results = list(pool.map(lambda row: _examine_rir(recordings, row), range(len(paths))))
    good: dict[str, AudioFile] = {}
    bad = {}
    for row, found in enumerate(results):
        if isinstance(found, str):
            bad[recordings.path(row)] = found
        elif good.setdefault(found.name, found) is not found:
            bad[recordings.path(row)] = f'has the same name as {good[found.name].path}'
    return list(good.values()), bad


def _examine_rir(recordings: AudioFiles, row: int) -> AudioFile | str:
    """Returns the room impulse response, or what is wrong with it."""
    path, source = recordings.path(row), recordings.source(row)
    try:
        header = audio.info(source)
        seconds = header.num_samples / header.sample_rate
        if seconds > LONGEST_RIR:
            return f'{seconds:.1f} s long, expected a room impulse response of {LONGEST_RIR:g} s or less'
        recordings.facts.put(row, Finding(*header[:3]))
        file = recordings[row]
        read = functools.partial(_first_channel, source)  # an object is read once
        samples = file.resampling.read(read) if file.resampling else read()
    except UserError as error:
        return str(error).removeprefix(f'{path}: ')
    if not np.isfinite(samples).all():
        return 'has NaN or infinite samples'
    return file if samples.any() else 'silent in its first channel'


def _content(path: str, num_samples: int) -> int:
    energy = 0.0
    for block in audio.blocks(path, _BLOCK):
        if not np.isfinite(block).all():
            return NAN
        energy += float(np.dot(block[:, 0], block[:, 0]))
    return SILENT if energy <= SILENCE**2 * num_samples else SOUND
