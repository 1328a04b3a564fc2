"""Packed data sets and arrays in object storage."""

import os

import numpy as np
import pytest

from jax_diffse import cli, files
from jax_diffse.data import packed, packing, riegeli
from jax_diffse.data.config import Folders
from jax_diffse.data.packing import PackOptions, pack
from jax_diffse.errors import UserError
from tests.data.corpora import wave, write
from tests.data.packs import interrupt, packed_to
from tests.data.stored import assert_same, media, opened

pytestmark = pytest.mark.usefixtures('cache')


@pytest.mark.parametrize('encoding', packing.ENCODINGS)
def test_packed_data_sets_are_written_and_read(mix_folders, upload, bucket, store, tmp_path, small_shards, encoding):
    """From folders of this machine and of object storage the same objects are made as on a disk."""
    write(tmp_path / 'speech' / 'spk0' / 'long.wav', wave(5, 9))  # longer than a block of Riegeli
    speech = packed_to(f'{bucket}/packed/speech', encoding, speech=mix_folders.speech)
    noise = packed_to(f'{bucket}/packed/noise', encoding, noise=upload(mix_folders.noise))
    local = packed_to(tmp_path / 'packed', encoding, noise=mix_folders.noise)
    names = [name.rpartition('/')[2] for name in store.names(bucket.removeprefix('gs://'), 'packed/noise/')]
    assert sorted(names) == sorted(os.listdir(local)) and len(names) == 4 + 4
    for split in ('train', 'test'):
        assert_same(opened(Folders(speech=speech, noise=noise), split), opened(mix_folders, split), 13)
    assert 'is complete already' in pack(Folders(speech=mix_folders.speech), speech, PackOptions(encoding))


def test_packed_pairs(pair_folders, bucket):
    pairs = packed_to(f'{bucket}/pairs', clean=pair_folders.clean, noisy=pair_folders.noisy)
    assert_same(opened(Folders(clean=pairs, noisy=pairs)), opened(pair_folders))


def test_a_recording_of_a_packed_data_set_is_one_request_for_its_bytes(speech_folder, bucket, store, small_shards):
    root = packed_to(f'{bucket}/packed', speech=speech_folder.speech)
    packed._read.cache_clear()
    store.requests.clear()
    source = opened(Folders(speech=root), 'test')
    assert len(store.requests) <= 8 and not any('array_record-' in request.path for request in store.requests)
    sizes = [os.path.getsize(f'{speech_folder.speech}/{source.info(i)["id"]}.flac') for i in range(len(source))]
    for i in (7, 0, 11):
        store.requests.clear()
        source.draw(i, 3000, np.random.default_rng(0))
        assert len(store.requests) == 1 and store.requests[0].received <= 1.3 * sizes[i] + 2 * riegeli.HEADER


def test_an_interrupted_upload_continues(speech_folder, bucket, store, small_shards):
    interrupt(f'{bucket}/packed', 5, speech=speech_folder.speech)
    with pytest.raises(UserError, match='packed: a packed data set that is not finished; run its jax-diffse pack'):
        opened(Folders(speech=f'{bucket}/packed'))
    store.requests.clear()
    packed_to(f'{bucket}/packed', speech=speech_folder.speech)
    written = [request.written for request in store.requests if request.written]
    assert not any('-00000-of-' in name for name in written)
    assert [name for name in written if 'array_record' in name] == [
        f'packed/speech-train.array_record-0000{k}-of-00004' for k in (1, 2, 3)]
    assert written[-1] == 'packed/dataset_info.json'  # and then the mark of what is unfinished is removed
    assert_same(opened(Folders(speech=f'{bucket}/packed')), opened(speech_folder))


def test_lists_and_mistakes_of_packing(speech_folder, upload, bucket, store, tmp_path):
    root = upload(speech_folder.speech)
    files.write_text(f'{bucket}/list.txt', f'spk3/1.flac\n{root}/spk0/0.flac\n')
    pack(Folders(speech=root), f'{bucket}/some', PackOptions(listed=f'{bucket}/list.txt'))
    assert packed.index(f'{bucket}/some').names() == ['spk0/0', 'spk3/1']
    files.write_text(f'{bucket}/list.txt', f'{bucket}/other/a.flac\n')
    for listed, said in (('list.txt', 'line 1: gs://.*/other/a.flac does not lie in gs://.*/speech'),
                         ('none.txt', r'cannot be read \(No such file or directory\)')):
        with pytest.raises(UserError, match=said):
            pack(Folders(speech=root), f'{bucket}/more', PackOptions(listed=f'{bucket}/{listed}'))
    with pytest.raises(UserError, match=f'^--output={root}/packed: lies in --speech={root}'):
        packed_to(f'{root}/packed', speech=root)
    with pytest.raises(UserError, match=f'^{root}: exists and is not a packed data set'):
        packed_to(root, speech=speech_folder.speech)
    with pytest.raises(UserError, match='^gs://no-such-bucket/x: .*there is no such bucket'):
        packed_to('gs://no-such-bucket/x', speech=speech_folder.speech)
    store.refused, store.refused_part = 403, 'denied'
    with pytest.raises(UserError, match=r'denied.*: cannot be (read|written) \(no permission'):
        packed_to(f'{bucket}/denied', speech=speech_folder.speech)


