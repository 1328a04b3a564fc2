"""Enhancement of recordings from object storage to object storage."""

import numpy as np
import pytest
import soundfile
from numpy.testing import assert_allclose

from jax_diffse import audio, audio_files, errors, files, runs
from jax_diffse.errors import UserError
from jax_diffse.files import objects
from jax_diffse.inference.enhance import EnhanceOptions, enhance
from jax_diffse.inference.export import opened
from jax_diffse.inference.jobs import plan_jobs
from tests import toys


@pytest.fixture(autouse=True)
def system(monkeypatch):
    """Makes every workdir a run of a toy system that halves its input."""
    monkeypatch.setattr(runs, 'load', lambda workdir, step='best', model=None: toys.run(toys.Toy()))


@pytest.fixture
def upload(bucket, tmp_path):
    """A function that writes noise to an object, and returns the samples."""
    def write(name, seed=0, n=800, **options):
        soundfile.write(tmp_path / 'x.wav', 0.1 * np.random.default_rng(seed).standard_normal(n), 16_000, **options)
        files.upload(tmp_path / 'x.wav', f'{bucket}/{name}')
        return soundfile.read(tmp_path / 'x.wav')[0]

    return write


@pytest.mark.parametrize('options', [
    {'format': 'WAV', 'subtype': 'PCM_16'}, {'format': 'FLAC'}, {'format': 'MP3'}, {'format': 'OGG', 'subtype': 'OPUS'},
    {'format': 'NIST', 'subtype': 'PCM_16'}])
def test_recordings_are_read_as_from_a_disk(upload, bucket, tmp_path, options):
    upload('in/a', **options)
    local, there = tmp_path / 'x.wav', f'{bucket}/in/a'
    assert audio.info(there) == audio.info(local)
    assert np.array_equal(audio.read(there, 100, 300)[0], audio.read(local, 100, 300)[0])
    assert np.array_equal(np.concatenate(list(audio.blocks(there, 99))), audio.read(local)[0])


def test_joined_files_are_read_to_their_end(bucket, tmp_path, monkeypatch):
    """Also of an object so large that it would be read in parts."""
    monkeypatch.setattr(objects, 'WHOLE', 1000)
    for name in 'ab':
        soundfile.write(tmp_path / f'{name}.flac', np.random.default_rng(0).uniform(-0.5, 0.5, 8000), 16_000)
    (tmp_path / 'joined.flac').write_bytes((tmp_path / 'a.flac').read_bytes() + (tmp_path / 'b.flac').read_bytes())
    files.upload(tmp_path / 'joined.flac', f'{bucket}/joined.flac')
    assert audio.info(f'{bucket}/joined.flac').num_samples == 16_000
    np.testing.assert_array_equal(audio.read(f'{bucket}/joined.flac')[0], audio.read(tmp_path / 'joined.flac')[0])


def test_looking_at_a_recording_and_reading_it_downloads_it_once(upload, bucket, store):
    upload('in/a.wav')
    store.requests.clear()
    for read in (audio.info, audio.read, audio.check_writable):
        read(f'{bucket}/in/a.wav')
    assert sum('alt=media' in request.path for request in store.requests) == 1
    changed = upload('in/a.wav', seed=1)
    assert_allclose(audio.read(f'{bucket}/in/a.wav')[0][:, 0], changed)


@pytest.mark.parametrize(('content', 'message'), [
    (None, 'no such file'), (b'', 'the file is empty'), (b'no sound', 'not readable as audio')])
def test_what_is_no_recording_is_refused(bucket, store, content, message):
    if content is not None:
        store.put(bucket.removeprefix('gs://'), 'x.wav', content, {}, {})
    with pytest.raises(UserError, match=f'^{bucket}/x.wav: {message}'):
        audio.read(f'{bucket}/x.wav')
    store.refused = 403
    with pytest.raises(UserError, match=f'^{bucket}/x.wav: cannot be read .no permission'):
        audio.read(f'{bucket}/x.wav')


def test_folders_are_searched_with_one_request(upload, bucket, store, capsys):
    for name in ('b.wav', 'a/deep/c.flac', 'a-2/d.MP3', '.hidden.wav', 'a/.h/x.wav', 'notes.txt'):
        store.put(bucket.removeprefix('gs://'), f'in/{name}', b'', {}, {})
    store.requests.clear()
    assert audio_files.list_paths(f'{bucket}/in/') == ['a/deep/c.flac', 'a-2/d.MP3', 'b.wav']
    assert len(store.requests) == 1
    assert f'{bucket}/in/: left out 3 of 6 files: 2 hidden, 1 .txt (not an audio format)' in capsys.readouterr().out
    assert list(audio_files.by_name(f'{bucket}/in')) == ['a/deep/c', 'a-2/d', 'b']
    with pytest.raises(UserError, match=f'^{bucket}/none: no such directory$'):
        audio_files.find(f'{bucket}/none')
    with pytest.raises(UserError, match='there is no such bucket'):
        audio_files.find('gs://no-such-bucket/in')


