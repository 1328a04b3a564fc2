"""Starts the entry points in separate processes, as users do."""

import ctypes
import math
import os
import pathlib
import re
import resource
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import soundfile

ROOT = pathlib.Path(__file__).parents[2]
TIMEOUT = 300  # seconds, of a process that hangs


class Process(subprocess.Popen):
    """A process with output in files, as it would hang after 64 kB in a pipe that nobody reads."""

    def __init__(self, command: Sequence[str], **options):
        self._files = [tempfile.TemporaryFile('w+') for _ in range(2)]
        super().__init__(command, stdout=self._files[0], stderr=self._files[1], **options)

    def printed(self) -> tuple[str, str]:
        """Returns standard output and error; call it after the end, as both sides share the file position."""
        for file in self._files:
            file.seek(0)
        return self._files[0].read(), self._files[1].read()


def environment(devices: int = 1) -> dict[str, str]:
    """This process's, on so many simulated devices."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith('PYTEST')}
    flags = re.sub(r'--xla_force_host_platform_device_count=\d+', '', kept.get('XLA_FLAGS', ''))
    return kept | {'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': '', 'TF_CPP_MIN_LOG_LEVEL': '2',
                   'GLIBC_TUNABLES': '',
                   'XLA_FLAGS': f'{flags} --xla_force_host_platform_device_count={devices}'.strip()}


def start(words: Sequence[str], devices: int = 1, largest_file: int = 0, compile_seconds: float = 0,
          **variables: str) -> Process:
    """Starts `python WORDS...`, say train.py, with the toy system known.

    Args:
      words: the script and its options.
      devices: simulated ones.
      largest_file: bytes that a file may have; 0: any number.
      compile_seconds: that the steps of a training take longer to compile.
      variables: of the environment.
    """
    command = [sys.executable, '-m', 'tests.faults.processes', str(largest_file), str(compile_seconds),
               *map(str, words)]
    return Process(command, cwd=ROOT, env=environment(devices) | variables)


def finish(process: Process) -> tuple[int, str, str]:
    """Waits and returns exit status, standard output and error."""
    try:
        process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f'{process.args} did not end in {TIMEOUT} s:\n{"".join(process.printed())}') from None
    return process.returncode, *process.printed()


def call(words: Sequence[str], devices: int = 1, largest_file: int = 0) -> tuple[int, str, str]:
    """`start` and `finish`."""
    return finish(start(words, devices, largest_file))


def start_together(words: Sequence[str], count: int = 2, devices: int = 2,
                   compile_seconds: float = 0, **variables: str) -> list[Process]:
    """Starts `count` processes that work together; the last one may be slow to compile."""
    with socket.create_server(('localhost', 0)) as server:
        port = server.getsockname()[1]
    return [start([*words, '--coordinator', f'localhost:{port}', '--processes', count, '--process', i], devices,
                  compile_seconds=compile_seconds * (i == count - 1), **variables) for i in range(count)]


def wait_for_lines(path: pathlib.Path, count: int, process: Process) -> None:
    """Waits until a process has written this many lines to a file."""
    wait_until(lambda: lines(path) >= count, process)


def wait_for_files(folder: pathlib.Path, pattern: str, count: int, process: Process) -> None:
    """Waits until a process has created this many files."""
    wait_until(lambda: len(list(folder.glob(pattern))) >= count, process)


def wait_until(condition: Callable[[], object], process: Process) -> None:
    """Waits until a condition holds while a process runs."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f'{process.args} ended, or hung, before that:\n{"".join(process.printed())}')
        time.sleep(0.02)


def write_pairs(folder: pathlib.Path, count: int) -> None:
    """Noise as clean and as noisy speech, in files of half a second and longer."""
    rng = np.random.default_rng(0)
    for kind, scale in (('clean', 0.1), ('noisy', 0.3)):
        (folder / kind).mkdir()
        for i in range(count):
            soundfile.write(folder / kind / f'{i}.wav', scale * rng.standard_normal(8000 + 500 * i), 16_000)


def lines(path: pathlib.Path) -> int:
    """The number of lines of a file; 0 if it does not exist."""
    return path.read_text(encoding='utf-8').count('\n') if path.exists() else 0


def _compile_slowly(seconds: float) -> None:
    """Makes JAX compile a step this much longer, in C code that no signal interrupts, unless it is cached.

    Makes the file $COMPILING, where it is set, before that.
    """
    from jax._src import compiler

    def slow(backend, module, *args, compile=compiler.backend_compile_and_load, **kwargs):
        if 'step' in str(module.operation.attributes['sym_name']):
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            pathlib.Path(os.environ.get('COMPILING', os.devnull)).touch()
            ctypes.CDLL(None).sleep(math.ceil(seconds))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return compile(backend, module, *args, **kwargs)

    compiler.backend_compile_and_load = slow


def _main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # even if a shell started the tests in the background
    sys.modules['torch'] = None  # if installed, tensorboardX would load it, which takes a second
    from jax_diffse import launch

    launch.tune()

    from jax_diffse import systems
    from tests.toys import Trainable

    systems.SYSTEMS['toy'] = Trainable
    largest_file = int(sys.argv[1])
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if float(sys.argv[2]):
        _compile_slowly(float(sys.argv[2]))
    sys.argv[:4] = [str(ROOT / sys.argv[3])]
    runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    _main()
