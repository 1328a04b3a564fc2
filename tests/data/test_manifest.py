"""What a check of files found is kept; new and changed files alone are opened."""

import contextlib
import dataclasses
import gc
import os
import pathlib
import shutil
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from jax_diffse import audio, audio_files
from jax_diffse.data import DataConfig, columns, manifest, open_source, open_training, scan
from jax_diffse.data.columns import Names
from jax_diffse.data.config import Folders
from jax_diffse.data.speakers import speakers
from jax_diffse.errors import UserError
from tests.data.corpora import RATE, wave, write, write_unusable

pytestmark = pytest.mark.usefixtures('cache')


class Counts:
    """The files that were opened and decoded."""

    def __init__(self):
        self.opened, self.decoded = [], []


@pytest.fixture
def counts(monkeypatch):
    found, info, blocks = Counts(), audio.info, audio.blocks

    def counted_info(path):
        found.opened.append(os.path.basename(path))
        return info(path)

    def counted_blocks(path, size):
        found.decoded.append(os.path.basename(path))
        return blocks(path, size)

    monkeypatch.setattr(audio, 'info', counted_info)
    monkeypatch.setattr(audio, 'blocks', counted_blocks)
    return found


def start(folders, split='train', **settings):
    """Opens a split as a process does that has just started."""
    manifest._seen.clear()
    return open_source(DataConfig(train=folders, test=folders, **settings), split)


def ids(source):
    return [source.info(i)['id'] for i in range(len(source))]


def touched(path, seconds=10):
    """Moves the time of the last change."""
    os.utime(path, ns=(0, os.stat(path).st_mtime_ns + seconds * 10**9))


# --------------------------------------------------------------------------------------------------------- second start


@pytest.mark.parametrize('kind', ['mix_folders', 'pair_folders', 'speech_folder'])
def test_the_second_start_opens_no_file_and_finds_the_same(request, counts, kind):
    folders = request.getfixturevalue(kind)
    first = {split: start(folders, split) for split in ('train', 'validation', 'test')}
    assert len(counts.opened) == len(counts.decoded) == len(set(os.path.join(root, path) for root in (
        folders.clean, folders.noisy, folders.speech, folders.noise) if root for path in audio_files.list_paths(root)))
    counts.opened.clear()
    counts.decoded.clear()
    for split, source in first.items():
        again = start(folders, split)
        assert not counts.opened and not counts.decoded
        assert ids(again) == ids(source)
        for i in range(len(source)):
            np.testing.assert_array_equal(again.draw(i, 3000, np.random.default_rng(i)),
                                          source.draw(i, 3000, np.random.default_rng(i)))
        counts.opened.clear()
        counts.decoded.clear()


def test_new_and_changed_files_are_looked_at_and_removed_ones_are_gone(speech_folder, tmp_path, counts):
    start(speech_folder, 'test')
    root = tmp_path / 'speech' / 'spk0'
    write(root / 'new.wav', wave(1))
    write(root / '0.flac', wave(2, 0.7))  # another size
    (root / '1.flac').unlink()
    touched(tmp_path / 'speech' / 'spk1' / '0.flac')
    counts.opened.clear()
    source = start(speech_folder, 'test')
    assert sorted(counts.opened) == ['0.flac', '0.flac', 'new.wav']
    lengths = {source.info(i)['id']: source.info(i)['num_samples'] for i in range(len(source))}
    assert lengths.keys() == {f'spk{s}/{k}' for s in range(6) for k in range(2)} - {'spk0/1'} | {'spk0/new'}
    assert lengths['spk0/0'] == 11_200
    counts.opened.clear()
    start(speech_folder, 'test')
    assert not counts.opened


def test_a_file_that_turned_bad_is_found_though_its_size_is_the_same(tmp_path):
    path = write(tmp_path / 's' / 'a.wav', wave(0))
    write(tmp_path / 's' / 'b.wav', wave(1))
    folders = Folders(speech=str(tmp_path / 's'))
    assert len(start(folders, 'test')) == 2
    size = path.stat().st_size
    write(path, np.zeros(8000))
    touched(path)
    assert path.stat().st_size == size
    with pytest.raises(UserError, match=f'^{path}: silent'):
        start(folders, 'test')


