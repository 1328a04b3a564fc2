"""What the entry points do before anything else."""

import os
import sys

HUGE_PAGES = 'glibc.malloc.hugetlb=1'


def use_huge_pages() -> None:
    """Restarts the process, once, with huge pages for large allocations (Linux, glibc 2.35 or newer).

    On CPUs, XLA asks for its temporaries anew at every call, gigabytes in a training step, and touching them page by
    page took a quarter of one (`python -m benchmarks.dr_diffuse`). glibc reads the setting only when a process starts.
    A `GLIBC_TUNABLES` of the user's own, even an empty one, is left alone.
    """
    if sys.platform == 'linux' and 'GLIBC_TUNABLES' not in os.environ:
        os.environ['GLIBC_TUNABLES'] = HUGE_PAGES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
