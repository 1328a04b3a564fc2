"""DNSMOS against the package speechmos itself, undefined values, a missing package, and no telemetry."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose

from jax_diffse import audio
from jax_diffse.errors import UserError
from jax_diffse.metrics import METRICS, Pool, dnsmos, scoring
from tests import reference

ROOT = pathlib.Path(__file__).parents[2]
RATE = 16000
NAMES = ('dnsmos_sig', 'dnsmos_bak', 'dnsmos_ovrl', 'dnsmos_p808')
needs_package = pytest.mark.skipif(not dnsmos.is_available(), reason='speechmos is not installed')


def noisy_speech(seconds=5.0, rate=RATE):
    n = int(seconds * rate)
    noise = reference.array('dnsmos', 'noise', [n])
    return (reference.waveform('dnsmos', 'speech', n, rate) + 0.01 * noise).astype(np.float32)


def reference_scores(signal):
    """The values of speechmos's own sessions, which use all cores."""
    os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
    from speechmos import dnsmos as package

    found = package.run(signal, RATE)
    return [found[key] for key in ('sig_mos', 'bak_mos', 'ovrl_mos', 'p808_mos')]


def test_the_catalogue_marks_them_as_metrics_without_reference():
    assert tuple(dnsmos.METRICS) == NAMES == dnsmos.DEFAULT
    assert not any(METRICS[name].needs_reference or METRICS[name].lower_is_better for name in NAMES)


@needs_package
def test_equals_speechmos():
    signal = noisy_speech()
    found = dnsmos.score(signal, RATE, NAMES)
    assert found.reasons == {} and list(found.values) == list(NAMES)
    assert_allclose(list(found.values.values()), reference_scores(signal), rtol=1e-5)


@needs_package
@pytest.mark.slow
@pytest.mark.parametrize('row', [0, 1])
def test_equals_speechmos_on_real_speech(row):
    signal = reference.known_recording()[row].astype(np.float32)
    assert_allclose(list(dnsmos.score(signal, RATE, NAMES).values.values()), reference_scores(signal), rtol=1e-5)


@needs_package
def test_the_pool_rates_in_order_also_higher_rates_and_samples_beyond_full_scale():
    loud, fast = 30 * noisy_speech(), noisy_speech(rate=48000)
    resampled = audio.resample(fast, 48000, RATE)
    expected = [dnsmos.score(np.clip(loud, -1, 1), RATE), dnsmos.score(resampled, RATE)]
    assert np.max(np.abs(loud)) > 2 and expected[0].values != expected[1].values
    with Pool(1) as pool:
        found = [*pool.rate_all([loud, np.zeros(RATE)], RATE, NAMES), *pool.rate_all([fast], 48000, NAMES)]
    assert_allclose(list(found[0].values.values()), list(expected[0].values.values()))
    assert found[1].reasons['dnsmos_sig'] == 'the signal is all zero'
    assert_allclose(list(found[2].values.values()), list(expected[1].values.values()))


@pytest.mark.parametrize(('signal', 'rate', 'words'), [
    (np.ones(8000), 8000, '16000 Hz or more, not 8000'), (np.zeros(RATE), RATE, 'all zero'),
    (np.ones(3999), RATE, '0.25 s are too short'), (np.ones(0), RATE, 'too short'),
    (np.full(RATE, np.nan), RATE, 'NaN or infinite'), (np.ones((RATE, 2)), RATE, 'shape [N]')])
def test_undefined_values_have_a_reason(signal, rate, words):
    found = dnsmos.score(signal, rate, ('dnsmos_p808', 'dnsmos_sig'))
    assert list(found.values) == list(found.reasons) == ['dnsmos_p808', 'dnsmos_sig']
    assert np.isnan(list(found.values.values())).all() and words in found.reasons['dnsmos_sig']


def test_an_unknown_metric_is_an_error():
    with pytest.raises(UserError, match="'dnsmos_mos' does not exist"):
        dnsmos.score(np.ones(RATE), RATE, ('dnsmos_mos',))


def test_without_the_package_the_reason_is_the_command_that_installs_it(monkeypatch, capsys):
    monkeypatch.setattr(dnsmos, 'PACKAGES', ('speechmos', 'no_such_package'))
    command = "pip install 'jax_diffse[dnsmos]'"
    assert command in dnsmos.score(noisy_speech(), RATE).reasons['dnsmos_ovrl']
    assert not set(scoring.choose(None)) & set(NAMES) and command in capsys.readouterr().out
    with pytest.raises(UserError, match='jax_diffse.dnsmos'):
        scoring.check(NAMES, RATE)
    found = dnsmos.score(noisy_speech(), RATE)
    assert scoring.is_final('dnsmos_sig', found)
    monkeypatch.undo()
    assert scoring.is_final('dnsmos_sig', found) != dnsmos.is_available()  # computed once it is installed


@needs_package
def test_a_damaged_installation_is_a_reason(monkeypatch):
    def broken():
        raise OSError('model_v8.onnx: cannot be read\nmore')

    monkeypatch.setattr(dnsmos, '_model', broken)
    assert dnsmos.score(noisy_speech(), RATE).reasons['dnsmos_sig'] == 'OSError: model_v8.onnx: cannot be read'


@needs_package
def test_nothing_is_left_of_onnxruntimes_telemetry(tmp_path):
    """It keeps an identifier and a queue of events in the user's cache folder, unless it is off."""
    env = {name: value for name, value in os.environ.items()
           if name not in ('CI', 'ORT_DISABLE_TELEMETRY', 'ORT_RUNNING_UNIT_TESTS')}
    env |= {'HOME': str(tmp_path), 'XDG_CACHE_HOME': str(tmp_path / 'cache')}
    script = 'import numpy; from jax_diffse.metrics import dnsmos; print(dnsmos.score(numpy.ones(80000) / 9, 16000))'
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, env=env, capture_output=True, text=True)
    assert 'dnsmos_ovrl' in done.stdout and 'nan' not in done.stdout and done.stderr == ''
    assert not [path for path in tmp_path.rglob('*') if path.name in ('Microsoft', 'deviceid', 'onnxruntime.db')]