def test_verdicts_are_kept_and_files_that_cannot_be_read_are_tried_again(tmp_path, counts):
    write_unusable(tmp_path / 's')
    messages = []
    for _ in range(2):
        counts.opened.clear()
        with pytest.raises(UserError) as error:
            start(Folders(speech=str(tmp_path / 's')), 'test')
        messages.append(str(error.value))
    assert counts.opened == ['text.wav'] and messages[0] == messages[1]
    for words in ('nan.wav: has NaN', 'short.wav: too short: 0.100 s', 'rate.wav: 8000 Hz, expected 16000 Hz',
                  'silent.wav: silent', 'text.wav: not readable'):
        assert words in messages[0]


def test_what_is_known_serves_other_settings(pairs_at_other_rates, counts):
    """Files at other rates are decoded when resampling is turned on; then nothing is left to find out."""
    with pytest.raises(UserError, match='44100 Hz, expected 16000'):
        start(pairs_at_other_rates, 'test')
    assert sorted(counts.decoded) == ['16.wav', '16.wav', 'both.wav']  # at 16 kHz
    counts.decoded.clear()
    assert len(start(pairs_at_other_rates, 'test', resample=True)) == 4
    assert sorted(counts.decoded) == ['44.wav', '44.wav', '48.wav', '48.wav', 'both.wav']
    counts.opened.clear()
    start(pairs_at_other_rates, 'test', resample=True)
    with pytest.raises(UserError, match='too short: 0.500 s|too short: 0.501 s'):
        start(pairs_at_other_rates, 'test', resample=True, min_seconds=2.0)
    assert not counts.opened


