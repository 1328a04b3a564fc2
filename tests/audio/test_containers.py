"""Files with wrong lengths in their headers, truncated and joined files; their construction gives the right values."""

import logging
import struct
import subprocess

import numpy as np
import pytest
import soundfile
from numpy.testing import assert_array_equal

from jax_diffse import audio
from jax_diffse.errors import UserError
from tests import sounds

N = 48_000


def _channel(path) -> np.ndarray:
    samples, _ = audio.read(path)
    assert audio.info(path).num_samples == len(samples)
    return samples[:, 0]


# --------------------------------------------------------------------------------------------- lengths that are guesses
@pytest.mark.parametrize('levels', [(0.0, 0.9), (0.9, 0.0)])
def test_an_mp3_without_a_tag_is_as_long_as_its_frames(tmp_path, levels):
    """libsndfile guesses from the first frame: a fraction, or several times as much."""
    path, noise = tmp_path / 'a.mp3', np.random.default_rng(0).uniform(-0.3, 0.3, 2 * 44_100).astype(np.float32)
    data = b''.join(sounds.mp3(path, np.tile(noise, 1 if level else 4), level=level, tag=False) for level in levels)
    path.write_bytes(data)
    expected = 1152 * len(sounds.mpeg_frames(data))
    assert abs(soundfile.info(path).frames - expected) > 44_100
    assert len(_channel(path)) == expected


@pytest.mark.parametrize('tags', [(True, True), (True, False), (False, True), (False, False), (True, True, True)])
def test_mp3s_joined_end_to_end_are_read_whole(tmp_path, tags):
    paths = [tmp_path / f'{i}.mp3' for i in range(len(tags))]
    parts = [sounds.mp3(path, sounds.sine(44_100 + 10_000 * i), tag=tag)
             for i, (path, tag) in enumerate(zip(paths, tags))]
    for path, part in zip(paths, parts):
        path.write_bytes(part)
    joined = tmp_path / 'joined.mp3'
    joined.write_bytes(b''.join(parts))
    apart = np.concatenate([_channel(path) for path in paths])
    together = _channel(joined)
    assert len(together) == len(apart)
    # Two without tags are one stream for a decoder, whose first frame then overlaps with the end of the one before.
    assert np.mean(np.abs(together - apart) > 1e-4) < 0.05


@pytest.mark.parametrize('frames', [0, 1 / 4, 1, 2])
@pytest.mark.parametrize('size', [1 / 4, 1])
def test_an_mp3_whose_tag_does_not_tell_the_truth_is_read_whole(tmp_path, frames, size, capfd):
    """As where a program edited the sound and left the tag. Fields are those of the Xing tag: flags, frames, bytes."""
    path = tmp_path / 'a.mp3'
    data = sounds.mp3(path, sounds.sine(5 * 44_100))
    at, count = data.index(b'Info') + 8, len(sounds.mpeg_frames(data)) - 1
    assert struct.unpack('>II', data[at:at + 8]) == (count, len(data))
    sounds.with_bytes(path, at, struct.pack('>II', int(frames * count), int(size * len(data))))
    assert 5 * 44_100 <= len(_channel(path)) <= 1152 * count
    assert not capfd.readouterr().err


@pytest.mark.parametrize('tail', [b'TAG'.ljust(128, b'x'), bytes(2000), b'APETAGEX'.ljust(5000, b'y')],
                         ids=['ID3v1', 'zeros', 'APE'])
def test_what_follows_an_mp3_changes_nothing(tmp_path, tail, capfd):
    path = tmp_path / 'a.mp3'
    path.write_bytes(sounds.mp3(path, sounds.sine(44_100)))
    expected = _channel(path)
    path.write_bytes(path.read_bytes() + tail)
    assert_array_equal(_channel(path), expected)
    path.write_bytes(path.read_bytes() * 2)
    assert_array_equal(_channel(path), np.tile(expected, 2))
    assert not capfd.readouterr().err


@pytest.mark.parametrize('head', [b'\r\n', bytes(1000)])
def test_bytes_before_an_mp3_are_passed_over(tmp_path, head):
    path, noise = tmp_path / 'a.mp3', np.random.default_rng(0).uniform(-0.3, 0.3, 44_100).astype(np.float32)
    data = b''.join(sounds.mp3(path, noise, level=level, tag=False) for level in (0.9, 0.0))
    path.write_bytes(head + data)
    assert abs(len(_channel(path)) - 1152 * len(sounds.mpeg_frames(data))) <= 1152  # a frame may go with them


