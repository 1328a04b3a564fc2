import numpy as np
import pytest
import scipy.signal
import soundfile
from numpy.testing import assert_allclose

from jax_diffse import audio
from jax_diffse.errors import UserError
from jax_diffse.inference import streams


def _cut(x, sizes):
    edges = np.cumsum([0, *sizes])
    assert edges[-1] == len(x)
    return [x[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]


@pytest.mark.parametrize(('from_rate', 'to_rate'), [(8000, 16000), (44100, 16000), (16000, 44100), (48000, 16000)])
@pytest.mark.parametrize('n', [1, 2, 7, 4321, 10007])
def test_resampled_has_the_promised_length_however_the_input_is_cut(from_rate, to_rate, n):
    x = np.random.default_rng(0).standard_normal((n, 2)).astype(np.float32)
    whole = np.concatenate(list(streams.resampled([x], from_rate, to_rate)))
    pieces = np.concatenate(list(streams.resampled(_cut(x, [n // 3, n - n // 3]), from_rate, to_rate)))
    assert len(whole) == -(-n * to_rate // from_rate)
    np.testing.assert_array_equal(pieces, whole)


@pytest.mark.parametrize(('from_rate', 'to_rate'), [(8000, 16000), (44100, 16000), (48000, 16000), (16000, 48000)])
def test_resampled_sine_is_the_sine_at_the_other_rate(from_rate, to_rate):
    def sine(rate):
        return np.sin(2 * np.pi * 440 * np.arange(rate) / rate)[:, None].astype(np.float32)

    y = np.concatenate(list(streams.resampled(_cut(sine(from_rate), [1000, from_rate - 1000]), from_rate, to_rate)))
    middle = slice(to_rate // 10, -to_rate // 10)
    assert_allclose(y[middle], sine(to_rate)[middle], atol=1e-4)


def test_window_gives_any_span_of_the_blocks_and_reads_no_further():
    x, pulled = np.arange(100)[:, None], []

    def blocks():
        for start in range(0, 100, 7):
            pulled.append(start)
            yield x[start:start + 7]

    window = streams.Window(blocks())
    for start, stop in [(0, 3), (0, 20), (15, 20), (18, 40)]:
        np.testing.assert_array_equal(window.read(start, stop), x[start:stop])
        assert pulled[-1] < stop
    np.testing.assert_array_equal(window.read(60, 100), x[60:])


@pytest.mark.parametrize(('n', 'starts'), [(1, [0]), (99, [0]), (100, [0]), (101, [0, 1]), (180, [0, 80]),
                                           (181, [0, 80, 81]), (300, [0, 80, 160, 200])])
def test_chunks_are_whole_and_cover_everything(n, starts):
    assert streams.chunk_starts(n, 100, 20) == starts


@pytest.mark.parametrize('n', [1, 99, 100, 101, 110, 180, 181, 300, 333])
@pytest.mark.parametrize('overlap', [0, 20, 50])
def test_cross_faded_identity_is_the_identity(n, overlap):
    x = np.random.default_rng(n).standard_normal((n, 2)).astype(np.float32)
    pieces = list(streams.cross_faded(lambda a, b: x[a:b], n, 100, overlap, lambda chunk, number: chunk.copy()))
    assert_allclose(np.concatenate(pieces), x, atol=1e-6)


def test_cross_fade_goes_linearly_from_one_chunk_to_the_next():
    pieces = list(streams.cross_faded(lambda a, b: np.zeros((b - a, 1)), 180, 100, 20,
                                      lambda chunk, number: np.full((len(chunk), 1), float(number))))
    y = np.concatenate(pieces)[:, 0]
    assert np.all(y[:80] == 0) and np.all(y[100:] == 1)
    assert_allclose(y[80:100], (np.arange(20) + 0.5) / 20, rtol=1e-6)


def test_file_is_read_in_bounded_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, 'BLOCK', 1000)
    x = np.random.default_rng(0).uniform(-1, 1, (2500, 2)).astype(np.float32)
    soundfile.write(tmp_path / 'a.wav', x, 8000, subtype='FLOAT')
    blocks = list(streams.from_file(tmp_path / 'a.wav').blocks())
    assert [len(block) for block in blocks] == [1000, 1000, 500]
    np.testing.assert_array_equal(np.concatenate(blocks), x)


def test_a_file_that_changes_meanwhile_is_an_error(tmp_path):
    soundfile.write(tmp_path / 'a.wav', np.zeros(100), 8000)
    stream = streams.from_file(tmp_path / 'a.wav')
    soundfile.write(tmp_path / 'a.wav', np.zeros(60), 8000)
    with pytest.raises(UserError, match=r'a\.wav: ends after 60 of 100 samples'):
        list(stream.blocks())


@pytest.mark.parametrize(('name', 'subtype'), [('a.wav', 'PCM_16'), ('a.wav', 'PCM_24'), ('a.wav', 'FLOAT'),
                                               ('a.flac', 'PCM_16'), ('a.flac', 'PCM_24')])
def test_written_blocks_form_a_file_of_the_same_kind(tmp_path, name, subtype):
    like = audio.AudioInfo(44100, 0, 2, name[2:].upper(), subtype)
    x = np.random.default_rng(0).uniform(-0.9, 0.9, (500, 2)).astype(np.float32)
    with streams.write(tmp_path / 'new' / name, like) as write:
        write(x[:123])
        write(x[123:])
    info = audio.info(tmp_path / 'new' / name)
    assert (info.sample_rate, info.num_samples, info.num_channels) == (44100, 500, 2)
    assert (info.format, info.subtype) == (like.format, subtype)
    step = {'PCM_16': 2**-15, 'PCM_24': 2**-23, 'FLOAT': 0}[subtype]
    assert_allclose(audio.read(tmp_path / 'new' / name)[0], x, rtol=0, atol=step)


def test_integer_encodings_are_clipped_not_wrapped(tmp_path):
    with streams.write(tmp_path / 'a.wav', audio.AudioInfo(8000, 0, 1, 'WAV', 'PCM_16')) as write:
        write(np.array([[1.5], [-1.5]], np.float32))
    assert_allclose(audio.read(tmp_path / 'a.wav')[0][:, 0], [1, -1], atol=2**-15)


def test_interrupted_write_leaves_the_earlier_file_and_nothing_else(tmp_path):
    (tmp_path / 'a.wav').write_bytes(b'earlier')
    like = audio.AudioInfo(8000, 0, 1, 'WAV', 'PCM_16')
    with pytest.raises(RuntimeError), streams.write(tmp_path / 'a.wav', like) as write:
        write(np.zeros((10, 1)))
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ['a.wav']
    assert (tmp_path / 'a.wav').read_bytes() == b'earlier'


def test_write_into_a_file_as_folder_is_a_user_error(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot be written'), \
            streams.write(tmp_path / 'file' / 'a.wav', audio.AudioInfo(8000, 0, 1, 'WAV', 'PCM_16')):
        pass


def test_resampled_agrees_with_a_polyphase_filter():
    x = scipy.signal.lfilter([1], [1, -0.95], np.random.default_rng(0).standard_normal(16000)).astype(np.float32)
    y = np.concatenate(list(streams.resampled([x[:, None]], 16000, 48000)))[:, 0]
    expected = scipy.signal.resample_poly(x, 3, 1)
    error = (y - expected)[3000:-3000]
    # They differ near 8 kHz, where the transition bands do.
    assert np.sum(error**2) < 1e-3 * np.sum(expected**2)


def test_stack_channels_puts_the_channels_of_both_in_order():
    left, right = np.arange(20.0).reshape(10, 2), -np.arange(20.0).reshape(10, 2)
    both = streams.stack_channels(streams.from_array(left, 8000, 'left'), streams.from_array(right, 8000, 'right'))
    assert (both.num_channels, both.num_samples, both.sample_rate) == (4, 10, 8000)
    np.testing.assert_array_equal(np.concatenate(list(both.blocks())), np.hstack([left, right]))


@pytest.mark.parametrize(('samples', 'rate', 'message'), [
    (np.zeros((10, 2)), 16000, 'made: 16000 Hz, but 8000 in noisy'),
    (np.zeros((10, 1)), 8000, 'made: 1 channels, but 2 in noisy'),
    (np.zeros((11, 2)), 8000, 'made: 11 samples, but 10 in noisy')])
def test_unequal_streams_are_a_user_error_with_both_numbers(samples, rate, message):
    noisy = streams.from_array(np.zeros((10, 2)), 8000, 'noisy')
    with pytest.raises(UserError, match=message):
        streams.check_alike(noisy, streams.from_array(samples, rate, 'made'))
