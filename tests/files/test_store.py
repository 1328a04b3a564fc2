"""Files in object storage: reading, listing, writing and what goes wrong."""

import hashlib
import json
import socket

import pytest

from jax_diffse import errors, files
from jax_diffse.errors import StoreError, UserError
from jax_diffse.files import appended


def test_methods_of_paths(bucket, store):
    folder = files.path(bucket) / 'runs'
    assert not folder.exists() and not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'a.txt').write_text('hälfte', encoding='utf-8')
    (folder / 'below' / 'b.bin').write_bytes(b'')
    assert (folder / 'a.txt').read_text(encoding='utf-8') == 'hälfte'
    assert folder.is_dir() and files.is_file(folder / 'a.txt') and not files.is_file(folder / 'below')
    assert sorted(path.name for path in folder.iterdir()) == ['a.txt', 'below']
    assert [path.name for path in folder.glob('*.txt')] == ['a.txt']
    (folder / 'a.txt').unlink()
    assert store.names(bucket.removeprefix('gs://')) == ['runs/below/b.bin']
    with pytest.raises(FileNotFoundError) as raised:
        (folder / 'a.txt').read_bytes()
    assert raised.value.strerror == 'No such file or directory' and raised.value.filename == f'{bucket}/runs/a.txt'


def test_what_another_process_writes_is_seen_at_once(bucket, store):
    folder = files.path(bucket) / 'x'
    (folder / 'a').write_bytes(b'1')
    assert [path.name for path in folder.iterdir()] == ['a'] and not (folder / 'b').exists()
    store.put(bucket.removeprefix('gs://'), 'x/b', b'2', {}, {})
    assert (folder / 'b').exists() and len(list(folder.iterdir())) == 2


def test_a_listing_has_sizes_and_hashes_of_all_levels(bucket, store):
    folder, names = files.path(bucket), [f'{i:04}' for i in range(1100)]  # a page has at most 1000
    for name in names:
        store.put(bucket.removeprefix('gs://'), f'speech/{name}', name.encode(), {}, {})
    store.requests.clear()
    found = files.listing(folder / 'speech')
    assert len(store.requests) == 2
    assert list(found) == [f'{bucket}/speech/{name}' for name in names]
    entry = found[f'{bucket}/speech/0007']
    assert entry.size == 4 and entry.md5 == hashlib.md5(b'0007').hexdigest()
    store.put(bucket.removeprefix('gs://'), 'speech/0007', b'0007', {}, {})
    again = files.listing(folder / 'speech')[f'{bucket}/speech/0007']
    assert again.version != entry.version and again.changed > entry.changed
    assert files.listing(folder / 'none') == {}


def test_files_and_folders_are_told_apart(bucket):
    folder = files.path(bucket) / 'a'
    (folder / 'b').write_text('x')
    with pytest.raises(IsADirectoryError):
        folder.read_bytes()  # gcsfs itself reads nothing and is content
    with pytest.raises(NotADirectoryError):
        files.make_folder(folder / 'b')
    files.make_folder(folder)
    assert files.is_folder(folder) and files.is_file(folder / 'b') and not files.is_folder(folder / 'b')


def test_parts_of_objects_are_read(bucket):
    path = files.path(bucket) / 'x'
    path.write_bytes(b'0123456789')
    assert files.read_bytes(path, 2, 5) == b'234' and files.read_bytes(path) == b'0123456789'
    with files.local_copy(path) as copy:
        assert copy.name == 'x' and copy.read_bytes() == b'0123456789'
    assert not copy.exists()


def test_files_are_written_whole(bucket, store):
    path = files.path(bucket) / 'deep' / 'x.json'
    with pytest.raises(RuntimeError), files.atomic_write(path) as partial:
        partial.write_text('half')
        raise RuntimeError
    assert store.names(path.parts[2]) == [] and not partial.parent.exists()
    store.requests.clear()
    files.write_text(path, 'all')
    assert path.read_text() == 'all' and len(store.uploads('deep/')) == 1


def test_large_files_are_uploaded_in_chunks(bucket, tmp_path, store):
    data = bytes(range(256)) * 220_000  # 56 MB; gcsfs sends at most 50 MiB at once
    store.requests.clear()
    (tmp_path / 'large').write_bytes(data)
    files.upload(tmp_path / 'large', f'{bucket}/large')
    assert len(store.requests) == 3  # the beginning, and two chunks
    assert files.read_bytes(f'{bucket}/large') == data


def test_folders_are_moved_and_removed(bucket, store):
    folder, name = files.path(bucket) / 'a', bucket.removeprefix('gs://')
    for path in ('1', 'deep/[2]*?'):  # which are names, not patterns
        (folder / path).write_text(path)
    (files.path(bucket) / 'ab').write_text('no part of the folder')
    files.move_folder(folder, folder.with_name('c'))
    assert store.names(name) == ['ab', 'c/1', 'c/deep/[2]*?'] and (folder.with_name('c') / '1').read_text() == '1'
    files.remove_folder(folder.with_name('c'))
    assert store.names(name) == ['ab']
    files.remove_folder(folder)  # nothing is there


