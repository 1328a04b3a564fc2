"""Files that appear when they are whole."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A name beside `path` to write to, which then takes its place; the folders above it are made where they lack.

    Where anything is raised, what was written is removed and `path` stays as it was.

    Raises:
      OSError: a folder cannot be made, or the file not put in its place.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.touch()  # tells why it cannot be written, which not every library does
        yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):  # a full or lost disk must not hide what went wrong
            partial.unlink()


def unwritable(path: str | os.PathLike, error: Exception) -> str:
    """The line that says that and why a file could not be written."""
    above = (folder for folder in pathlib.Path(path).parents if os.path.lexists(folder) and not folder.is_dir())
    blocking = next(above, None)
    reason = f'{blocking} is no folder' if blocking else getattr(error, 'strerror', None) or error
    if 'System error' in str(reason):  # libsndfile, of which the file itself was made before
        reason = 'System error, is the disk full?'
    return f'{path}: cannot be written ({reason})'