def test_addresses_are_written_in_several_ways(upload, bucket, store, capsys):
    upload('in/a.wav')
    upload('in//b.wav')  # a folder without a name, which no disk has
    for address in (f'{bucket}/in', f'{bucket}/in/', f'{bucket}//in', f'{bucket}/./in'):
        assert audio_files.list_paths(address) == ['a.wav']
        assert [str(path) for path in audio_files.find(address)] == [f'{bucket}/in/a.wav']
    assert 'left out 1 of 2 files: 1 with an empty name of a folder' in capsys.readouterr().out


def test_files_and_folders_are_enhanced_below_the_output(upload, bucket, store, capsys):
    waveforms = {'single.wav': upload('single.wav'), 'a.wav': upload('in/a.wav', 1),
                 'deep/b.flac': upload('in/deep/b.flac', 2, format='FLAC')}
    inputs = [f'{bucket}/single.wav', f'{bucket}/in']
    assert enhance('run', inputs, f'{bucket}/out', EnhanceOptions(noise=f'{bucket}/noise')) == 0
    for name, noisy in waveforms.items():
        for folder in ('out', 'noise'):
            assert_allclose(audio.read(f'{bucket}/{folder}/{name}')[0][:, 0], 0.5 * noisy, atol=2**-15)
    assert f'{bucket}/out/deep/b.flac: 0.1 s of audio' in capsys.readouterr().out
    made = [name for name in store.names(bucket.removeprefix('gs://'), 'out/') if '/.enhanced-' not in name]
    assert made == ['out/a.wav', 'out/deep/b.flac', 'out/single.wav']


def test_a_rerun_skips_what_is_done_without_downloading_it(upload, bucket, store, capsys):
    for i in range(4):
        upload(f'in/{i}.wav', i)

    def made_now() -> str:
        capsys.readouterr()
        assert enhance('run', [f'{bucket}/in'], f'{bucket}/out') == 0
        return ''.join(line.removeprefix(f'{bucket}/out/')[0] for line in capsys.readouterr().out.splitlines()
                       if line.startswith(f'{bucket}/out/'))

    assert made_now() == '0123'
    assert len([name for name in store.names(bucket.removeprefix('gs://'), 'out/.enhanced')]) == 1
    store.requests.clear()
    assert made_now() == ''
    assert not any('alt=media' in request.path and '/in/' in request.path for request in store.requests)
    upload('in/1.wav', 9)
    store.put(bucket.removeprefix('gs://'), 'out/2.wav', b"someone else's", {}, {})
    store.delete(bucket.removeprefix('gs://'), 'out/3.wav', {})
    assert made_now() == '123' and made_now() == ''


def test_results_never_overwrite_inputs(upload, bucket):
    upload('in/a.wav')
    for inputs, output in (([f'{bucket}/in'], f'{bucket}/in/out'), ([f'{bucket}/in/a.wav'], f'{bucket}/in'),
                           ([f'{bucket}/in'], bucket + '/in/')):
        with pytest.raises(UserError, match='is or lies in the input folder|would overwrite the input'):
            plan_jobs(inputs, output)


def test_disks_and_buckets_mix(upload, bucket, tmp_path):
    noisy = upload('in/a.wav')
    assert enhance('run', [f'{bucket}/in'], tmp_path / 'out') == 0
    assert_allclose(audio.read(tmp_path / 'out' / 'a.wav')[0][:, 0], 0.5 * noisy, atol=2**-15)
    assert enhance('run', [tmp_path / 'out'], f'{bucket}/twice') == 0
    assert_allclose(audio.read(f'{bucket}/twice/a.wav')[0][:, 0], 0.25 * noisy, atol=2**-14)


def test_a_store_that_refuses_results_is_reported_per_file(upload, bucket, store, capsys):
    upload('in/a.wav')
    store.refused, store.refused_part = 403, '/upload/'
    assert enhance('run', [f'{bucket}/in'], f'{bucket}/out') == 2
    assert f'not enhanced: {bucket}/out/a.wav: cannot be written (no permission' in capsys.readouterr().err


def test_exports_are_objects(bucket, store):
    with opened(f'{bucket}/models/run.export') as file:
        file.write(b'exported')
        assert store.names(bucket.removeprefix('gs://')) == []
    assert files.read_bytes(f'{bucket}/models/run.export') == b'exported'
    with pytest.raises(UserError, match='is a folder, expected the name of a file'), opened(f'{bucket}/models'):
        pass


def test_a_missing_bucket_is_one_line(bucket, capsys):
    assert errors.status(lambda: enhance('run', ['gs://no-such-bucket/in'], f'{bucket}/out')) == 2
    assert capsys.readouterr().err == 'error: gs://no-such-bucket: there is no such bucket\n'
