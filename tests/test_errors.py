import os
import re
import subprocess
import sys
import threading

import pytest

from jax_diffse import errors


@pytest.fixture(autouse=True)
def signals_are_left_to_pytest(monkeypatch):
    for name in ('watch', 'finish'):
        monkeypatch.setattr(errors.interrupts, name, lambda: None)
    monkeypatch.setattr(errors.interrupts, '_told', threading.Lock())


@pytest.mark.parametrize(('result', 'status'), [(None, 0), (0, 0), (1, 1)])
def test_exit_status_is_what_main_returns(result, status):
    with pytest.raises(SystemExit) as stop:
        errors.exit_with(lambda: result)
    assert stop.value.code == status


def _raise(error):
    raise error


def test_a_user_error_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as stop:
        errors.exit_with(lambda: _raise(errors.UserError('a.wav: no such file')))
    assert stop.value.code == 2
    assert capsys.readouterr() == ('', 'error: a.wav: no such file\n')


def test_an_interrupt_is_status_130(capfd, monkeypatch):
    monkeypatch.setattr(os, '_exit', sys.exit)
    with pytest.raises(SystemExit) as stop:
        errors.exit_with(lambda: _raise(KeyboardInterrupt()))
    assert stop.value.code == 130
    assert capfd.readouterr().err == 'interrupted\n'


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        errors.exit_with(lambda: 1 // 0)


@pytest.mark.parametrize('platforms', ['cuda', 'tpu', 'abacus'])
def test_missing_devices_are_reported_in_one_line(platforms):
    code = 'import jax; from jax_diffse import errors; errors.exit_with(lambda: print(jax.numpy.ones(3)))'
    done = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'JAX_PLATFORMS': platforms},
                          capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    line, = (line for line in done.stderr.splitlines() if line.startswith('error: '))
    assert re.fullmatch(f'error: JAX_PLATFORMS={platforms}: JAX finds no such device.*; install JAX for it.*', line)
    assert 'Traceback' not in done.stderr


def test_other_errors_keep_their_traceback_if_devices_exist():
    with pytest.raises(AssertionError, match='mine'):
        errors.exit_with(lambda: _raise(AssertionError('mine')))
