"""The record of a training, which checkpoints keep so that the run can be reproduced."""

import datetime
import functools
import pathlib
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from jax_diffse import launch

# What a training took: the time, and that of the processors, over all threads of this process.
CLOCKS = {'seconds': time.perf_counter, 'processor_seconds': time.process_time}


class History:
    """The record of a training over all its calls.

    Args:
      earlier: the record in the latest checkpoint if the run resumes, else {}.
      data: a description of the training data.
      source: the record of the run that this one starts from, or {}.
      augment: what the data are augmented with, see `training.augmentation`, or {}.
    """

    def __init__(self, earlier: Mapping[str, Any], data: str, source: Mapping[str, Any], augment: Mapping[str, Any]):
        self._begun = {name: clock() for name, clock in CLOCKS.items()}
        self._before = {name: earlier.get(name, 0.0) for name in CLOCKS}
        # The speech, in the latest validation, see `systems.base.Invertible`; `runs.load` turns it upright.
        self.inverted = bool(earlier.get('inverted'))
        self._record = {
            'commands': _joined(earlier.get('commands', []), launch.command()),
            'commits': _joined(earlier.get('commits', []), commit()),
            'date': earlier.get('date') or datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
            'data': data,
            'from': dict(earlier.get('from') or source),
            'augment': dict(augment),
        }

    def record(self) -> dict[str, Any]:
        """The record for JSON: 'commands', 'commits', 'date' of the start, `CLOCKS`, 'data', 'from', 'augment' and
        'inverted'."""
        clocks = {name: self._before[name] + clock() - self._begun[name] for name, clock in CLOCKS.items()}
        return self._record | clocks | {'inverted': self.inverted}


def _joined(known: list[str], new: str) -> list[str]:
    return list(dict.fromkeys([*known, *filter(None, [new])]))


@functools.cache
def commit() -> str:
    """The commit of the clone that this package runs from, with '-dirty' after local changes; '' without a clone."""
    root = pathlib.Path(__file__).resolve().parents[2]
    if not (root / '.git').exists():
        return ''
    try:
        done = subprocess.run(['git', '-C', root, 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*'],
                              capture_output=True, text=True)
    except OSError:  # no git
        return ''
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that can change a result."""
    names = ('jax_diffse', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
    found = {'python': platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # runs from a clone without installation
            found[name] = 'not installed'
    return found
