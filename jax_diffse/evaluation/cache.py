"""Caches results on disk by (setting, file), so that rerun or extended evaluations compute only missing ones.

`CACHE/SETTING/` holds `setting.json` and, for every file, its scores in `FILE.json` and the output of every stage as
16-bit FLAC in `FILE/`. SETTING is a hash of everything that determines a result, including the code (`sources.py`);
FILE is a hash of the file's id and samples. A record appears when it is complete.
"""

import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jax_diffse import audio, files
from jax_diffse.metrics import Scores


class Record(NamedTuple):
    """The results on one file."""

    scores: dict[str, Scores]  # row -> its scores; the stages in their order
    seconds: float  # its share of the enhancement time
    device: str  # that enhanced it


class ResultCache:
    """The records of one setting.

    Args:
      folder: of the cache.
      setting: everything that determines a result, for JSON.

    Raises:
      UserError: the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, setting: Mapping):
        described = json.dumps(setting, sort_keys=True, indent=2)
        self._folder = files.path(folder) / hashlib.sha256(described.encode()).hexdigest()[:16]
        files.write_text(self._folder / 'setting.json', described + '\n')
        self.list_again()

    def list_again(self) -> None:
        """Lists the folder, if it is in object storage, where asking for each file would take a request.

        Records of other processes appear then.
        """
        self._listed: set[str] | None = None  # on this machine: the files are asked for
        if files.is_address(self._folder):
            self._listed = set(files.listing(self._folder))

    @property
    def poll_seconds(self) -> float:
        """How long to wait before asking for records of other processes again."""
        return 0.5 if self._listed is None else 5.0  # a listing takes a request per thousand files

    def read(self, key: str) -> Record | None:
        """The record of the file with this key; None if it is missing or damaged."""
        if not self._has(self._path(key)):
            return None
        try:
            found = json.loads(self._path(key).read_text(encoding='utf-8'))
            scores = {row: Scores({name: math.nan if value is None else value for name, value in values.items()},
                                  reasons) for row, (values, reasons) in found['scores'].items()}
            return Record(scores, found['seconds'], found['device'])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, key: str, record: Record, waveforms: Mapping[str, np.ndarray], sample_rate: int) -> None:
        """Stores the waveforms `[N]` by stage and then the record, whose metrics are merged with stored ones.

        Raises:
          UserError: the cache cannot be written.
        """
        for stage, samples in waveforms.items():
            audio.write(self._audio(key, stage), samples, sample_rate)
        before = self.read(key)
        known = before.scores if before else {}
        scores = {row: _joined(known.get(row, Scores({}, {})), found) for row, found in record.scores.items()}
        files.write_text(self._path(key), json.dumps({**record._asdict(), 'scores': scores}, allow_nan=False) + '\n')
        if self._listed is not None:
            self._listed |= {str(self._path(key)), *(str(self._audio(key, stage)) for stage in waveforms)}

    def waveform(self, key: str, stage: str) -> np.ndarray:
        """The output of a stage for a file, `[N]`, to 16 bits.

        Raises:
          UserError: it is not in the cache.
        """
        return audio.read(self._audio(key, stage))[0][:, 0]

    def has_audio(self, key: str, stage: str) -> bool:
        """Whether the cache has the output of a stage for a file."""
        return self._has(self._audio(key, stage))

    def _has(self, path: pathlib.Path) -> bool:
        return path.exists() if self._listed is None else str(path) in self._listed

    def _path(self, key):
        return self._folder / f'{key[:32]}.json'

    def _audio(self, key, stage):
        return self._folder / key[:32] / f'{stage}.flac'


def _joined(earlier: Scores, later: Scores) -> list[dict]:
    reasons = {name: reason for name, reason in earlier.reasons.items() if name not in later.values}
    return [json_safe({**earlier.values, **later.values}), {**reasons, **later.reasons}]


def json_safe(tree):
    """A tree for JSON: None replaces NaN and infinity, which JSON lacks."""
    if isinstance(tree, dict):
        return {key: json_safe(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [json_safe(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
