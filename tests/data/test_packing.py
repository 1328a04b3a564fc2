"""Packed data sets: what is read from them is what the packed folders hold."""

import dataclasses
import io
import json
import os
import pathlib

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from jax_diffse import audio, cli
from jax_diffse.data import DataConfig, esc, manifest, open_source, packed, packing, pipeline
from jax_diffse.data.config import Folders
from jax_diffse.data.mixer import MixerConfig
from jax_diffse.data.packing import PackOptions, pack
from jax_diffse.errors import UserError
from tests.data.corpora import RATE, wave, write
from tests.data.packs import interrupt, packed_to

pytestmark = pytest.mark.usefixtures('small_shards')


def ids(source):
    return [source.info(i)['id'] for i in range(len(source))]


def tree(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob('*') if path.is_file()}


# -------------------------------------------------------------------------------------------------------------- samples


SUBTYPES = [('a.wav', 'PCM_16', 0), ('b.flac', 'PCM_16', 0), ('c.wav', 'PCM_24', 0), ('d.flac', 'PCM_24', 0),
            ('e.wav', 'PCM_U8', 0), ('f.wav', 'ULAW', 0), ('g.wav', 'FLOAT', 2**-24), ('h.wav', 'PCM_32', 2**-24),
            ('i.ogg', 'VORBIS', 2**-16), ('j.wav', 'MS_ADPCM', 2**-16)]


@pytest.mark.parametrize(('encoding', 'worst'), [('flac', 0), ('int16', 2**-16)])
def test_samples_are_those_of_the_files(tmp_path, encoding, worst):
    """Up to 24 bits in FLAC, up to 16 bits otherwise; the files have full scale."""
    samples = np.random.default_rng(0).uniform(-0.99, 0.99, 12_000)
    samples[:2] = -1, 1 - 2**-15
    for name, subtype, _ in SUBTYPES:
        write(tmp_path / 'speech' / name, samples * (0.3 if name in ('i.ogg', 'j.wav') else 1), RATE, subtype)
    output = packed_to(tmp_path / 'packed', encoding, speech=str(tmp_path / 'speech'))
    loose, found = (open_source(DataConfig(test=Folders(speech=root)), 'test')
                    for root in (str(tmp_path / 'speech'), output))
    assert ids(found) == ids(loose) and len(found) == len(SUBTYPES)
    for i, (_, subtype, error) in enumerate(SUBTYPES):
        tolerance = error if subtype in ('PCM_16', 'PCM_U8', 'ULAW') else max(error, worst)
        np.testing.assert_allclose(found.read(i)[0], loose.read(i)[0], rtol=0, atol=tolerance)
        for start, stop in ((0, 5000), (4097, 9001), (11_999, 12_000), (5000, 20_000)):
            np.testing.assert_array_equal(found.clean[i].read(start, stop), found.read(i)[0][start:stop])


def test_a_part_of_a_long_recording_is_decoded_alone(tmp_path, monkeypatch):
    write(tmp_path / 'speech' / 'long.wav', wave(0, 60))
    output = packed_to(tmp_path / 'packed', speech=str(tmp_path / 'speech'))
    source = open_source(DataConfig(test=Folders(speech=output)), 'test')
    whole, _ = soundfile.read(tmp_path / 'speech' / 'long.wav', dtype='float32')
    read, decoded = soundfile.SoundFile.read, []
    monkeypatch.setattr(soundfile.SoundFile, 'read',
                        lambda self, frames=-1, **kwargs: decoded.append(frames) or read(self, frames, **kwargs))
    crop, _ = source.draw(0, 8000, np.random.default_rng(0))
    assert decoded == [8000]
    start = int(np.random.default_rng(0).integers(len(whole) - 8000 + 1))
    np.testing.assert_array_equal(crop, whole[start:start + 8000])


# ------------------------------------------------------------------------------------------------------ as folders


def batches(folders, split, **settings):
    config = DataConfig(train=folders, test=folders, **settings)
    source = open_source(config, split)
    found = pipeline.train_batches(source, None, batch_size=4, num_samples=4000, seed=1)
    result = [next(found) for _ in range(6)]
    found.close()
    return ids(source), result


def assert_same(packed_folders, folders, **settings):
    for split in ('train', 'validation', 'test'):
        (names, first), (other_names, second) = (batches(each, split, **settings)
                                                 for each in (packed_folders, folders))
        assert names == other_names
        for a, b in zip(first, second, strict=True):
            for key in a:
                np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.parametrize('encoding', packing.ENCODINGS)
