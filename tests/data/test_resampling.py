"""Parts of recordings at another rate against the whole recording, resampled at once by soxr."""

import dataclasses

import numpy as np
import pytest
import soundfile

from jax_diffse import audio
from jax_diffse.data import DataConfig, open_source
from jax_diffse.data.facts import Rules
from jax_diffse.data.resampling import MARGIN, Resampled, Resampling
from jax_diffse.data.scan import survey
from jax_diffse.errors import UserError
from tests.data.corpora import RATE, wave, write


def noise(length, seed=0):
    return np.random.default_rng(seed).standard_normal(length).astype(np.float32)


@pytest.mark.parametrize('rates', [(16_000, 8000), (44_100, 8000), (48_000, 16_000), (8000, 16_000), (22_050, 16_000)])
def test_a_part_is_that_of_the_whole(rates):
    x = noise(60_000)
    whole, change, reads = audio.resample(x, *rates), Resampling(len(x), *rates), []

    def read(start, stop):
        reads.append(stop - start)
        return x[start:stop]

    assert change.num_resampled == len(whole)
    for start, stop in ((0, 100), (1, 3000), (5001, 7333), (len(whole) - 700, len(whole)), (len(whole) - 5, None)):
        reads.clear()
        np.testing.assert_allclose(change.read(read, start, stop), whole[start:stop], atol=2e-6)
        assert sum(reads) < 3 * MARGIN * max(rates) / min(rates) + 3000 * rates[0] / rates[1]  # not the whole
    np.testing.assert_allclose(change.read(read), whole, atol=2e-6)


class Pairs:
    """Two pairs at 16 kHz."""

    sample_rate, used, in_store = 16_000, '', False
    clean = noise(20_000), noise(333, 1)

    def __len__(self):
        return 2

    def info(self, i):
        return {'id': str(i), 'num_samples': len(self.clean[i]), 'noise': 'bus'}

    def read(self, i):
        return self.clean[i], -self.clean[i]


def test_a_source_at_another_rate():
    source = Resampled(Pairs(), 8000)
    assert len(source) == 2 and source.sample_rate == 8000
    assert source.info(0) == {'id': '0', 'num_samples': 10_000, 'noise': 'bus'} and source.info(1)['num_samples'] == 167
    whole = audio.resample(Pairs.clean[0], 16_000, 8000)
    clean, noisy = source.read(0)
    np.testing.assert_array_equal(clean, whole)
    np.testing.assert_allclose(noisy, -whole, atol=1e-6)
    starts = set()
    for seed in range(8):
        clean, noisy = source.draw(0, 1000, np.random.default_rng(seed))
        start = int(np.random.default_rng(seed).integers(9001))
        np.testing.assert_allclose(clean, whole[start:start + 1000], atol=2e-6)
        np.testing.assert_allclose(noisy, -clean, atol=1e-6)
        starts.add(start)
    assert len(starts) == 8
    assert len(source.draw(1, 1000, np.random.default_rng(0))[0]) == 167  # a short one is whole


def test_a_data_set_is_resampled_only_if_asked_for(monkeypatch):
    from jax_diffse.data import tfds_source

    monkeypatch.setattr(tfds_source, 'open_tfds', lambda *args: Pairs())
    config = DataConfig('voicebank_demand', sample_rate=8000, resample=True)
    assert open_source(config, 'test').info(0)['num_samples'] == 10_000
    assert isinstance(open_source(DataConfig('voicebank_demand', resample=True), 'test'), Pairs)
    with pytest.raises(UserError, match='expected 16000 Hz, the rate of voicebank_demand, got 8000; --config.data.res'):
        open_source(DataConfig('voicebank_demand', sample_rate=8000), 'test')


# ------------------------------------------------------------------------------------------------------------ folders



def test_files_at_another_rate_are_resampled_as_they_are_read(pairs_at_other_rates):
    source = open_source(DataConfig(test=pairs_at_other_rates, resample=True), 'test')
    assert {source.info(i)['id'] for i in range(4)} == {'48', '44', '16', 'both'}
    for i in range(4):
        whole = []
        for file in (source.clean[i], source.noisy[i]):
            samples, rate = soundfile.read(file.path, dtype='float32')
            whole.append(audio.resample(samples, rate, RATE))
            np.testing.assert_allclose(file.read(), whole[-1], atol=1e-6)
        assert source.info(i)['num_samples'] == len(whole[0]) == len(whole[1])
        drawn = source.draw(i, 2000, np.random.default_rng(i))
        start = np.correlate(whole[0], drawn[0], 'valid').argmax()
        np.testing.assert_allclose(drawn, [samples[start:start + 2000] for samples in whole], atol=1e-6)


def test_a_tone_has_its_frequency_whatever_the_rate_of_its_file(tmp_path):
    for rate in (44_100, 48_000):
        write(tmp_path / f'{rate}.wav', 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate // 2) / rate), rate)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE // 2) / RATE)
    found, bad = survey(Rules(RATE, 0.25, resample=True), str(tmp_path))
    assert len(found) == 2 and not bad
    for file in found:
        np.testing.assert_allclose(file.read(2000, 6000), expected[2000:6000], atol=1e-3)


def test_what_cannot_be_used_is_found_at_the_rate_that_is_read(pairs_at_other_rates, tmp_path):
    clean, noisy = tmp_path / 'clean', tmp_path / 'noisy'
    hiss = np.sin(2 * np.pi * 20_000 * np.arange(24_000) / 48_000)
    bad = {}
    for name, samples, reason in (
            ('length', wave(1, 1.6), '8534 samples, but 8000'), ('stereo', np.ones((24_000, 2)), '2 channels'),
            ('nan', np.full(24_000, np.nan), 'NaN'), ('short', wave(1, 0.7), 'too short: 0.233 s'),
            ('hiss', hiss * np.hanning(24_000), 'silent at 16000 Hz')):
        write(clean / f'{name}.wav', wave(0))
        bad[str(write(noisy / f'{name}.wav', samples, 48_000, 'FLOAT'))] = reason
    with pytest.raises(UserError) as error:
        open_source(DataConfig(test=pairs_at_other_rates, resample=True), 'test')
    listed = dict(line.strip().split(': ', 1) for line in str(error.value).splitlines()[1:])
    assert listed.keys() == bad.keys() and all(reason in listed[path] for path, reason in bad.items())


def test_the_setting_counts_for_files_seen_before(pairs_at_other_rates):
    config = DataConfig(test=pairs_at_other_rates)
    for _ in range(2):
        with pytest.raises(UserError, match='5 of 8 .*\n.*44100 Hz.*--config.data.resample=True .*\n'):
            open_source(config, 'test')
        assert len(open_source(dataclasses.replace(config, resample=True), 'test')) == 4
