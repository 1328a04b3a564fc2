"""Audio files of any rate, width, length and encoding."""

import contextlib
import pathlib
import tempfile

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_diffse import audio
from jax_diffse.errors import UserError

# Largest error of a sample in [-1, 1]: of linear encodings a step, as full scale is the step below 1; of ITU-T G.711
# that of full scale, the largest values being 8031 of 8192 (u-law) and 4032 of 4096 (A-law).
STEP = {'PCM_U8': 2**-7, 'PCM_S8': 2**-7, 'PCM_16': 2**-15, 'PCM_24': 2**-23, 'PCM_32': 2**-24, 'FLOAT': 0.0,
        'DOUBLE': 0.0, 'ULAW': 161 / 2**13, 'ALAW': 64 / 2**12 + 2**-12}
# Whole blocks of samples, so that files end with up to one block of zeros; the error is not bounded by a step.
BLOCKWISE = ('IMA_ADPCM', 'MS_ADPCM', 'GSM610', 'G721_32', 'NMS_ADPCM_16', 'NMS_ADPCM_24', 'NMS_ADPCM_32')
LONGEST_BLOCK = 4096  # samples
ENCODINGS = [(format, subtype) for format in ('WAV', 'FLAC') for subtype in soundfile.available_subtypes(format)
             if subtype != 'MPEG_LAYER_III']  # which libsndfile lists for WAV, and refuses


@contextlib.contextmanager
def written(format, subtype, rate, channels, length, seed):
    """Writes a file of noise; returns its path and the samples."""
    x = np.random.default_rng(seed).uniform(-1, 1, (length, channels)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f'a.{format.lower()}'
        audio.write(path, x, rate, subtype=subtype)
        yield path, x


rates, lengths, seeds = st.integers(8000, 192_000), st.integers(0, 4000), st.integers(0, 2**32 - 1)


def test_the_encodings_are_all_that_soundfile_offers():
    assert {subtype for _, subtype in ENCODINGS} == {*STEP, *BLOCKWISE}


@pytest.mark.parametrize(('format', 'subtype'), [pair for pair in ENCODINGS if pair[1] in STEP])
@settings(max_examples=30)
@given(rates, st.integers(1, 8), lengths, seeds, st.lists(st.integers(-5000, 5000), min_size=2, max_size=2))
def test_what_is_written_is_read_again_in_whole_and_in_part(format, subtype, rate, channels, length, seed, ends):
    if format == 'FLAC':  # takes no others, see below
        length, rate = max(length, 1), rate if rate < 2**16 else rate // 10 * 10
    with written(format, subtype, rate, channels, length, seed) as (path, x):
        assert audio.info(path) == audio.AudioInfo(rate, length, channels, format, subtype)
        whole, read_rate = audio.read(path)
        assert (whole.dtype, whole.shape, read_rate) == (np.float32, (length, channels), rate)
        np.testing.assert_allclose(whole, x, rtol=0, atol=STEP[subtype])
        start, stop = ends
        np.testing.assert_array_equal(audio.read(path, start, stop)[0], whole[start:stop])
        np.testing.assert_array_equal(audio.read(path, start)[0], whole[start:])


@pytest.mark.parametrize('subtype', BLOCKWISE)
@settings(max_examples=20)
@given(rates, st.integers(1, 2), lengths, seeds, st.lists(st.integers(0, 5000), min_size=2, max_size=2))
def test_encodings_of_whole_blocks_are_read_in_part_as_in_whole(subtype, rate, channels, length, seed, ends):
    """Some of these can only be read from the start (GSM 6.10, a telephone codec)."""
    channels = channels if subtype.endswith('_ADPCM') else 1
    with written('WAV', subtype, rate, channels, length, seed) as (path, _):
        header, (whole, _) = audio.info(path), audio.read(path)
        assert (header.sample_rate, header.num_channels, header.subtype) == (rate, channels, subtype)
        assert length <= header.num_samples == len(whole) < length + LONGEST_BLOCK
        start, stop = ends
        np.testing.assert_array_equal(audio.read(path, start, stop)[0], whole[start:stop])


@given(st.integers(0, 100), st.integers(1, 30), st.integers(0, 60), st.integers(0, 60))
def test_long_files_are_read_block_by_block(length, block, start, stop):
    with pytest.MonkeyPatch.context() as patch, written('WAV', 'FLOAT', 8000, 2, length, 0) as (path, x):
        patch.setattr(audio, 'BLOCK', block)
        np.testing.assert_array_equal(audio.read(path, start, stop)[0], x[start:stop])


@pytest.mark.parametrize(('length', 'rate', 'reason'), [
    (0, 8000, 'FLAC needs at least one sample'),  # its encoder would write an empty file
    (10, 65_537, 'initialization')])  # above 16 bits its headers have multiples of 10 alone
def test_what_flac_cannot_hold_is_refused(tmp_path, length, rate, reason):
    with pytest.raises(UserError, match=f'a.flac: cannot be written .*{reason}'):
        audio.write(tmp_path / 'a.flac', np.zeros((length, 1)), rate)
    assert not list(tmp_path.iterdir())


@settings(max_examples=60)
@given(rates, rates, st.integers(1, 3000), st.integers(1, 3))
def test_resampled_lengths_and_levels(from_rate, to_rate, length, channels):
    """The middle of a constant, if there is one, stays constant."""
    y = audio.resample(np.full((length, channels), 0.5, np.float32), from_rate, to_rate)
    assert y.shape == (-(-length * to_rate // from_rate), channels) and y.dtype == np.float32
    assert np.isfinite(y).all()
    middle = y[len(y) // 2 - 1:len(y) // 2 + 1] if min(length, len(y)) > 1000 else y[:0]
    np.testing.assert_allclose(middle, 0.5, atol=1e-3)


# ------------------------------------------------------------------------------------------------- headers that lie


def with_flac_length(path, num_samples):
    """Rewrites the 36 bits of the stream's length in a FLAC header (RFC 9639, section 8.2)."""
    data = bytearray(path.read_bytes())
    packed = int.from_bytes(data[18:26], 'big')
    data[18:26] = (packed >> 36 << 36 | num_samples).to_bytes(8, 'big')
    path.write_bytes(data)


@pytest.mark.parametrize('num_samples', [3001, 2**31, 2**36 - 1])
def test_a_flac_that_ends_early_is_refused_without_room_for_what_it_promises(tmp_path, num_samples, monkeypatch):
    path, created = tmp_path / 'a.flac', []
    audio.write(path, np.random.default_rng(0).uniform(-1, 1, (3000, 1)), 16_000)
    with_flac_length(path, num_samples)
    create = soundfile.SoundFile._create_empty_array
    monkeypatch.setattr(soundfile.SoundFile, '_create_empty_array',
                        lambda *args: created.append(create(*args)) or created[-1])
    with pytest.raises(UserError, match=f'a.flac: cut off.* 3000 of {num_samples} samples'):
        audio.read(path)
    assert sum(array.nbytes for array in created) <= 8 * audio.BLOCK  # bytes, of two blocks


@pytest.mark.parametrize('num_bytes', [2**31 - 2, 2**32 - 2])
def test_a_wav_that_promises_more_is_as_long_as_it_is(tmp_path, num_bytes):
    path = tmp_path / 'a.wav'
    audio.write(path, np.zeros((3000, 1)), 16_000)
    data = bytearray(path.read_bytes())
    data[40:44] = num_bytes.to_bytes(4, 'little')
    path.write_bytes(data)
    assert audio.info(path).num_samples == len(audio.read(path)[0]) == 3000