def test_an_mp3_with_id3_tags_in_between_is_read_whole(tmp_path):
    path = tmp_path / 'a.mp3'
    one = sounds.mp3(path, sounds.sine(44_100))
    tag = b'ID3\x04\0\0\0\0\x01\x00' + bytes(128)
    path.write_bytes(tag + one + tag + one)
    assert len(_channel(path)) == 2 * 44_100


@pytest.mark.parametrize(('format', 'subtype'), [('OGG', 'VORBIS'), ('OGG', 'OPUS'), ('FLAC', 'PCM_16')])
@pytest.mark.parametrize('between', [b'', b'TAG'.ljust(128, b'x'), bytes(500)], ids=['', 'ID3v1', 'zeros'])
def test_ogg_and_flac_files_joined_end_to_end_are_read_whole(tmp_path, format, subtype, between):
    expected = []
    for i in range(3):
        soundfile.write(tmp_path / str(i), sounds.sine(N + 1000 * i, 48_000), 48_000, format=format, subtype=subtype)
        expected.append(soundfile.read(tmp_path / str(i), dtype='float32')[0])
    joined = tmp_path / 'joined'
    joined.write_bytes(between.join((tmp_path / str(i)).read_bytes() for i in range(3)))
    assert_array_equal(_channel(joined), np.concatenate(expected))
    assert_array_equal(audio.read(joined, 47_000, 100_000)[0][:, 0], np.concatenate(expected)[47_000:100_000])


def test_joined_files_of_different_rates_are_refused(tmp_path):
    path = tmp_path / 'a.ogg'
    for rate in (16_000, 48_000):
        soundfile.write(tmp_path / str(rate), sounds.sine(rate, rate), rate, format='OGG')
    path.write_bytes((tmp_path / '16000').read_bytes() + (tmp_path / '48000').read_bytes())
    with pytest.raises(UserError, match=r'a\.ogg: several files joined end to end, of 16000 Hz .* and of 48000 Hz'):
        audio.info(path)


def test_a_flac_of_unknown_length_is_read(tmp_path):
    """Encoders that write into a pipe leave 0 there (RFC 9639, section 8.2)."""
    path = tmp_path / 'a.flac'
    soundfile.write(path, sounds.sine(N), 16_000)
    expected = soundfile.read(path, dtype='float32')[0]
    sounds.with_bytes(path, 21, bytes([path.read_bytes()[21] & 0xF0, 0, 0, 0, 0]))
    assert_array_equal(_channel(path), expected)


# ------------------------------------------------------------------------------------- blocks are the file in one go
def _writable():
    for format in soundfile.available_formats():
        for subtype in soundfile.available_subtypes(format):
            if format not in ('RAW', 'SD2') and (format, subtype) not in NOT_WRITTEN:
                yield format, subtype


# libsndfile lists them, and refuses to write them, or to read what it wrote.
NOT_WRITTEN = {('MP3', 'MPEG_LAYER_I'), ('MP3', 'MPEG_LAYER_II'), ('WAV', 'MPEG_LAYER_III'), ('AIFF', 'DWVW_12')}


@pytest.mark.parametrize(('format', 'subtype'), list(_writable()))
def test_blocks_and_parts_are_those_of_the_file_in_one_go(tmp_path, format, subtype):
    path = tmp_path / 'a'
    x = np.random.default_rng(0).uniform(-0.5, 0.5, 20_000).astype(np.float32)
    rate = 8000 if format == 'WVE' else 16_000
    soundfile.write(path, x, rate, format=format, subtype=subtype)
    with soundfile.SoundFile(path) as file:  # one call of libsndfile's, as it cannot seek in all of them
        whole = np.zeros(file.frames, np.float32)
        file.seekable = lambda: False
        whole = whole[:file.buffer_read_into(whole, 'float32')]
    assert_array_equal(_channel(path), whole)
    assert_array_equal(np.concatenate(list(audio.blocks(path, 777)))[:, 0], whole)
    for start, stop in ((1, 600), (9_999, 12_345), (19_000, 20_000)):
        assert_array_equal(audio.read(path, start, stop)[0][:, 0], whole[start:stop])


# ---------------------------------------------------------------------------------------------------- files cut off
OTHERS = ('IRCAM', 'PAF', 'PVF', 'XI', 'OGG', 'SDS', 'MP3')  # their headers say no length; of MP3's see below


