"""Front ends: against the original PyTorch code (fixtures), librosa, and themselves."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from jax_diffse import spectral
from jax_diffse.spectral import FrontEnd
from tests import reference
from tests.spectral_backends import BACKENDS, Jax, padded, random_waves

KINDS = {'normal': 'none', 'sqrt': 'sqrt', 'cubic': 'cubic', 'log_1x': 'log1x'}  # the released code's names: ours


def to_torch(spec):
    """`[B, T, F, 2]` -> `[B, 2, T, F]`."""
    return np.moveaxis(np.asarray(spec), -1, 1)


def to_jax(spec):
    """`[B, 2, T, F]` -> `[B, T, F, 2]`."""
    return np.moveaxis(np.asarray(spec), 1, -1)


@pytest.fixture(scope='module')
def spectra():
    return reference.load('spectra')


def normalised(spectra, which):
    """Both items at the level of the noisy one, zero-padded to the longer; `[2, N]`."""
    inputs = spectra.inputs
    gains = Jax.gains([inputs['noisy0'], inputs['noisy1']])
    return padded([np.float32(gain) * inputs[f'{which}{i}'] for i, gain in enumerate(gains)])


@pytest.mark.parity
@BACKENDS
def test_gain_and_frames_of_the_released_loader(spectra, backend):
    noisy = [spectra.inputs['noisy0'], spectra.inputs['noisy1']]
    spectra.check('c', backend.gains(noisy))
    assert [len(x) // 160 + 1 for x in noisy] == list(spectra['frame_num'])
    assert normalised(spectra, 'noisy').shape[1] // 160 + 1 == max(spectra['frame_num'])


@pytest.mark.parity
@BACKENDS
def test_stft_of_the_released_loader(spectra, backend):
    for key, which in (('feats', 'noisy'), ('labels', 'clean')):
        spectra.check(key, to_torch(backend.stft(normalised(spectra, which), 320, 160)))


@pytest.mark.parity
@BACKENDS
@pytest.mark.parametrize('kind', KINDS)
def test_compression_of_the_released_loader(spectra, backend, kind):
    feats = Jax.stft(normalised(spectra, 'noisy'), 320, 160)
    spectra.check(f'feats_{kind}', to_torch(backend.compress(feats, KINDS[kind])))
    if kind == 'sqrt':
        labels = Jax.stft(normalised(spectra, 'clean'), 320, 160)
        spectra.check('labels_sqrt', to_torch(backend.compress(labels, 'sqrt')))


@pytest.mark.parity
@pytest.mark.parametrize('kind', KINDS)
def test_inverse_of_the_released_metrics(spectra, kind):
    for name, which in (('feats', 'noisy'), ('labels', 'clean')):
        spec = spectral.compress(spectral.stft(jnp.asarray(normalised(spectra, which)), 320, 160), KINDS[kind])
        waves = spectral.istft(spectral.decompress(spec, KINDS[kind]), 160)
        for i, frames in enumerate(spectra['frame_num']):
            key = f'inverse/{kind}/{name}{i}'
            if f'{key}/sub' in spectra:
                spectra.check(key, waves[i, :(frames - 1) * 160])


@pytest.mark.parity
@BACKENDS
def test_diffiner_front_end(spectra, backend):
    specs = []
    for name in ('short', 'long'):
        spec = backend.stft(spectra.inputs[f'diffiner/{name}/wav'][None], 512, 256)[0, :256, 1:]
        spec = np.pad(spec, ((0, 256 - len(spec)), (0, 0), (0, 0)))
        spectra.check(f'diffiner/{name}/spec', spec.transpose(2, 1, 0))
        specs.append(np.pad(spec, ((0, 0), (1, 0), (0, 0))))
    spectra.check('diffiner/istft', spectral.istft(jnp.asarray(np.stack(specs)), 256))


@pytest.mark.parity
@BACKENDS
def test_golden_spectra(backend):
    golden = reference.load_golden('stft.npz')
    items = golden.after('c_')
    noisy = [golden[f'noisy_{i}'] for i in items]
    gains = backend.gains(noisy)
    np.testing.assert_allclose(gains, [golden[f'c_{i}'] for i in items], rtol=1e-6)
    feats = backend.stft(padded([np.float32(gain) * x for gain, x in zip(gains, noisy, strict=True)]), 320, 160)
    golden.check('feats', to_torch(feats))
    for kind, ours in KINDS.items():
        golden.check(f'feats_{kind}', to_torch(backend.compress(to_jax(golden['feats']), ours)))


@pytest.mark.parity
def test_golden_inverses():
    golden = reference.load_golden('stft.npz')
    for kind, ours in KINDS.items():
        waves = spectral.istft(spectral.decompress(jnp.asarray(to_jax(golden[f'feats_{kind}'])), ours), 160)
        for i in golden.after('c_'):
            key = f'istft_feats_{kind}_{i}'
            golden.check(key, waves[int(i), :len(golden[key])])


@BACKENDS
@pytest.mark.parametrize(('n_fft', 'hop', 'length'), [
    (320, 160, 4397), (512, 256, 5000), (512, 128, 1031), (255, 63, 8064), (511, 126, 4000), (400, 150, 4000)])
def test_stft_equals_librosa(backend, n_fft, hop, length):
    x, = random_waves(length)
    expected = librosa.stft(x, n_fft=n_fft, hop_length=hop, pad_mode='reflect').T
    expected = np.stack([expected.real, expected.imag], axis=-1)
    np.testing.assert_allclose(backend.stft(x[None], n_fft, hop)[0], expected, atol=1e-5 * np.std(expected) * 3)


def test_inverse_of_another_length_equals_librosa():
    """128 bins of an odd transform, inverted as such and, as vbelz/Speech-enhancement does, by one of 254 points."""
    x, = random_waves(8064)
    spec = librosa.stft(x, n_fft=255, hop_length=63, pad_mode='reflect')
    ours = jnp.asarray(np.stack([spec.real, spec.imag], -1).swapaxes(0, 1))[None]
    for n_fft in (254, 255):
        expected = librosa.istft(spec, n_fft=n_fft, hop_length=63, length=8064)
        np.testing.assert_allclose(spectral.istft(ours, 63, n_fft=n_fft, last_hop=True)[0], expected, atol=2e-5)
    np.testing.assert_allclose(expected, x, atol=2e-5)


@pytest.mark.parametrize('kind', spectral.COMPRESSIONS)
@pytest.mark.parametrize('n_fft, hop', [(320, 160), (255, 63)])
@pytest.mark.parametrize('length', [1, 321, 4397, 8064])
def test_front_end_round_trip(kind, length, n_fft, hop):
    front_end = FrontEnd(n_fft=n_fft, hop=hop, compression=kind)
    x, num_samples = jnp.asarray(random_waves(length)[0])[None], jnp.array([length])
    spec = front_end.analyze(x, num_samples)
    assert spec.shape == (1, front_end.num_frames(length), front_end.num_bins, 2)
    back = front_end.synthesize(spec, num_samples, length)
    np.testing.assert_allclose(back, x, atol=1e-5)


@pytest.mark.parametrize('kind, n_fft, hop', [*((kind, 320, 160) for kind in spectral.COMPRESSIONS), ('none', 255, 63)])
def test_padding_changes_nothing(kind, n_fft, hop):
    front_end = FrontEnd(n_fft=n_fft, hop=hop, compression=kind)
    waves = random_waves(4801, 77)
    num_samples = jnp.array([len(x) for x in waves])
    together = front_end.analyze(jnp.asarray(padded(waves)), num_samples)
    restored = front_end.synthesize(together, num_samples, 4801)
    for i, x in enumerate(waves):
        alone = front_end.analyze(jnp.asarray(x)[None], num_samples[i:i + 1])
        frames = alone.shape[1]
        np.testing.assert_allclose(together[i, :frames], alone[0], atol=1e-5)
        assert not np.any(together[i, frames:])
        np.testing.assert_allclose(restored[i, :len(x)], x, atol=1e-5)
        assert not np.any(restored[i, len(x):])


def test_frames_beyond_the_end_are_ignored_by_the_inverse():
    spec = spectral.stft(jnp.asarray(padded(random_waves(1600, 3200))), 320, 160, jnp.array([1600, 3200]))
    garbage = spec.at[0, 11:].set(1e3)
    clean = spectral.istft(spec, 160, jnp.array([11, 21]))
    np.testing.assert_array_equal(spectral.istft(garbage, 160, jnp.array([11, 21])), clean)


@pytest.mark.parametrize('kind', spectral.COMPRESSIONS)
def test_silence_has_finite_gradients(kind):
    import jax

    gradient = jax.grad(lambda x: jnp.sum(spectral.compress(x, kind) ** 2 + spectral.decompress(x, kind) ** 2))
    assert np.all(np.isfinite(gradient(jnp.zeros((1, 2, 3, 2)))))
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(spectral.magnitude(x)))(jnp.zeros((2, 2))), 0)


@pytest.mark.parametrize('kind', [kind for kind in spectral.COMPRESSIONS if kind != 'none'])
def test_silence_has_no_gradient(kind):
    """Of both directions; zeros have no phase, and PyTorch's modulus and angle have a gradient of 0 there."""
    def total(x, function):
        return jnp.sum(function(x, kind))

    for function in (spectral.compress, spectral.decompress):
        np.testing.assert_array_equal(jax.grad(total)(jnp.zeros((2, 2)), function), 0)


