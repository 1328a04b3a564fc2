"""Temporary folders on this machine."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from jax_diffse import interrupts


@contextlib.contextmanager
def temporary_folder(beside: str | os.PathLike | None = None) -> Iterator[pathlib.Path]:
    """Yields a new folder, which is removed at the end, also if Ctrl-C ends the process at once.

    Args:
      beside: the folder that it lies in, for files that are to be renamed; default: the system's.
    """
    with tempfile.TemporaryDirectory(prefix='.jax_diffse_' if beside else 'jax_diffse_', dir=beside) as folder:
        with interrupts.on_leave(lambda: shutil.rmtree(folder)):
            yield pathlib.Path(folder)