@pytest.mark.parametrize('lost', ['missing', 'cut'])
def test_a_lost_shard_is_one_line(speech_folder, bucket, store, lost):
    root = packed_to(f'{bucket}/packed', speech=speech_folder.speech)
    name, shard = bucket.removeprefix('gs://'), 'packed/speech-train.array_record-00000-of-00001'
    if lost == 'missing':
        store.delete(name, shard, {})
    else:
        store.put(name, shard, store.buckets[name][shard].data[:100_000], {}, {})
    source = opened(Folders(speech=root), 'test')
    with pytest.raises(UserError, match=f'{shard}: cannot be read .*pack the recordings again') as error:
        source.read(len(source) - 1)
    assert '\n' not in str(error.value)


def test_the_command_packs(speech_folder, bucket, capsys):
    assert cli.run(['pack', '--speech', speech_folder.speech, '--output', f'{bucket}/a']) is None
    assert f'{bucket}/a: 12 speech, 0.00 hours, in 1 shard(s)' in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'int16'])
def test_arrays_are_read_pair_by_pair(bucket, store, tmp_path, dtype):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (6, 2, 8000))
    np.save(tmp_path / 'a.npy', (samples * 30_000 if dtype == 'int16' else samples).astype(dtype))
    files.upload(tmp_path / 'a.npy', f'{bucket}/a.npy')
    local, remote = Folders(arrays=str(tmp_path / 'a.npy')), Folders(arrays=f'{bucket}/a.npy')
    for split in ('train', 'validation'):
        assert_same(opened(remote, split), opened(local, split), 3)
    source = opened(remote)
    store.requests.clear()
    source.draw(0, 3000, np.random.default_rng(0))
    assert media(store) == [2 * 8000 * np.dtype(dtype).itemsize]


def test_test_arrays_by_condition(bucket, tmp_path):
    np.save(tmp_path / 'a.npy', np.random.default_rng(0).uniform(-0.5, 0.5, (2, 4, 3, 2, 4000)))
    files.upload(tmp_path / 'a.npy', f'{bucket}/a.npy')
    found, expected = (opened(Folders(arrays=root), 'test') for root in (f'{bucket}/a.npy', str(tmp_path / 'a.npy')))
    assert_same(found, expected, 24)


def test_what_is_wrong_with_arrays_is_said_as_of_files(bucket, tmp_path):
    good = np.random.default_rng(0).uniform(-0.5, 0.5, (6, 2, 8000))
    np.save(tmp_path / 'objects.npy', np.array([None]), allow_pickle=True)
    np.savez(tmp_path / 'archive.npy', good)
    os.rename(tmp_path / 'archive.npy.npz', tmp_path / 'archive.npy')
    np.save(tmp_path / 'axes.npy', good[0])
    good[3, 1, 5] = np.nan
    np.save(tmp_path / 'nan.npy', good)
    (tmp_path / 'cut.npy').write_bytes((tmp_path / 'nan.npy').read_bytes()[:100_000])
    (tmp_path / 'text.npy').write_text('once upon a time')
    (tmp_path / 'empty.npy').write_text('')
    for path in tmp_path.glob('*.npy'):
        files.upload(path, f'{bucket}/{path.name}')
        messages = []
        for root in (str(path), f'{bucket}/{path.name}'):
            with pytest.raises(UserError) as error:
                opened(Folders(arrays=root))
            messages.append(str(error.value).replace(root, ''))
        assert messages[0] == messages[1], path.name
    with pytest.raises(UserError, match=r'none.npy: cannot be read \(No such file or directory\)'):
        opened(Folders(arrays=f'{bucket}/none.npy'))
    np.save(tmp_path / 'f.npy', np.asfortranarray(good))
    files.upload(tmp_path / 'f.npy', f'{bucket}/f.npy')
    with pytest.raises(UserError, match='f.npy: stored in Fortran order'):
        opened(Folders(arrays=f'{bucket}/f.npy'))
