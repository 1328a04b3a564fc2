"""Paths that users give: on this machine and in object storage."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from jax_diffse import files
from jax_diffse.errors import UserError
from jax_diffse.files import paths


def test_paths_of_this_machine_expand_the_home_folder(monkeypatch):
    monkeypatch.setenv('HOME', '/home/ada')
    assert files.path('~/runs/demo') == pathlib.Path('/home/ada/runs/demo')
    assert files.path('runs/~demo') == pathlib.Path('runs/~demo')
    assert files.given('~/runs/') == '/home/ada/runs/'
    assert files.given('') == ''


def test_addresses_keep_their_bucket():
    folder = files.path('gs://bucket/runs/')
    assert os.fspath(folder) == files.given('gs://bucket/runs/') == 'gs://bucket/runs'
    assert os.fspath(folder / 'checkpoints') == 'gs://bucket/runs/checkpoints'
    assert os.fspath(files.path(folder).parent) == 'gs://bucket'
    assert files.absolute(folder) == folder and files.absolute('x') == pathlib.Path.cwd() / 'x'
    assert files.is_address(folder) and files.is_address('s3://bucket') and not files.is_address('gs:/bucket')


@pytest.mark.parametrize('address, message', [
    ('http://host/runs', 'http://host/runs: an address of http://, expected a path on this machine or an address of '
                         'gs:// or s3://; copy the data to a disk, or mount the bucket as a folder'),
    ('gs:/b/x', 'gs:/b/x: did you mean gs://b/x?'), ('GS://bucket/x', 'GS://bucket/x: did you mean gs://bucket/x?'),
    ('gs:///runs', "gs:///runs: '' is not the name of a bucket, expected gs://BUCKET/FOLDER; names have 3 or more "
                   'characters of a-z, 0-9, ., _ and -'),
    ('gs://Our/x', "gs://Our/x: 'Our' is not the name of a bucket, expected gs://BUCKET/FOLDER; names have 3 or more "
                   'characters of a-z, 0-9, ., _ and -')])
def test_other_addresses_are_mistakes(address, message):
    for function in (files.path, files.given):
        with pytest.raises(UserError) as raised:
            function(address)
        assert str(raised.value) == message


@pytest.mark.parametrize('name', ['~no user', '~no user/x.wav', 'x' * 300, 'C:/x', 'gs:x'])
def test_odd_names_on_this_machine_are_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert str(files.path(name)) == files.given(name) == name
    assert not files.is_file(name) and not files.is_folder(name) and files.resolved(name) == tmp_path / name


def test_paths_of_this_machine_leave_the_environment_as_it_is():
    command = ('import os, sys; from jax_diffse import files; files.path("x"); '
               'print(sorted({"etils", "fsspec", "gcsfs"} & set(sys.modules)), "EPATH_USE_TF" in os.environ)')
    environment = {key: value for key, value in os.environ.items() if key != 'EPATH_USE_TF'}
    assert subprocess.check_output([sys.executable, '-c', command], env=environment, text=True) == '[] False\n'


def test_etils_uses_our_client_although_it_was_used_before():
    command = ('import sys; from etils import epath; epath.Path("x").exists(); from jax_diffse import files; '
               'print(type(files.path("gs://our/x")._backend).__name__, "tensorflow" in sys.modules)')
    environment = {key: value for key, value in os.environ.items() if key != 'EPATH_USE_TF'}
    assert subprocess.check_output([sys.executable, '-c', command], env=environment,
                                   text=True) == '_FileSystemSpecBackend False\n'


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    paths._prepared.cache_clear()
    with pytest.raises(UserError, match=r"gs://our/x: addresses of gs:// need gcsfs: pip install 'jax_diffse\[gcs\]'$"):
        files.path('gs://our/x')
    paths._prepared.cache_clear()


def test_reasons_are_one_line(tmp_path):
    with pytest.raises(OSError) as raised:
        (tmp_path / 'no').read_bytes()
    assert files.reason(raised.value) == 'No such file or directory'
    assert files.reason(ValueError('first\nsecond')) == 'first'
    assert files.reason(TimeoutError()) == 'TimeoutError'
