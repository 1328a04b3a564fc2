"""Whether a checkpoint is still what was written: SHA-256 of its files, as `sha256sum` writes and checks them."""

import hashlib
import pathlib

from jax_diffse import files

SUMS = 'SHA256SUMS'


def damage(path: pathlib.Path) -> str:
    """How a checkpoint's files differ from their checksums, or ''."""
    try:
        lines = (path / SUMS).read_text(encoding='ascii').splitlines()
    except FileNotFoundError:  # of an earlier version
        return ''
    except (OSError, ValueError) as error:
        return f'{SUMS}: {error}'
    for line in lines:
        expected, _, name = line.partition('  ')
        try:
            if _sum(path / name) != expected:
                return f'{name} is not what was written'
        except OSError as error:
            return f'{name}: {error.strerror}'
    return '' if lines else f'{SUMS} is empty'


def write(path: pathlib.Path) -> None:
    """Adds the file of checksums to a checkpoint whose items are written.

    Raises:
      OSError: it cannot be written.
    """
    # What lies outside the items, Orbax writes to later.
    names = sorted(file.relative_to(path).as_posix() for file in path.glob('*/**/*')
                   if file.is_file() and file.name != 'commit_success.txt')
    with files.atomic_write(path / SUMS) as partial:
        partial.write_text(''.join(f'{_sum(path / name)}  {name}\n' for name in names), encoding='ascii')


def _sum(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
