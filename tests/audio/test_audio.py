import numpy as np
import pytest
import scipy.signal
import soundfile
from numpy.testing import assert_allclose

from jax_diffse import audio
from jax_diffse.audio import writing
from jax_diffse.errors import UserError
from tests import sounds

STEP = {'PCM_16': 2**-15, 'PCM_24': 2**-23, 'FLOAT': 0.0}


def _samples(*shape):
    return np.random.default_rng(0).uniform(-0.99, 0.99, shape).astype(np.float32)


@pytest.mark.parametrize('rate', [8000, 44100])
@pytest.mark.parametrize('shape', [(100,), (100, 1), (100, 2)])
@pytest.mark.parametrize(('name', 'subtype'), [
    ('a.wav', 'PCM_16'), ('a.wav', 'PCM_24'), ('a.wav', 'FLOAT'), ('a.flac', 'PCM_16'), ('a.flac', 'PCM_24')])
def test_what_is_written_is_read_again(tmp_path, name, subtype, shape, rate):
    x = _samples(*shape)
    audio.write(tmp_path / name, x, rate, subtype=subtype)
    y, read_rate = audio.read(tmp_path / name)
    assert y.dtype == np.float32 and read_rate == rate
    assert_allclose(y, x.reshape(100, -1), rtol=0, atol=STEP[subtype])
    assert audio.info(tmp_path / name) == audio.AudioInfo(rate, 100, y.shape[1], name[2:].upper(), subtype)


def test_part_of_a_file(tmp_path):
    x = _samples(100, 2)
    audio.write(tmp_path / 'a.wav', x, 8000, subtype='FLOAT')
    np.testing.assert_array_equal(audio.read(tmp_path / 'a.wav', 20, 50)[0], x[20:50])
    np.testing.assert_array_equal(audio.read(tmp_path / 'a.wav', 90)[0], x[90:])


def test_integer_encodings_are_clipped_and_floating_ones_not(tmp_path):
    x = np.array([1.5, -2.0, 0.5], np.float32)
    audio.write(tmp_path / 'a.wav', x, 8000, subtype='PCM_16')
    assert_allclose(audio.read(tmp_path / 'a.wav')[0][:, 0], [1.0, -1.0, 0.5], atol=2**-15)
    audio.write(tmp_path / 'a.wav', x, 8000, subtype='FLOAT')
    np.testing.assert_array_equal(audio.read(tmp_path / 'a.wav')[0][:, 0], x)


@pytest.mark.parametrize('peak', [1.0, 1.01, 1.2, 1.6])
@pytest.mark.parametrize(('format', 'subtype'), [
    (format, subtype) for format in ('WAV', 'W64', 'AIFF', 'AU', 'CAF', 'FLAC', 'OGG', 'MP3', 'PAF', 'VOC')
    for subtype in soundfile.available_subtypes(format) if subtype not in writing.DAMAGED
    if (format, subtype) not in {('MP3', 'MPEG_LAYER_I'), ('MP3', 'MPEG_LAYER_II'), ('WAV', 'MPEG_LAYER_III'),
                                 ('AIFF', 'DWVW_12')}])  # libsndfile lists them, and cannot write or read them
def test_nothing_beyond_full_scale_comes_back_with_the_other_sign(tmp_path, format, subtype, peak):
    x = (peak * np.sin(np.arange(32_000) * 2 * np.pi * 200 / 16_000)).astype(np.float32)
    x *= np.minimum(1, np.minimum(np.arange(32_000), np.arange(32_000)[::-1]) / 1600)  # codecs ring at sudden starts
    audio.write(tmp_path / 'a', x, 16_000, format=format, subtype=subtype)
    y = audio.read(tmp_path / 'a')[0][:32_000, 0]
    loud = np.abs(x) > 0.9
    assert np.all(y[loud] * x[loud] > 0) and np.max(np.abs(y)[loud]) > 0.8


@sounds.needs_ffmpeg
def test_ffmpeg_hears_full_scale_as_it_was_written(tmp_path):
    x = (1.5 * np.sin(np.arange(8000) * 2 * np.pi * 200 / 8000)).astype(np.float32)
    for subtype, largest in (('ULAW', 0.02), ('ALAW', 0.02), ('PCM_16', 1e-4)):
        audio.write(tmp_path / 'a.wav', x, 8000, subtype=subtype)
        assert np.max(np.abs(sounds.ffmpeg(tmp_path / 'a.wav') - np.clip(x, -1, 1))) < largest


def test_format_of_the_container_may_differ_from_the_extension(tmp_path):
    audio.write(tmp_path / 'a.audio', _samples(10), 8000, format='FLAC')
    assert audio.info(tmp_path / 'a.audio').format == 'FLAC'


def test_write_makes_folders_and_leaves_no_partial_file(tmp_path):
    audio.write(tmp_path / 'new' / 'deep' / 'a.wav', _samples(10), 8000)
    assert [path.name for path in (tmp_path / 'new' / 'deep').iterdir()] == ['a.wav']


