"""Locks in object storage; those of this machine are tested where they are used."""

import subprocess
import sys
import threading
import time

import pytest

from jax_diffse import files
from jax_diffse.errors import UserError
from jax_diffse.files import store_lock

HOLD = ('import sys, time\nfrom jax_diffse import files\nfrom jax_diffse.files import store_lock\n'
        'store_lock.RENEWAL_SECONDS = 0.2\nwith files.locked(sys.argv[1], "the run"):\n'
        '    print("held", flush=True)\n    time.sleep(60)\n')


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(store_lock, 'RENEWAL_SECONDS', 0.2)
    monkeypatch.setattr(store_lock, 'STALE_SECONDS', 1.5)
    monkeypatch.setattr(store_lock, 'POLL_SECONDS', 0.1)


@pytest.fixture
def holder(bucket):
    """Another process that holds the lock of the bucket."""
    process = subprocess.Popen([sys.executable, '-c', HOLD, f'{bucket}/.lock'], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'held\n'
    yield process
    process.kill()
    process.communicate()


def test_the_lock_is_an_object_while_it_is_held(bucket, store):
    name = bucket.removeprefix('gs://')
    for _ in range(2):
        with files.locked(f'{bucket}/.lock', 'the run'):
            first = files.path(f'{bucket}/.lock').read_text()
            assert first.startswith('process ') and store.names(name) == ['.lock']
            time.sleep(0.5)
            assert files.path(f'{bucket}/.lock').read_text() != first  # it is renewed
        assert store.names(name) == []


def test_a_running_process_keeps_the_lock(bucket, holder, capsys):
    with pytest.raises(UserError, match=rf'^the run: process {holder.pid} on .* is using it; wait'):
        with files.locked(f'{bucket}/.lock', 'the run'):
            pass
    assert f'the run: process {holder.pid} on ' in capsys.readouterr().out


def test_the_lock_of_a_killed_process_is_taken_over(bucket, holder, store):
    holder.kill()
    holder.wait()
    begun = time.monotonic()
    with files.locked(f'{bucket}/.lock', 'the run'):
        assert time.monotonic() - begun >= 1.5
    assert store.names(bucket.removeprefix('gs://')) == []


def test_only_one_of_several_processes_takes_over(bucket, store):
    store.put(bucket.removeprefix('gs://'), '.lock', b'process 1 on dead\ntoken\n1\n', {}, {})
    inside, most, done = 0, 0, []

    def work():
        nonlocal inside, most
        with files.locked_in_turn(f'{bucket}/.lock', 'waiting'):
            inside += 1
            most = max(most, inside)
            time.sleep(0.3)
            inside -= 1
        done.append(True)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and len(done) == 3


def test_a_process_whose_lock_was_taken_over_ends(bucket, holder, store):
    store.put(bucket.removeprefix('gs://'), '.lock', b'process 1 on another\ntoken\n1\n', {}, {})
    assert holder.wait(20) == 2
    assert holder.stderr.read().startswith(f'error: the run: another process has taken the lock {bucket}/.lock over')
    assert 'another' in files.path(f'{bucket}/.lock').read_text()


def test_a_turn_that_was_taken_over_goes_on(bucket, store, capsys):
    """Waiting spares work that would be done twice; it protects nothing."""
    with files.locked_in_turn(f'{bucket}/.lock', 'waiting'):
        store.put(bucket.removeprefix('gs://'), '.lock', b'process 1 on another\ntoken\n1\n', {}, {})
        time.sleep(1)
    assert files.path(f'{bucket}/.lock').read_text().startswith('process 1 on another')


def test_a_store_that_fails_for_a_while_does_not_cost_the_lock(bucket, holder, store):
    store.fail_for(1)
    time.sleep(4)
    assert holder.poll() is None
    with pytest.raises(UserError, match='is using it'), files.locked(f'{bucket}/.lock', 'the run'):
        pass


def test_locks_need_permission(bucket, store):
    store.refused = 403
    with pytest.raises(UserError, match=r'\.lock: cannot be written \(no permission'):
        with files.locked(f'{bucket}/.lock', 'the run'):
            pass
    with files.locked_in_turn(f'{bucket}/.lock', 'waiting'):  # an optimisation, which is left out
        pass
