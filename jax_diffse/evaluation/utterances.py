"""Reads the files of an evaluation: clean and noisy speech and, for refiners, another enhancer's output."""

import hashlib
import os
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jax_diffse import audio, audio_files
from jax_diffse.data.scan import report_bad_files
from jax_diffse.data.source import Padded, Source
from jax_diffse.errors import UserError
from jax_diffse.evaluation.progress import track

MAX_NAME = 255  # bytes, a limit of file systems


class Utterance(NamedTuple):
    """One file of a data set."""

    info: dict  # 'id' and, if known, 'snr_db', 'noise' and 'noise_kind'
    clean: np.ndarray  # [N]
    noisy: np.ndarray  # [N]
    processed: np.ndarray | None  # [N], another enhancer's output, if given
    key: str  # hexadecimal hash of the id and the samples


def read_all(source: Source, processed: str | os.PathLike | None = None, limit: int | None = None,
             skip_bad: bool = False) -> list[Utterance]:
    """Reads the utterances of a source and prints the progress.

    Args:
      source: pairs of clean and noisy speech.
      processed: the folder with another enhancer's output. Every utterance has a file there, named by its id or by
        `file_name`, with any extension; it has one channel, the source's rate and the length of the noisy speech, with
        or without the zeros that `Padded` adds.
      limit: at most this many utterances, spread evenly over those with a partner in `processed`.
      skip_bad: leave out utterances without a partner of their length and print how many, instead of stopping. Files
        without an utterance are not used, and a line says how many.

    Raises:
      UserError: a limit below 1, or partners that do not fit (all in one message).
    """
    if limit is not None and limit < 1:
        raise UserError(f'limit={limit}: expected 1 or more files')
    partners = _partners(source, processed, skip_bad)
    indices = _spread(list(partners), limit)
    return [_read(source, i, partners[i]) for i in track(indices, len(indices), 'reading')]


def file_name(utterance: str) -> str:
    """A valid relative path, `.wav`, for any id; it stays below its folder.

    ASCII characters other than letters, digits and `_.-~ ` are percent-encoded. A name that is too long for file
    systems is cut and ends in a hash of the full name.
    """
    *folders, name = [part for part in utterance.split('/') if part not in ('', '.', '..')] or ['unnamed']
    return '/'.join([*(_fitting(_encoded(part)) for part in folders), _fitting(_encoded(name), '.wav')])


def _encoded(part: str) -> str:
    return ''.join(char if char == ' ' or not char.isascii() and char.isprintable() else urllib.parse.quote(char)
                   for char in part)


def _fitting(part: str, suffix: str = '') -> str:
    """A name of at most `MAX_NAME` bytes."""
    if len(f'{part}{suffix}'.encode()) <= MAX_NAME:
        return part + suffix
    end = f'~{hashlib.sha256(part.encode()).hexdigest()[:12]}{suffix}'
    return part.encode()[:MAX_NAME - len(end)].decode(errors='ignore') + end


def _partners(source: Source, folder, skip_bad: bool) -> dict[int, pathlib.Path | None]:
    """Usable utterance -> its file in `folder`; None if no folder is given."""
    if folder is None:
        return dict.fromkeys(range(len(source)))
    files, partners, bad, used = audio_files.by_name(folder), {}, {}, set()
    for i in range(len(source)):
        info = source.info(i)
        name = file_name(info['id'])
        path = partner(files, info['id'])
        used.add(path)
        lengths = {info['num_samples'], source.unpadded(i)} if isinstance(source, Padded) else {info['num_samples']}
        wrong = _mismatch(path, source.sample_rate, lengths) if path else 'no such file, of any extension'
        if wrong:
            bad[str(path or os.path.join(folder, name))] = wrong
        else:
            partners[i] = path
    report_bad_files(bad, len(source), skip_bad)
    superfluous = len(set(files.values()) - used)
    if superfluous:
        print(f'{folder}: {superfluous} of {len(files)} files are named as no utterance and are not used', flush=True)
    if not partners:
        raise UserError(f'{folder}: no utterance of the data has a matching file here; expected files named by id')
    return partners


def partner(files: Mapping[str, pathlib.Path], utterance: str) -> pathlib.Path | None:
    """The file of an utterance, among files by name; None if there is none."""
    return next((files[key] for key in _keys(utterance) if key in files), None)


def _keys(utterance: str) -> list[str]:
    """Valid names of the file of an utterance; earlier versions also encoded non-ASCII characters."""
    encoded = '/'.join(urllib.parse.quote(part, safe=' ') for part in utterance.split('/'))
    return [audio_files.normal(key) for key in (file_name(utterance).removesuffix('.wav'), utterance, encoded)]


def _mismatch(path: pathlib.Path, sample_rate: int, lengths: set[int]) -> str:
    """Why a file cannot be another enhancer's output for a recording of that rate and one of the lengths, or ''."""
    try:
        header = audio.info(path)
    except UserError as error:
        return str(error).removeprefix(f'{path}: ')
    for found, expected, unit in ((header.sample_rate, {sample_rate}, 'Hz'), (header.num_channels, {1}, 'channels'),
                                  (header.num_samples, lengths, 'samples')):
        if found not in expected:
            return f'{found} {unit}, expected {" or ".join(map(str, sorted(expected)))} as in the noisy speech'
    return ''


def _spread(items: Sequence[int], limit: int | None) -> list[int]:
    """`limit` of the items, evenly spaced, as the first few of a sorted set may be from one speaker."""
    count = len(items) if limit is None else min(limit, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _read(source: Source, i: int, partner: pathlib.Path | None) -> Utterance:
    info, (clean, noisy) = source.info(i), source.read(i)
    processed = None if partner is None else audio.read(partner)[0][:, 0]
    if processed is not None:  # of the length before `Padded`
        processed = np.pad(processed, (0, len(noisy) - len(processed)))
    digest = hashlib.sha256(info['id'].encode())
    for samples in (clean, noisy, processed):
        digest.update(b'' if samples is None else np.ascontiguousarray(samples, np.float32).tobytes())
    return Utterance(info, clean, noisy, processed, digest.hexdigest())
