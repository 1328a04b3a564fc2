"""Files on S3, in the emulator moto."""

import pytest

from jax_diffse import files, runs
from jax_diffse.errors import StoreError, UserError
from jax_diffse.files import store_lock


@pytest.fixture(scope='module')
def bucket():
    """An empty bucket."""
    boto3, moto = pytest.importorskip('boto3'), pytest.importorskip('moto.server')
    server = moto.ThreadedMotoServer('127.0.0.1', 0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        server.start()
        host, port = server.get_host_and_port()
        for name, value in (('AWS_ACCESS_KEY_ID', 'x'), ('AWS_SECRET_ACCESS_KEY', 'x'),
                            ('AWS_DEFAULT_REGION', 'us-east-1'), ('AWS_ENDPOINT_URL', f'http://{host}:{port}')):
            patch.setenv(name, value)
        boto3.client('s3').create_bucket(Bucket='bucket')
        yield 's3://bucket'
        server.stop()


def test_files_are_written_listed_read_moved_and_removed(bucket):
    path = files.path(f'{bucket}/a/b.txt')
    files.write_text(path, 'hello')
    assert path.read_text() == 'hello' and files.read_bytes(path, 1, 3) == b'el' and path.parent.is_dir()
    first = files.listing(f'{bucket}/a')[f'{bucket}/a/b.txt']
    path.write_text('other')
    second = files.listing(f'{bucket}/a')[f'{bucket}/a/b.txt']  # listings are not cached
    assert first.size == second.size == 5 and first.version != second.version
    files.move_folder(files.path(f'{bucket}/a'), files.path(f'{bucket}/c'))
    assert list(files.listing(bucket)) == [f'{bucket}/c/b.txt']
    files.remove_folder(files.path(f'{bucket}/c'))
    assert files.listing(bucket) == {}


def test_what_is_missing_is_named(bucket):
    with pytest.raises(FileNotFoundError) as raised:
        files.path(f'{bucket}/none').read_bytes()
    assert (raised.value.filename, raised.value.strerror) == (f'{bucket}/none', 'No such file or directory')
    with pytest.raises(StoreError) as raised:
        files.path('s3://no-such-bucket/x').write_bytes(b'x')
    assert (raised.value.filename, raised.value.strerror) == ('s3://no-such-bucket', 'there is no such bucket')


def test_a_lock_is_held_once(bucket, monkeypatch):
    monkeypatch.setattr(store_lock, 'RENEWAL_SECONDS', 0.05)
    monkeypatch.setattr(store_lock, 'POLL_SECONDS', 0.05)
    lock = files.path(f'{bucket}/run/.lock')
    with files.locked(lock, 'the run'):
        with pytest.raises(UserError, match='the run: process .* is using it'), files.locked(lock, 'the run'):
            pass
    assert files.listing(f'{bucket}/run') == {}
    with files.locked(lock, 'the run'):
        pass


def test_runs_are_refused(bucket):
    with pytest.raises(UserError, match=f'{bucket}/run: Orbax cannot store checkpoints in s3://'):
        runs.load(f'{bucket}/run')
