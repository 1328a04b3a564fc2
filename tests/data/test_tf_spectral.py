import dataclasses

import librosa
import numpy as np
import pytest

from jax_diffse import spectral
from jax_diffse.data import tf_spectral
from jax_diffse.data.tf import tf
from jax_diffse.spectral import FrontEnd


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def assert_close(actual, expected):
    """To 1e-5 of the largest value."""
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('n_fft, hop, num_samples', [
    (320, 160, 4000), (320, 160, 4801), (512, 128, 4000), (255, 63, 8064)])
def test_stft_equals_librosa(n_fft, hop, num_samples):
    x = noise(num_samples)
    spec = librosa.stft(x, n_fft=n_fft, hop_length=hop, window='hann', center=True, pad_mode='reflect')
    assert_close(tf_spectral.stft(tf.constant(x), n_fft, hop), np.stack([spec.real, spec.imag], -1).swapaxes(0, 1))


@pytest.mark.parametrize('kind', spectral.COMPRESSIONS)
def test_compress_equals_its_twin_and_leaves_silence_silent(kind):
    spec = noise(7, 9, 2)
    spec[3] = 0
    spec[4] *= 1e-4
    compressed = tf_spectral.compress(tf.constant(spec), kind)
    assert_close(compressed, spectral.compress(spec, kind))
    assert not np.any(compressed[3])


def test_rms_gain_brings_to_unit_rms():
    x = 0.03 * noise(2, 1000)
    x[1] = 0
    gain = tf_spectral.rms_gain(tf.constant(x))
    assert np.sqrt(np.mean((x[0] * gain[0])**2)) == pytest.approx(1, rel=1e-5)
    assert gain[1] == 1
    assert_close(gain, spectral.rms_gain(x, np.array([1000, 1000])))


@pytest.mark.parametrize('compression, num_samples', [
    ('none', 1), ('none', 100), ('none', 320), ('none', 4000), ('sqrt', 4801), ('cubic', 4801), ('log1x', 4801)])
@pytest.mark.parametrize('n_fft, hop', [(320, 160), (255, 63)])
def test_analyze_equals_its_twin_eager_and_in_a_pipeline(compression, num_samples, n_fft, hop):
    front_end = FrontEnd(n_fft=n_fft, hop=hop, compression=compression)
    x = noise(2, num_samples)
    expected = np.asarray(front_end.analyze(x, np.full(2, num_samples)))
    eager = tf_spectral.analyze(front_end, tf.constant(x))
    dataset = tf.data.Dataset.from_tensors(x).map(lambda x: tf_spectral.analyze(front_end, x))
    assert eager.shape[1] == tf_spectral.num_frames(front_end, tf.constant(num_samples))
    for actual in (eager, next(dataset.as_numpy_iterator())):
        # Compression has no bound on its slope near zero, where it amplifies the rounding of both transforms.
        assert_close(spectral.decompress(np.asarray(actual), compression), spectral.decompress(expected, compression))


@pytest.mark.parametrize('num_samples', [1, 100, 4321])
def test_zero_padded_frames_equal_their_twin(num_samples):
    front_end = FrontEnd(n_fft=512, hop=100, window=400, compression='none', unit_rms=False)
    x = noise(2, num_samples)
    spec = tf_spectral.analyze(front_end, tf.constant(x))
    assert spec.shape[1] == tf_spectral.num_frames(front_end, tf.constant(num_samples))
    assert_close(spec, np.asarray(front_end.analyze(x, np.full(2, num_samples))))


def test_analyze_equals_the_twin_on_padded_waveforms():
    front_end = FrontEnd()
    lengths = np.array([3000, 4321])
    x = noise(2, 4800) * (np.arange(4800) < lengths[:, None])
    expected = np.asarray(front_end.analyze(x, lengths))
    for row, length in enumerate(lengths):
        spec = np.asarray(tf_spectral.analyze(front_end, tf.constant(x[row, :length])))
        np.testing.assert_allclose(spec, expected[row, :len(spec)], atol=1e-3)
        assert not np.any(expected[row, len(spec):])


SGMSE = FrontEnd(n_fft=510, hop=128, compression='power', exponent=0.6, factor=0.15, unit_rms=False, unit_peak=True,
                 whole_hops=False)


@pytest.mark.parametrize('num_samples', [1, 255, 4000, 4097])
@pytest.mark.parametrize('sqrt_hann', [False, True])
def test_front_end_of_sgmse_equals_its_twin(num_samples, sqrt_hann):
    front_end = dataclasses.replace(SGMSE, sqrt_hann=sqrt_hann)
    x = noise(2, num_samples)
    expected = np.asarray(front_end.analyze(x, np.full(2, num_samples)))
    spec = tf_spectral.analyze(front_end, tf.constant(x))
    assert spec.shape[1] == tf_spectral.num_frames(front_end, tf.constant(num_samples)) == expected.shape[1]
    assert_close(*(spectral.decompress(np.asarray(s), 'power', 0.6) for s in (spec, expected)))


@pytest.mark.parametrize('front_end', [SGMSE, FrontEnd(), FrontEnd(unit_rms=False)])
def test_the_level_equals_its_twin(front_end):
    x = 0.03 * noise(3, 1000)
    x[1] = 0
    gain = tf_spectral.gain(front_end, tf.constant(x))
    assert_close(gain, np.asarray(front_end.gain(x, np.full(3, 1000))))
    assert gain[1] == 1
    if front_end.unit_peak:
        np.testing.assert_allclose(np.abs(gain[:, None] * x).max(1), [1, 0, 1], rtol=1e-6)
