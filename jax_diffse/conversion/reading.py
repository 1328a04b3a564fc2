"""Reads PyTorch files without executing code in them."""

import os
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from typing import Any

from jax_diffse import files
from jax_diffse.errors import UserError


def load(path: str | os.PathLike, stand_ins: Sequence[str] = ()) -> Any:
    """Reads what `torch.save` wrote: tensors and plain values. Code in the file is not executed.

    Args:
      path: the file.
      stand_ins: names of classes, `module.Class`, that the file may mention; an empty class takes their place.

    Raises:
      UserError: the file is missing or damaged, mentions something else, or is an archive with a member that leads
        outside of it.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError('reading PyTorch files needs torch: pip install torch') from error
    check_file(path)
    with files.local_copy(path) as copy:
        return _loaded(torch, path, copy, stand_ins)


def _loaded(torch, path: str | os.PathLike, copy: pathlib.Path, stand_ins: Sequence[str]) -> Any:
    """The content of `copy`, which messages call `path`."""
    _check_members(copy)
    try:
        with warnings.catch_warnings(action='ignore'), torch.serialization.safe_globals(
                [(type('StandIn', (), {}), name) for name in stand_ins]):
            return torch.load(copy, map_location='cpu', weights_only=True)
    except MemoryError as error:
        raise UserError(f'{path}: damaged, or larger than the memory of this machine') from error
    except pickle.UnpicklingError as error:
        mentioned = re.search(r'Unsupported global: GLOBAL (\S+)', str(error)) if stand_ins else None
        what = (f'it mentions {mentioned[1]}, expected no class but {" or ".join(stand_ins)}' if mentioned else
                'it is damaged or contains code besides tensors')
        raise UserError(f'{path}: refused, {what}') from error
    except Exception as error:  # torch raises many kinds for files that are not pickles
        raise UserError(f'{path}: not a PyTorch checkpoint, or damaged') from error


def check_file(path: str | os.PathLike) -> None:
    """Raises a `UserError` where the path is no file that can be read."""
    try:
        if files.is_address(path):
            files.entry(path)
            return
        if not os.path.isfile(path) and os.path.exists(path):  # opening a pipe without a writer would block
            raise IsADirectoryError(0, 'not a file')
        open(path, 'rb').close()
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({files.reason(error)})') from error


def _check_members(path) -> None:
    """Refuses zip archives with members outside the archive, which torch.save never writes; none are extracted."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # an older format, or damaged, which torch.load reports
        return
    for name in names:
        if name.startswith(('/', '\\')) or '..' in name.replace('\\', '/').split('/'):
            raise UserError(f'{path}: refused, its member {name!r} leads outside the archive')
