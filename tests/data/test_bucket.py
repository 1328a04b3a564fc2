"""Folders in object storage: what is read from there is what the same folders give on this machine."""

import dataclasses
import gc
import os
import pathlib
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from jax_diffse import audio, files
from jax_diffse.data import pipeline, scan
from jax_diffse.data.config import Folders
from jax_diffse.errors import UserError
from jax_diffse.files import objects
from tests.data.corpora import RATE, wave, write, write_unusable
from tests.data.stored import assert_same, media, opened, sizes, uploaded

pytestmark = pytest.mark.usefixtures('cache')


# ------------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize('kind', ['mix_folders', 'pair_folders', 'speech_folder'])
def test_folders_are_those_of_this_machine(request, upload, kind):
    local = request.getfixturevalue(kind)
    remote = uploaded(upload, local)
    for split in ('train', 'validation', 'test'):
        assert_same(opened(remote, split), opened(local, split))


def test_every_object_is_read_once_and_then_never_again(mix_folders, upload, bucket, store):
    remote = uploaded(upload, mix_folders)
    store.requests.clear()
    opened(remote)
    assert sorted(media(store)) == sizes(store, bucket)  # 12 of speech and 12 of noise, whole
    assert sum('prefix=' in request.path and 'fields=' in request.path for request in store.requests) == 2
    first = len(store.requests)
    assert first <= 24 + 2 + 3 * 2 + 2  # the objects, listings, looks for packed data sets, and two to spare
    store.requests.clear()
    again = opened(remote)
    assert not media(store) and len(store.requests) <= 10
    store.requests.clear()
    again.draw(0, 3000, np.random.default_rng(0))
    assert len(store.requests) == 2  # of the speech and of the noise


def test_an_object_takes_at_most_300_bytes(bucket, monkeypatch):
    """Simulated: 20 000 names."""
    entry = files.Entry(10_000, 0.0, '17', '')
    monkeypatch.setattr(files, 'listing', lambda root: {f'{root}/g{k // 200:04d}/{k:07d}.flac': entry
                                                        for k in range(20_000)})
    monkeypatch.setattr(scan, '_examine', lambda source, rules: scan.Finding(RATE, 8000, 1, scan.SOUND))
    opened(Folders(speech=f'{bucket}/a'), 'test')  # loads modules
    gc.collect()
    tracemalloc.start()
    source = opened(Folders(speech=f'{bucket}/b'), 'test')
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(source) == 20_000 and size < 300 * 20_000


def test_new_and_changed_objects_alone_are_read(speech_folder, upload, bucket, store, tmp_path):
    remote = uploaded(upload, speech_folder)
    name = bucket.removeprefix('gs://')
    opened(remote, 'test')
    same = store.buckets[name]['speech/spk0/0.flac'].data
    store.put(name, 'speech/spk0/0.flac', same, {}, {})  # written anew: another generation
    store.put(name, 'speech/spk0/new.wav', write(tmp_path / 'new.wav', wave(1)).read_bytes(), {}, {})
    store.delete(name, 'speech/spk0/1.flac', {})
    for check in ('none', 'full'):
        store.requests.clear()
        source = opened(remote, 'test', check=check)
        ids = [source.info(i)['id'] for i in range(len(source))]
        assert ids[:2] == ['spk0/0', 'spk0/new'] and len(ids) == 12
        read = [request.path for request in store.requests if 'alt=media' in request.path and request.received > 300]
        assert {'0.flac' in path or 'new.wav' in path for path in read} == {True} and len(read) == 2


def test_headers_are_read_from_the_first_bytes(upload, bucket, store, tmp_path):
    for name in ('a.wav', 'b.flac'):
        write(tmp_path / 'speech' / name, wave(0, 30))
    remote = Folders(speech=upload(tmp_path / 'speech'))
    store.requests.clear()
    source = opened(remote, 'test', check='header')
    assert source.info(0)['num_samples'] == source.info(1)['num_samples'] == 30 * RATE
    assert media(store) == [1 << 16] * 2