def test_gain_of_silence_is_one():
    np.testing.assert_array_equal(spectral.peak_gain(jnp.zeros((2, 10))), 1)
    np.testing.assert_array_equal(spectral.rms_gain(jnp.zeros((2, 10)), jnp.array([10, 5])), 1)


def test_unknown_compression_is_named():
    with pytest.raises(ValueError, match="compression must be one of .*, got 'cube'"):
        FrontEnd(compression='cube')


@pytest.mark.parity
def test_conv_stft_and_its_inverse_of_dccrn():
    fixture = reference.load('dccrn')

    def to_torch(spec):
        return np.concatenate([np.asarray(spec[..., part]).swapaxes(1, 2) for part in range(2)], axis=1)

    def from_torch(stacked):
        return jnp.asarray(np.stack(np.split(stacked, 2, axis=1), -1).swapaxes(1, 2))

    wav = np.pad(fixture.inputs['clstm/wav'], ((0, 0), (0, 70)))  # to whole hops
    spec = spectral.conv_stft(jnp.asarray(wav), 400, 100, 512)[:, :31]
    fixture.check('stft/spec', to_torch(spec))
    fixture.check('stft/mags', np.asarray(spectral.magnitude(spec)).swapaxes(1, 2))
    fixture.check('istft/wav', spectral.conv_istft(spec, 400, 100)[:, None])
    fixture.check('istft/wav_of_random_spec', spectral.conv_istft(
        from_torch(fixture.inputs['random_spec']), 400, 100)[:, None])


