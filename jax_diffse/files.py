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
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
