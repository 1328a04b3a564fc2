"""Settings that the entry points make before anything else."""

import contextlib
import os
import pathlib
import platform
import shlex
import sys
from importlib import metadata

from jax_diffse import files

HUGE_PAGES = 'glibc.malloc.hugetlb=1'
# By release of jaxlib, because XLA ends the process if it does not know a flag.
THREADED_CONVOLUTIONS = {'0.10': '--xla_cpu_experimental_ynn_fusion_type=-individual_convolution'}

# By release of jaxlib, too.
QUICK_COMPILATION = {'0.10': ('--xla_cpu_use_fusion_emitters=false', '--xla_backend_optimization_level=1')}

OFF = ('', 'off')  # values of $JAX_DIFFSE_CACHE that turn the cache of programs off
PROGRAMS_SIZE = 4 * 10**9  # bytes; the size of the cache of programs


def tune() -> None:
    """Makes the settings that are read only at the start; call it before JAX is imported."""
    _use_huge_pages()
    _use_threaded_convolutions()
    _keep_programs()


def command() -> str:
    """The command line of this process, as a user would type it."""
    script, *arguments = sys.argv
    name = os.path.basename(script)
    if name == '__main__.py':
        return shlex.join(['python', '-m', 'jax_diffse', *arguments])
    return shlex.join([name, *arguments] if name == 'jax-diffse' else ['python', script, *arguments])


def cache() -> pathlib.Path:
    """This project's cache folder: $JAX_DIFFSE_CACHE, or jax_diffse in the user's cache folder.

    Raises:
      OSError: the user has no home folder.
      UserError: $JAX_DIFFSE_CACHE is an address of an unknown kind.
    """
    named = os.environ.get('JAX_DIFFSE_CACHE', 'off')
    if named not in OFF:
        return files.absolute(named)
    try:
        named = os.environ.get('XDG_CACHE_HOME', '')  # the XDG specification ignores relative paths
        return pathlib.Path(named if os.path.isabs(named) else pathlib.Path.home() / '.cache', 'jax_diffse')
    except RuntimeError as error:
        raise OSError(0, 'there is no home folder') from error


def _keep_programs() -> None:
    """Makes JAX cache compiled programs in `cache()`, so that later starts skip compilation.

    A folder that the user set (`JAX_COMPILATION_CACHE_DIR`) is not changed. JAX can bound the size of its cache itself,
    but only if another package is installed, and then no process may be interrupted while it writes. The size of a
    cache in object storage is the bucket's matter: a lifecycle rule can delete old objects.
    """
    if 'JAX_COMPILATION_CACHE_DIR' in os.environ or os.environ.get('JAX_DIFFSE_CACHE') in OFF:
        return
    try:
        folder = cache() / 'programs'
        folder.mkdir(parents=True, exist_ok=True)
        if not files.is_address(folder):
            discard_oldest(folder, PROGRAMS_SIZE)
            if not os.access(folder, os.W_OK):
                raise PermissionError(0, 'not writable')
    except OSError as error:
        print(f'compiled programs are not cached: {error.filename or cache()}: {files.reason(error)}; set '
              'JAX_DIFFSE_CACHE to another folder, or to off', file=sys.stderr)
        return
    os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder)
    # Seconds. By default JAX leaves out programs that compile in less than one second, and a training has many of them.
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')


def discard_oldest(folder: pathlib.Path, size: int) -> None:
    """Removes the least recently used files of a folder until the others take no more than `size` bytes."""
    used = {}
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            used[entry.path] = entry.stat()
    for path, stat in sorted(used.items(), key=lambda item: -max(item[1].st_atime, item[1].st_mtime)):
        size -= stat.st_size
        if size < 0:
            pathlib.Path(path).unlink(missing_ok=True)


def _use_threaded_convolutions() -> None:
    """Keeps XLA from using a library whose convolutions run on one core (jaxlib 0.10).

    On two cores, the forward pass of DCCRN then takes a tenth less time, and a single convolution half the time. A flag
    that the user set is not changed.
    """
    _add_flags(THREADED_CONVOLUTIONS.get(_jaxlib(), ''))


def compile_quickly() -> None:
    """Makes XLA compile in about half the time, for programs that run briefly; call it before JAX is imported.

    The forward pass of the packaged enhancer then takes 6 % more time on CPUs. Flags that the user set are not changed.
    """
    _add_flags(*QUICK_COMPILATION.get(_jaxlib(), ()))


def _jaxlib() -> str:
    return '.'.join(metadata.version('jaxlib').split('.')[:2])


def _add_flags(*added: str) -> None:
    flags = os.environ.get('XLA_FLAGS', '')
    new = [flag for flag in added if flag.partition('=')[0] not in flags]
    os.environ['XLA_FLAGS'] = ' '.join(filter(None, [flags, *new]))


def _use_huge_pages() -> None:
    """Restarts the process once, with huge pages for large allocations (Linux, glibc 2.35 or newer).

    On CPUs, XLA allocates its temporary memory anew at every call, which is gigabytes in a training step. Touching it
    page by page took a quarter of a step (`python -m benchmarks`). glibc reads the setting only when a process starts.
    A `GLIBC_TUNABLES` that the user set is not changed, even if it is empty.
    """
    if sys.platform == 'linux' and 'GLIBC_TUNABLES' not in os.environ:
        os.environ['GLIBC_TUNABLES'] = HUGE_PAGES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def use_one_core() -> None:
    """Binds the process to one core, if the system can do that, and JAX to the CPU; call it before JAX is imported.

    Measurements then hold for one core, and the small steps of a stream gain nothing from more cores.
    """
    os.environ['JAX_PLATFORMS'] = 'cpu'
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def cores() -> str:
    """The cores that the process is bound to, in words."""
    if not hasattr(os, 'sched_getaffinity'):
        return 'all cores, because this system cannot bind a process to one'
    count = len(os.sched_getaffinity(0))
    return 'one core' if count == 1 else f'{count} cores'


def cpu() -> str:
    """The name of the CPU; on Linux, Python does not know it."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(names, '') or platform.processor() or platform.machine()
