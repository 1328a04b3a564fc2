import subprocess
import sys
import zlib

import jax
import numpy as np
import pytest
import scipy.signal
import soundfile
from numpy.testing import assert_allclose

import jax_diffse
from jax_diffse import audio, runs
from jax_diffse.errors import UserError
from jax_diffse.inference import streams
from jax_diffse.inference.enhancer import Enhancer
from tests import toys

RATE = 16_000


def _noise(*shape, seed=0, scale=0.1):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _tone(rate, seconds, frequency=300.0):
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def _enhancer(system, chunk_seconds=1.0, overlap_seconds=0.25, steps=None):
    return Enhancer(toys.run(system), chunk_seconds=chunk_seconds, overlap_seconds=overlap_seconds, steps=steps)


@pytest.mark.parametrize('shape', [(1,), (100,), (RATE,), (3 * RATE + 7,), (5000, 1), (2 * RATE, 2)])
def test_output_has_the_shape_of_the_input(shape):
    noisy = _noise(*shape)
    enhanced = _enhancer(toys.Toy())(noisy, RATE)
    assert enhanced.dtype == np.float32
    assert_allclose(enhanced, 0.5 * noisy, atol=1e-6)


@pytest.mark.parametrize('rate', [8000, 44100, 48000])
@pytest.mark.parametrize('seconds', [0.0001, 0.7, 2.3])
def test_other_rates_come_back_at_their_rate_and_length(rate, seconds):
    noisy = np.stack([_tone(rate, seconds), _tone(rate, seconds, 1000.0)], axis=1)
    if not len(noisy):
        noisy = np.full((1, 2), 0.1, np.float32)
    enhanced = _enhancer(toys.Toy())(noisy, rate)
    assert enhanced.shape == noisy.shape
    inner = slice(rate // 20, -rate // 20)  # both resampling filters ring at the ends
    assert_allclose(enhanced[inner], 0.5 * noisy[inner], atol=1e-3)


@pytest.mark.parametrize('n', [int(1.1 * RATE), int(3.9 * RATE)])
def test_chunks_join_to_the_output_of_the_whole(n):
    noisy = _noise(n)
    expected = scipy.signal.convolve(noisy, toys.FIR, mode='same')
    chunked = _enhancer(toys.LowPass())(noisy, RATE)
    largest = np.max(np.abs(chunked - expected))
    assert largest < 0.05 * np.max(np.abs(expected))  # the filter's edges are faded: it is short against the overlap
    starts = streams.chunk_starts(n, RATE, RATE // 4)
    near = np.zeros(n, bool)
    for start in starts[:-1]:
        near[start + RATE - RATE // 4:start + RATE] = True
    assert_allclose(chunked[~near], expected[~near], atol=1e-6)
    assert_allclose(_enhancer(toys.LowPass(), 16.0)(noisy, RATE), expected, atol=1e-6)


def test_level_is_that_of_the_whole_recording():
    noisy = _noise(4 * RATE)
    noisy[2 * RATE:] *= 0.01  # below the level of the whole, though not below that of its own chunk
    noisy = np.stack([noisy, noisy[::-1]], axis=1)
    level = np.sqrt(np.mean(noisy.astype(np.float64)**2, axis=0))
    enhanced = _enhancer(toys.Gate())(noisy, RATE)
    clear = np.abs(np.abs(noisy) / level - 1) > 1e-4
    expected = np.where(np.abs(noisy) > level, noisy, 0)
    assert_allclose(enhanced[clear], expected[clear], atol=1e-6)


@pytest.mark.parametrize('strength', [0.0, 0.3, 1.0])
@pytest.mark.parametrize('rate', [RATE, 44100])
def test_strength_interpolates_between_input_and_output(strength, rate):
    noisy = _noise(rate // 2, 2)
    enhancer = _enhancer(toys.Toy())
    expected = strength * enhancer(noisy, rate) + (1 - strength) * noisy
    assert_allclose(enhancer(noisy, rate, strength=strength), expected, atol=1e-6)


def test_draws_follow_from_the_utterance_and_differ_between_channels_and_chunks():
    enhancer = _enhancer(toys.Noise(), overlap_seconds=0.0)
    noisy = np.repeat(_noise(2 * RATE, 1), 2, axis=1)
    one = enhancer(noisy, RATE, utterance='one')
    np.testing.assert_array_equal(one, _enhancer(toys.Noise(), overlap_seconds=0.0)(noisy, RATE, utterance='one'))
    signals = [one[:RATE, 0], one[RATE:, 0], one[:RATE, 1], enhancer(noisy, RATE, utterance='two')[:RATE, 0]]
    correlations = np.corrcoef(signals)
    assert np.max(np.abs(correlations - np.eye(4))) < 0.05

    key = jax.random.key(0)
    for number in (zlib.crc32(b'one'), 1, 1):
        key = jax.random.fold_in(key, number)
    level = np.sqrt(np.mean(noisy[:, 1].astype(np.float64)**2))
    assert_allclose(one[RATE:, 1], level * np.asarray(jax.random.normal(key, (RATE,))), atol=1e-6)


@pytest.mark.parametrize('system', [toys.Noise(), toys.LowPass(), toys.Gate()])
def test_batches_do_not_change_results(system):
    lengths = [500, RATE, 7 * RATE // 2, 3 * RATE, 10, RATE + 1, 5 * RATE, 3 * RATE - 1, 2 * RATE]
    waveforms = [_noise(n, seed=i, scale=0.1 * (i + 1)) for i, n in enumerate(lengths)]
    ids = [f'utterance{i}' for i in range(len(lengths))]
    enhancer = _enhancer(system, chunk_seconds=4.0)
    together = enhancer.many(waveforms, ids)
    assert [len(x) for x in together] == lengths
    for waveform, name, enhanced in zip(waveforms, ids, together, strict=True):
        assert_allclose(enhanced, enhancer(waveform, RATE, utterance=name), atol=1e-5)
    order = np.random.default_rng(0).permutation(len(lengths))[:6]
    for i, enhanced in zip(order, enhancer.many([waveforms[i] for i in order], [ids[i] for i in order]), strict=True):
        assert_allclose(enhanced, together[i], atol=1e-5)


def test_many_needs_few_programs():
    enhancer = _enhancer(toys.Toy(), chunk_seconds=16.0, overlap_seconds=2.0)
    lengths = np.random.default_rng(0).integers(1, 16 * RATE, 60)
    enhancer.many([np.ones(n, np.float32) for n in lengths], [str(n) for n in lengths])
    assert len(enhancer._programs.compiled) <= 8
    compiled = enhancer.compile_seconds
    assert compiled > 0
    enhancer.many([np.ones(n, np.float32) for n in lengths], [str(n) for n in lengths])
    assert enhancer.compile_seconds == compiled


def test_batches_are_filled():
    """Six utterances of 3 s, of which five fit into a batch, make two batches of three, not of five."""
    enhancer, devices = _enhancer(toys.Toy(), chunk_seconds=16.0), jax.local_device_count()
    assert enhancer._programs.rows(3 * RATE, 6 * devices) == 3 * devices
    for count in range(1, 60):
        rows = enhancer._programs.rows(3 * RATE, count)
        batches = -(-count // rows)
        assert rows % devices == 0 and rows <= 5 * devices and rows * batches - count < devices * batches


def test_stages_come_in_the_order_of_the_system_whatever_the_length():
    lengths = [500, RATE, 3 * RATE + 7, 10, 2 * RATE]  # with 2 s at a time one of them is enhanced in chunks
    waveforms = [_noise(n, seed=i) for i, n in enumerate(lengths)]
    ids = [f'utterance{i}' for i in range(len(lengths))]
    stages = _enhancer(toys.Staged(), chunk_seconds=2.0).stages(waveforms, ids)
    assert list(stages) == ['half', 'filtered', 'drawn']
    for i, waveform in enumerate(waveforms):
        assert_allclose(stages['half'][i], 0.5 * waveform, atol=1e-6)
        expected = scipy.signal.convolve(0.5 * waveform, toys.FIR)[80:80 + lengths[i]]
        whole = slice(None) if lengths[i] <= 2 * RATE else slice(RATE)  # the filter's edges are faded at joins
        assert_allclose(stages['filtered'][i][whole], expected[whole], atol=1e-6)


def test_the_last_stage_is_what_many_gives():
    waveforms, ids = [_noise(n, seed=n) for n in (500, 3 * RATE, RATE)], ['a', 'b', 'c']
    alone = _enhancer(toys.Staged(), chunk_seconds=2.0).many(waveforms, ids)
    stages = _enhancer(toys.Staged(), chunk_seconds=2.0).stages(waveforms, ids)
    for last, enhanced in zip(stages['drawn'], alone, strict=True):
        assert_allclose(last, enhanced, atol=1e-6)


def test_stages_share_one_program_per_bucket():
    enhancer = _enhancer(toys.Staged(), chunk_seconds=4.0)
    lengths = [RATE // 2, RATE // 3, RATE, 2 * RATE, 2 * RATE - 5]
    enhancer.stages([_noise(n) for n in lengths], [str(n) for n in lengths])
    assert len(enhancer._programs.compiled) == 2


def test_silence_stays_silent_at_every_stage():
    enhancer = _enhancer(toys.Staged())
    stages = enhancer.stages([np.zeros(500, np.float32), _noise(600), np.zeros(2 * RATE, np.float32)], ['a', 'b', 'c'])
    assert [[len(x) for x in waveforms] for waveforms in stages.values()] == 3 * [[500, 600, 2 * RATE]]
    assert [[bool(x.any()) for x in waveforms] for waveforms in stages.values()] == 3 * [[False, True, False]]


def test_steps_and_refusals_reach_all_stages():
    noisy = _noise(1000)
    assert_allclose(_enhancer(toys.Stepped(), steps=2).stages([noisy], ['a'])['enhanced'][0], noisy / 2, atol=1e-6)
    with pytest.raises(UserError, match='steps=11: takes 1 to 10'):
        _enhancer(toys.Stepped(), steps=11)
    with pytest.raises(UserError, match='b: the system gave NaN'):
        _enhancer(toys.Broken()).stages([np.zeros(100, np.float32), noisy], ['a', 'b'])


def test_all_chunks_of_a_long_recording_share_a_program():
    enhancer = _enhancer(toys.Toy())
    enhancer(_noise(5 * RATE + 123, 2), RATE)
    assert len(enhancer._programs.compiled) == 1


def test_silence_stays_silent():
    enhancer = _enhancer(toys.Constant())
    one_silent = np.stack([np.zeros(2 * RATE), _noise(2 * RATE)], axis=1).astype(np.float32)
    enhanced = enhancer(one_silent, RATE)
    assert np.all(enhanced[:, 0] == 0) and np.all(enhanced[:, 1] != 0)
    silent, loud = enhancer.many([np.zeros(500, np.float32), _noise(600)], ['a', 'b'])
    assert np.all(silent == 0) and np.all(loud != 0)
    assert np.all(enhancer(np.zeros(100, np.float32), 44100) == 0)


def test_nothing_is_compiled_for_silence():
    enhancer = _enhancer(toys.Staged(), chunk_seconds=2.0)
    silence = [np.zeros(n, np.float32) for n in (500, RATE + 1, 3 * RATE)]
    assert not any(x.any() for x in enhancer.many(silence, ['a', 'b', 'c']))
    assert not enhancer._programs.compiled
    enhancer.stages(silence, ['a', 'b', 'c'])
    assert len(enhancer._programs.compiled) == 1  # the first program tells the stages


def test_steps_reach_the_system():
    noisy = _noise(1000)
    assert_allclose(_enhancer(toys.Stepped(), steps=4)(noisy, RATE), noisy / 4, atol=1e-6)
    assert_allclose(_enhancer(toys.Stepped(), steps=2).many([noisy], ['a'])[0], noisy / 2, atol=1e-6)


@pytest.mark.parametrize(('noisy', 'message'), [
    (np.zeros(0, np.float32), 'speech: no samples'),
    (np.zeros((0, 2), np.float32), 'speech: no samples'),
    (np.array([0.1, np.nan, 0.1]), 'speech: holds samples that are NaN or infinite'),
    (np.array([0.1, np.inf, 0.1]), 'speech: holds samples that are NaN or infinite'),
    (np.zeros(100, np.int16), 'speech: expected floating-point'),
    (np.zeros((1, 100)), r'speech: expected the shape .* got \[1, 100\]'),
    (np.zeros((4, 4, 4)), 'speech: expected the shape'),
    (np.float32(0), 'speech: expected the shape')])
@pytest.mark.parametrize('rate', [RATE, 8000])
def test_what_cannot_be_enhanced_is_a_user_error(noisy, message, rate):
    with pytest.raises(UserError, match=message):
        _enhancer(toys.Toy())(noisy, rate, utterance='speech')


def test_many_names_the_utterance_that_is_wrong():
    bad = np.array([0.1, np.nan], np.float32)
    with pytest.raises(UserError, match='worse: holds'):
        _enhancer(toys.Toy()).many([_noise(10), bad], ['good', 'worse'])


@pytest.mark.parametrize('strength', [-0.1, 1.1, np.nan])
def test_strength_beyond_its_range_is_a_user_error(strength):
    with pytest.raises(UserError, match='strength='):
        _enhancer(toys.Toy())(_noise(10), RATE, strength=strength)


@pytest.mark.parametrize('chunk_seconds', [0.0, 0.4, np.nan])
def test_chunks_shorter_than_two_overlaps_are_a_user_error(chunk_seconds):
    with pytest.raises(UserError, match='chunk_seconds='):
        _enhancer(toys.Toy(), chunk_seconds=chunk_seconds)


def test_a_system_that_gives_nan_is_reported_not_written(tmp_path):
    soundfile.write(tmp_path / 'a.wav', _noise(100), RATE)
    with pytest.raises(UserError, match='checkpoint of step 7'):
        _enhancer(toys.Broken()).enhance_file(tmp_path / 'a.wav', tmp_path / 'out' / 'a.wav')
    assert not list((tmp_path / 'out').iterdir())


@pytest.mark.parametrize(('name', 'subtype', 'rate', 'channels'), [
    ('a.wav', 'PCM_16', 16000, 1), ('a.wav', 'PCM_24', 48000, 2), ('a.wav', 'FLOAT', 44100, 2),
    ('a.flac', 'PCM_16', 8000, 3), ('a.flac', 'PCM_24', 16000, 1)])
def test_a_file_and_its_array_give_the_same_result(tmp_path, monkeypatch, name, subtype, rate, channels):
    soundfile.write(tmp_path / name, _noise(3 * rate + 11, channels), rate, subtype=subtype)
    samples, _ = audio.read(tmp_path / name)
    expected = _enhancer(toys.LowPass())(samples, rate, strength=0.8)
    monkeypatch.setattr(streams, 'BLOCK', 5000)  # the size of blocks must not matter
    done = []
    seconds = _enhancer(toys.LowPass()).enhance_file(
        tmp_path / name, tmp_path / 'out' / name, noise=tmp_path / 'noise' / name, strength=0.8,
        on_progress=done.append)
    info = audio.info(tmp_path / 'out' / name)
    assert info == audio.info(tmp_path / name)
    assert seconds == info.num_samples / rate == pytest.approx(sum(done))
    step = {'PCM_16': 2**-15, 'PCM_24': 2**-23, 'FLOAT': 1e-7}[subtype]
    assert_allclose(audio.read(tmp_path / 'out' / name)[0], expected, atol=step + 1e-6)
    assert_allclose(audio.read(tmp_path / 'noise' / name)[0], samples - expected, atol=step + 1e-6)


def test_a_long_file_is_never_held_whole(tmp_path, monkeypatch):
    rate, seconds = 48_000, 30
    soundfile.write(tmp_path / 'a.wav', _noise(rate * seconds), rate)
    reads, writes, windows = [], [], []
    monkeypatch.setattr(streams, 'BLOCK', rate)
    blocks, window = audio.blocks, streams.Window.read

    def counted(path, size):
        for block in blocks(path, size):
            reads.append(len(block))
            yield block

    monkeypatch.setattr(audio, 'blocks', counted)

    def watched(self, start, stop):
        piece = window(self, start, stop)
        windows.append(len(self._held))
        return piece

    monkeypatch.setattr(streams.Window, 'read', watched)
    _enhancer(toys.Toy()).enhance_file(tmp_path / 'a.wav', tmp_path / 'out.wav',
                                       on_progress=lambda done: writes.append(done * rate))
    assert sum(writes) == pytest.approx(rate * seconds)
    assert sum(reads) == 3 * rate * seconds  # reads for the level, the enhancement and the mix
    assert max(reads) <= 1.1 * rate and max(writes) <= 1.1 * rate
    assert max(windows) <= 2.1 * rate  # a chunk or a mixed-in part, plus the excess of the last block


@pytest.mark.parametrize(('content', 'message'), [
    (b'', 'the file is empty'), (b'RIFFnonsense', 'not readable'), (None, 'no such file')])
def test_unreadable_file_is_a_user_error_and_leaves_nothing(tmp_path, content, message):
    if content is not None:
        (tmp_path / 'a.wav').write_bytes(content)
    with pytest.raises(UserError, match=f'a.wav: {message}'):
        _enhancer(toys.Toy()).enhance_file(tmp_path / 'a.wav', tmp_path / 'out' / 'a.wav')
    assert not (tmp_path / 'out').exists()


# ---- refiners: the toy gives 0.5 noisy + 0.25 processed ----


def _refiner(preceding=None, **options):
    preceding = None if preceding is None else toys.run(preceding, 'before')
    return Enhancer(toys.run(toys.Refiner(), 'prior'), preceding=preceding,
                    **{'chunk_seconds': 1.0, 'overlap_seconds': 0.25, **options})


@pytest.mark.parametrize('shape', [(100,), (RATE,), (3 * RATE + 7,), (2 * RATE, 3)])
def test_a_given_input_is_refined(shape):
    noisy, processed = _noise(*shape), _noise(*shape, seed=1, scale=0.03)
    refined = _refiner()(noisy, RATE, processed=processed)
    assert refined.shape == noisy.shape
    assert_allclose(refined, 0.5 * noisy + 0.25 * processed, atol=1e-6)


@pytest.mark.parametrize('preceding', [toys.LowPass(), toys.Gate(), toys.Noise(), toys.Stepped()])
def test_a_preceding_run_gives_the_output_of_its_own_enhancer(preceding):
    noisy = _noise(5 * RATE // 2, 2)
    before = _enhancer(preceding)(noisy, RATE, utterance='a')
    steps = 2 if isinstance(preceding, toys.Stepped) else None  # those of the refiner, not of the preceding system
    refined = _refiner(preceding, steps=steps)(noisy, RATE, utterance='a', strength=0.8)
    assert_allclose(refined, 0.8 * (0.5 * noisy + 0.25 * before) + 0.2 * noisy, atol=1e-6)


def test_the_input_of_a_refiner_is_resampled_like_the_noisy_speech():
    rate = 44100
    noisy = np.stack([_tone(rate, 2.3), _tone(rate, 2.3, 1000.0)], axis=1)
    processed = np.stack([_tone(rate, 2.3, 500.0), _tone(rate, 2.3, 700.0)], axis=1)
    inner = slice(rate // 20, -rate // 20)  # the resampling filters ring at the ends
    expected = 0.5 * noisy + 0.25 * processed
    assert_allclose(_refiner()(noisy, rate, processed=processed)[inner], expected[inner], atol=1e-3)


def test_batches_do_not_change_refined_results_and_show_their_input():
    lengths = [500, RATE, 5 * RATE // 2, 10, RATE + 1]  # the third one in chunks
    waveforms = [_noise(n, seed=i) for i, n in enumerate(lengths)]
    processed = [_noise(n, seed=10 + i, scale=0.02 * (i + 1)) for i, n in enumerate(lengths)]
    ids = [f'utterance{i}' for i in range(len(lengths))]
    enhancer = _refiner(chunk_seconds=2.0)
    stages = enhancer.stages(waveforms, ids, processed=processed)
    assert list(stages) == ['preceding', 'refined']
    for x, made, came_in, refined in zip(waveforms, processed, *stages.values(), strict=True):
        assert_allclose(came_in, made, atol=1e-7)
        assert_allclose(refined, 0.5 * x + 0.25 * made, atol=1e-6)
    for refined, again in zip(stages['refined'], enhancer.many(waveforms, ids, processed=processed), strict=True):
        assert_allclose(again, refined, atol=1e-7)

    before = _enhancer(toys.Noise(), chunk_seconds=2.0).many(waveforms, ids)
    stages = _refiner(toys.Noise(), chunk_seconds=2.0).stages(waveforms, ids)
    for x, made, came_in, refined in zip(waveforms, before, *stages.values(), strict=True):
        assert_allclose(came_in, made, atol=1e-6)
        assert_allclose(refined, 0.5 * x + 0.25 * made, atol=1e-6)


def test_compile_time_includes_the_preceding_system():
    enhancer = _refiner(toys.Toy())
    enhancer(_noise(100), RATE)
    alone = _enhancer(toys.Toy())
    alone(_noise(100), RATE)
    before = enhancer._programs._preceding.compile_seconds
    assert enhancer.compile_seconds > before > 0 and alone.compile_seconds > 0


def test_silence_is_not_refined_to_sound():
    noisy, processed = [np.zeros(500, np.float32), _noise(600)], [_noise(500), _noise(600)]
    stages = _refiner().stages(noisy, ['a', 'b'], processed=processed)
    assert [bool(x.any()) for x in stages['refined']] == [False, True]
    np.testing.assert_array_equal(stages['preceding'][0], processed[0])  # the input is unchanged
    assert not _refiner(toys.Constant())(np.zeros(2 * RATE, np.float32), RATE).any()


@pytest.mark.parametrize(('name', 'rate', 'channels'), [('made.flac', 16000, 1), ('made.wav', 44100, 2)])
def test_a_processed_file_is_refined_in_any_format(tmp_path, monkeypatch, name, rate, channels):
    noisy, processed = _noise(5 * rate // 2, channels), _noise(5 * rate // 2, channels, seed=1, scale=0.05)
    soundfile.write(tmp_path / 'a.wav', noisy, rate, subtype='FLOAT')
    soundfile.write(tmp_path / name, processed, rate, subtype='PCM_24')
    monkeypatch.setattr(streams, 'BLOCK', 5000)
    _refiner().enhance_file(tmp_path / 'a.wav', tmp_path / 'out' / 'a.wav', noise=tmp_path / 'removed.wav',
                            processed=tmp_path / name, strength=0.5)
    assert audio.info(tmp_path / 'out' / 'a.wav') == audio.info(tmp_path / 'a.wav')
    refined = audio.read(tmp_path / 'out' / 'a.wav')[0]
    assert_allclose(refined, _refiner()(noisy, rate, processed=processed, strength=0.5), atol=2**-22)
    assert_allclose(audio.read(tmp_path / 'removed.wav')[0], noisy - refined, atol=1e-6)


@pytest.mark.parametrize(('shape', 'rate', 'message'), [
    ((1000, 2), 8000, 'b.wav: 8000 Hz, but 16000 in .*a.wav'),
    ((1000, 1), 16000, 'b.wav: 1 channels, but 2 in .*a.wav'),
    ((999, 2), 16000, 'b.wav: 999 samples, but 1000 in .*a.wav'),
    (None, 16000, 'b.wav: no such file')])
def test_a_processed_file_that_does_not_fit_is_a_user_error_and_leaves_nothing(tmp_path, shape, rate, message):
    soundfile.write(tmp_path / 'a.wav', _noise(1000, 2), 16000)
    if shape:
        soundfile.write(tmp_path / 'b.wav', _noise(*shape), rate)
    with pytest.raises(UserError, match=message):
        _refiner().enhance_file(tmp_path / 'a.wav', tmp_path / 'out' / 'a.wav', processed=tmp_path / 'b.wav')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('processed', 'message'), [
    (np.array([0.1, np.nan]), 'speech processed: holds samples that are NaN'),
    (np.zeros(3), 'speech processed: 3 samples, but 2 in speech'),
    (np.zeros(2, np.int16), 'speech processed: expected floating-point')])
def test_what_cannot_be_refined_is_a_user_error(processed, message):
    with pytest.raises(UserError, match=message):
        _refiner()(_noise(2), RATE, utterance='speech', processed=processed)
    if processed.dtype != np.int16:
        with pytest.raises(UserError, match=message):
            _refiner().many([_noise(2)], ['speech'], processed=[processed])


def test_a_preceding_run_that_gives_nan_is_named():
    with pytest.raises(UserError, match='step 7 of before sound'):
        _refiner(toys.Broken())(_noise(100), RATE)


@pytest.mark.parametrize(('system', 'preceding', 'given', 'message'), [
    (toys.Refiner(), None, False, 'prior: Refiner refines the output of another enhancer: it needs .*; give the files'),
    (toys.Refiner(), toys.Toy(), True, 'prior: refines one input, got files .* and a run'),
    (toys.Toy(), None, True, 'prior: Toy enhances noisy speech by itself'),
    (toys.Toy(), toys.Toy(), False, 'prior: Toy enhances noisy speech by itself'),
    (toys.Refiner(), toys.Refiner(), False, 'before: refines the output of another enhancer itself'),
    (toys.Refiner(), toys.Toy(sample_rate=8000), False, 'before: works at 8000 Hz, but prior at 16000 Hz')])
def test_incompatible_runs_are_a_user_error(system, preceding, given, message):
    with pytest.raises(UserError, match=message):
        enhancer = Enhancer(toys.run(system, 'prior'), preceding=preceding and toys.run(preceding, 'before'))
        enhancer(_noise(10), RATE, processed=_noise(10) if given else None)


def test_load_is_a_public_name(monkeypatch):
    asked, noisy = [], _noise(100)

    def load(workdir, step='best', model=None):
        asked.append((workdir, step, model))
        return toys.run(toys.Refiner() if workdir == 'runs/prior' else toys.Toy())

    monkeypatch.setattr(runs, 'load', load)
    assert_allclose(jax_diffse.load('runs/x')(noisy, RATE), 0.5 * noisy, atol=1e-6)
    jax_diffse.load('runs/x', checkpoint=3, model={'guidance': 'none'})
    refined = jax_diffse.load('runs/prior', checkpoint=5, preceding='runs/x')(noisy, RATE)
    assert_allclose(refined, (0.5 + 0.25 * 0.5) * noisy, atol=1e-6)
    assert asked == [('runs/x', 'best', None), ('runs/x', 3, {'guidance': 'none'}), ('runs/prior', 5, None),
                     ('runs/x', 'best', None)]


def test_importing_the_package_imports_no_framework():
    code = 'import sys, jax_diffse; print([m for m in ("jax", "numpy", "tensorflow", "torch") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == '[]\n'
