"""Environmental noise in the layouts of ESC-50 and ESC-10: the class, recording and fold of each clip.

Source: Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015, and the README of ESC-50.
"""

import csv
import io
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from jax_diffse import audio_files, files
from jax_diffse.errors import UserError

FOLDS = 5
_CLIP = re.compile(r'([1-5])-(\d+)-[A-Z](?:-\d+)?')  # fold, recording (of Freesound), take and class number
_CLASS_FOLDER = re.compile(r'\d{3} - (.+)')  # of ESC-10
_COLUMNS = ('filename', 'fold', 'category', 'src_file')  # that are read


class Clip(NamedTuple):
    """What is known of a noise file."""

    noise_class: str  # '': unknown
    recording: str  # that it was cut from
    fold: int = 0  # of the cross-validation, from 1; 0: none


def clips(root: str | os.PathLike, names: Sequence[str]) -> dict[str, Clip] | None:
    """Returns the clips below a folder by name (`audio_files.name`), or None if it has another layout than ESC's.

    - ESC-50: `audio/FOLD-RECORDING-TAKE-CLASS.wav` and `meta/esc50.csv`; `root` is the folder of both, or `audio`.
    - ESC-10, first release: `001 - Dog bark/FOLD-RECORDING-TAKE.ogg`.

    Classes are written as in ESC-50: 'Dog bark' is `dog_bark`. Audio files may have any format.

    Args:
      root: the folder.
      names: of all audio files below it.

    Raises:
      UserError: `meta/esc50.csv` is missing, lacks a column or a file, or names files that are absent.
    """
    parents = {os.path.dirname(name) for name in names}
    if len(parents) == 1:
        audio = files.path(root).joinpath(*parents)
        audio = audio if audio.name else files.absolute(audio)  # '.'
        table = audio.parent / 'meta' / 'esc50.csv'
        if audio.name == 'audio' and (table.exists() or all(_CLIP.fullmatch(os.path.basename(x)) for x in names)):
            return _esc50(names, audio, table)
    found = {name: _esc10(name) for name in names}
    return found if found and all(found.values()) else None


def _esc10(name: str) -> Clip | None:
    folder, clip = (['', '', *name.split('/')])[-2:]
    kind, parts = _CLASS_FOLDER.fullmatch(folder), _CLIP.fullmatch(clip)
    if not kind or not parts:
        return None
    return Clip(re.sub(r'[^a-z0-9]+', '_', kind[1].lower()).strip('_'), parts[2], int(parts[1]))


def _esc50(names: list[str], audio: pathlib.Path, table: pathlib.Path) -> dict[str, Clip]:
    listed = _read(table)
    there = {os.path.basename(name): name for name in names}
    absent, unlisted = sorted(listed.keys() - there.keys()), sorted(there.keys() - listed.keys())
    if absent:
        raise UserError(f'{table}: {len(absent)} of {len(listed)} files are not in {audio}, such as {absent[0]}; '
                        'restore them, or remove their lines')
    if unlisted:
        raise UserError(f'{table}: {len(unlisted)} of {len(there)} files in {audio} are not listed, such as '
                        f'{unlisted[0]}; add their lines, or move them elsewhere')
    return {there[stem]: clip for stem, clip in listed.items()}


def _read(table: pathlib.Path) -> dict[str, Clip]:
    """Reads the table: name of a file without extension -> clip."""
    try:
        text = table.read_bytes().decode('utf-8-sig')
        reader = csv.DictReader(io.StringIO(text, newline=''))
        rows, columns = list(reader), reader.fieldnames or ()
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f'{table}: cannot be read ({files.reason(error)}); expected the table of ESC-50, which has the '
                        'classes of the clips') from error
    missing = [column for column in _COLUMNS if column not in columns]
    if missing:
        raise UserError(f'{table}: no column {", ".join(missing)}, expected {",".join(_COLUMNS)}')
    return dict(_clip(row, f'{table}: line {line}') for line, row in enumerate(rows, 2))


def _clip(row: dict[str, str], where: str) -> tuple[str, Clip]:
    fold = row['fold'] or ''
    if not all(row[column] for column in _COLUMNS) or fold not in map(str, range(1, FOLDS + 1)):
        raise UserError(f'{where}: expected {",".join(_COLUMNS)} with a fold from 1 to {FOLDS}, got '
                        f'{",".join(row[column] or "" for column in _COLUMNS)}')
    return audio_files.normal(os.path.splitext(row['filename'])[0]), Clip(row['category'], row['src_file'], int(fold))