@pytest.mark.parametrize('status, reason', [
    (403, 'no permission (the account does not have storage.objects.create access)'),
    (401, 'the store accepts no request without valid credentials; log in: gcloud auth application-default login')])
def test_refusals_are_one_line(bucket, store, status, reason, capsys):
    store.refused = status
    path = files.path(bucket) / 'x'
    for action in (path.exists, path.is_dir, path.read_bytes, lambda: path.write_bytes(b''), lambda: path.mkdir()):
        with pytest.raises(StoreError) as raised:
            action()
        assert raised.value.strerror == reason
    with pytest.raises(UserError) as raised:
        files.write_text(path, '')
    assert str(raised.value) == f'{path}: cannot be written ({reason})'
    assert errors.status(path.exists) == 2
    assert capsys.readouterr().err == f'error: {path}: {reason}\n'


def test_a_missing_bucket_is_a_mistake_and_is_not_created(bucket, store):
    path = files.path('gs://no-such-bucket') / 'runs'
    for action in (path.exists, path.is_dir, lambda: path.mkdir(parents=True), lambda: path.write_text('')):
        with pytest.raises(StoreError, match='there is no such bucket'):
            action()
    assert 'no-such-bucket' not in store.buckets


def test_a_store_that_fails_for_a_while_is_asked_again(bucket, store):
    store.fail_for(2)
    (files.path(bucket) / 'x').write_text('late')
    assert (files.path(bucket) / 'x').read_text() == 'late'


def test_a_store_that_cannot_be_reached_is_a_mistake(bucket, monkeypatch):
    from jax_diffse.files import google

    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        monkeypatch.setenv('STORAGE_EMULATOR_HOST', f'http://127.0.0.1:{free.getsockname()[1]}')
    monkeypatch.setattr('asyncio.sleep', _no_wait)
    client = google.GoogleStorage(token='anon', skip_instance_cache=True)
    with pytest.raises(StoreError, match='the store cannot be reached') as raised:
        client.info(f'{bucket}/x')
    assert raised.value.filename == f'{bucket}/x'


def test_a_store_that_never_answers_is_given_up(bucket, monkeypatch):
    from jax_diffse.files import google

    with socket.create_server(('127.0.0.1', 0)) as mute:
        monkeypatch.setenv('STORAGE_EMULATOR_HOST', f'http://127.0.0.1:{mute.getsockname()[1]}')
        monkeypatch.setattr('asyncio.sleep', _no_wait)
        monkeypatch.setattr(google, 'ANSWER_SECONDS', 0.2)
        client = google.GoogleStorage(token='anon', skip_instance_cache=True)
        with pytest.raises(StoreError, match='the store cannot be reached'):
            client.cat_file(f'{bucket}/x')


def test_a_range_behind_the_end_says_that_the_object_changed(bucket):
    (files.path(bucket) / 'x').write_bytes(b'0123')
    with pytest.raises(StoreError, match='it has changed while it was read'):
        files.read_bytes(f'{bucket}/x', 9, 12)


def test_an_object_is_asked_for_once(bucket, store):
    (files.path(bucket) / 'x').write_bytes(b'0123')
    store.requests.clear()
    assert files.entry(f'{bucket}/x').size == 4 and files.is_file(f'{bucket}/x')
    assert len(store.requests) == 2


async def _no_wait(seconds):
    pass


def test_appended_files_are_parts_that_are_uploaded_once(bucket, store, monkeypatch):
    log = files.path(bucket) / 'log.jsonl'
    store.requests.clear()
    monkeypatch.setattr(appended, 'PART_SECONDS', 0.0)
    for numbers in ((1, 2), (3,)):
        file = files.AppendedFile(log)
        for number in numbers:
            file.write(json.dumps(number) + '\n')
        file.close()
    for name in ('other.jsonl', 'log-other.jsonl'):
        (files.path(bucket) / name).write_text('9\n')
    assert files.read_appended(log) == '1\n2\n3\n'
    written = [request.written for request in store.uploads('log-2')]
    assert len(written) == len(set(written)) == 3
    monkeypatch.setattr(appended, 'PART_SECONDS', 1e9)
    file, before = files.AppendedFile(log), len(store.requests)
    file.write('4\n')
    assert len(store.requests) == before
    file.close()
    assert files.read_appended(log).endswith('4\n')
    with pytest.raises(FileNotFoundError):
        files.read_appended(log.with_name('none.jsonl'))


def test_appended_files_of_this_machine(tmp_path):
    for text in ('a\n', 'b\n'):
        file = files.AppendedFile(tmp_path / 'log')
        file.write(text)
        assert (tmp_path / 'log').read_text().endswith(text)
        file.close()
    assert files.read_appended(tmp_path / 'log') == 'a\nb\n'
