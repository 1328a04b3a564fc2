"""Trainings whose workdir is in object storage."""

import gc
import logging

import jax
import pytest
from ml_collections import ConfigDict

from jax_diffse import files, runs
from jax_diffse.errors import NoRoomError, UserError
from jax_diffse.files import appended, store_lock
from jax_diffse.runs import checksums, layout
from jax_diffse.training import chain
from jax_diffse.training.loop import train
from jax_diffse.training.profile import Window
from tests.toys import Trainable
from tests.training.tiny import assert_same, make_config, weights


@pytest.fixture(scope='module')
def local_run(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('whole')
    return workdir, train(make_config(corpus), workdir)


def test_a_resumed_run_equals_the_uninterrupted_one_on_a_disk(local_run, corpus, bucket, store, capsys):
    workdir, name = f'{bucket}/runs/toy', bucket.removeprefix('gs://')
    train(make_config(corpus, steps=3), workdir)
    assert layout.steps(layout.directory(workdir)) == [3]
    assert train(make_config(corpus), workdir) == local_run[1]
    assert_same(weights(workdir, 6), weights(local_run[0], 6))
    assert f'{workdir}: at step 6' in capsys.readouterr().out
    names = {path.split('/')[2] for path in store.names(name)}
    assert names == {'checkpoints', 'config.json', 'tensorboard', *(n for n in names if n.startswith('log-'))}
    assert files.read_appended(f'{workdir}/log.jsonl').count('\n') == 6  # steps 2, 3, 4, 6, two validations
    run = runs.load(workdir)
    assert str(run.workdir) == workdir and run.step in (3, 6)
    with pytest.raises(UserError, match=f'^{workdir}: no checkpoint of step 5; available: 3, 6$'):
        runs.load(workdir, step=5)


def test_checkpoints_that_lack_objects_are_moved_aside(local_run, corpus, bucket, store, caplog):
    workdir, name = f'{bucket}/toy', bucket.removeprefix('gs://')
    train(make_config(corpus), workdir)
    path, = (path for path in store.names(name, 'toy/checkpoints/6/variables/d/'))
    kept = store.buckets[name][path]
    store.put(name, path, bytes(len(kept.data)), {}, {})
    assert 'does not match its checksum' in checksums.damage(layout.directory(workdir) / '6')
    assert runs.load(workdir, step='latest').step == 3
    store.requests.clear()
    assert train(make_config(corpus), workdir)['step'] == 6
    assert_same(weights(workdir, 6), weights(local_run[0], 6))
    assert sum('step 6 is damaged' in message for message in caplog.messages) == 2
    assert {path.split('/')[2].partition('-')[0] for path in store.names(name, 'toy/damaged/')} == {'6'}


def test_a_deletion_that_was_interrupted_is_damage(bucket, store, local_run, corpus):
    workdir, name = f'{bucket}/toy', bucket.removeprefix('gs://')
    train(make_config(corpus, steps=3), workdir)
    store.delete(name, f'toy/checkpoints/3/{checksums.KINDS["md5"]}', {})
    with pytest.raises(UserError, match='it has no checksums, perhaps its deletion was interrupted'):
        runs.load(workdir)


def test_an_unfinished_checkpoint_is_passed_over_and_removed(local_run, corpus, bucket, store):
    workdir, name = f'{bucket}/toy', bucket.removeprefix('gs://')
    train(make_config(corpus, steps=3), workdir)
    store.put(name, 'toy/checkpoints/5/variables/_METADATA', b'half', {}, {})
    assert layout.steps(layout.directory(workdir)) == [3]
    assert train(make_config(corpus), workdir) == local_run[1]
    assert store.names(name, 'toy/checkpoints/5') == []


def test_runs_move_between_disks_and_object_storage(local_run, corpus, bucket, tmp_path, store):
    workdir, name = f'{bucket}/copy', bucket.removeprefix('gs://')
    for path in local_run[0].rglob('*'):
        if path.is_file() and path.name != '.lock':
            files.upload(path, f'{workdir}/{path.relative_to(local_run[0])}')
    assert_same(weights(workdir, 6), weights(local_run[0], 6))
    assert train(make_config(corpus), workdir)['step'] == 6  # Orbax deletes what has not this mark
    assert {f'copy/checkpoints/{step}/commit_success.txt' for step in (3, 6)} <= set(store.names(name))
    for path in store.names(name, 'copy/'):
        back = tmp_path / path
        back.parent.mkdir(parents=True, exist_ok=True)
        back.write_bytes(store.buckets[name][path].data)
    assert_same(weights(tmp_path / 'copy', 6), weights(local_run[0], 6))
    path, = store.names(name, 'copy/checkpoints/6/variables/d/')
    store.put(name, path, b'cut', {}, {})
    with pytest.raises(UserError, match='does not match its checksum'):
        runs.load(workdir, step=6)


def test_a_converted_run_can_be_written(bucket):
    config = ConfigDict({'system': 'toy', 'model': {'width': 4}})
    runs.save(f'{bucket}/x', config, Trainable().init(jax.random.key(0)))
    assert runs.load(f'{bucket}/x').step == 0
    with pytest.raises(UserError, match='holds checkpoints already'):
        runs.save(f'{bucket}/x', config, Trainable().init(jax.random.key(0)))
    with pytest.raises(UserError, match=f'^{bucket}/none: not a run'):
        runs.load(f'{bucket}/none')


def test_stages_and_traces(corpus, bucket, store, capsys):
    config = make_config(corpus, steps=3)
    with config.unlocked():
        config.chain, config.init_from = ('first', 'last'), ''
        config.stages = {'first': {}, 'last': {}}
    results = chain.train(config, f'{bucket}/chain', profile=Window(2, 1))
    assert all(result['finished'] for result in results.values())
    run = runs.load(f'{bucket}/chain')
    assert run.config.init_from == f'{bucket}/chain/first' and run.history['from']
    traces = [path for path in store.names(bucket.removeprefix('gs://')) if '/plugins/profile/' in path]
    assert {path.partition('/tensorboard')[0] for path in traces} == {'chain', 'chain/first'}
    assert f'{bucket}/chain/tensorboard: has the trace of steps 2 to 2' in capsys.readouterr().out


def test_no_event_file_is_uploaded_twice(corpus, bucket, store, monkeypatch):
    monkeypatch.setattr(appended, 'PART_SECONDS', 0.0)
    store.requests.clear()
    train(make_config(corpus, log_every=1), f'{bucket}/toy')
    name = bucket.removeprefix('gs://')
    events = [store.buckets[name][path] for path in store.names(name, 'toy/tensorboard/')]
    assert len(events) > 3
    written = [request.written for request in store.uploads('toy/tensorboard/')]
    assert len(written) == len(set(written)) == len(events)


def test_a_workdir_is_locked_by_one_process(corpus, bucket, monkeypatch):
    monkeypatch.setattr(store_lock, 'RENEWAL_SECONDS', 0.2)
    monkeypatch.setattr(store_lock, 'POLL_SECONDS', 0.1)
    with files.locked(f'{bucket}/toy/.lock', 'run'), pytest.raises(UserError, match=f'^{bucket}/toy: .* is using it'):
        train(make_config(corpus), f'{bucket}/toy')


def test_a_training_without_permission_says_so(corpus, bucket, store):
    store.refused = 403
    with pytest.raises(UserError, match=f'^{bucket}/toy: cannot be created .no permission'):
        train(make_config(corpus), f'{bucket}/toy')


@pytest.mark.parametrize('part', ['/ocdbt', 'commit_success'])  # a request of TensorStore, and one of Orbax
def test_a_checkpoint_that_cannot_be_written_is_reported(corpus, bucket, store, part, monkeypatch):
    monkeypatch.setattr(logging.getLogger('asyncio'), 'disabled', True)  # a command ends before it tells of such tasks
    store.refused, store.refused_part = 403, part
    with pytest.raises(NoRoomError, match='the checkpoint of step 3 cannot be written .*the account does not have'):
        train(make_config(corpus, steps=3), f'{bucket}/toy')
    gc.collect()
