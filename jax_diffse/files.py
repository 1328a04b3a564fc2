"""Files that appear when they are whole, and one that only one process holds."""

import contextlib
import os
import pathlib
import platform
from collections.abc import Iterator

from jax_diffse.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


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


@contextlib.contextmanager
def locked(path: str | os.PathLike, what: str) -> Iterator[None]:
    """Holds a file, which is made where there is none; the system lets go of it however this process ends.

    Raises:
      UserError: another process holds it; `what` says what for.
      OSError: the file cannot be made.
    """
    with open(path, 'a+', encoding='utf-8') as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or 'another process'
                raise UserError(f'{what}: {holder} is at work here; wait for it or end it') from error
            except OSError:  # storage that cannot lock
                pass
        file.truncate(0)
        file.write(f'process {os.getpid()} on {platform.node()}\n')
        file.flush()
        yield