def test_mixtures_of_packed_and_loose_recordings_are_those_of_the_folders(mix_folders, tmp_path, encoding, capsys):
    speech = packed_to(tmp_path / 'speech_packed', encoding, speech=mix_folders.speech)
    noise = packed_to(tmp_path / 'noise_packed', encoding, noise=mix_folders.noise)
    for packed_speech, packed_noise in ((speech, noise), (speech, mix_folders.noise), (mix_folders.speech, noise)):
        assert_same(Folders(speech=packed_speech, noise=packed_noise), mix_folders, held_out=0.3)
    capsys.readouterr()
    folders = Folders(speech=speech, noise=noise)
    open_source(DataConfig(train=folders, held_out=0.3), 'validation')
    assert 'using folders of level 1 as speakers; 2 of 6 are held out' in capsys.readouterr().out
    test = open_source(DataConfig(train=folders, test=folders), 'test')
    assert {test.info(i)['noise'] for i in range(len(test))} == {'rain', 'wind', 'fan'}
    assert {test.info(i)['noise_kind'] for i in range(len(test))} == {'seen'}


def test_the_mixer_works_on_packed_recordings(mix_folders, tmp_path):
    for k in range(4):
        write(tmp_path / 'rir' / f'{k}.wav', np.exp(-np.arange(800) / 100) * wave(k, 0.05))
    rir = str(tmp_path / 'rir')
    folders = Folders(speech=packed_to(tmp_path / 'speech_packed', speech=mix_folders.speech),
                      noise=packed_to(tmp_path / 'noise_packed', noise=mix_folders.noise), rir=rir)
    loose = dataclasses.replace(mix_folders, rir=rir)
    mixer = MixerConfig(rir_noise=True, speed=(0.9, 1.1), max_noises=3, level_db=(-35.0, -25.0))
    assert_same(folders, loose, held_out=0.3, mixer=mixer, test_mixer=mixer, pad_seconds=0.6)
    for split in ('validation', 'test'):
        for name, source in (('packed', folders), ('loose', loose)):
            config = DataConfig(train=source, test=source, held_out=0.3, mixer=mixer, test_mixer=mixer, pad_seconds=0.6)
            listed = open_source(config, split)
            listed.write_manifest(tmp_path / name)
            assert {len(x) for i in range(len(listed)) for x in listed.read(i)} == {9600}
        lines = (tmp_path / 'packed').read_text().replace('_packed/', '/')
        assert lines == (tmp_path / 'loose').read_text()
    with pytest.raises(UserError, match=f'^{folders.noise}: a packed data set, expected a folder of audio files'):
        open_source(DataConfig(test=dataclasses.replace(folders, rir=folders.noise)), 'test')


def test_pairs_by_file_id_keep_both_names(tmp_path):
    for k in range(5):
        write(tmp_path / 'clean' / f'clean_fileid_{k}.wav', wave(k))
        write(tmp_path / 'noisy' / f'{9 - k}_snr5_fileid_{k}.wav', wave(9 + k))
    folders = Folders(clean=str(tmp_path / 'clean'), noisy=str(tmp_path / 'noisy'))
    pairs = packed_to(tmp_path / 'pairs', clean=folders.clean, noisy=folders.noisy)
    assert_same(Folders(clean=pairs, noisy=pairs), folders, held_out=0.3)
    assert_same(Folders(clean=pairs, noisy=folders.noisy), folders, held_out=0.3)
    source = open_source(DataConfig(test=Folders(clean=pairs, noisy=pairs)), 'test')
    assert ids(source) == [f'{9 - k}_snr5_fileid_{k}' for k in range(5)]


def test_pairs_and_speech_alone_are_those_of_the_folders(pair_folders, speech_folder, tmp_path):
    pairs = packed_to(tmp_path / 'pairs', clean=pair_folders.clean, noisy=pair_folders.noisy)
    assert_same(Folders(clean=pairs, noisy=pairs), pair_folders)
    assert_same(Folders(speech=pairs), Folders(speech=pair_folders.clean))
    assert_same(Folders(clean=pairs, noisy=pair_folders.noisy), pair_folders)
    with pytest.raises(UserError, match='pairs: holds packed pairs, expected packed noise'):
        open_source(DataConfig(train=Folders(speech=pairs, noise=pairs)), 'train')
    speech = packed_to(tmp_path / 'speech_packed', speech=speech_folder.speech)
    assert_same(Folders(speech=speech), speech_folder, share=0.5)


