"""Noise at a factor of its amplitude, `config.data.noise_gain`, and noises that are mostly silence."""

import pathlib

import numpy as np
import pytest
import soundfile

from jax_diffse.data import DataConfig, mixing, open_source
from jax_diffse.data.config import Folders
from jax_diffse.errors import UserError

RATE = 16_000


def white(seed, level, size=8000):
    return level * np.random.default_rng(seed).standard_normal(size)


@pytest.fixture
def corpus(tmp_path):
    """Six utterances at -20 dBFS and two classes of noise at -30 dBFS."""
    for k in range(6):
        for folder, seed, level in (('speech', k, 0.1), (f'noise/{"rain" if k % 2 else "wind"}', 100 + k, 10**-1.5)):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / folder / f'{k}.wav', white(seed, level), RATE, subtype='FLOAT')
    return Folders(speech=str(tmp_path / 'speech'), noise=str(tmp_path / 'noise'))


def opened(folders, split, **settings):
    return open_source(DataConfig(train=folders, validation=folders, test=folders, **settings), split)


def factor(folders, clean, noisy):
    """The factor of the noise, found by comparison with each file of noise at each place."""
    best = (0.0, 0.0)
    for path in pathlib.Path(folders.noise).rglob('*.wav'):
        noise = soundfile.read(path)[0]
        match = np.correlate(np.concatenate([noise, noise[:len(clean)]]), noisy - clean, 'valid')
        start = int(np.abs(match).argmax())
        piece = np.concatenate([noise, noise])[start:start + len(clean)]
        best = max(best, (abs(match[start]), np.dot(noisy - clean, piece) / np.dot(piece, piece)))
    return best[1]


def test_noise_is_added_at_a_factor_in_the_range_and_the_speech_is_untouched(corpus):
    source = opened(corpus, 'train', noise_gain=(0.2, 0.8))
    factors = []
    for seed in range(60):
        clean, noisy = source.draw(seed % 6, 2000, np.random.default_rng(seed))
        whole = soundfile.read(source.mixtures[seed % 6].speech.path, dtype='float32')[0]
        start = np.correlate(whole, clean, 'valid').argmax()
        np.testing.assert_array_equal(clean, whole[start:start + 2000])
        factors.append(factor(corpus, clean, noisy))
    assert 0.2 <= min(factors) < 0.3 and 0.7 < max(factors) <= 0.8  # uniform: 10 of 60 in each sixth
    counts, _ = np.histogram(factors, bins=3, range=(0.2, 0.8))
    assert min(counts) >= 10


def test_listed_mixtures_have_fixed_factors_and_tell_their_actual_snr(corpus, tmp_path):
    """The levels of speech and noise differ by 10 dB, so that the SNR is 10 - 20 log10(factor) dB."""
    source, again = (opened(corpus, 'validation', noise_gain=(0.2, 0.8)) for _ in range(2))
    source.write_manifest(tmp_path / 'list.tsv')
    rows = [line.split('\t') for line in (tmp_path / 'list.tsv').read_text().splitlines()[1:]]
    factors = []
    for i, row in enumerate(rows):
        clean, noisy = source.read(i)
        np.testing.assert_array_equal(noisy, again.read(i)[1])
        factors.append(factor(corpus, clean, noisy))
        assert 0.2 <= factors[-1] <= 0.8
        snr_db = 10 * np.log10(np.sum(clean**2) / np.sum((noisy - clean)**2))
        assert snr_db == pytest.approx(10 - 20 * np.log10(factors[-1]), abs=0.5)
        assert source.info(i)['snr_db'] == np.round(snr_db) and float(row[5]) == pytest.approx(snr_db, abs=1e-3)
    assert len(source) == 6 and len(set(np.round(factors, 6))) == 6
    assert len({source.info(i)['id'] for i in range(6)}) == 6


def test_tests_keep_their_snrs(corpus):
    source = opened(corpus, 'test', noise_gain=(0.2, 0.8), test_snr_db=(3.0,))
    clean, noisy = source.read(0)
    assert 10 * np.log10(np.sum(clean**2) / np.sum((noisy - clean)**2)) == pytest.approx(3, abs=1e-3)


def test_a_mixture_that_would_clip_is_scaled_down_with_its_speech():
    clean, noisy = mixing.blend(np.full(4, 0.9, np.float32), np.full(4, 0.5, np.float32), 0.8)
    np.testing.assert_allclose((clean, noisy), ([0.9 / 1.3] * 4, [1.0] * 4), rtol=1e-6)


def test_silent_speech_gets_its_noise_at_a_factor_and_none_at_an_snr():
    silence, noise = np.zeros(100, np.float32), white(0, 0.1, 100).astype(np.float32)
    rng = np.random.default_rng(0)
    clean, noisy = mixing.Levels((0.0,), gain=(0.5, 0.5)).mix(silence, noise, rng)
    assert not clean.any()
    np.testing.assert_allclose(noisy, 0.5 * noise)
    assert not np.any(mixing.Levels((0.0,)).mix(silence, noise, rng))


@pytest.mark.parametrize('value', [(0.5,), (0.2, 0.5, 0.8), (0.8, 0.2), (-0.2, 0.8), (0.0, 0.0), (float('nan'), 1.0),
                                   (0.2, float('inf'))])
def test_what_is_no_range_of_factors_is_refused(value):
    with pytest.raises(UserError, match='config.data.noise_gain: expected '):
        DataConfig(noise_gain=value)


def test_a_clip_that_is_mostly_zeros_is_used_where_it_sounds(tmp_path):
    """As in ESC-50: 5 s, of which the last 4.8 s are zeros. Training draws and listed mixtures keep their SNR."""
    noise = np.zeros(5 * RATE)
    noise[:3200] = white(1, 0.1, 3200)
    for folder, x in (('speech', white(0, 0.1, RATE)), ('noise/bark', noise)):
        (tmp_path / folder).mkdir(parents=True)
        soundfile.write(tmp_path / folder / 'a.wav', x, RATE)
    folders = Folders(speech=str(tmp_path / 'speech'), noise=str(tmp_path / 'noise'))
    source = opened(folders, 'train', snr_db=(5.0,))
    listed = opened(folders, 'test', test_snr_db=(5.0,))
    for clean, noisy in [listed.read(0), *(source.draw(0, 8000, np.random.default_rng(k)) for k in range(20))]:
        assert 10 * np.log10(np.sum(clean**2) / np.sum((noisy - clean)**2)) == pytest.approx(5, abs=1e-2)
