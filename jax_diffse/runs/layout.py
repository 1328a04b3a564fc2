"""The folder of a run: its checkpoints and their metadata.

`WORKDIR/checkpoints/STEP/` holds four items: `variables`, `ema` (averaged weights of the trained groups, if any),
`optimizer` (state that only training needs) and `meta` (JSON: resolved config, software versions, sample rate,
history). Orbax writes each step under a temporary name and renames it when it is complete; in object storage, which
cannot rename folders, it adds `commit_success.txt` instead. A file of checksums reveals later damage.
"""

import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import absl.logging
import jax
import ml_collections
import orbax.checkpoint as ocp

from jax_diffse import files, pretrained, systems
from jax_diffse.errors import StoreError, UserError
from jax_diffse.runs import checksums
from jax_diffse.runs.history import versions

absl.logging.set_verbosity(absl.logging.FATAL)  # Orbax raises its errors and also logs them at length

FORMAT = 2  # version of this layout
RENAMED = {'jitter': 'noise_scale', 'deviation': 'sigma_hat'}  # keys of config.model, renamed since format 1


def directory(workdir: str | os.PathLike) -> pathlib.Path:
    """The folder of a run's checkpoints.

    Raises:
      UserError: Orbax cannot write or read checkpoints there, or it is the packaged enhancer, which has no folder.
    """
    if pretrained.is_packaged(workdir):
        raise UserError(f'{workdir}: names a model of this package, which cannot be changed; choose another --workdir')
    if os.fspath(workdir).startswith('s3://'):
        raise UserError(f'{workdir}: Orbax cannot store checkpoints in s3://; use a disk or gs://')
    return files.absolute(workdir) / 'checkpoints'


def steps(checkpoints: pathlib.Path) -> list[int]:
    """The finished steps in a folder of checkpoints, the latest first."""
    found = checkpoints.iterdir() if files.is_folder(checkpoints) else ()
    return sorted((int(path.name) for path in found if path.name.isdecimal() and
                   (ocp.utils.is_checkpoint_finalized(path) or _was_copied(path))), reverse=True)


def mark_copies(checkpoints: pathlib.Path) -> None:
    """Marks the checkpoints that were copied from a disk into object storage as complete, for Orbax."""
    for step in steps(checkpoints) if files.is_address(checkpoints) else ():
        if not ocp.utils.is_checkpoint_finalized(checkpoints / str(step)):
            (checkpoints / str(step) / checksums.COMMIT).write_text('')


def _was_copied(path: pathlib.Path) -> bool:
    """Whether an unmarked checkpoint in object storage comes from a disk, where only complete ones have this name."""
    return files.is_address(path) and (path / checksums.SUMS).exists()


def read_json(path: pathlib.Path, item: str) -> dict[str, Any]:
    """Reads the JSON item 'meta' or 'metrics' of a checkpoint."""
    alone = this_process_only()
    handler = ocp.JsonCheckpointHandler(item if item == 'metrics' else None, multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        return checkpointer.restore(path / item)


def this_process_only() -> ocp.options.MultiprocessingOptions:
    """Options for reading without waiting for other processes."""
    this = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=this, active_processes={this},
                                              barrier_sync_key_prefix=f'process_{this}')


def reason(error: Exception) -> str:
    """The first line of an error; for nested TensorStore errors, the message of the operating system."""
    if isinstance(error, StoreError):
        return files.reason(error)
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(':')
    cause, *codes = re.split(r' \[(?:os_error_code|tensorstore_spec|http_response_code|http_response_body)=', line)
    return cause.rpartition(': ')[2] if codes else line


def validation_loss(path: pathlib.Path) -> float:
    """The validation loss of a checkpoint; infinity if it has none."""
    try:
        return read_json(path, 'metrics')['validation_loss']
    except (ValueError, KeyError, TypeError, OSError):
        return math.inf


def new_meta(config: ml_collections.ConfigDict, sample_rate: int, history: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a new checkpoint."""
    return {'format': FORMAT, 'config': config.to_dict(), 'versions': versions(), 'sample_rate': sample_rate,
            'history': dict(history)}


def meta(path: pathlib.Path, workdir: str | os.PathLike) -> dict[str, Any]:
    """Reads the metadata of a checkpoint: 'config', 'versions', 'sample_rate' and 'history'.

    Args:
      path: the checkpoint.
      workdir: the run, for messages.

    Raises:
      UserError: they are missing, damaged, or written by a newer version.
    """
    try:
        found = {'history': {}, **read_json(path, 'meta')}
        newer, system, model = found['format'] > FORMAT, found['config']['system'], found['config']['model']
        if found['format'] < 2:
            found['config']['model'] = {RENAMED.get(key, key): value for key, value in model.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{workdir}: the metadata of its checkpoint of step {path.name} are missing or damaged '
                        f'({type(error).__name__}: {error}); try another step, or train or convert again') from error
    if newer:
        raise UserError(f'{workdir}: written by a newer jax_diffse (format {found["format"]}, this one reads up to '
                        f'{FORMAT}); upgrade jax_diffse')
    if system not in systems.SYSTEMS:
        raise UserError(f'{workdir}: a run of the system {system!r}, which this jax_diffse lacks; upgrade jax_diffse')
    return found


def does_not_fit(workdir: str | os.PathLike, step: int | str, error: Exception) -> UserError:
    """Makes the error for a checkpoint whose arrays do not fit the system of its config."""
    return UserError(f'{workdir}: the checkpoint of step {step} does not fit its config ({reason(error)}); another '
                     'version of jax_diffse may have written it: use that version, or train or convert again')
