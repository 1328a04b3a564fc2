"""What is wrong with audio files, in one line."""

import os

from jax_diffse import files
from jax_diffse.errors import StoreError

EMPTY = 'the file is empty'


def cut_off(path, there: int, claimed: int, unit: str = 'samples') -> str:
    """The message about a file that has `there` of `claimed` samples."""
    return (f'{path}: cut off, {there} of {claimed} {unit} are left; get the file again, or open it in a sound editor '
            'and save it')


def unreadable(path: str | os.PathLike, error: Exception) -> str:
    """The message about a file that cannot be read as audio, for this error."""
    if files.is_address(path):
        return _unreadable_object(path, error)
    try:
        os.stat(path)
    except PermissionError as denied:  # for a folder above it
        return f'{path}: cannot be read ({denied.strerror})'
    except OSError:
        pass  # see below
    if not os.path.exists(path):
        return f'{path}: ' + ('a link that leads to no file' if os.path.islink(path) else 'no such file')
    if os.path.isdir(path):
        return f'{path}: a directory, expected an audio file'
    if not os.path.isfile(path):
        return f'{path}: not a file but a device or pipe, expected an audio file'
    if os.path.getsize(path) == 0:
        return f'{path}: {EMPTY}'
    try:
        open(path, 'rb').close()
    except OSError as denied:
        return f'{path}: cannot be read ({denied.strerror})'
    return f'{path}: not readable as audio ({words(error)})'


def _unreadable_object(path, error) -> str:
    if isinstance(error, FileNotFoundError):
        return f'{path}: no such file'
    if isinstance(error, IsADirectoryError):
        return f'{path}: a directory, expected an audio file'
    if isinstance(error, StoreError):
        return f'{path}: cannot be read ({files.reason(error)})'
    if str(error) == EMPTY:
        return f'{path}: {EMPTY}'
    return f'{path}: not readable as audio ({words(error)})'


def words(error: Exception) -> str:
    """The words of an error of soundfile."""
    return str(getattr(error, 'error_string', error)).strip().rstrip('.')
