import os
import unicodedata

import pytest

from jax_diffse import audio_files
from jax_diffse.errors import UserError


@pytest.fixture(autouse=True)
def anew():
    audio_files._say_once.cache_clear()


def _make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')


def _names(root):
    return [path.relative_to(root).as_posix() for path in audio_files.find(root)]


def test_all_that_libsndfile_reads_is_found_and_the_rest_is_counted(tmp_path, capsys):
    expected = ['a/c.FLAC', 'a/d.mp3', 'b.wav', 'e.ogg', 'f.opus', 'g.aiff', 'g.wav/h.wav', 'h.w64', 'i.caf', 'j.sph']
    _make(tmp_path, *expected, '1.txt', '2.txt', '3.m4a', 'README', '.hidden/e.wav', 'a/.f.wav')
    found = _names(tmp_path)
    audio_files.find(tmp_path)
    assert found == expected
    assert capsys.readouterr().out.splitlines() == [
        f'{tmp_path}: left out 6 of 16 files: 2 .txt (not an audio format), 2 hidden, 1 .m4a (not an '
        'audio format), 1 without an extension (not an audio format)']


def test_nothing_is_printed_if_no_sound_is_skipped(tmp_path, capsys):
    """`.enhanced.jsonl` is what `jax-diffse enhance` leaves beside its results."""
    _make(tmp_path, 'b.wav', '.enhanced.jsonl', '.DS_Store', '.git/config')
    assert _names(tmp_path) == ['b.wav']
    assert not capsys.readouterr().out


def test_links_to_folders_are_followed_once(tmp_path):
    root, elsewhere = tmp_path / 'root', tmp_path / 'elsewhere'
    _make(root, 'z/real/1.wav')
    _make(elsewhere, '2.wav', 'deep/3.wav')
    os.symlink(elsewhere, root / 'a')
    os.symlink(elsewhere, root / 'b')  # a second time
    os.symlink(elsewhere / 'deep', root / 'c')  # lies in one that is followed
    os.symlink(root / 'z', root / 'again')  # lies in the folder itself, where it keeps its name
    os.symlink(root, elsewhere / 'deep' / 'up')  # a circle
    os.symlink('loop', root / 'loop')
    assert _names(root) == ['a/2.wav', 'a/deep/3.wav', 'z/real/1.wav']


def test_links_to_files_are_files_and_those_that_lead_nowhere_are_found(tmp_path):
    _make(tmp_path, 'real.wav')
    os.symlink(tmp_path / 'real.wav', tmp_path / 'link.wav')
    os.symlink(tmp_path / 'gone.wav', tmp_path / 'nowhere.wav')
    os.mkfifo(tmp_path / 'pipe.wav')
    assert _names(tmp_path) == ['link.wav', 'nowhere.wav', 'real.wav']


def test_a_missing_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match='no such directory'):
        audio_files.find(tmp_path / 'none')


def test_names_are_paths_without_extension(tmp_path):
    names = ('b.wav', 'a/c.FLAC', 'a/b.v2.wav')
    _make(tmp_path, *names)
    assert audio_files.by_name(tmp_path) == {name.rpartition('.')[0]: tmp_path / name for name in names}
    _make(tmp_path, 'b.flac')
    with pytest.raises(UserError, match='b.wav: has the same name as .*b.flac'):
        audio_files.by_name(tmp_path)


@pytest.mark.parametrize('form', ['NFC', 'NFD', 'NFKD'])
def test_names_are_the_same_in_every_normal_form(tmp_path, form):
    _make(tmp_path, f'{unicodedata.normalize(form, "é/가수")}.wav')
    assert list(audio_files.by_name(tmp_path)) == ['é/가수']
