"""Detects damaged checkpoints by the checksums of their files, in the formats of `sha256sum` and `md5sum`.

On this machine they are SHA-256 of what the files hold. In object storage they are the MD5 that the store keeps for
each object: one listing then tells whether objects are missing, cut off or replaced, and no byte is downloaded twice.
The store itself checks what it holds. A checkpoint that was copied from one to the other keeps its own kind.
"""

import hashlib
import os
import pathlib

from jax_diffse import files

SUMS = 'SHA256SUMS'
KINDS = {'sha256': SUMS, 'md5': 'MD5SUMS'}  # -> file
COMMIT = 'commit_success.txt'  # Orbax's mark of a complete folder in object storage


def damage(path: pathlib.Path) -> str:
    """Describes how a checkpoint's files differ from their checksums; '' if they do not."""
    for kind, name in KINDS.items():
        try:
            return _damage(path, kind, (path / name).read_text(encoding='utf-8').splitlines())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            return f'{name}: {files.reason(error)}'
    # On this machine, folders are deleted after they were renamed; earlier versions wrote no checksums.
    return 'it has no checksums, perhaps its deletion was interrupted' if files.is_address(path) else ''


def write(path: pathlib.Path) -> None:
    """Adds the file of checksums to a checkpoint after its items are written.

    Raises:
      OSError: the file cannot be written.
    """
    sums = {name: md5 for name, md5 in _stored(path).items() if '/' in name and os.path.basename(name) != COMMIT}
    kind = 'md5' if sums and all(sums.values()) else 'sha256'
    if kind == 'sha256':
        # Only files of items, as Orbax writes to the others later.
        names = sums or sorted(file.relative_to(path).as_posix() for file in path.glob('*/**/*')
                               if file.is_file() and file.name != COMMIT)
        sums = {name: _sum(path / name, kind) for name in names}
    with files.atomic_write(path / KINDS[kind]) as partial:
        partial.write_text(''.join(f'{value}  {name}\n' for name, value in sums.items()), encoding='utf-8')


def _damage(path: pathlib.Path, kind: str, lines: list[str]) -> str:
    stored = _stored(path) if kind == 'md5' else {}
    for line in lines:
        expected, _, name = line.partition('  ')
        try:
            if (stored.get(name) or _sum(path / name, kind)) != expected:
                return f'{name} does not match its checksum'
        except OSError as error:
            return f'{name}: {files.reason(error)}'
    return '' if lines else f'{KINDS[kind]} is empty'


def _stored(path: pathlib.Path) -> dict[str, str]:
    """File -> the MD5 that the store keeps, '' if it keeps none; {} on this machine."""
    if not files.is_address(path):
        return {}
    length = len(os.fspath(path)) + 1
    return {address[length:]: entry.md5 for address, entry in files.listing(path).items()}


def _sum(path: pathlib.Path, kind: str) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, kind).hexdigest()
