import jax
import numpy as np
import pytest

from jax_diffse.evaluation import scorer as module
from jax_diffse.evaluation.results import NO_FILE
from jax_diffse.evaluation.scorer import Scorer, by_row
from jax_diffse.evaluation.signals import Signal
from jax_diffse.metrics import Pool, Scores, score, scoring
from tests.evaluation.systems import RATE, noise, speech
from tests.metrics import rater

METRICS = ('si_sdr', 'nisqa_v2_mos', 'llr')


def load(i):
    clean = speech(i).astype(np.float32)
    rows = {'clean': Signal(clean), 'noisy': Signal((clean + noise(i)).astype(np.float32), clean, offset=i, excess=-i)}
    return rows | ({'other': Signal(0.5 * clean, None, 'too long')} if i == 1 else {}) | (
        {'broken': Signal(None, None, 'no audio')} if i == 2 else {})


@pytest.fixture
def scored(monkeypatch):
    """Records the rows and numbers of signals that are scored and not taken from the cache."""
    calls, original = [], scoring.score

    def spy(clean, rows, *arguments):
        calls.extend((row, len(signals)) for row, signals in rows.items())
        return original(clean, rows, *arguments)

    monkeypatch.setattr(scoring, 'score', spy)
    return calls


def run(folder, count=3, metrics=METRICS):
    with Pool(0) as pool:
        return Scorer(RATE, metrics, folder, pool).score(count, load)


@pytest.mark.parametrize('batch', [1, 2, 32])
def test_every_signal_is_scored_once_and_then_taken_from_the_cache(tmp_path, monkeypatch, scored, batch):
    rater.install(monkeypatch)
    monkeypatch.setattr(module, 'BATCH', batch)
    first = run(tmp_path)
    assert sum(count for _, count in scored) == 7
    for i, rows in enumerate(first):
        clean = speech(i).astype(np.float32)
        noisy = (clean + noise(i)).astype(np.float32)
        expected = score(clean, noisy, RATE, ('si_sdr', 'llr')).values | {'nisqa_v2_mos': float(np.mean(np.abs(noisy)))}
        assert rows['noisy'].scores.values == {name: expected[name] for name in METRICS}
        assert rows['clean'].scores.values == {'nisqa_v2_mos': float(np.mean(np.abs(clean)))}
        assert (rows['noisy'].offset, rows['noisy'].excess) == (i, -i)
    scored.clear()
    again = run(tmp_path)
    assert not scored and str(again) == str(first)
    assert len(run(tmp_path, 4)) == 4 and sorted(scored) == [('clean', 1), ('signal', 1)]


def test_what_cannot_be_compared_is_rated_nevertheless(tmp_path, monkeypatch):
    rater.install(monkeypatch)
    found = run(tmp_path)
    other, broken = found[1]['other'].scores, found[2]['broken'].scores
    assert list(other.values) == list(METRICS) and other.reasons == dict.fromkeys(('si_sdr', 'llr'), 'too long')
    assert other.values['nisqa_v2_mos'] == np.mean(np.abs(0.5 * speech(1).astype(np.float32)))
    assert np.isnan(list(broken.values.values())).all() and broken.reasons == dict.fromkeys(METRICS, 'no audio')


def test_rows_of_all_files(tmp_path, monkeypatch):
    rater.install(monkeypatch)
    rows = by_row(run(tmp_path), METRICS)
    assert list(rows) == ['clean', 'noisy', 'other', 'broken'] and {len(row) for row in rows.values()} == {3}
    assert rows['other'][0].reasons == dict.fromkeys(METRICS, NO_FILE) and not rows['noisy'][0].reasons


def test_weights_that_were_missing_are_asked_for_again(tmp_path, monkeypatch):
    reason = {'nisqa_v2_mos': 'get nisqa_v2'}
    rater.install(monkeypatch, there=())
    monkeypatch.setattr(rater, '_rate', lambda waveform, names, there: Scores.undefined(names, 'get nisqa_v2'))
    assert run(tmp_path)[0]['noisy'].scores.reasons == reason
    monkeypatch.undo()
    rater.install(monkeypatch)
    assert not run(tmp_path)[0]['noisy'].scores.reasons


def test_processes_share_the_signals(tmp_path, monkeypatch, scored):
    """The first process scores its share and waits for that of the second, which has been there before."""
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    monkeypatch.setattr(Scorer, '_wait_for_others', lambda *arguments: None)
    run(tmp_path, metrics=('si_sdr',))
    second = sum(count for _, count in scored)
    scored.clear()
    monkeypatch.undo()
    alone = run(tmp_path / 'alone', metrics=('si_sdr',))
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(jax, 'process_index', lambda: 0)
    assert str(run(tmp_path, metrics=('si_sdr',))) == str(alone) and 0 < second < 4
