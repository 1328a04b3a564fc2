"""What the entry points do before anything else."""

import os
import sys
from importlib import metadata

HUGE_PAGES = 'glibc.malloc.hugetlb=1'
# By release of jaxlib, as XLA ends the process at a flag that it does not know.
THREADED_CONVOLUTIONS = {'0.10': '--xla_cpu_experimental_ynn_fusion_type=-individual_convolution'}


def tune() -> None:
    """Settings for CPUs that are read only at the start; call it before JAX is imported."""
    _use_threaded_convolutions()
    _use_huge_pages()


def _use_threaded_convolutions() -> None:
    """Keeps XLA from taking up a library whose convolutions run on one core (jaxlib 0.10).

    On two cores, DCCRN's forward pass takes a tenth less time, a single convolution half. A flag of the user's own is
    left alone.
    """
    release = '.'.join(metadata.version('jaxlib').split('.')[:2])
    flag, flags = THREADED_CONVOLUTIONS.get(release, ''), os.environ.get('XLA_FLAGS', '')
    if flag.partition('=')[0] not in flags:
        os.environ['XLA_FLAGS'] = f'{flags} {flag}'.strip()


def _use_huge_pages() -> None:
    """Restarts the process, once, with huge pages for large allocations (Linux, glibc 2.35 or newer).

    On CPUs, XLA asks for its temporaries anew at every call, gigabytes in a training step, and touching them page by
    page took a quarter of one (`python -m benchmarks.systems`). glibc reads the setting only when a process starts.
    A `GLIBC_TUNABLES` of the user's own, even an empty one, is left alone.
    """
    if sys.platform == 'linux' and 'GLIBC_TUNABLES' not in os.environ:
        os.environ['GLIBC_TUNABLES'] = HUGE_PAGES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def use_one_core() -> None:
    """Keeps the process on one core, where the system can do that, and JAX on the CPU; call it before JAX is imported.

    What is measured then holds for one core, and a stream's small steps gain nothing from more.
    """
    os.environ['JAX_PLATFORMS'] = 'cpu'
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def cores() -> str:
    """The cores that the process is kept on, in words."""
    if not hasattr(os, 'sched_getaffinity'):
        return 'all cores, as this system cannot keep a process on one'
    count = len(os.sched_getaffinity(0))
    return 'one core' if count == 1 else f'{count} cores'
