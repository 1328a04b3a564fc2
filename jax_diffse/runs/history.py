"""How a run came to be: what its checkpoints keep, so that it can be made again."""

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


class History:
    """The record of a training, of all calls that it took.

    Args:
      earlier: what the latest checkpoint has, where a run goes on; else {}.
      data: what it is trained on, in words.
      source: the record of the run that it starts from; {} where there is none.
    """

    def __init__(self, earlier: Mapping[str, Any], data: str, source: Mapping[str, Any]):
        self._begun, self._before = time.perf_counter(), earlier.get('seconds', 0.0)
        self._record = {
            'commands': _joined(earlier.get('commands', []), launch.command()),
            'commits': _joined(earlier.get('commits', []), commit()),
            'date': earlier.get('date') or datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
            'data': data,
            'from': dict(earlier.get('from') or source),
        }

    def record(self) -> dict[str, Any]:
        """As JSON has it: 'commands' and 'commits' in order, 'date' of the start, 'seconds' so far, 'data', 'from'."""
        return {**self._record, 'seconds': self._before + time.perf_counter() - self._begun}


def _joined(known: list[str], new: str) -> list[str]:
    return list(dict.fromkeys([*known, *filter(None, [new])]))


@functools.cache
def commit() -> str:
    """The commit of the clone that this package runs from, with '-dirty' where files were changed; '' elsewhere."""
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
    """Versions of Python and of the libraries that can change a result."""
    names = ('jax_diffse', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
    found = {'python': platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a clone that was not installed
            found[name] = 'not installed'
    return found