def test_esc_keeps_classes_recordings_and_folds(tmp_path):
    root = tmp_path / 'ESC-50'
    rows = [f'{fold}-{fold}{k}0-{take}-{k}.wav' for fold in range(1, 6) for k in range(3) for take in 'AB']
    for seed, name in enumerate(rows):
        write(root / 'audio' / name, wave(seed, level=0.05))
    (root / 'meta').mkdir()
    (root / 'meta' / 'esc50.csv').write_text('filename,fold,category,src_file\n' + ''.join(
        f'{name},{name[0]},{("dog", "rain", "clock_tick")[int(name[-5])]},{name.split("-")[1]}\n' for name in rows))
    write(tmp_path / 'speech' / 'a.wav', wave(1))
    write(tmp_path / 'speech' / 'b.wav', wave(2))
    output = packed_to(tmp_path / 'packed', noise=str(root))
    assert packed.index(output).clips() == esc.clips(root, packed.index(output).names())
    for split in ('train', 'validation', 'test'):
        found, loose = ([(file.name, file.noise_class) for file in open_source(
            DataConfig(train=Folders(speech=str(tmp_path / 'speech'), noise=noise), test=Folders(
                speech=str(tmp_path / 'speech'), noise=noise)), split).noise] for noise in (output, str(root)))
        assert found == loose and found


def test_rules_are_those_of_folders(tmp_path):
    for rate in (16_000, 48_000):
        write(tmp_path / 'speech' / f'{rate}.wav', wave(0, 0.5 * rate / RATE), rate)
    write(tmp_path / 'speech' / 'short.wav', wave(1, 0.1))
    output = packed_to(tmp_path / 'packed', speech=str(tmp_path / 'speech'))
    messages = []
    for root in (output, str(tmp_path / 'speech')):
        with pytest.raises(UserError) as error:
            open_source(DataConfig(test=Folders(speech=root)), 'test')
        messages.append(str(error.value).replace(root, ''))
    assert messages[0] == messages[1] and '48000 Hz, expected 16000 Hz' in messages[0]
    found, loose = (open_source(DataConfig(test=Folders(speech=root), resample=True, skip_bad=True), 'test')
                    for root in (output, str(tmp_path / 'speech')))
    assert ids(found) == ids(loose) == ['16000', '48000']
    for i in range(2):
        np.testing.assert_array_equal(found.draw(i, 3000, np.random.default_rng(i)),
                                      loose.draw(i, 3000, np.random.default_rng(i)))


def test_opening_reads_the_index_alone(speech_folder, tmp_path):
    output = pathlib.Path(packed_to(tmp_path / 'packed', speech=speech_folder.speech))
    shards = sorted(output.glob('*.array_record-*'))
    assert len(shards) == 4
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:100_000])
    source = open_source(DataConfig(test=Folders(speech=str(output))), 'test')
    assert len(source) == 12 and source.info(0)['num_samples'] == 8000
    for i, words in ((0, 'no such file'), (4, 'cannot be read'), (11, '')):
        if words:
            with pytest.raises(UserError, match=f'array_record-0000{i // 3}-of-00004: .*{words}.*pack the recordings'):
                source.read(i)
        else:
            source.read(i)


def test_a_damaged_index_is_one_line(speech_folder, tmp_path):
    output = pathlib.Path(packed_to(tmp_path / 'packed', speech=speech_folder.speech))
    (output / packed.INDEX).write_bytes(b'once upon a time')
    with pytest.raises(UserError, match='index.columns: cannot be read .*pack the recordings again'):
        open_source(DataConfig(test=Folders(speech=str(output))), 'test')


# ------------------------------------------------------------------------------------------------------------ TFDS


@pytest.mark.parametrize('encoding', packing.ENCODINGS)
def test_tfds_reads_the_records(mix_folders, tmp_path, encoding):
    output = packed_to(tmp_path / 'packed', encoding, noise=mix_folders.noise)
    builder = tfds.builder_from_directory(output)
    assert builder.info.splits['train'].num_examples == 12 and builder.info.metadata['encoding'] == encoding
    found = {}
    for record in builder.as_data_source('train'):
        name = record['name'].decode()
        samples = (soundfile.read(io.BytesIO(record['audio']), dtype='int16')[0] if encoding == 'flac'
                   else record['audio'])
        expected, rate = soundfile.read(tmp_path / 'noise' / f'{name}.wav', dtype='int16')
        np.testing.assert_array_equal(samples, expected)
        assert (record['sample_rate'], record['num_samples']) == (rate, len(expected))
        assert record['path'].decode() == f'{name}.wav' and record['noise_class'].decode() == name.split('/')[0]
        found[name] = samples
    assert len(found) == 12


