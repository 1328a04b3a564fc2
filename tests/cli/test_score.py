"""`jax-diffse score`, and `jax-diffse evaluate --also`."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from jax_diffse import cli, runs
from jax_diffse.errors import UserError
from jax_diffse.evaluation.evaluator import Evaluator
from tests import toys
from tests.evaluation.systems import RATE, folders, noise, speech, write
from tests.evaluation.test_evaluate import strict_json, toy_run

pytestmark = pytest.mark.usefixtures('drawn_once')


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Clean and noisy files and those of two systems, in the current folder."""
    folders(tmp_path, noisy=1.0, half=0.5, double=2.0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(*arguments):
    return cli.run(['score', '--output', 'report', '--metrics', 'llr,si_sdr', '--workers', '0', *arguments])


def test_every_option_reaches_the_report(given, capsys):
    write(given / 'late' / 'a.flac', np.stack([np.zeros(24000), np.repeat(np.roll(speech(0), 40), 3)], 1), 3 * RATE)
    assert not score('--clean', 'clean', '--noisy', 'noisy', '--sort', 'llr', '--align', '--resample', '--channel', '2',
                     '--tolerance', '0.1', '--cache', 'kept', 'double=double', 'late=late', 'half=half')
    summary = strict_json(given / 'report' / 'summary.json')
    assert summary['stages'] == ['noisy', 'double', 'late', 'half'] and summary['metrics'] == ['llr', 'si_sdr']
    means = {stage: entries['llr']['mean'] for stage, entries in summary['statistics'].items()}
    assert list(means.values()) == sorted(means.values()) and summary['sort'] == 'llr'
    late = summary['systems']['late']
    assert late['offset'] == {'a': 40} and late['lacking'] == ['b', 'c'] and late['tolerance'] == 0.1
    assert (given / 'kept').is_dir() and not (given / 'report' / 'cache').exists()
    printed = capsys.readouterr().out
    table = printed[printed.index('| system'):].splitlines()
    assert [row.split()[1] for row in table[2:6]] == list(means)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--clean', 'clean', 'half'], 'half: expected NAME=DIR'),
    (['--clean', 'clean', 'noisy=half'], "'noisy' is the name of another column"),
    (['--clean', 'clean', 'a=half', '--sort', 'stoi'], '--sort=stoi: expected one of the metrics .* computed: llr'),
    (['--clean', 'clean', 'a=half', '--workers', '-1'], 'workers is -1'),
    (['a=half'], "metric 'llr' compares with clean speech: give --clean"),
    (['--clean', 'clean', 'a=half', '--sample-rate', '1'], 'sample_rate=1: expected a rate from 1000')])
def test_a_mistake_leaves_nothing_behind(given, arguments, message):
    with pytest.raises(UserError, match=message):
        score(*arguments)
    assert not (given / 'report').exists()


def evaluate(monkeypatch, *arguments, system=None):
    monkeypatch.setattr(runs, 'load', lambda workdir, step='best', model=None: toy_run(system))
    return cli.run(['evaluate', '--workdir', 'toy', '--output', 'report', '--clean', 'clean', '--noisy', 'noisy',
                    '--metrics', 'si_sdr', '--workers', '0', *arguments])


def test_other_systems_stand_beside_a_run(given, monkeypatch, capsys):
    (given / 'half' / 'b.wav').unlink()
    evaluate(monkeypatch, '--also', 'half=half', '--also', 'noisier=double', '--save-audio')
    summary = strict_json(given / 'report' / 'summary.json')
    assert summary['stages'] == ['noisy', 'half', 'noisier', 'enhanced']
    assert 'half: 2 of 3 files; lacks b' in capsys.readouterr().out
    entry = summary['statistics']['enhanced']['si_sdr']['against']
    assert {name: against['paired'] for name, against in entry.items()} == {'noisy': 3, 'half': 2, 'noisier': 3}
    assert summary['systems']['half']['lacking'] == ['b'] and summary['failures'] == []
    assert [path.name for path in (given / 'report' / 'audio').iterdir()] == ['enhanced']
    page = (given / 'report' / 'index.html').read_text()
    assert 'Systems given as files' in page and 'aria-label="a, noisier"' in page
    alone = score('--clean', 'clean', '--noisy', 'noisy', '--metrics', 'si_sdr', 'half=half', '--output', 'alone')
    assert not alone
    found = strict_json(given / 'alone' / 'summary.json')['statistics']['half']['si_sdr']
    assert_allclose(found['mean'], summary['statistics']['half']['si_sdr']['mean'], rtol=1e-12)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--also', 'half'], '--also half: expected NAME=DIR'), (['--also', 'x=gone'], 'gone: no such directory'),
    (['--also', 'enhanced=half'], "--also enhanced=...: 'enhanced' is a stage of"),
    (['--also', 'half=half', '--seeds', '0,1'], '--also: is for one setting')])
def test_other_systems_that_do_not_fit_are_refused(given, monkeypatch, arguments, message):
    with pytest.raises(UserError, match=message):
        evaluate(monkeypatch, *arguments)


@pytest.mark.parametrize('cached', [False, True])
def test_a_name_of_a_stage_is_refused_before_any_output_is_scored(given, monkeypatch, cached):
    if cached:
        evaluate(monkeypatch)
    monkeypatch.setattr(Evaluator, '_score', lambda *arguments: pytest.fail('scored'))
    with pytest.raises(UserError, match="--also enhanced=...: 'enhanced' is a stage of"):
        evaluate(monkeypatch, '--also', 'enhanced=half')


def test_other_systems_of_another_rate_are_resampled_on_request(given, monkeypatch):
    write(given / 'fast' / 'a.wav', np.repeat(speech(0) + 0.1 * noise(0), 2), 2 * RATE)
    with pytest.raises(UserError, match='fast/a.wav: 32000 Hz, expected 16000 Hz; --resample'):
        evaluate(monkeypatch, '--also', 'fast=fast')
    evaluate(monkeypatch, '--also', 'fast=fast', '--resample', system=toys.Staged())
    summary = strict_json(given / 'report' / 'summary.json')
    assert summary['stages'] == ['noisy', 'fast', 'half', 'filtered', 'drawn']
    assert summary['statistics']['fast']['si_sdr']['files'] == 1