def test_failed_write_keeps_the_earlier_file_and_leaves_nothing_else(tmp_path):
    audio.write(tmp_path / 'a.flac', _samples(10), 8000)
    before = (tmp_path / 'a.flac').read_bytes()
    with pytest.raises(UserError, match=r'a\.flac: cannot be written'):
        audio.write(tmp_path / 'a.flac', _samples(10, 9), 8000)  # FLAC takes at most eight channels
    assert [path.name for path in tmp_path.iterdir()] == ['a.flac']
    assert (tmp_path / 'a.flac').read_bytes() == before


def test_writing_below_a_file_is_a_user_error(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot be written'):
        audio.write(tmp_path / 'file' / 'a.wav', _samples(10), 8000)


def test_an_unknown_format_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r'a\.xyz'):
        audio.write(tmp_path / 'a.xyz', _samples(10), 8000)


@pytest.mark.parametrize('function', [audio.info, audio.read])
@pytest.mark.parametrize(('content', 'message'), [
    (None, 'no such file'), (b'', 'the file is empty'), (b'no audio at all', 'not readable as audio'),
    ('folder', 'a directory, expected an audio file')])
def test_unreadable_files_are_named_with_the_reason(tmp_path, function, content, message):
    path = tmp_path / 'a.wav'
    if content == 'folder':
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        function(path)
    assert str(caught.value).startswith(f'{path}: {message}')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(('from_rate', 'to_rate'), [(8000, 16000), (44100, 16000), (48000, 16000), (16000, 44100)])
def test_resampled_sine_is_the_sine_at_the_other_rate(from_rate, to_rate):
    def sines(rate):
        t = np.arange(rate // 2) / rate
        return np.stack([np.sin(2 * np.pi * 440 * t), np.cos(2 * np.pi * 1000 * t)], axis=1).astype(np.float32)

    y = audio.resample(sines(from_rate), from_rate, to_rate)
    assert y.shape == (to_rate // 2, 2)
    middle = slice(to_rate // 20, -to_rate // 20)
    assert_allclose(y[middle], sines(to_rate)[middle], atol=1e-3)


def test_resample_agrees_with_a_polyphase_filter():
    noise = np.random.default_rng(0).standard_normal(48_000)
    x = scipy.signal.sosfilt(scipy.signal.butter(8, 6000, fs=48_000, output='sos'), noise).astype(np.float32)
    y, expected = audio.resample(x, 48_000, 16_000), scipy.signal.resample_poly(x, 1, 3)
    # They differ where their transition bands do, near 8 kHz, where there is little.
    assert np.sum((y - expected)[500:-500]**2) < 1e-3 * np.sum(expected**2)


def test_resample_removes_what_the_lower_rate_cannot_hold():
    x = np.sin(2 * np.pi * 12_000 * np.arange(48_000) / 48_000).astype(np.float32)
    assert np.max(np.abs(audio.resample(x, 48_000, 16_000)[800:-800])) < 1e-3


@pytest.mark.parametrize('n', [1, 10, 100, 4321])
def test_resampled_length_is_rounded_up(n):
    assert audio.resample(np.ones(n, np.float32), 44_100, 16_000).shape == (-(-n * 16_000 // 44_100),)


def test_resample_to_the_same_rate_changes_nothing():
    x = _samples(10)
    np.testing.assert_array_equal(audio.resample(x, 16_000, 16_000), x)


def test_info_says_what_soundfile_says(tmp_path):
    soundfile.write(tmp_path / 'a.wav', np.zeros((7, 3)), 11_025, subtype='PCM_U8')
    assert audio.info(tmp_path / 'a.wav') == audio.AudioInfo(11_025, 7, 3, 'WAV', 'PCM_U8')


def test_what_can_be_read_and_not_written_is_known_beforehand(tmp_path):
    (tmp_path / 'a.wav').write_bytes(sounds.mp3_in_wav(tmp_path / 'a.mp3'))
    frames = sounds.mpeg_frames((tmp_path / 'a.wav').read_bytes()[58:])
    assert len(audio.read(tmp_path / 'a.wav')[0]) == 1152 * len(frames)
    with pytest.raises(UserError, match=r'a\.wav: WAV with MPEG_LAYER_III.* not written.*; convert the file first'):
        audio.check_writable(tmp_path / 'a.wav')
    audio.check_writable(tmp_path / 'a.mp3')


@pytest.mark.parametrize('subtype', writing.DAMAGED)
def test_encodings_that_libsndfile_damages_are_not_written(tmp_path, subtype):
    """ALAC of loud noise loses frames; ffmpeg reads the same loss."""
    path = tmp_path / 'a.caf'
    soundfile.write(path, sounds.sine(16_000, 16_000), 16_000, format='CAF', subtype=subtype)
    with pytest.raises(UserError, match=r'a\.caf: CAF with ALAC_.* can be read but not written'):
        audio.check_writable(path)
    with pytest.raises(UserError, match='libsndfile damages loud sound in this encoding'):
        audio.write(tmp_path / 'b.caf', sounds.sine(100), 16_000, subtype=subtype)
