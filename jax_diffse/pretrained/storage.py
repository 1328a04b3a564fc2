"""The files of the packaged enhancer: `dccrn.npz` with its variables, `dccrn.json` with everything else.

Parameters are stored in float16, running statistics of the batch normalisation in float32. The JSON has the metadata of
a checkpoint (config, software versions, sample rate, history), the step, and the SHA-256 of the variables' file.
"""

import hashlib
import io
import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jax_diffse import files
from jax_diffse.errors import UserError

log = logging.getLogger(__name__)

PREFIX = 'package:'  # of names of models in this package; no folder of a run has such a name
NAME = f'{PREFIX}dccrn'
NOTICE = (f'no run named: using {NAME}, a small streaming DCCRN for speech at 16 kHz that comes with jax_diffse (its '
          'card: docs/pretrained.md)')
FOLDER = pathlib.Path(__file__).parent
MAX_PARAMETERS, MAX_BYTES = 1_200_000, 3_000_000


def is_packaged(workdir: str | os.PathLike) -> bool:
    """Whether this is the name of a model in this package, not the folder of a run."""
    return os.fspath(workdir).startswith(PREFIX)


def or_packaged(run: str | os.PathLike | None) -> str | os.PathLike:
    """Returns the run, or if none is named the name of the packaged enhancer, with a warning in the log."""
    if run is None:
        log.warning(NOTICE)
        return NAME
    return run


def read(name: str | os.PathLike, folder: pathlib.Path | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the packaged enhancer.

    Args:
      name: its name, `NAME`.
      folder: of its files; default: in this package.

    Returns:
      Its metadata, like those of a checkpoint with 'step', and its variables, NumPy arrays in float32.

    Raises:
      UserError: another name, or files that are missing or damaged.
    """
    if os.fspath(name) != NAME:
        raise UserError(f'{name}: no model of this package has this name, expected {NAME}')
    folder = folder or FOLDER
    path = folder / 'dccrn.json'
    try:
        meta = json.loads(path.read_text(encoding='utf-8'))
        expected = meta['weights']['sha256']
        path = folder / 'dccrn.npz'
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != expected:
            raise ValueError('it does not match its checksum')
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            flat = {key: stored[key].astype(np.float32) for key in stored.files}
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f'lacks {error}' if isinstance(error, KeyError) else files.reason(error)
        raise UserError(f'{path}: a file of {NAME} is missing or damaged ({why}); install jax_diffse again, or name '
                        'a run') from error
    return meta, unflatten_dict(flat, sep='/')


def write(meta: Mapping[str, Any], variables: Mapping[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """Writes the files of the packaged enhancer.

    Args:
      meta: the metadata of a checkpoint, and its 'step'.
      variables: 'params' and 'batch_stats', with averaged weights.
      folder: of the files.

    Returns:
      What is stored on the weights: 'parameters', 'bytes' and 'sha256'.

    Raises:
      UserError: more parameters or bytes than the package may have, weights that float16 cannot hold, metadata with an
        absolute path, or a file that cannot be written.
    """
    flat = {key: _stored(key, np.asarray(value)) for key, value in flatten_dict(dict(variables), sep='/').items()}
    parameters = sum(value.size for key, value in flat.items() if key.startswith('params/'))
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **flat)
    size = len(content.getvalue())
    if parameters > MAX_PARAMETERS or size > MAX_BYTES:
        raise UserError(f'{parameters} parameters in {size} bytes; expected at most {MAX_PARAMETERS} in {MAX_BYTES}')
    weights = {'parameters': parameters, 'bytes': size, 'sha256': hashlib.sha256(content.getvalue()).hexdigest()}
    text = json.dumps({**meta, 'weights': weights}, indent=1, allow_nan=False) + '\n'
    if '"/' in text or ' /' in text or '=/' in text:
        raise UserError('the metadata have an absolute path; train with paths below the current folder')
    try:
        with files.atomic_write(folder / 'dccrn.npz') as partial:
            partial.write_bytes(content.getvalue())
    except OSError as error:
        raise UserError(files.unwritable(folder / 'dccrn.npz', error)) from error
    files.write_text(folder / 'dccrn.json', text)
    return weights


def _stored(key: str, value: np.ndarray) -> np.ndarray:
    """A variable as it is stored: parameters in float16, all others in float32."""
    if not key.startswith('params/'):
        return value.astype(np.float32)
    with np.errstate(over='ignore'):
        half = value.astype(np.float16)
    if not np.isfinite(half).all():
        raise UserError(f'{key}: holds values that are not finite in float16')
    return half