def test_records_name_speakers(speech_folder, tmp_path):
    output = packed_to(tmp_path / 'packed', speech=speech_folder.speech)
    records = tfds.builder_from_directory(output).as_data_source('train')
    assert [(record['name'].decode(), record['speaker'].decode()) for record in records] == [
        (f'spk{s}/{k}', f'spk{s}') for s in range(6) for k in range(2)]


# -------------------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize('count', [0, 5, 11])
def test_an_interrupted_command_continues_after_the_last_shard(speech_folder, tmp_path, count):
    expected = pathlib.Path(packed_to(tmp_path / 'expected', speech=speech_folder.speech))
    output = tmp_path / 'packed'
    interrupt(output, count, speech=speech_folder.speech)
    finished = {path: path.stat().st_mtime_ns for path in output.glob('*.array_record-*')}
    assert len(finished) == count // 3  # of 3, 4, 4 and 1 recordings
    with pytest.raises(UserError, match='packed: a packed data set that is not finished; run its jax-diffse pack'):
        open_source(DataConfig(test=Folders(speech=str(output))), 'test')
    packed_to(output, speech=speech_folder.speech)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert tree(output) == tree(expected)


def test_a_complete_data_set_is_left_as_it_is_and_another_one_is_refused(speech_folder, tmp_path):
    output = tmp_path / 'packed'
    packed_to(output, speech=speech_folder.speech)
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    assert 'is complete already, 12 speech' in pack(Folders(speech=speech_folder.speech), str(output), PackOptions())
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before
    write(tmp_path / 'speech' / 'spk9' / 'new.wav', wave(0))
    for options in (PackOptions(), PackOptions('int16')):
        with pytest.raises(UserError, match='packed: holds a data set of other files, or packed otherwise; remove'):
            pack(Folders(speech=speech_folder.speech), str(output), options)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'precious').write_text('')
    with pytest.raises(UserError, match='mine: exists and is not a packed data set'):
        packed_to(tmp_path / 'mine', speech=speech_folder.speech)


@pytest.mark.parametrize('lost', ['dataset_info.json', 'noise-train.array_record-00000-of-00004'])
def test_what_was_lost_is_made_again(mix_folders, tmp_path, lost):
    output = packed_to(tmp_path / 'packed', noise=mix_folders.noise)
    before = tree(tmp_path / 'packed')
    (tmp_path / 'packed' / lost).unlink()
    if lost == packed.METADATA:
        with pytest.raises(UserError, match='packed: a packed data set that is not finished'):
            packed.index(output)
    packed_to(output, noise=mix_folders.noise)
    assert tree(tmp_path / 'packed').keys() == before.keys()
    source = open_source(DataConfig(train=Folders(speech=mix_folders.speech, noise=output)), 'train')
    assert np.isfinite(source.draw(0, 3000, np.random.default_rng(0))).all()


def test_a_file_that_changes_meanwhile_is_an_error(speech_folder, tmp_path, monkeypatch):
    encode = packing._encode

    def later(path, *given):
        if path.endswith('spk0/0.flac'):
            write(tmp_path / 'speech' / 'spk0' / '0.flac', wave(0, 0.3))
        return encode(path, *given)

    monkeypatch.setattr(packing, '_encode', later)
    with pytest.raises(UserError, match='0.flac: has changed since it was checked; run the command again'):
        packed_to(tmp_path / 'packed', speech=speech_folder.speech)
    with pytest.raises(UserError, match='not finished'):
        packed.index(str(tmp_path / 'packed'))


def test_packed_noise_is_no_speech_but_packed_speech_may_be_noise(mix_folders, tmp_path):
    noise = packed_to(tmp_path / 'noises', noise=mix_folders.noise)
    speech = packed_to(tmp_path / 'voices', speech=mix_folders.speech)
    with pytest.raises(UserError, match='noises: holds packed noise, expected packed speech or pairs, or a folder of'):
        open_source(DataConfig(train=Folders(speech=noise)), 'train')
    assert len(open_source(DataConfig(train=Folders(speech=speech, noise=speech)), 'train'))


# ------------------------------------------------------------------------------------------------------------- choices


def test_a_list_chooses_files(speech_folder, tmp_path):
    path = tmp_path / 'list.txt'
    path.write_text(f'spk3/1.flac\n\n{speech_folder.speech}/spk0/0.flac\nspk3/1.flac\n')
    pack(Folders(speech=speech_folder.speech), str(tmp_path / 'packed'), PackOptions(listed=str(path)))
    source = open_source(DataConfig(test=Folders(speech=str(tmp_path / 'packed'))), 'test')
    assert ids(source) == ['spk0/0', 'spk3/1']
    assert len(open_source(DataConfig(test=speech_folder), 'test')) == 12