@pytest.mark.parametrize('name', ['long.wav', 'long.flac'])
def test_a_crop_of_a_large_object_reads_a_part(upload, store, tmp_path, monkeypatch, name):
    monkeypatch.setattr(objects, 'WHOLE', 1 << 16)
    monkeypatch.setattr(objects, 'BLOCK', 1 << 15)
    path = write(tmp_path / 'speech' / name, wave(0, 60))
    local, remote = Folders(speech=str(tmp_path / 'speech')), Folders(speech=upload(tmp_path / 'speech'))
    source, expected = opened(remote, 'test'), opened(local, 'test')
    for seed in range(5):
        store.requests.clear()
        np.testing.assert_array_equal(source.draw(0, 8000, np.random.default_rng(seed)),
                                      expected.draw(0, 8000, np.random.default_rng(seed)))
        assert sum(media(store)) < path.stat().st_size / 4


def test_recordings_at_other_rates_and_odd_encodings(upload, pairs_at_other_rates, tmp_path):
    remote = uploaded(upload, pairs_at_other_rates)
    for check in ('full', 'header', 'none'):
        assert_same(opened(remote, 'test', resample=True, check=check),
                    opened(pairs_at_other_rates, 'test', resample=True))
    for name, subtype in (('a.mp3', None), ('b.ogg', 'VORBIS'), ('c.wav', 'MS_ADPCM'), ('größe 日本.w64', 'PCM_24')):
        write(tmp_path / 'speech' / name, wave(1), subtype=subtype)
    local = Folders(speech=str(tmp_path / 'speech'))
    assert_same(opened(uploaded(upload, local), 'test'), opened(local, 'test'))