@pytest.mark.parametrize(('format', 'subtype'), [(format, subtype) for format, subtype in _writable()
                                                 if format not in OTHERS])
@pytest.mark.parametrize('share', [0.3, 0.97])
def test_a_file_that_was_cut_off_is_refused_with_both_numbers(tmp_path, format, subtype, share):
    path = tmp_path / 'a'
    soundfile.write(path, sounds.sine(20_000), 8000 if format == 'WVE' else 16_000, format=format, subtype=subtype)
    claimed, data = len(_channel(path)), path.read_bytes()
    path.write_bytes(data[:int(len(data) * share)])
    with pytest.raises(UserError) as caught:
        _channel(path)
    message = str(caught.value)
    if format == 'HTK' or 'incompatible VOC' in message or 'malformed' in message:  # which libsndfile refuses itself
        assert message.startswith(f'{path}: not readable as audio')
        return
    words = message.removeprefix(f'{path}: cut off').replace(' or damaged,', ',').split()
    there, said = int(words[1]), int(words[3])
    if 'bytes of sound' in message:  # of ALAC, which has a variable rate
        assert format == 'CAF' and there < said < len(data)
        return
    assert abs(said - claimed) <= 1012 and '\n' not in message
    assert abs(there - share * claimed) < 0.2 * claimed and there < said


@pytest.mark.parametrize('share', [0.2, 0.5, 0.99])
def test_an_mp3_with_a_tag_that_was_cut_off_is_refused(tmp_path, share, capfd):
    path = tmp_path / 'a.mp3'
    data = sounds.mp3(path, sounds.sine(10 * 44_100))
    path.write_bytes(data[:int(share * len(data))])
    with pytest.raises(UserError, match=r'a\.mp3: cut off, \d+ of \d+ samples are left'):
        audio.info(path)
    assert not capfd.readouterr().err  # libsndfile's decoder would print what it thinks of it


