"""What is done to mixtures besides adding a noise: against NumPy, SciPy and soxr, and as functions of the seed."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile
import soxr
from ml_collections import ConfigDict

from jax_diffse.data import DataConfig, open_source
from jax_diffse.data.config import Folders
from jax_diffse.data.facts import Rules
from jax_diffse.data.mixer import Mixer, MixerConfig, Recipe, TargetConfig
from jax_diffse.data.mixing import Level
from jax_diffse.data.pipeline import Process, train_batches
from jax_diffse.data.recordings import AudioFile
from jax_diffse.data.scan import survey
from jax_diffse.data.segments import Segments
from jax_diffse.errors import UserError
from jax_diffse.experiment import sections
from tests.data.corpora import RATE, wave, wave_snr, write

EVERYTHING = MixerConfig(rir_noise=True, speed=(0.9, 1.1), max_noises=3, band_hz=(2000.0, 6000.0),
                         level_db=(-35.0, -25.0), clip_level=(0.3, 0.6))
EARLY, DRY, REVERBERANT = map(TargetConfig, ('early', 'dry', 'reverberant'))
DIRECT = 40  # the sample of the direct path of `decay`


def decay(seed: int, seconds: float = 0.2, rate: int = RATE) -> np.ndarray:
    """A room impulse response: a direct path of -0.8, and decaying noise behind it."""
    rir = 0.05 * np.random.default_rng(seed).standard_normal(round(seconds * rate)) * np.exp(
        -np.arange(round(seconds * rate)) / (0.05 * rate))
    rir[:DIRECT], rir[DIRECT] = 0, -0.8
    return rir


@pytest.fixture
def rooms(mix_folders, tmp_path):
    """Speech, noise and four room impulse responses."""
    for k in range(4):
        write(tmp_path / 'rir' / f'{k}.wav', decay(k), subtype='FLOAT')
    return dataclasses.replace(mix_folders, rir=str(tmp_path / 'rir'))


def opened(folders, split='train', target=EARLY, **settings):
    return open_source(DataConfig(train=folders, validation=folders, test=folders, target=target, **settings), split)


def drawn(source, count=12, num_samples=4000):
    return [source.draw(i % len(source), num_samples, np.random.default_rng([3, i])) for i in range(count)]


def files(folder, rate=RATE) -> list[AudioFile]:
    return list(survey(Rules(rate, 0.01), str(folder))[0])


# ---------------------------------------------------------------------------------------------------- off by default


def test_without_a_mixer_examples_are_speech_plus_noise_at_an_snr(mix_folders):
    """Bit for bit, by a second implementation of the draws: place, noise, place in it, SNR."""
    source = opened(mix_folders)
    for i, (clean, noisy) in enumerate(drawn(source)):
        rng = np.random.default_rng([3, i])
        speech = source.mixtures[i].speech.read()
        start = rng.integers(len(speech) - 4000 + 1)
        speech = speech[start:start + 4000]
        noise = source.noise[rng.integers(12)].read()
        start = rng.integers(len(noise) - 4000 + 1)
        noise = noise[start:start + 4000]
        gain = np.sqrt(np.dot(speech, speech) / np.dot(noise, noise)) * 10 ** (-rng.choice([0.0, 5.0, 10.0, 15.0]) / 20)
        np.testing.assert_array_equal(clean, speech)
        np.testing.assert_array_equal(noisy, speech + np.float32(gain) * noise)


def test_configs_have_the_defaults_of_the_data():
    assert DataConfig.from_config_dict(sections('', {}).data) == DataConfig()


def test_test_mixtures_only_change_with_keys_of_their_own(rooms, mix_folders):
    plain = opened(mix_folders, 'test')
    same = open_source(DataConfig(train=rooms, test=mix_folders, mixer=EVERYTHING), 'test')
    other = opened(mix_folders, 'test', test_mixer=EVERYTHING)
    for i in range(len(plain)):
        for expected, found in zip(plain.read(i), same.read(i)):
            np.testing.assert_array_equal(found, expected)
    assert not any(np.array_equal(plain.read(i)[1], other.read(i)[1][:plain.info(i)['num_samples']])
                   for i in range(len(plain)))


def test_validation_follows_training(rooms):
    plain = opened(dataclasses.replace(rooms, rir=''), 'validation')
    mixed, again = (opened(rooms, 'validation', mixer=EVERYTHING) for _ in range(2))
    assert [plain.info(i)['id'] for i in range(len(plain))] == [mixed.info(i)['id'] for i in range(len(plain))]
    for i in range(len(plain)):
        assert len(mixed.read(i)[0]) == len(mixed.read(i)[1]) == mixed.info(i)['num_samples']
        np.testing.assert_array_equal(mixed.read(i), again.read(i))
        assert not np.array_equal(plain.read(i)[1][:7000], mixed.read(i)[1][:7000])


# ---------------------------------------------------------------------------------------------------------- randomness


def test_an_example_is_a_function_of_seed_and_index_for_any_number_of_processes(rooms):
    source = opened(rooms, mixer=EVERYTHING)

    def take(process, rows):
        batches = train_batches(source, None, batch_size=4, num_samples=3000, seed=5, process=process)
        return [{key: value for key, value in next(batches).items()} for _ in range(3)]

    whole, halves = take(Process(0, 1), 4), [take(Process(k, 2), 2) for k in range(2)]
    for step in range(3):
        for key in ('clean', 'noisy', 'index', 'num_samples'):
            np.testing.assert_array_equal(whole[step][key], np.concatenate([half[step][key] for half in halves]))
    resumed = next(train_batches(source, None, batch_size=4, num_samples=3000, seed=5, start_step=2))
    np.testing.assert_array_equal(resumed['noisy'], whole[2]['noisy'])
    other = next(train_batches(source, None, batch_size=4, num_samples=3000, seed=6))
    assert not np.array_equal(other['noisy'], whole[0]['noisy'])


@pytest.mark.parametrize('name', ['speed', 'max_noises', 'band_hz', 'level_db', 'clip_level', 'rir'])
def test_no_operation_changes_the_draws_of_another(rooms, name):
    noise, rirs = files(rooms.noise), files(rooms.rir)
    without = dataclasses.replace(EVERYTHING, **({} if name == 'rir' else {name: getattr(MixerConfig(), name)}))
    own = {'rir': ('rir', 'noise_rirs'), 'max_noises': ('noises', 'noise_rirs', 'seed')}.get(name, (name,))
    for seed in range(20):
        rngs = [np.random.default_rng(seed) for _ in range(2)]
        both = Mixer(EVERYTHING, rirs=rirs).draw(rngs[0], noise)
        one = Mixer(without, rirs=[] if name == 'rir' else rirs).draw(rngs[1], noise)
        for field in dataclasses.fields(Recipe):
            if field.name not in own:
                assert getattr(both, field.name) == getattr(one, field.name), field.name
        assert rngs[0].random() == rngs[1].random()  # what is drawn later: the place of the speech, noise, SNR


@pytest.mark.parametrize('mixer', [
    MixerConfig(max_noises=3), MixerConfig(band_hz=(2000.0, 6000.0)), MixerConfig(clip_level=(0.3, 0.6)),
    MixerConfig(level_db=(-35.0, -25.0)), MixerConfig()])
def test_an_operation_leaves_the_crop_and_the_level_of_speech_alone(rooms, mix_folders, mixer):
    """Of reverberant speech, too, whose direct path is the dry speech."""
    for folders in (mix_folders, rooms):
        for (plain, _), (clean, _) in zip(drawn(opened(mix_folders)), drawn(
                opened(folders, mixer=mixer, target=DRY))):
            scale = np.dot(clean, plain) / np.dot(plain, plain)  # other than 1 only by level_db, or where noisy clips
            np.testing.assert_allclose(clean, scale * plain, atol=1e-6)


def test_probabilities_are_those_of_the_draws(rooms):
    config = dataclasses.replace(EVERYTHING, rir_probability=0.3, band_probability=0.5, clip_probability=0.7)
    noise, rirs = files(rooms.noise), files(rooms.rir)
    recipes = [Mixer(config, rirs=rirs).draw(np.random.default_rng([1, k]), noise) for k in range(1000)]
    for share, count in ((0.3, sum(recipe.rir is not None for recipe in recipes)),
                         (0.5, sum(recipe.band_hz > 0 for recipe in recipes)),
                         (0.7, sum(recipe.clip_level > 0 for recipe in recipes))):
        assert abs(count - 1000 * share) < 4 * np.sqrt(1000 * share * (1 - share))  # standard deviations
    for count in range(3):
        assert abs(sum(len(recipe.noises) == count for recipe in recipes) - 333) < 60
    for name, (low, high) in {'speed': (0.9, 1.1), 'level_db': (-35, -25)}.items():
        values = [getattr(recipe, name) for recipe in recipes]
        assert low <= min(values) < low + 0.02 * (high - low) and high - 0.02 * (high - low) < max(values) <= high
    assert {recipe.rir.name for recipe in recipes if recipe.rir} == set('0123')


# -------------------------------------------------------------------------------------------------------- reverberation


@pytest.mark.parametrize('target', ['early', 'dry', 'reverberant'])
def test_reverberant_speech_is_a_convolution_in_time_with_the_direct_path(tmp_path, target):
    """The reference is numpy.convolve in double precision; the early part ends with half a cosine of 5 ms."""
    rir = decay(0)
    write(tmp_path / 'rir' / 'a.wav', rir, subtype='FLOAT')
    speech, noise = (wave(seed).astype(np.float32) for seed in (1, 2))
    mixer = Mixer(target=TargetConfig(target, early_ms=30.0), rirs=files(tmp_path / 'rir'))
    recipe = mixer.draw(np.random.default_rng(0), files(tmp_path / 'rir'))
    clean, noisy = mixer.make(recipe, speech, noise, Level(10.0))
    rir = rir.astype(np.float32).astype(np.float64) / rir[DIRECT].astype(np.float32)
    wet = np.convolve(speech, rir)[DIRECT:DIRECT + len(speech)]
    fade = np.arange(80) / 80  # 5 ms
    window = np.concatenate([np.ones(DIRECT + 480), 0.5 + 0.5 * np.cos(np.pi * fade), np.zeros(len(rir))])[:len(rir)]
    early = np.convolve(speech, rir * window)[DIRECT:DIRECT + len(speech)]
    noisy_64 = wet + noise * np.sqrt(np.sum(wet**2) / np.sum(noise.astype(np.float64)**2) / 10)
    expected = {'early': early, 'dry': speech, 'reverberant': wet}[target]
    scale = max(1, np.abs(noisy_64).max(), np.abs(expected).max())
    np.testing.assert_allclose(clean, expected / scale, atol=2e-6)
    np.testing.assert_allclose(noisy, noisy_64 / scale, atol=2e-6)
    assert np.argmax(np.correlate(noisy, speech, 'full')) == len(speech) - 1  # in time


def test_noises_are_reverberated_with_responses_of_their_own(rooms):
    speech, noise = (wave(seed).astype(np.float32) for seed in (1, 2))
    rirs = files(rooms.rir)
    mixer = Mixer(MixerConfig(rir_noise=True), DRY, rirs)
    recipe = dataclasses.replace(mixer.draw(np.random.default_rng(0), rirs), rir=rirs[0], noise_rirs=(rirs[1],))
    _, noisy = mixer.make(recipe, speech, noise, Level(0.0))
    wet, other = (np.convolve(x, decay(k) / -0.8)[DIRECT:DIRECT + len(x)] for k, x in enumerate((speech, noise)))
    expected = wet + other * np.sqrt(np.sum(wet**2) / np.sum(other**2))
    np.testing.assert_allclose(noisy, expected / max(1, np.abs(expected).max()), atol=1e-5)


def test_the_snr_is_that_of_the_reverberant_speech(rooms):
    source = opened(rooms, target=REVERBERANT, snr_db=(3.0,), mixer=MixerConfig(max_noises=2))
    for clean, noisy in drawn(source):
        assert wave_snr(clean, noisy) == pytest.approx(3.0, abs=0.01)
    listed = opened(rooms, 'test', target=REVERBERANT)
    for i in range(len(listed)):
        assert wave_snr(*listed.read(i)) == pytest.approx(listed.info(i)['snr_db'], abs=0.01)


def test_responses_of_other_rates_and_channels_are_used(mix_folders, tmp_path):
    """The first channel, resampled by soxr."""
    rir = decay(0, rate=48_000)
    write(tmp_path / 'rir' / 'a.wav', np.stack([rir, 9 * rir[::-1]], axis=1), 48_000, 'FLOAT')
    source = opened(dataclasses.replace(mix_folders, rir=str(tmp_path / 'rir')), 'test', DRY,
                    test_snr_db=(90.0,))
    lower = soxr.resample(rir.astype(np.float32), 48_000, RATE, quality='HQ')
    direct = np.abs(lower).argmax()
    clean, noisy = source.read(0)
    np.testing.assert_allclose(noisy, np.convolve(clean, lower / lower[direct])[direct:direct + len(clean)], atol=1e-4)


def test_responses_are_held_out_like_noises(rooms, tmp_path):
    train, validation = (open_source(DataConfig(train=rooms, held_out=0.3), split) for split in ('train', 'validation'))
    names = [{file.name for file in source.mixer.rirs} for source in (train, validation)]
    assert len(names[1]) == 1 and names[0] | names[1] == set('0123') and not names[0] & names[1]
    write(tmp_path / 'one' / 'a.wav', decay(0))
    with pytest.raises(UserError, match=f'^{tmp_path / "one"}: has a single file, so none can be held out'):
        open_source(DataConfig(train=dataclasses.replace(rooms, rir=str(tmp_path / 'one'))), 'train')


@pytest.mark.parametrize(('samples', 'reason'), [
    (np.full(100, np.nan), 'has NaN'), (np.zeros(100), 'silent in its first channel'),
    (np.ones(11 * RATE), r'11.0 s long, expected a room impulse response of 10 s or less')])
def test_bad_responses_are_listed_with_the_other_bad_files(rooms, tmp_path, samples, reason):
    bad = write(tmp_path / 'rir' / 'bad.wav', samples, subtype='FLOAT')
    with pytest.raises(UserError, match=f'^{bad}: {reason}.*skip_bad'):
        opened(rooms)
    assert {file.name for file in opened(rooms, skip_bad=True).mixer.rirs} == set('0123')


# ----------------------------------------------------------------------------------------------------- other operations


def test_speed_changes_tempo_and_pitch(mix_folders, tmp_path):
    """A tone of 400 Hz becomes one of 400 Hz times the speed, of the same number of samples."""
    write(tmp_path / 'tone' / 'a.wav', 0.1 * np.sin(2 * np.pi * 400 * np.arange(2 * RATE) / RATE))
    folders = dataclasses.replace(mix_folders, speech=str(tmp_path / 'tone'))
    source = opened(folders, mixer=MixerConfig(speed=(0.8, 1.25)), snr_db=(60.0,))
    found = []
    for seed in range(8):
        clean, noisy = source.draw(0, 16_000, np.random.default_rng(seed))
        assert len(clean) == len(noisy) == 16_000
        speed = source.mixer.draw(np.random.default_rng(seed), source.noise).speed
        found.append(np.abs(np.fft.rfft(clean * np.hanning(16_000))).argmax())  # bins of 1 Hz
        assert found[-1] == pytest.approx(400 * speed, abs=1)
    assert max(found) - min(found) > 40
    listed = opened(folders, 'validation', mixer=MixerConfig(speed=(0.8, 1.25)))
    for i, mixture in enumerate(listed.mixtures):
        assert listed.info(i)['num_samples'] == len(listed.read(i)[0]) == pytest.approx(
            2 * RATE / mixture.recipe.speed, abs=1)


@pytest.mark.parametrize('speed', [(0.5, 0.5), (0.9531, 0.9531), (1.237, 1.237), (2.0, 2.0)])
def test_lengths_are_exact_at_every_speed(mix_folders, speed):
    """Clips of 0.3 s, utterances padded to 1.1 s, and segments of 0.1 s, all of files of 0.5 s."""
    mixer = MixerConfig(speed=speed)
    for settings, expected in (({'clip_seconds': 0.3}, min(4800, 8000 / speed[0])), ({'pad_seconds': 1.1}, 17_600),
                               ({'clip_seconds': 1.1, 'pad_seconds': 1.1}, 17_600)):
        source = opened(mix_folders, 'validation', mixer=mixer, **settings)
        assert {source.info(i)['num_samples'] for i in range(len(source))} == {expected}
        assert {len(x) for i in range(len(source)) for x in source.read(i)} == {expected}
    segments = Segments(opened(mix_folders, mixer=mixer), 1600)
    assert len(segments) == 12 * 5
    for i in (0, 1, 2):
        assert len(segments.draw(i, 1600, np.random.default_rng(i))[0]) == 1600


def test_speech_at_a_speed_is_not_silent(mix_folders, tmp_path):
    samples = np.zeros(RATE)
    samples[12_000] = 0.5
    write(tmp_path / 'sparse' / 'a.wav', samples)
    folders = dataclasses.replace(mix_folders, speech=str(tmp_path / 'sparse'))
    source = opened(folders, mixer=MixerConfig(speed=(0.5, 2.0)))
    for seed in range(20):
        assert np.abs(source.draw(0, 1000, np.random.default_rng(seed))[0]).max() > 1e-3


@pytest.mark.parametrize('target', ['full', 'limited'])
def test_a_band_limit_removes_what_lies_above_it(mix_folders, target):
    """From white noise: 80 dB from 2 % above the limit on; nothing, to 0.1 dB, up to 90 % of it."""
    source = opened(mix_folders, mixer=MixerConfig(band_hz=(2500.0, 2500.0)), target=TargetConfig(band=target))
    (clean, noisy), (full, plain) = (s.draw(0, 8000, np.random.default_rng(1)) for s in (source, opened(mix_folders)))

    def decibels(x, reference, low, high):
        power = [np.abs(np.fft.rfft(signal * np.hanning(8000)))**2 for signal in (x, reference)]
        bins = slice(round(low / 2), round(high / 2))  # of 2 Hz
        return 10 * np.log10(power[0][bins].sum() / power[1][bins].sum())

    for limited, reference in ((noisy, plain), *([(clean, full)] if target == 'limited' else [])):
        assert decibels(limited, reference, 2550, 8000) < -80
        assert decibels(limited, reference, 100, 2250) == pytest.approx(0, abs=0.1)
    if target == 'full':
        np.testing.assert_array_equal(clean, full)


def test_several_noises_have_equal_energy(mix_folders, tmp_path):
    """Each is a tone of a frequency of its own, at levels that differ by 20 dB."""
    t = np.arange(RATE) / RATE
    for k in range(4):
        tone = 0.5 / 10**k * np.sin(2 * np.pi * 500 * (k + 1) * t)
        write(tmp_path / 'tones' / 'tone' / f'{k}.wav', tone, subtype='FLOAT')
    folders = dataclasses.replace(mix_folders, noise=str(tmp_path / 'tones'))
    source, one = (opened(folders, mixer=MixerConfig(max_noises=count), snr_db=(0.0,)) for count in (3, 1))
    counts = set()

    def tones(clean, noisy):
        """The power of each tone, relative to the strongest."""
        power = np.abs(np.fft.rfft(noisy - clean))[[250, 500, 750, 1000]]**2
        return np.round(power / power.max(), 2)

    for seed in range(40):
        clean, noisy = source.draw(0, 8000, np.random.default_rng(seed))
        first = tones(*one.draw(0, 8000, np.random.default_rng(seed)))
        names = [str(first.argmax()), *(file.name[-1] for file in source.mixer.draw(
            np.random.default_rng(seed), source.noise).noises)]
        if len(set(names)) == len(names):
            np.testing.assert_array_equal(tones(clean, noisy), [str(k) in names for k in range(4)])
            counts.add(len(names))
        assert wave_snr(clean, noisy) == pytest.approx(0, abs=0.01)
    assert counts == {1, 2, 3}
    listed = opened(mix_folders, 'test', test_mixer=MixerConfig(max_noises=3))
    assert all({file.noise_class for file in mixture.recipe.noises} <= {mixture.noise.noise_class}
               for mixture in listed.mixtures)
    assert any(mixture.recipe.noises for mixture in listed.mixtures)


def test_the_noisy_signal_has_the_level(mix_folders):
    source = opened(mix_folders, mixer=MixerConfig(level_db=(-40.0, -20.0)), snr_db=(5.0,))
    found = []
    for clean, noisy in drawn(source, 30):
        found.append(20 * np.log10(np.sqrt(np.mean(noisy.astype(np.float64)**2))))
        assert wave_snr(clean, noisy) == pytest.approx(5, abs=0.01)
    assert -40.01 <= min(found) < -37 and -23 < max(found) <= -19.99
    for clean, noisy in drawn(opened(mix_folders, mixer=MixerConfig(level_db=(0.0, 0.0)), snr_db=(5.0,)), 4):
        assert np.abs(noisy).max() == pytest.approx(1, abs=1e-6)  # white noise of 0 dBFS would leave [-1, 1]
        assert wave_snr(clean, noisy) == pytest.approx(5, abs=0.01)


def test_clipping_is_of_the_noisy_signal_alone(mix_folders):
    source = opened(mix_folders, mixer=MixerConfig(clip_level=(0.25, 0.5)))
    for (clean, noisy), (plain_clean, plain) in zip(drawn(source), drawn(opened(mix_folders))):
        np.testing.assert_array_equal(clean, plain_clean)
        share = np.abs(noisy).max() / np.abs(plain).max()
        assert 0.25 <= share <= 0.5
        np.testing.assert_allclose(noisy, np.clip(plain, -share * np.abs(plain).max(), share * np.abs(plain).max()),
                                   atol=1e-6)


def test_silent_speech_stays_silent(mix_folders, tmp_path):
    samples = np.zeros(RATE)
    samples[:2000] = wave(0)[:2000]
    write(tmp_path / 'sparse' / 'a.wav', samples)
    source = opened(dataclasses.replace(mix_folders, speech=str(tmp_path / 'sparse')), mixer=EVERYTHING)
    assert not np.any(source.draw(0, 4000, np.random.default_rng(0), start=8000))


# ------------------------------------------------------------------------------------------------------------- the list


def test_a_mixture_can_be_made_again_from_its_row(rooms, tmp_path):
    """By NumPy and soxr, from the columns alone."""
    source = opened(rooms, 'test', test_mixer=EVERYTHING, clip_seconds=0.4)
    source.write_manifest(tmp_path / 'list.tsv')
    header, *rows = [line.split('\t') for line in (tmp_path / 'list.tsv').read_text().splitlines()]
    assert len(rows) == len(source) and {len(row) for row in rows} == {len(header)}

    def read(path, start, length):
        samples = soundfile.read(path, dtype='float32')[0]
        return samples[np.arange(int(start), int(start) + length) % len(samples)]

    def convolved(x, path, early=False):
        rir = soundfile.read(path)[0] if path else np.ones(1)
        direct = np.abs(rir).argmax()
        place = (np.arange(len(rir)) - direct - 0.05 * RATE) / 80
        window = np.where(early, 0.5 + 0.5 * np.cos(np.pi * np.clip(place, 0, 1)), 1)
        return np.convolve(x, window * rir / rir[direct])[direct:direct + len(x)]

    for i, row in enumerate(dict(zip(header, row, strict=True)) for row in rows):
        length, speed = int(row['num_samples']), float(row['speed'])
        speech = soundfile.read(row['speech'], dtype='float32')[0][int(row['speech_start']):]
        speech = soxr.resample(speech[:int(np.ceil(length * speed - 1e-9))], 10_000 * speed, 10_000, quality='HQ')
        speech = np.pad(speech, (0, 10))[:length]
        noises = [read(row['noise'], row['noise_start'], length),
                  *(read(path, start, length) for path, start in json.loads(row['further_noises']))]
        noises = [convolved(x, path) for x, path in zip(noises, json.loads(row['noise_rirs']), strict=True)]
        noise = sum(x / np.linalg.norm(x) for x in noises)
        assert (row['target_reverb'], row['target_early_ms'], row['target_band']) == ('early', '50', 'full')
        clean, wet = convolved(speech, row['rir'], True), convolved(speech, row['rir'])
        noisy = wet + noise * np.linalg.norm(wet) / np.linalg.norm(noise) / 10 ** (float(row['snr_db']) / 20)
        band = 2 * int(row['band_hz'])
        noisy = soxr.resample(soxr.resample(noisy.astype(np.float32), RATE, band, quality='HQ'), band, RATE,
                              quality='HQ')
        noisy = np.pad(noisy, (0, 10))[:length]
        gain = 10 ** (float(row['level_db']) / 20) / np.sqrt(np.mean(noisy**2))
        clean, noisy = gain * clean, gain * noisy
        limit = float(row['clip_level']) * np.abs(noisy).max()
        np.testing.assert_allclose(source.read(i)[0], clean, atol=1e-5)
        np.testing.assert_allclose(source.read(i)[1][:-4], np.clip(noisy, -limit, limit)[:-4], atol=1e-5)  # soxr's end


def test_reports_say_what_is_done_to_mixtures(rooms):
    config = DataConfig(train=rooms, test=rooms, test_mixer=MixerConfig(speed=(0.9, 1.1), max_noises=2))
    assert config.describe('test').endswith(f'rir {rooms.rir}, speed 0.9 to 1.1, max_noises 2, target early 50 ms')
    assert 'speed' not in config.describe('train')
    limited = DataConfig(test=dataclasses.replace(rooms, rir=''), test_mixer=MixerConfig(band_hz=(2000.0, 4000.0)),
                         target=TargetConfig(band='limited'))
    assert limited.describe('test').endswith('band_hz 2000.0 to 4000.0, target band limited')


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(('values', 'line'), [
    ({'mixer': {'speed': [1.1]}}, r'config.data.mixer.speed: expected \(\) or a range from 0.5 to 2, as \(0.9,1.1\)'),
    ({'mixer': {'speed': [1.1, 0.9]}}, 'config.data.mixer.speed: expected '),
    ({'mixer': {'speed': [0.1, 0.9]}}, 'config.data.mixer.speed: expected '),
    ({'mixer': {'speed': ['slow', 'fast']}}, "config.data.mixer.speed: expected float, got 'slow'"),
    ({'test_mixer': {'level_db': [-30.0, 3.0]}}, 'config.data.test_mixer.level_db: expected .*from -90 to 0'),
    ({'mixer': {'band_hz': [4000, 9000]}}, 'config.data.mixer.band_hz: expected .*from 100 to 8000, .*9000'),
    ({'mixer': {'band_hz': [3000, 5000]}, 'sample_rate': 8000}, 'config.data.mixer.band_hz: .*to 4000'),
    ({'mixer': {'clip_level': [0.0, 0.5]}}, 'config.data.mixer.clip_level: expected .*from 0.01 to 1'),
    ({'mixer': {'max_noises': 0}}, 'config.data.mixer.max_noises: expected 1 or more, got 0'),
    ({'mixer': {'rir_probability': 1.5}}, 'config.data.mixer.rir_probability: expected a number from 0 to 1, got 1.5'),
    ({'mixer': {'clip_probability': 0.5}}, 'config.data.mixer.clip_probability: has no effect without '
                                           'config.data.mixer.clip_level'),
    ({'mixer': {'pitch': 1}}, 'config.data.mixer.pitch: unknown key'),
    ({'target': {'reverb': 'late'}}, "config.data.target.reverb: expected one of early, dry, reverberant, got 'late'"),
    ({'target': {'band': 'half'}}, "config.data.target.band: expected one of full, limited, got 'half'"),
    ({'target': {'early_ms': -1.0}}, 'config.data.target.early_ms: expected 0 or more .ms., got -1'),
])
def test_errors_name_the_key(values, line):
    with pytest.raises(UserError, match=f'^{line}') as error:
        DataConfig.from_config_dict(ConfigDict(values))
    assert '\n' not in str(error.value)


def test_responses_need_speech_and_noise():
    for folders in (Folders(speech='a', rir='b'), Folders(clean='a', noisy='b', rir='c'), Folders(rir='c')):
        with pytest.raises(UserError, match=r'config.data.train: .*rir set, expected .*speech and noise \(and rir\)'):
            open_source(DataConfig(train=folders), 'train')


@pytest.mark.parametrize(('kind', 'mixer', 'line'), [
    ('pair_folders', {'speed': (0.9, 1.1), 'max_noises': 2},
     'config.data.mixer.speed, config.data.mixer.max_noises: without effect, as the data are not mixed'),
    ('mix_folders', {'rir_noise': True},
     'config.data.mixer.rir_noise: without effect, as config.data.train.rir names no folder')])
def test_keys_without_effect_are_said(request, caplog, kind, mixer, line):
    open_source(DataConfig(train=request.getfixturevalue(kind), mixer=MixerConfig(**mixer)), 'train')
    assert line in caplog.text
