"""Parts of recordings at another rate against the whole recording, resampled at once by soxr."""

import numpy as np
import pytest

from jax_diffse import audio
from jax_diffse.data import DataConfig, open_source
from jax_diffse.data.resampling import MARGIN, Resampled, Resampling
from jax_diffse.errors import UserError


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

    sample_rate, used = 16_000, ''
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