@pytest.mark.parametrize('frames', [9, 83, 200])  # 83: where XLA:CPU once computed something else
def test_inverse_frames_are_those_of_the_pseudo_inverse(frames):
    """Against NumPy's pseudo-inverse of the matrix of the transform, in float64."""
    window, n_fft, hop = 400, 512, 100
    spec = np.random.default_rng(0).standard_normal((1, frames, n_fft // 2 + 1, 2))
    angles = -2j * np.pi * np.outer(np.arange(n_fft // 2 + 1), np.arange(window)) / n_fft
    matrix = np.concatenate([np.exp(angles).real, np.exp(angles).imag])
    hann = spectral.hann(window)
    expected = np.concatenate([spec[..., 0], spec[..., 1]], -1) @ np.linalg.pinv(matrix).T * hann
    expected /= np.sum(hann**2) / hop
    for function in (spectral.synthesize_frames, jax.jit(spectral.synthesize_frames, static_argnums=(1, 2))):
        np.testing.assert_allclose(function(jnp.asarray(spec, jnp.float32), window, hop), expected, atol=1e-6)


@pytest.mark.parametrize(('length', 'window', 'hop'), [
    (1, 400, 100), (100, 400, 100), (2830, 400, 100), (2830, 510, 170), (1, 512, 256), (2830, 512, 256)])
def test_zero_padded_front_end_returns_every_sample_and_ignores_padding(length, window, hop):
    front_end = spectral.FrontEnd(n_fft=512, hop=hop, window=window, compression='none', unit_rms=False)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, length)), jnp.float32)
    lengths = jnp.array([length])
    spec = front_end.analyze(x, lengths)
    assert spec.shape == (1, front_end.num_frames(length), 257, 2)
    np.testing.assert_allclose(front_end.synthesize(spec, lengths, length), x, atol=1e-5)
    padded = front_end.analyze(jnp.pad(x, ((0, 0), (0, 777))), lengths)
    np.testing.assert_allclose(padded[:, :spec.shape[1]], spec, atol=1e-5)
    assert not np.any(padded[:, spec.shape[1]:])


def test_windows_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match='expected a hop of 1 to n_fft / 2 samples, got hop 200, n_fft 320'):
        spectral.FrontEnd(n_fft=320, hop=200)
    with pytest.raises(ValueError, match='expected a window of whole hops, 2 or more, .* got 400 samples'):
        spectral.FrontEnd(n_fft=320, hop=100, window=400)
