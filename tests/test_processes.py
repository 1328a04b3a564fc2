"""The messages of one of several processes when it fails. tests/faults tests their cooperation."""

import argparse
import os

import jax
import pytest

from jax_diffse import processes

# Messages of JAX 0.10.2: a connection that took too long, a killed process, a barrier that one of two did not reach.
LATE = ('UNKNOWN: Gloo context initialization failed: DEADLINE_EXCEEDED: GetKeyValue() timed out with key: '
        "cpu:gloo/0,1/2 and duration: 29.99s [type.googleapis.com/tensorflow.CoordinationServiceError='']")
ENDED = ('UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer '
         '[127.0.0.1]')
BARRIER = ('DEADLINE_EXCEEDED: Barrier timed out. Id: x::0. This usually happens because a task triggered the barrier '
           'too early or too slowly.\n# of tasks that reached the barrier: 1/2.')
OWN = 'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes.'
TOGETHER = argparse.Namespace(distributed=True, coordinator=None, processes=None, process=None)


def run(monkeypatch, error: Exception) -> int:
    """Has `error` raised in one of several processes -> its status."""
    def work():
        raise error

    def leave(status):
        raise SystemExit(status)

    monkeypatch.setattr(processes, '_connect', lambda *_: None)
    monkeypatch.setattr(os, '_exit', leave)
    with pytest.raises(SystemExit) as stop:
        processes.run(work, TOGETHER)
    return stop.value.code


@pytest.mark.parametrize(('words', 'said'), [(LATE, 'may still be at work'), (BARRIER, 'may still be at work'),
                                             (ENDED, 'another one ended, most likely')])
def test_the_failure_of_another_process_is_one_line(monkeypatch, capsys, words, said):
    assert run(monkeypatch, jax.errors.JaxRuntimeError(words)) == 1
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: process 0 cannot continue ({words.splitlines()[0]}): ') and said in line
    assert ('ended' in line) == (words is ENDED) and line.endswith('to resume from what was saved')


@pytest.mark.parametrize('error', [jax.errors.JaxRuntimeError(OWN), RuntimeError('mine'), ZeroDivisionError('Gloo')])
def test_an_own_error_is_not_blamed_on_another_process(monkeypatch, capsys, error):
    assert run(monkeypatch, error) == 1
    assert f'{type(error).__name__}: {error}' in capsys.readouterr().err.splitlines()[-1]