def test_a_list_of_pairs_names_the_clean_files(pair_folders, tmp_path):
    path = tmp_path / 'list.txt'
    path.write_text('\ufeff3.wav\r\n1.wav\r\n', newline='')  # as Windows writes it
    write(tmp_path / 'noisy' / '2.flac', np.zeros(8000))  # not listed
    output = str(tmp_path / 'packed')
    pack(pair_folders, output, PackOptions(listed=str(path)))
    assert ids(open_source(DataConfig(test=Folders(clean=output, noisy=output)), 'test')) == ['1', '3']


@pytest.mark.parametrize(('text', 'said'), [
    (None, r'list.txt: cannot be read \(No such file'), ('', 'lists no files'), ('../x.wav\n', 'line 1: ../x.wav does'),
    ('spk0/0.flac\nnotes.txt', 'line 2: notes.txt is not an audio file'),
    ('spk0/9.flac', 'spk0/9.flac: cannot be read')])
def test_what_is_wrong_with_a_list_is_one_line(speech_folder, tmp_path, text, said):
    path = tmp_path / 'list.txt'
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said) as error:
        pack(Folders(speech=speech_folder.speech), str(tmp_path / 'packed'), PackOptions(listed=str(path)))
    assert '\n' not in str(error.value) and not (tmp_path / 'packed').exists()


def test_bad_files_are_listed_before_anything_is_written(pair_folders, tmp_path):
    write(tmp_path / 'noisy' / '0.flac', wave(0, 0.6))
    write(tmp_path / 'noisy' / '1.flac', wave(0, 0.3), 8000)
    write(tmp_path / 'clean' / 'alone.wav', wave(1))
    with pytest.raises(UserError) as error:
        packed_to(tmp_path / 'packed', clean=pair_folders.clean, noisy=pair_folders.noisy)
    first, *lines = str(error.value).splitlines()
    assert first == ('3 of 11 audio files cannot be used: repair or remove them, or leave them out with --skip-bad')
    for line, words in zip(lines, ('alone.wav: unpaired', '0.flac: 9600 samples, but 8000 in', '1.flac: 8000 Hz, but '
                                   '16000 in'), strict=True):
        assert words in line
    assert not (tmp_path / 'packed').exists()
    pack(pair_folders, str(tmp_path / 'packed'), PackOptions(skip_bad=True))
    assert len(packed.index(str(tmp_path / 'packed')).names()) == 3


@pytest.mark.parametrize('folders', [Folders(), Folders(clean='a'), Folders(speech='a', noise='b')])
def test_one_kind_of_folders_is_packed(tmp_path, folders):
    with pytest.raises(UserError, match=' given, expected --speech, --noise, or --clean and --noisy'):
        pack(folders, str(tmp_path / 'packed'), PackOptions())


def test_the_result_cannot_lie_in_what_is_packed(speech_folder):
    with pytest.raises(UserError, match='packed: lies in --speech='):
        packed_to(f'{speech_folder.speech}/packed', speech=speech_folder.speech)


def test_packing_decodes_each_file_once_more_than_its_check(speech_folder, tmp_path, monkeypatch):
    """The check is that of a training, so that neither repeats it."""
    open_source(DataConfig(test=speech_folder), 'test')
    manifest._seen.clear()
    read, blocks = [], []
    monkeypatch.setattr(audio, 'blocks', lambda path, size: blocks.append(path))
    original = audio.read
    monkeypatch.setattr(audio, 'read', lambda path, *where: read.append(path) or original(path, *where))
    packed_to(tmp_path / 'packed', speech=speech_folder.speech)
    assert len(read) == 12 and not blocks


def test_the_command_packs(speech_folder, tmp_path, capsys):
    assert cli.run(['pack', '--speech', speech_folder.speech, '--output', str(tmp_path / 'a'), '--encoding', 'int16',
                    '--speaker-level', '1']) is None
    assert f'{tmp_path / "a"}: 12 speech, 0.00 hours, in 4 shard(s)' in capsys.readouterr().out
    about = packed.index(str(tmp_path / 'a')).about
    assert (about['encoding'], sum(about['shard_lengths'])) == ('int16', 12)
    assert json.loads((tmp_path / 'a' / 'dataset_info.json').read_text())['fileFormat'] == 'array_record'
    with pytest.raises(UserError, match="--encoding: expected one of flac, int16, got 'mp3'"):
        cli.run(['pack', '--speech', speech_folder.speech, '--output', str(tmp_path / 'b'), '--encoding', 'mp3'])
    assert not os.path.exists(tmp_path / 'b')
