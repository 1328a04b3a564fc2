"""NISQA's scorer: the front end against the authors' and torch, scores against the authors', and what it does with
files that have none. The weights are the fixture's unless a test says otherwise."""

import contextlib
import functools
import subprocess
import sys

import jax
import librosa
import numpy as np
import pytest
import torch

from jax_diffse import conversion
from jax_diffse.conversion import nisqa as convert_nisqa
from jax_diffse.errors import UserError
from jax_diffse.metrics import nisqa
from tests import reference

PREFIXES = {'nisqa_v2': 'dim', 'nisqa_v2_mos_only': 'mos_only', 'nisqa_tts': 'tts'}
RATE = 16_000


@functools.cache
def weights(model):
    return convert_nisqa.variables(model, reference.load('nisqa').state_dict(f'{PREFIXES[model]}/'))


def signal(seconds, seed=0, rate=RATE):
    return reference.waveform('nisqa', str(seed), round(seconds * rate), rate)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv('JAX_DIFFSE_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def installed(cache):
    """A cache folder with the weights of NISQA v2."""
    nisqa.save('nisqa_v2', weights('nisqa_v2'))
    return cache


# ---------------------------------------------------------------------------------------------------------- front end


@pytest.mark.parity
@pytest.mark.parametrize('model', ['nisqa_v2', 'nisqa_tts'])
def test_spectra_and_segments_of_the_released_code(model):
    fixture, config, prefix = reference.load('nisqa'), nisqa.MODELS[model], PREFIXES[model]
    segments = []
    for i, rate in enumerate(fixture['sample_rates']):
        mel, = nisqa.FrontEnd(int(rate), config.max_hz)([fixture.inputs[f'wav{i}']])
        fixture.check(f'{prefix}/mel{i}', mel.T)
        count = nisqa.num_segments(config, len(mel))
        assert count == fixture[f'{prefix}/n_wins'][i]
        segments += [mel[k * config.hop:k * config.hop + 15].T[None] for k in range(count)]
    fixture.check(f'{prefix}/segments', np.stack(segments))


@pytest.mark.parametrize(('rate', 'max_hz'), [(8000, 8000), (22_050, 20_000), (44_100, 20_000)])
def test_spectra_equal_torch(rate, max_hz):
    """With windows of even and odd length, and empty upper bands. Mel filters are librosa's."""
    x, window = signal(0.7, rate=rate)[:-3], int(0.02 * rate)
    spec = torch.stft(torch.tensor(x), 4096, int(0.01 * rate), window, torch.hann_window(window), return_complex=True)
    with pytest.warns(UserWarning) if rate < 2 * max_hz else contextlib.nullcontext():
        mel = librosa.filters.mel(sr=rate, n_fft=4096, n_mels=48, fmax=max_hz) @ np.abs(spec.numpy())
    expected = 20 * np.log10(np.maximum(mel, 1e-4))
    ours, = nisqa.FrontEnd(rate, max_hz)([x])
    np.testing.assert_allclose(ours.T, np.maximum(expected, expected.max() - 80), atol=1e-3)


def test_spectra_of_several_files_are_those_of_each():
    """Each with its own floor, 80 dB below its own maximum."""
    front_end = nisqa.FrontEnd(RATE, 20_000)
    waveforms = [signal(0.3, 0), 1e-3 * signal(6, 1), signal(0.2, 2)]
    together = front_end(waveforms)
    for mel, waveform in zip(together, waveforms, strict=True):
        assert len(mel) == front_end.num_frames(len(waveform))
        np.testing.assert_allclose(mel, front_end([waveform])[0], atol=1e-4)
        assert mel.min() >= mel.max() - 80 - 1e-4


@pytest.mark.parametrize('model', ['nisqa_v2', 'nisqa_tts'])
def test_number_of_segments(model):
    """One segment per start that leaves 15 frames; at the end, less than a hop may be missing."""
    config = nisqa.MODELS[model]
    for frames in range(15, 60):
        assert nisqa.num_segments(config, frames) == len(range(0, frames - 14, config.hop))


# ------------------------------------------------------------------------------------------------------------- scores


@pytest.mark.parity
@pytest.mark.parametrize('model', PREFIXES)
def test_scores_of_the_released_code(model):
    fixture = reference.load('nisqa')
    scores = [nisqa.predict(nisqa.MODELS[model], weights(model), [fixture.inputs[f'wav{i}']], int(rate))[0]
              for i, rate in enumerate(fixture['sample_rates'])]
    fixture.check(f'{PREFIXES[model]}/scores_one_by_one', np.stack(scores))


@pytest.mark.parity
@pytest.mark.parametrize(('model', 'key'), [('nisqa_v2', 'nisqa'), ('nisqa_v2_mos_only', 'nisqa_mos_only'),
                                            ('nisqa_tts', 'nisqa_tts')])
def test_golden_scores_of_the_released_weights(model, key):
    golden = reference.load_golden('nisqa/nisqa.npz')
    path = reference.golden(f'nisqa/{nisqa.FILES[model]}')
    assert convert_nisqa.identify(path) == model
    released = convert_nisqa.variables(model, conversion.read_state_dict(path))
    rates, scores = golden['sample_rate'], np.empty_like(golden[f'pred_{key}'])
    for rate in np.unique(rates):
        where = np.flatnonzero(rates == rate)
        scores[where] = nisqa.predict(nisqa.MODELS[model], released, [golden[f'wav_{i}'] for i in where], int(rate))
    for name in {f'pred_{key}', f'pred_{key}_batched'} & set(golden.keys()):
        golden.check(name, scores)


@pytest.mark.parity
def test_golden_spectra():
    golden = reference.load_golden('nisqa/nisqa.npz')
    for key in golden.keys():
        if key.endswith('_melspec_db'):
            index = int(golden[key.replace('melspec_db', 'wav_index')])
            mel, = nisqa.FrontEnd(int(golden['sample_rate'][index]), 20_000)([golden[f'wav_{index}']])
            np.testing.assert_allclose(mel.T, golden[key], atol=1e-3, err_msg=key)


def test_a_score_does_not_depend_on_the_other_files(monkeypatch):
    config, variables = nisqa.MODELS['nisqa_v2'], weights('nisqa_v2')
    waveforms = [signal(seconds, i) for i, seconds in enumerate((1.0, 0.14, 2.3, 0.6, 0.9))]
    together = nisqa.predict(config, variables, waveforms, RATE)
    alone = np.concatenate([nisqa.predict(config, variables, [x], RATE) for x in waveforms])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.all(np.ptp(together, axis=0) > 0.01)
    monkeypatch.setattr(nisqa, 'SEGMENTS_IN_BATCH', 64)  # two files of up to 32 segments, one of more
    np.testing.assert_allclose(nisqa.predict(config, variables, waveforms, RATE), together, atol=1e-5)


def test_order_of_the_metrics():
    assert list(nisqa.METRICS) == ['nisqa_v2_mos', 'nisqa_v2_noi', 'nisqa_v2_dis', 'nisqa_v2_col', 'nisqa_v2_loud',
                                   'nisqa_v2_mos_only', 'nisqa_tts_mos']
    assert nisqa.DEFAULT == tuple(nisqa.METRICS)[:5]
    assert set(nisqa.METRICS.values()) == set(nisqa.MODELS) == set(nisqa.FILES)


def test_metrics_are_the_outputs_by_name(installed):
    waveforms = [signal(0.5), signal(0.7, 1)]
    outputs = nisqa.predict(nisqa.MODELS['nisqa_v2'], weights('nisqa_v2'), waveforms, RATE)
    found = nisqa.score_all(waveforms, RATE, ['nisqa_v2_col', 'nisqa_v2_mos'])
    for scores, expected in zip(found, outputs, strict=True):
        assert list(scores.values) == ['nisqa_v2_col', 'nisqa_v2_mos'] and scores.reasons == {}
        np.testing.assert_allclose(list(scores.values.values()), expected[[3, 0]], atol=1e-6)


# ------------------------------------------------------------------------------------------------- files without scores


@pytest.mark.parametrize(('waveform', 'rate', 'reason'), [
    (np.ones(2239), 16_000, '2239 samples are too few for NISQA, which needs 2240 (0.14 s)'),
    (np.ones(100), 8000, '100 samples are too few for NISQA, which needs 1120 (0.14 s)'),
    (np.zeros(0), 16_000, '0 samples are too few for NISQA, which needs 2240 (0.14 s)'),
    (np.append(np.ones(8000), np.nan), 16_000, 'the signal has samples that are NaN, infinite or beyond 1e+30'),
    (np.append(np.ones(8000), -np.inf), 16_000, 'the signal has samples that are NaN, infinite or beyond 1e+30'),
    (2e30 * np.ones(8000), 16_000, 'the signal has samples that are NaN, infinite or beyond 1e+30'),
    (np.zeros(8000), 16_000, 'the signal is all zero'),
    (np.ones((8000, 2)), 16_000, 'the signal must have the shape [N], got [8000, 2]'),
    (np.ones(8000), 96, 'NISQA is defined from 100 Hz to 204.8 kHz, not at 96 Hz'),
    (np.ones(8000), 384_000, 'NISQA is defined from 100 Hz to 204.8 kHz, not at 384000 Hz'),
])
def test_files_without_scores_have_a_reason_and_do_not_affect_others(installed, waveform, rate, reason):
    others = [signal(0.3)] if rate == RATE else []
    found = nisqa.score_all([*others, waveform.astype(np.float32), *others], rate, ['nisqa_v2_mos', 'nisqa_v2_dis'])
    assert len(found) == 1 + 2 * len(others)
    without = found.pop(len(others))
    assert set(without.reasons.values()) == {reason}
    assert list(without.values) == list(without.reasons) == ['nisqa_v2_mos', 'nisqa_v2_dis']
    assert np.all(np.isnan(list(without.values.values())))
    for scores in found:
        assert np.all(np.isfinite(list(scores.values.values()))) and not scores.reasons


def test_the_shortest_file_has_scores(installed):
    scores, = nisqa.score_all([signal(0.14)], RATE)
    assert list(scores.values) == list(nisqa.DEFAULT) and not scores.reasons


def test_missing_weights_are_a_reason(installed):
    assert nisqa.is_available('nisqa_v2') and not nisqa.is_available('nisqa_tts')
    scores, = nisqa.score_all([signal(0.3)], RATE, ['nisqa_v2_mos', 'nisqa_tts_mos'])
    assert np.isfinite(scores.values['nisqa_v2_mos']) and np.isnan(scores.values['nisqa_tts_mos'])
    assert scores.reasons == {'nisqa_tts_mos': nisqa.how_to_get('nisqa_tts')}
    for part in ('nisqa_tts.tar', 'github.com/gabrielmittag/NISQA', 'CC BY-NC-SA 4.0',
                 'jax-diffse convert nisqa nisqa_tts.tar'):
        assert part in nisqa.how_to_get('nisqa_tts')
    assert '\n' not in nisqa.how_to_get('nisqa_tts')


def test_no_files_and_unknown_metrics(installed):
    assert nisqa.score_all([], RATE) == []
    with pytest.raises(UserError, match="metric 'nisqa_mos' does not exist, expected some of: nisqa_v2_mos, "):
        nisqa.score_all([signal(0.3)], RATE, ['nisqa_mos'])


# -------------------------------------------------------------------------------------------------------------- weights


def test_cache_folder(tmp_path, monkeypatch):
    for variable in ('JAX_DIFFSE_CACHE', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    for variable, folder in ((None, 'home/.cache/jax_diffse'), ('XDG_CACHE_HOME', 'xdg/jax_diffse'),
                             ('JAX_DIFFSE_CACHE', 'own')):
        if variable:
            monkeypatch.setenv(variable, str(tmp_path / folder.split('/')[0]))
        assert nisqa.cached('nisqa_tts') == tmp_path / folder / 'nisqa_tts.npz'
    monkeypatch.setenv('JAX_DIFFSE_CACHE', 'off')  # of programs; weights that are there are not forgotten
    assert nisqa.cached('nisqa_tts') == tmp_path / 'xdg/jax_diffse/nisqa_tts.npz'


def test_weights_come_back_and_are_read_once(installed):
    path = nisqa.cached('nisqa_v2')
    assert [file.name for file in installed.iterdir()] == ['nisqa_v2.npz']
    first = nisqa.load('nisqa_v2')
    jax.tree.map(np.testing.assert_array_equal, first, weights('nisqa_v2'))
    assert nisqa.load('nisqa_v2') is first
    nisqa.save('nisqa_v2', jax.tree.map(lambda x: x + 1, weights('nisqa_v2')))
    other = nisqa.load('nisqa_v2')
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b + 1), other, weights('nisqa_v2'))
    assert path.is_file()


