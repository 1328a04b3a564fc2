"""The files that are evaluated: pairs of clean and noisy speech, and what an earlier enhancer made of the latter."""

import hashlib
import os
import pathlib
import urllib.parse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jax_diffse import audio
from jax_diffse.data.scan import settle
from jax_diffse.data.source import Source
from jax_diffse.errors import UserError
from jax_diffse.evaluation.progress import track


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
    """A relative path, `.wav`, that stays below its folder, whatever the id is; plain ids are kept."""
    parts = [urllib.parse.quote(part, safe=' ') for part in utterance.split('/') if part not in ('', '.', '..')]
    return '/'.join(parts or ['unnamed']) + '.wav'


def _partners(source: Source, folder, skip_bad: bool) -> dict[int, pathlib.Path | None]:
    """Utterance -> the file in `folder` of what was made of it, None where no folder is given; without the bad ones."""
    if folder is None:
        return dict.fromkeys(range(len(source)))
    files, partners, bad = audio.by_name(folder), {}, {}
    for i in range(len(source)):
        info = source.info(i)
        name = file_name(info['id'])
        path = files.get(name.removesuffix('.wav')) or files.get(info['id'])
        wrong = _mismatch(path, source.sample_rate, info['num_samples']) if path else 'no such file, of any extension'
        if wrong:
            bad[str(path or pathlib.Path(folder, name))] = wrong
        else:
            partners[i] = path
    settle(bad, len(source), skip_bad)
    if not partners:
        raise UserError(f'{folder}: no utterance of the data has a file here that fits it, expected files named by id')
    return partners


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
