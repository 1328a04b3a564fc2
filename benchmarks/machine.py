"""Describes the machine that the figures were measured on."""

import datetime
import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.measure import timed
from jax_diffse import launch
from jax_diffse.runs import versions

PRODUCT = 2048  # rows and columns of the matrices whose product calibrates a machine


def run(repeats: int) -> Iterator[dict[str, Any]]:
    """Yields hardware, versions and the calibration."""
    square = jax.random.normal(jax.random.key(0), (PRODUCT, PRODUCT))
    product = jax.jit(jnp.matmul).lower(square, square).compile()
    seconds, count = timed(lambda: product(square, square), max(repeats, 5))
    yield {'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'), 'revision': revision(),
           'hardware': hardware(), 'versions': versions(),
           'calibration': {'what': f'{PRODUCT} x {PRODUCT} float32 matrix product', 'value': seconds, 'unit': 's',
                           'repeats': count}}


def hardware() -> dict[str, Any]:
    devices, pages = jax.devices(), os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    usable = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    memory = (devices[0].memory_stats() or {}).get('bytes_limit')  # of accelerators
    return {'cpu': launch.cpu(), 'cores': os.cpu_count(), 'usable_cores': usable, 'memory': pages,
            'platform': devices[0].platform, 'device': devices[0].device_kind, 'devices': len(devices),
            'device_memory': memory}


def revision() -> str | None:
    """The commit of the clone, with '-dirty' if files differ from it; None outside a clone."""
    command = ['git', '--no-optional-locks', 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*']
    try:
        done = subprocess.run(command, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True)
    except OSError:  # no git
        return None
    return done.stdout.strip() or None
