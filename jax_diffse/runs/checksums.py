"""Detects damaged checkpoints by the SHA-256 of their files, in the format of `sha256sum`."""

import hashlib
import pathlib

from jax_diffse import files

SUMS = 'SHA256SUMS'


def damage(path: pathlib.Path) -> str:
    """Describes how a checkpoint's files differ from their checksums; '' if they do not."""
    try:
        lines = (path / SUMS).read_text(encoding='ascii').splitlines()
    except FileNotFoundError:  # earlier versions wrote no checksums
        return ''
    except (OSError, ValueError) as error:
        return f'{SUMS}: {error}'
    for line in lines:
        expected, _, name = line.partition('  ')
        try:
            if _sum(path / name) != expected:
                return f'{name} does not match its checksum'
        except OSError as error:
            return f'{name}: {error.strerror}'
    return '' if lines else f'{SUMS} is empty'


def write(path: pathlib.Path) -> None:
    """Adds the file of checksums to a checkpoint after its items are written.

    Raises:
      OSError: the file cannot be written.
    """
    # Only files of items, as Orbax writes to the others later.
    names = sorted(file.relative_to(path).as_posix() for file in path.glob('*/**/*')
                   if file.is_file() and file.name != 'commit_success.txt')
    with files.atomic_write(path / SUMS) as partial:
        partial.write_text(''.join(f'{_sum(path / name)}  {name}\n' for name in names), encoding='ascii')


def _sum(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