def spoiled(path, how):
    data = path.read_bytes()
    spoilt = {'empty': b'', 'text': b'once upon a time', 'cut': data[:len(data) // 2], 'zeros': bytes(len(data)),
              'other': b''.join([data[:200], bytes([data[200] ^ 255]), data[201:]])}
    if how == 'kind':
        columns.write(path, 'something else', {'paths': Names.of(['a'])})
    elif how == 'columns':
        columns.write(path, manifest.KIND, {'paths': Names.of(['a'])})
    else:
        path.write_bytes(spoilt[how])


@pytest.mark.parametrize('how', ['empty', 'text', 'cut', 'zeros', 'other', 'kind', 'columns'])
def test_a_damaged_manifest_is_made_again(speech_folder, cache, counts, how):
    first = start(speech_folder, 'test')
    path, = cache.glob('*.array_record')
    spoiled(path, how)
    counts.opened.clear()
    assert ids(start(speech_folder, 'test')) == ids(first) and len(counts.opened) == 12
    counts.opened.clear()
    assert ids(start(speech_folder, 'test')) == ids(first) and not counts.opened


def test_an_interrupted_check_continues(speech_folder, monkeypatch, counts):
    monkeypatch.setattr(scan, '_PART', 4)
    examine, done = scan._examine, []

    def interrupted(path, rules):
        if len(done) == 8:
            raise KeyboardInterrupt
        done.append(path)
        return examine(path, rules)

    with monkeypatch.context() as patch:
        patch.setattr(scan, '_examine', interrupted)
        with pytest.raises(KeyboardInterrupt):
            start(speech_folder, 'test')
    counts.opened.clear()
    assert len(start(speech_folder, 'test')) == 12 and len(counts.opened) == 4


COUNTING = """
import sys, time
from jax_diffse import audio
from jax_diffse.data import DataConfig, open_source
from jax_diffse.data.config import Folders
blocks, count = audio.blocks, 0
def counted(path, size):
    global count
    count += 1
    time.sleep(0.05)
    return blocks(path, size)
audio.blocks = counted
source = open_source(DataConfig(test=Folders(speech=sys.argv[1])), 'test')
print(count, len(source))
"""


def test_of_processes_that_start_at_once_one_checks_the_files(speech_folder, cache):
    running = [subprocess.Popen([sys.executable, '-c', COUNTING, speech_folder.speech], stdout=subprocess.PIPE,
                                text=True) for _ in range(3)]
    found = [process.communicate(timeout=120)[0].splitlines()[-1].split() for process in running]
    assert sorted(int(count) for count, _ in found) == [0, 0, 12] and {size for _, size in found} == {'12'}
    assert [path.suffix for path in cache.iterdir()] == ['.array_record']


@pytest.mark.parametrize('how', ['off', 'a file'])
def test_without_a_cache_folder_files_are_checked_at_every_start(speech_folder, tmp_path, monkeypatch, counts, caplog,
                                                                 how):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('JAX_DIFFSE_CACHE', {'off': 'off', 'a file': str(tmp_path / 'file')}[how])
    for _ in range(2):
        counts.opened.clear()
        start(speech_folder, 'test')
        assert len(counts.opened) == 12
        open_source(DataConfig(test=speech_folder), 'test')  # in the same process, they are known
        assert len(counts.opened) == 12
    assert len(caplog.messages) == (0 if how == 'off' else 2)
    assert all('is not kept' in line and 'file' in line for line in caplog.messages)


def test_nothing_is_written_into_the_folders(mix_folders, tmp_path):
    before = sorted(tmp_path.joinpath('speech').rglob('*'))
    start(mix_folders)
    assert sorted(tmp_path.joinpath('speech').rglob('*')) == before


def test_train_and_validation_search_a_folder_once(mix_folders, tmp_path, monkeypatch):
    searched, list_paths = [], audio_files.list_paths
    monkeypatch.setattr(audio_files, 'list_paths', lambda root: searched.append(root) or list_paths(root))
    for k in range(2):
        write(tmp_path / 'rir' / f'{k}.wav', wave(k))
    folders = dataclasses.replace(mix_folders, rir=str(tmp_path / 'rir'))
    config = DataConfig(train=folders, held_out=0.3)
    expected = [ids(open_source(config, split)) for split in ('train', 'validation')]
    searched.clear()
    assert [ids(source) for source in open_training(config)] == expected
    assert sorted(searched) == sorted([folders.speech, folders.noise, folders.rir])
    for folder in ('new', 'newer'):  # outside of it, folders are searched at every call
        write(pathlib.Path(mix_folders.speech) / 'spk0' / f'{folder}.wav', wave(0))
        assert sum(map(len, open_training(config))) > sum(map(len, expected))


def test_a_folder_is_known_by_every_path_to_it(speech_folder, tmp_path, counts, monkeypatch):
    start(speech_folder, 'test')
    counts.opened.clear()
    os.symlink(speech_folder.speech, tmp_path / 'link')
    monkeypatch.chdir(tmp_path)
    for root in ('link', './speech/', 'speech/../speech'):
        assert len(start(Folders(speech=root), 'test')) == 12
    assert not counts.opened
    shutil.copytree(speech_folder.speech, tmp_path / 'copy')  # with times and sizes
    start(Folders(speech='copy'), 'test')
    assert len(counts.opened) == 12


# -------------------------------------------------------------------------------------------------------------- checks


def test_headers_alone_are_read_on_request(tmp_path, counts):
    write(tmp_path / 's' / 'a.wav', wave(0))
    write(tmp_path / 's' / 'silent.wav', np.zeros(8000))
    folders = Folders(speech=str(tmp_path / 's'))
    for _ in range(2):
        assert ids(start(folders, 'test', check='header')) == ['a', 'silent']
    assert len(counts.opened) == 2 and not counts.decoded
    with pytest.raises(UserError, match='silent.wav: silent'):
        start(folders, 'test')
    assert len(counts.decoded) == 2
    assert len(start(folders, 'test', check='header')) == 2  # what a full check found does not count here
    write(tmp_path / 's' / 'rate.wav', wave(0), 8000)
    with pytest.raises(UserError, match='rate.wav: 8000 Hz, expected 16000'):
        start(folders, 'test', check='header')


def test_no_file_is_opened_on_request_until_it_is_drawn(mix_folders, tmp_path, counts):
    write(tmp_path / 'speech' / 'spk0' / 'z.wav', wave(0), 8000)
    expected = start(mix_folders, resample=True)
    counts.opened.clear()
    counts.decoded.clear()
    shutil.rmtree(tmp_path / 'cache')
    source = start(mix_folders, check='none', resample=True)
    assert not counts.opened and len(source) == len(expected)
    for i in range(len(source)):
        for _ in range(2):
            np.testing.assert_array_equal(source.draw(i, 3000, np.random.default_rng(i)),
                                          expected.draw(i, 3000, np.random.default_rng(i)))
    drawn = list(counts.opened)
    assert len(source) < len(drawn) <= len(source) + 12 and not counts.decoded  # and up to twelve noises, once each
    source = start(mix_folders, 'test', check='none')
    with pytest.raises(UserError, match='z.wav: 8000 Hz, expected 16000 Hz'):
        for i in range(len(source)):
            source.draw(i, 3000, np.random.default_rng(i))


@pytest.mark.parametrize('samples', [np.zeros(8000), np.full(8000, np.nan), np.zeros(1000)])
@pytest.mark.parametrize('check', ['header', 'none'])
def test_noise_that_no_check_found_ends_a_training_when_it_is_drawn(mix_folders, tmp_path, check, samples):
    write(tmp_path / 'noise' / 'silent' / 'z.wav', samples, subtype='FLOAT')
    source = start(mix_folders, check=check, min_seconds=0.01)
    with pytest.raises(UserError, match='z.wav: silent, or has NaN or infinite samples'):
        for i in range(200):
            assert np.isfinite(source.draw(i % len(source), 3000, np.random.default_rng(i))).all()


@pytest.mark.parametrize('samples', [7000, 9000])
def test_pairs_of_unequal_length_that_no_check_found_are_one_line(pair_folders, tmp_path, samples):
    write(tmp_path / 'noisy' / '0.flac', wave(0, samples / 16_000))
    source = start(pair_folders, check='none')
    for use in (source.info, source.read, lambda i: source.draw(i, 3000, np.random.default_rng(i))):
        with pytest.raises(UserError, match=f'0.flac: {samples} samples, but 8000 in .*0.wav'):
            for i in range(len(source)):
                use(i)


def test_without_a_check_the_manifest_counts_and_files_that_came_and_went_do_too(speech_folder, tmp_path, counts):
    start(speech_folder, 'test')
    touched(tmp_path / 'speech' / 'spk0' / '0.flac')
    write(tmp_path / 'speech' / 'spk0' / 'new.wav', wave(1))
    (tmp_path / 'speech' / 'spk0' / '1.flac').unlink()
    counts.opened.clear()
    source = start(speech_folder, 'test', check='none')
    lengths = {source.info(i)['id']: source.info(i)['num_samples'] for i in range(len(source))}
    assert 'spk0/1' not in lengths and lengths['spk0/new'] == 8000 and counts.opened == ['new.wav']


def test_pairs_of_unknown_length_are_opened_when_they_are_drawn(pair_folders, counts):
    source = start(pair_folders, 'test', check='none')
    assert len(source) == 5 and not counts.opened
    assert len(source.draw(0, 10**6, np.random.default_rng(0))[0]) == 8000
    assert sorted(counts.opened) == ['0.flac', '0.wav']


def test_an_unknown_check_is_refused():
    with pytest.raises(UserError, match="config.data.check: expected one of full, header, none, got 'some'"):
        DataConfig(check='some')


# ----------------------------------------------------------------------------------------------------------- many files


def names_of(count):
    return [f'g{k // 200:04d}/{k:07d}.flac' for k in range(count)]


@pytest.mark.parametrize('check', ['full', 'none'])
def test_a_file_takes_at_most_300_bytes(tmp_path, monkeypatch, check):
    """Simulated: 20 000 names, all of one file."""
    path = write(tmp_path / 'a.flac', wave(0))
    monkeypatch.setattr(audio_files, 'list_paths', lambda root: names_of(20_000) if root == 'speech' else ['a.flac'])
    monkeypatch.setattr(scan, '_examine', lambda path, rules: scan.Finding(RATE, 8000, 1, scan.SOUND))
    stat = os.stat
    monkeypatch.setattr(os, 'stat', lambda name, *a, **k: stat(path if str(name).endswith('.flac') else name, *a, **k))
    folders = Folders(speech='speech', noise=str(tmp_path))
    config = DataConfig(train=folders, validation=folders, check=check)
    open_source(DataConfig(train=Folders(speech=str(tmp_path)), validation=folders), 'train')  # loads modules
    gc.collect()
    tracemalloc.start()
    source = open_source(config, 'train')
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(source) == 20_000 and size < 300 * 20_000


def test_names_come_back_whatever_their_letters():
    names = ['a', '', 'größe/가수', 'b\udcff.wav', 'line\nbreak', 'x' * 5000]
    stored = Names.of(names)
    assert list(stored) == names and [stored[i] for i in range(-len(names), len(names))] == 2 * names
    assert list(stored.take(np.array([3, 0]))) == [names[3], 'a'] and Names(stored.blob) == stored
    assert not list(Names.of([])) and len(Names.of([])) == 0
    with pytest.raises(IndexError):
        stored[len(names)]


def test_tables_come_back(tmp_path):
    table = {'paths': Names.of(['a', 'b']), 'size': np.array([1, 2**40]), 'flag': np.array([1, -1], np.int8),
             'none': np.zeros(0)}
    columns.write(tmp_path / 'deep' / 't', 'kind', table, {'of': [1]})
    found, about = columns.read(tmp_path / 'deep' / 't', 'kind')
    assert about == {'of': [1]} and found.keys() == table.keys() and found['paths'] == table['paths']
    for name in ('size', 'flag', 'none'):
        np.testing.assert_array_equal(found[name], table[name])
        assert found[name].dtype == table[name].dtype
    with pytest.raises(ValueError, match='of another kind'):
        columns.read(tmp_path / 'deep' / 't', 'other')
    with contextlib.suppress(FileNotFoundError):
        columns.read(tmp_path / 'gone', 'kind')
        pytest.fail('no error')


def test_a_file_and_a_folder_of_one_name_are_two_places():
    found = speakers(['x', 'x/x_1', 'x/x_2', 'y/y_1'])
    assert found.of == {'x': 'x', 'x/x_1': 'x', 'x/x_2': 'x', 'y/y_1': 'y'}


def test_sorted_listing_has_the_order_of_paths(tmp_path):
    """As pathlib sorts them: part by part."""
    for name in ('a/b.wav', 'a-1/b.wav', 'a.wav', 'a b/c.wav', 'A/d.wav', 'a/b/c.wav', 'ab.wav', 'é.wav'):
        write(tmp_path / name, wave(0, 0.01))
    assert audio_files.find(tmp_path) == sorted(tmp_path.rglob('*.wav'), key=lambda path: path.parts)


def test_a_process_waits_for_a_lock(tmp_path, capsys):
    from jax_diffse import files

    holder = subprocess.Popen([sys.executable, '-c', (
        'import sys, time\nfrom jax_diffse import files\nwith files.locked_in_turn(sys.argv[1], ""):\n'
        '    print("locked", flush=True); time.sleep(0.3)'), str(tmp_path / 'lock')], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == 'locked\n'
    started = time.monotonic()
    with files.locked_in_turn(tmp_path / 'lock', 'waiting while it is locked'):
        assert holder.wait(10) == 0 and (tmp_path / 'lock').exists()
    assert time.monotonic() - started > 0.1 and not (tmp_path / 'lock').exists()
    assert f'waiting while it is locked by process {holder.pid} on ' in capsys.readouterr().out