@pytest.mark.parametrize('subtype', ['VORBIS', 'OPUS'])
def test_an_ogg_without_its_last_page_is_read_and_said(tmp_path, subtype, caplog):
    """Ogg does not say how long it is, and recordings of live streams have no end either."""
    path = tmp_path / 'a.ogg'
    soundfile.write(path, sounds.sine(5 * N, 48_000), 48_000, format='OGG', subtype=subtype)
    with caplog.at_level(logging.WARNING):
        audio.info(path)
    assert not caplog.records
    path.write_bytes(path.read_bytes()[:path.stat().st_size * 2 // 3])
    with caplog.at_level(logging.WARNING):
        count = len(_channel(path))
    assert 2 * N < count < 4 * N
    assert [record.getMessage() for record in caplog.records] == [
        f'{path}: the last page is missing, so the file may have been cut off; it has {count} samples']


# --------------------------------------------------------------------------------------------- sizes that are wrong
X = sounds.sine(N)


@pytest.mark.parametrize('data', [
    sounds.riff(X, 36, 0), sounds.riff(X, 0, 0), sounds.riff(X, 0xFFFFFFFF, 0xFFFFFFFF),
    sounds.riff(X, 36, 0, order='>'), sounds.riff(X, 0x7FFFF024, 0x7FFFF000), sounds.riff(X, 0x7FFFEFFA, 0x7FFFEFFD),
    sounds.riff(X, 0x7F000024, 0x7F000000),
    sounds.riff(X, 4088, 0, before=b'FLLR' + struct.pack('<I', 4008) + bytes(4008)),
    sounds.riff(np.r_[np.zeros(500, np.float32), X[500:]], 36, 0)], ids=[
        'zero', 'both zero', 'ffmpeg into a pipe', 'big endian', 'sox into a pipe', 'sox, three channels', 'sox, AIFF',
        'behind a filler', 'silent start'])
def test_a_wav_whose_size_was_never_filled_in_is_read(tmp_path, data):
    (tmp_path / 'a.wav').write_bytes(data)
    expected = np.frombuffer(data[-2 * N:], '>i2' if data[:4] == b'RIFX' else '<i2') / np.float32(2**15)
    assert_array_equal(_channel(tmp_path / 'a.wav'), expected)


@pytest.mark.parametrize(('format', 'field', 'values'), [
    ('AU', b'.snd', (b'\0\0\0\0', b'\xff\xff\xff\xff')), ('AIFF', b'SSND', (b'\0\0\0\0', b'\0\0\0\x08')),
    ('CAF', b'data', (b'\0' * 8, b'\0' * 7 + b'\x04', b'\xff' * 8)), ('W64', b'data', (b'\0' * 8, b'\x18' + b'\0' * 7)),
    ('RF64', b'ds64', (b'\0' * 8, b'\xff' * 8)), ('SVX', b'BODY', (b'\0\0\0\0',))])
def test_other_containers_whose_size_was_never_filled_in_are_read(tmp_path, format, field, values):
    """The fields are where Sun's, Apple's, Sony's and the EBU's specifications put them."""
    path = tmp_path / 'a'
    soundfile.write(path, X, 16_000, format=format, subtype='PCM_16')
    expected, whole = soundfile.read(path, dtype='float32')[0], path.read_bytes()
    offset = {'AU': 8, 'W64': 16, 'RF64': 16}.get(format, 4)
    for value in values:
        sounds.with_bytes(path, whole.index(field) + offset, value)
        assert_array_equal(_channel(path), expected)


def test_an_empty_wav_with_more_chunks_stays_empty(tmp_path):
    data = sounds.riff(X[:0], after=b'LIST' + struct.pack('<I', 4) + b'INFO')
    (tmp_path / 'a.wav').write_bytes(data)
    assert len(_channel(tmp_path / 'a.wav')) == 0


@pytest.mark.parametrize('less', [0, 8])
@pytest.mark.parametrize(('format', 'field', 'offset', 'form'), [
    ('WAV', b'data', 4, '<I'), ('AIFF', b'SSND', 4, '>I'), ('AU', b'.snd', 8, '>I'), ('CAF', b'data', 4, '>q'),
    ('W64', b'data', 16, '<Q')])
def test_a_size_that_counts_the_header_is_put_right(tmp_path, format, field, offset, form, less):
    path = tmp_path / 'a'
    soundfile.write(path, X, 16_000, format=format, subtype='PCM_16')
    expected, data = soundfile.read(path, dtype='float32')[0], path.read_bytes()
    sounds.with_bytes(path, data.index(field) + offset, struct.pack(form, len(data) - less))
    assert_array_equal(_channel(path), expected)


# ----------------------------------------------------------------------------------------- another program's opinion
@sounds.needs_ffmpeg
@pytest.mark.parametrize('options', [
    '-write_xing 0', '-q:a 4', '-b:a 128k', '-q:a 4 -write_xing 0 -ar 16000', '-c:a mp2', '-c:a libopus -ar 48000',
    '-c:a libvorbis', '-c:a flac', '-c:a pcm_s24be', '-c:a adpcm_ima_wav', '-c:a pcm_mulaw'])
def test_ffmpegs_files_are_as_long_as_ffmpeg_reads_them(tmp_path, options):
    suffix = {'mp2': 'mp2', 'libopus': 'opus', 'libvorbis': 'ogg', 'flac': 'flac', 'pcm_s24be': 'aiff',
              'adpcm_ima_wav': 'wav', 'pcm_mulaw': 'au'}.get(options.split()[1], 'mp3')
    path = tmp_path / f'a.{suffix}'
    loud_first = 'anoisesrc=d=1:a=0.5:r=44100:seed=1[a];sine=440:d=6:r=44100[b];[a][b]concat=n=2:v=0:a=1'
    subprocess.run(['ffmpeg', '-v', 'error', '-filter_complex', loud_first, *options.split(), path], check=True)
    ours, theirs = _channel(path), sounds.ffmpeg(path)
    assert len(ours) == len(theirs)
    assert np.max(np.abs(ours - theirs)) < (1e-2 if suffix in ('mp2', 'wav') else 1e-4)  # decoders of these two differ


@sounds.needs_ffmpeg
@pytest.mark.parametrize('format', ['wav', 'w64', 'flac', 'au', 'caf', 'mp3', 'ogg'])
def test_what_ffmpeg_writes_into_a_pipe_is_read_whole(tmp_path, format):
    done = subprocess.run(['ffmpeg', '-v', 'error', '-f', 'lavfi', '-i', 'sine=440:d=3:r=48000', '-f', format, '-'],
                          stdout=subprocess.PIPE, check=True)
    (tmp_path / 'a').write_bytes(done.stdout)
    # ffmpeg does not read its own W64 again.
    assert len(_channel(tmp_path / 'a')) == (3 * N if format == 'w64' else len(sounds.ffmpeg(tmp_path / 'a'))) >= 3 * N
