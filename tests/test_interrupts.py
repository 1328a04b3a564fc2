"""Ctrl-C while the main thread is in C code, such as XLA's compiler, and Python does not react."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform == 'win32', reason='signals are those of POSIX')
ROOT = pathlib.Path(__file__).parents[1]
LONG = 1000  # seconds of work that an interrupt must cut off; it would print at its end
# `block` is to Python what a compilation is: the main thread is away, without the GIL, and no signal fetches it.
HEAD = f"""
import ctypes, os, pathlib, signal, sys, time
import numpy as np
from jax_diffse import errors, files, interrupts

signal.signal(signal.SIGINT, signal.default_int_handler)  # even if a shell started the tests in the background

def block(seconds={LONG}):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    os.write(1, b'blocked\\n')
    ctypes.CDLL(None).sleep(seconds)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    print('not cut off', flush=True)
"""


def interrupt(code: str, *words, again: bool = False, group: bool = False) -> tuple[int, str, str]:
    """Runs `code` after `HEAD`, and interrupts it, or its process group, once it says that it is blocked.

    Returns:
      Exit status, standard output and error.
    """
    with tempfile.TemporaryFile('w+') as errors:  # not a pipe, which orphans would keep open
        process = subprocess.Popen([sys.executable, '-c', HEAD + code, *map(str, words)], cwd=ROOT, text=True,
                                   stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        lines = iter(process.stdout.readline, '')
        printed = ''.join(line for line in lines if line != 'blocked\n' or not _send(process, again, group))
        status = process.wait(LONG / 2)
        errors.seek(0)
        return status, printed, errors.read()


def _send(process, again: bool, group: bool) -> bool:
    (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
    while again and process.poll() is None:
        time.sleep(0.05)  # a pending signal is not queued twice
        process.send_signal(signal.SIGINT)
    return True


@pytest.mark.parametrize(('again', 'patience'), [(False, 0.1), (True, LONG)], ids=['once', 'twice'])
def test_a_blocked_command_ends_in_one_line(again, patience):
    code = f'interrupts.PATIENCE_SECONDS = {patience}\nerrors.exit_with(block)'
    assert interrupt(code, again=again) == (130, '', 'interrupted\n')


def test_a_command_that_can_end_by_itself_does():
    code = """
def main():
    try:
        os.write(1, b'blocked\\n')
        while True:
            time.sleep(0.01)
    finally:
        print('tidied up', flush=True)

errors.exit_with(main)
"""
    assert interrupt(code) == (130, 'tidied up\n', 'interrupted\n')


def test_a_hang_at_exit_does_not_keep_a_command_alive():
    code = f"""
import atexit, threading
interrupts.PATIENCE_SECONDS = {LONG}
atexit.register(time.sleep, {LONG})
threading.Thread(target=time.sleep, args=({LONG},)).start()
def main():
    print('printed')
    os.write(1, b'blocked\\n')
    time.sleep({LONG})

errors.exit_with(main)
"""
    assert interrupt(code) == (130, 'printed\n', 'interrupted\n')


def test_a_finished_command_ends_at_once():
    code = f"""
import atexit
interrupts.PATIENCE_SECONDS = {LONG}
def late():
    os.write(1, b'blocked\\n')
    time.sleep({LONG})

atexit.register(late)
errors.exit_with(lambda: None)
"""
    assert interrupt(code) == (130, '', 'interrupted\n')


def test_a_command_that_swallows_the_interrupt_or_hangs_in_cleanup_is_killed():
    code = """
interrupts.PATIENCE_SECONDS = 0.1
def main():
    try:
        os.write(1, b'blocked\\n')
        time.sleep(1000)
    except KeyboardInterrupt:
        time.sleep(1000)

errors.exit_with(main)
"""
    assert interrupt(code) == (130, '', 'interrupted\n')
    assert interrupt(code.replace('except KeyboardInterrupt', 'finally')) == (130, '', 'interrupted\n')


def test_an_interrupt_that_comes_in_a_callback_is_not_lost():
    code = f"""
import gc
interrupts.PATIENCE_SECONDS = {LONG}
def main():
    seconds = [{LONG}]
    gc.callbacks.append(lambda *_: time.sleep(seconds.pop() if seconds else 0))
    os.write(1, b'blocked\\n')
    gc.collect()
    print('lost')

errors.exit_with(main)
"""
    assert interrupt(code) == (130, '', 'interrupted\n')


def test_an_interrupt_leaves_no_partial_file(tmp_path):
    code = """
interrupts.PATIENCE_SECONDS = 0.1
def main():
    with files.atomic_write(sys.argv[1]) as partial:
        partial.write_text('half')
        block()

errors.exit_with(main)
"""
    (tmp_path / 'report').write_text('earlier')
    assert interrupt(code, tmp_path / 'report') == (130, '', 'interrupted\n')
    assert [path.name for path in tmp_path.iterdir()] == ['report']
    assert (tmp_path / 'report').read_text() == 'earlier'


@pytest.mark.parametrize('group', [True, False], ids=['from a terminal', 'the process alone'])
def test_scoring_processes_end_silently(group):
    code = """
from jax_diffse.metrics import Pool
interrupts.PATIENCE_SECONDS = 0.5
def main():
    with Pool(1) as pool:
        worker, = pool._workers
        scores = pool.score_all([(np.ones(16_000), np.ones(16_000))] * 3, 16_000, ['si_sdr'])
        next(scores)
        print(worker._process.pid, flush=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        worker._process.send_signal(signal.SIGSTOP)  # as if it computed
        block()

errors.exit_with(main)
"""
    status, printed, error = interrupt(code, group=group)
    assert (status, error) == (130, 'interrupted\n')
    deadline = time.monotonic() + LONG / 2
    while _runs(int(printed)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(int(printed))


def _runs(pid: int) -> bool:
    """Whether there is such a process, one that ended and that nobody asked for left out."""
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_an_ignored_interrupt_stays_ignored():
    """As of commands that a shell runs in the background, with nohup, say."""
    code = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
def main():
    os.write(1, b'blocked\\n')
    time.sleep(0.5)
    print('done', flush=True)

errors.exit_with(main)
"""
    assert interrupt(code) == (0, 'done\n', '')
