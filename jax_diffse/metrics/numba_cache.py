"""A cache folder for Numba, without which librosa cannot be imported if neither home nor site-packages is writable."""

import functools
import importlib.util
import os
import pathlib
import tempfile


@functools.cache
def ensure() -> tempfile.TemporaryDirectory | None:
    """Names a temporary folder for Numba's cache if it could write to none; removed when this process ends.

    Call this before the first import of librosa, as Numba reads the name only once.
    """
    site = pathlib.Path(importlib.util.find_spec('librosa').origin).parent
    home = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path('~/.cache').expanduser()) / 'numba'
    if os.environ.get('NUMBA_CACHE_DIR') or _is_writable(site) or _is_writable(home):
        return None
    folder = tempfile.TemporaryDirectory(prefix='numba_')
    os.environ['NUMBA_CACHE_DIR'] = folder.name
    return folder


def _is_writable(folder: pathlib.Path) -> bool:
    """Whether files can be created in a folder, or in a new one of this name."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)