def test_what_is_wrong_with_objects_is_said_as_of_files(upload, tmp_path, store, bucket):
    write_unusable(tmp_path / 's')
    (tmp_path / 's' / 'empty.wav').write_text('')
    cut = (tmp_path / 's' / 'good.wav').read_bytes()
    (tmp_path / 's' / 'cut.wav').write_bytes(cut[:len(cut) // 2])
    (tmp_path / 's' / '.hidden.wav').write_text('')
    (tmp_path / 's' / 'notes.txt').write_text('')
    messages = []
    for root in (str(tmp_path / 's'), upload(tmp_path / 's')):
        for check in ('full', 'header'):
            with pytest.raises(UserError) as error:
                opened(Folders(speech=root), 'test', check=check)
            messages.append(str(error.value).replace(root, ''))
    assert messages[:2] == messages[2:] and len(messages[0].splitlines()) == 8


def test_missing_buckets_and_folders_are_one_line(bucket, store, upload, tmp_path):
    with pytest.raises(UserError, match=f'^{bucket}/none: no such directory$'):
        opened(Folders(speech=f'{bucket}/none'))
    with pytest.raises(UserError, match=r'^gs://no-such-bucket/x: cannot be read \(there is no such bucket\)$'):
        opened(Folders(speech='gs://no-such-bucket/x'))
    (tmp_path / 'texts').mkdir()
    (tmp_path / 'texts' / 'a.txt').write_text('a')
    with pytest.raises(UserError, match='texts: no audio files in this directory$'):
        opened(Folders(speech=upload(tmp_path / 'texts')))
    store.refused = 403
    with pytest.raises(UserError, match=rf'^{bucket}/texts: cannot be read \(no permission') as error:
        opened(Folders(speech=f'{bucket}/texts'))
    assert '\n' not in str(error.value)


def test_more_threads_wait_for_objects_than_for_files(mix_folders, pair_folders, upload):
    for folders in (mix_folders, pair_folders, Folders(speech=mix_folders.speech)):
        remote = uploaded(upload, folders)
        for split in ('train', 'validation', 'test'):
            assert opened(remote, split, pad_seconds=3.0).in_store and not opened(folders, split).in_store


def test_an_object_that_vanishes_ends_a_training_in_one_line(mix_folders, upload, store, bucket):
    source = opened(uploaded(upload, mix_folders))
    batches = pipeline.train_batches(source, None, batch_size=2, num_samples=3000, seed=0)
    next(batches)
    store.buckets[bucket.removeprefix('gs://')].clear()
    with pytest.raises(UserError, match=f'^{bucket}/.*: no such file$'):
        for _ in range(9):
            next(batches)


def test_responses_of_rooms_and_the_list_of_mixtures(mix_folders, upload, tmp_path, bucket, store):
    for k in range(4):
        write(tmp_path / 'rir' / f'{k}.wav', np.exp(-np.arange(2400) / 300) * wave(k, 0.15, 0.5), 48_000)
    local = dataclasses.replace(mix_folders, rir=str(tmp_path / 'rir'))
    remote = uploaded(upload, local)
    for split in ('train', 'test'):
        assert_same(opened(remote, split), opened(local, split))
    opened(local, 'test').write_manifest(tmp_path / 'mixtures.tsv')
    opened(remote, 'test').write_manifest(f'{bucket}/out/mixtures.tsv')
    text = files.path(f'{bucket}/out/mixtures.tsv').read_text()
    assert text.replace(bucket, str(tmp_path)) == (tmp_path / 'mixtures.tsv').read_text() and 'rir/' in text


def test_esc_in_object_storage(upload, tmp_path):
    root = tmp_path / 'ESC-50'
    rows = [f'{fold}-{fold}{k}0-A-{k}.wav' for fold in range(1, 6) for k in range(3)]
    for seed, name in enumerate(rows):
        write(root / 'audio' / name, wave(seed, level=0.05))
    (root / 'meta').mkdir()
    (root / 'meta' / 'esc50.csv').write_text('\ufefffilename,fold,category,src_file\n' + ''.join(
        f'{name},{name[0]},{("dog", "rain", "clock_tick")[int(name[-5])]},{name.split("-")[1]}\n' for name in rows))
    for k in range(2):
        write(tmp_path / 'speech' / f'{k}.wav', wave(k))
    local = Folders(speech=str(tmp_path / 'speech'), noise=str(root))
    remote = uploaded(upload, local)
    for noise in (remote.noise, f'{remote.noise}/audio'):
        for split in ('train', 'validation', 'test'):
            found = opened(dataclasses.replace(remote, noise=noise), split).noise
            expected = opened(local, split).noise
            assert [(file.noise_class, pathlib.Path(file.path).name) for file in found] == [
                (file.noise_class, pathlib.Path(file.path).name) for file in expected]


# ----------------------------------------------------------------------------------------------------------- manifests


def test_manifests_in_object_storage(speech_folder, upload, bucket, store, monkeypatch):
    monkeypatch.setenv('JAX_DIFFSE_CACHE', f'{bucket}/cache')
    for folders in (speech_folder, uploaded(upload, speech_folder)):
        opened(folders, 'test')
        with monkeypatch.context() as patch:
            patch.setattr(audio, 'info', None)  # not called
            assert len(opened(folders, 'test')) == 12
    names = store.names(bucket.removeprefix('gs://'), 'cache/')
    assert [os.path.splitext(name)[1] for name in names] == ['.array_record'] * 2  # and no lock
    for damaged in (b'', b'once upon a time'):
        for name in names:
            store.put(bucket.removeprefix('gs://'), name, damaged, {}, {})
        assert len(opened(speech_folder, 'test')) == 12
    store.refused, store.refused_part = 403, 'cache/'
    assert len(opened(speech_folder, 'test')) == 12


COUNTING = """
import sys
from jax_diffse import audio
from jax_diffse.data import DataConfig, open_source
from jax_diffse.data.config import Folders
blocks, count = audio.blocks, 0
def counted(path, size):
    global count
    count += 1
    return blocks(path, size)
audio.blocks = counted
source = open_source(DataConfig(test=Folders(speech=sys.argv[1])), 'test')
print(count, len(source))
"""


def test_of_processes_on_several_hosts_one_reads_the_objects(speech_folder, upload, bucket, monkeypatch):
    monkeypatch.setenv('JAX_DIFFSE_CACHE', f'{bucket}/cache')
    remote = uploaded(upload, speech_folder).speech
    running = [subprocess.Popen([sys.executable, '-c', COUNTING, remote], stdout=subprocess.PIPE, text=True)
               for _ in range(2)]
    found = [process.communicate(timeout=120)[0].splitlines()[-1].split() for process in running]
    assert sorted(int(count) for count, _ in found) == [0, 12] and {size for _, size in found} == {'12'}
