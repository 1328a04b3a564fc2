"""The files that are evaluated: pairs of clean and noisy speech, and what an earlier enhancer made of the latter."""

import hashlib
import os
import pathlib
import urllib.parse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jax_diffse import audio, audio_files
from jax_diffse.data.scan import report_bad_files
from jax_diffse.data.source import Source
from jax_diffse.errors import UserError
from jax_diffse.evaluation.progress import track

MAX_NAME = 255  # bytes that file systems take


class Utterance(NamedTuple):
    """One file of a data set."""

    info: dict  # 'id', and where known 'snr_db', 'noise' and 'noise_kind'
    clean: np.ndarray  # [N]
    noisy: np.ndarray  # [N]
    processed: np.ndarray | None  # [N], where what an earlier enhancer made of it is given
    key: str  # hexadecimal; the same for the same id and samples


def read_all(source: Source, processed: str | os.PathLike | None = None, limit: int | None = None,
             skip_bad: bool = False) -> list[Utterance]:
    """Reads the utterances of a source, printing how far it is.

    Args:
      source: pairs of clean and noisy speech.
      processed: the folder with what is refined: for every utterance a file of its id, or as `file_name` has it, of any
        extension, with one channel, at the source's rate and as long as the noisy one.
      limit: at most so many, spread evenly over the source (of those with a partner in `processed`).
      skip_bad: leave out those without a partner of their length, and say how many, rather than stop.

    Raises:
      UserError: a limit below 1, or partners that do not fit (all in one message).
    """
    if limit is not None and limit < 1:
        raise UserError(f'limit={limit}: expected 1 or more files')
    partners = _partners(source, processed, skip_bad)
    indices = _spread(list(partners), limit)
    return [_read(source, i, partners[i]) for i in track(indices, len(indices), 'reading')]


def file_name(utterance: str) -> str:
    """A relative path, `.wav`, that stays below its folder and that file systems take, whatever the id is.

    Of ASCII, all but letters, digits and `_.-~ ` is percent-encoded. A name that file systems would find too long ends
    in a hash of the whole.
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
    """Utterance -> the file in `folder` of what was made of it, None where no folder is given; without the bad ones."""
    if folder is None:
        return dict.fromkeys(range(len(source)))
    files, partners, bad = audio_files.by_name(folder), {}, {}
    for i in range(len(source)):
        info = source.info(i)
        name = file_name(info['id'])
        path = next((files[key] for key in _keys(info['id']) if key in files), None)
        wrong = _mismatch(path, source.sample_rate, info['num_samples']) if path else 'no such file, of any extension'
        if wrong:
            bad[str(path or pathlib.Path(folder, name))] = wrong
        else:
            partners[i] = path
    report_bad_files(bad, len(source), skip_bad)
    if not partners:
        raise UserError(f'{folder}: no utterance of the data has a file here that fits it, expected files named by id')
    return partners


def _keys(utterance: str) -> list[str]:
    """What a file of an utterance may be called; earlier versions encoded all but ASCII."""
    encoded = '/'.join(urllib.parse.quote(part, safe=' ') for part in utterance.split('/'))
    return [audio_files.normal(key) for key in (file_name(utterance).removesuffix('.wav'), utterance, encoded)]


def _mismatch(path: pathlib.Path, sample_rate: int, num_samples: int) -> str:
    """What keeps a file from being what was made of a recording of that rate and length, or ''."""
    try:
        header = audio.info(path)
    except UserError as error:
        return str(error).removeprefix(f'{path}: ')
    for found, expected, unit in ((header.sample_rate, sample_rate, 'Hz'), (header.num_channels, 1, 'channels'),
                                  (header.num_samples, num_samples, 'samples')):
        if found != expected:
            return f'{found} {unit}, expected {expected} as in the noisy speech'
    return ''


def _spread(items: Sequence[int], limit: int | None) -> list[int]:
    """`limit` of the items, evenly spaced: the first few of a sorted set would be one speaker's."""
    count = len(items) if limit is None else min(limit, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _read(source: Source, i: int, partner: pathlib.Path | None) -> Utterance:
    info, (clean, noisy) = source.info(i), source.read(i)
    processed = None if partner is None else audio.read(partner)[0][:, 0]
    digest = hashlib.sha256(info['id'].encode())
    for samples in (clean, noisy, processed):
        digest.update(b'' if samples is None else np.ascontiguousarray(samples, np.float32).tobytes())
    return Utterance(info, clean, noisy, processed, digest.hexdigest())