def damage(path):
    path.write_bytes(path.read_bytes()[:-5000])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def swap(path):
    np.savez(path, x=np.zeros(3))


@pytest.mark.parametrize('change', [damage, flip, swap, lambda path: path.write_bytes(b''),
                                    lambda path: path.write_bytes(b'hi'),
                                    lambda path: np.save(path.open('wb'), np.zeros(3))])
def test_damaged_weights_are_named(installed, change):
    change(nisqa.cached('nisqa_v2'))
    with pytest.raises(UserError) as error:
        nisqa.score_all([signal(0.3)], RATE)
    assert str(error.value).startswith(f'{nisqa.cached("nisqa_v2")}: damaged')
    assert 'convert again: jax-diffse convert nisqa nisqa.tar' in str(error.value)
    assert '\n' not in str(error.value)


def test_loading_missing_weights_is_a_user_error(cache):
    with pytest.raises(UserError, match=r'tts.npz: cannot be read \(No such file or directory\); nisqa_tts needs'):
        nisqa.load('nisqa_tts')


def test_an_unwritable_cache_folder_is_a_user_error(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('JAX_DIFFSE_CACHE', str(tmp_path / 'file'))
    with pytest.raises(UserError, match=r'file/nisqa_v2.npz: cannot be written \(.*\); \$JAX_DIFFSE_CACHE names'):
        nisqa.save('nisqa_v2', weights('nisqa_v2'))


def test_neither_torch_nor_tensorflow_is_loaded():
    code = ('import sys; import jax_diffse.metrics.nisqa; '
            'sys.exit(bool({"torch", "tensorflow", "librosa"} & set(sys.modules)))')
    assert subprocess.run([sys.executable, '-c', code], cwd=reference.ROOT).returncode == 0
