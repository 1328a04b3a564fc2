import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jax_diffse.errors import UserError
from jax_diffse.evaluation.results import Results
from jax_diffse.metrics import DEFAULT, METRICS, Pool, Scores, dnsmos, nisqa, score, scoring
from tests.metrics import rater

RATED, NATURALNESS = 'nisqa_v2_mos', 'nisqa_tts_mos'


@pytest.fixture
def calls(monkeypatch):
    """Replaces NISQA by simple metrics, see `rater`, and returns the record of their calls."""
    return rater.install(monkeypatch)


def noise(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [0.1 * rng.standard_normal(length) for length in lengths]


def scored(infos, clean, stages, sample_rate, names, workers=0):
    """The results of files at every stage, including the clean speech."""
    with Pool(workers) as pool:
        rows = scoring.score(clean, {'clean': clean, **stages}, sample_rate, names, pool)
    if not rows['clean'][0].values:
        del rows['clean']
    return Results.of(infos, tuple(stages), names, rows)


def test_metrics_keep_the_given_order(calls):
    clean, noisy = noise(4000, 6000), noise(4000, 6000, seed=1)
    stages = {'noisy': noisy, 'enhanced': [0.5 * (c + n) for c, n in zip(clean, noisy, strict=True)]}
    infos, names = [{'id': 'a'}, {'id': 'b'}], ('ssnr', RATED, 'si_sdr', NATURALNESS)
    results = scored(infos, clean, stages, 16000, names, workers=0)
    assert (results.infos, results.stages, results.metrics) == (infos, ('noisy', 'enhanced'), names)
    for i in range(2):
        for s, stage in enumerate(stages):
            against = score(clean[i], stages[stage][i], 16000, ('ssnr', 'si_sdr')).values
            loudness = np.sum(np.abs(stages[stage][i])) / len(stages[stage][i])
            assert_allclose(results.values[i, s], [against['ssnr'], loudness, against['si_sdr'], loudness])
        assert_allclose(list(results.clean[i].values.values()), 2 * [np.sum(np.abs(clean[i])) / len(clean[i])])
        assert list(results.clean[i].values) == [RATED, NATURALNESS]
    assert calls == [(2, 16000, [RATED, NATURALNESS])] * 3  # clean, noisy, enhanced: all their files in one


def test_nisqa_does_not_run_unless_one_of_its_metrics_is_named(calls):
    results = scored([{'id': 'a'}], noise(4000), {'noisy': noise(4000, seed=1)}, 8000, ('si_sdr',), workers=0)
    assert not calls and not results.clean and results.failures() == []


def test_files_that_cannot_be_rated_are_nan_with_a_reason(calls):
    clean, noisy = noise(4000, 900), noise(4000, 900, seed=1)
    results = scored([{'id': 'a'}, {'id': 'b'}], clean, {'noisy': noisy}, 8000, (RATED, 'si_sdr'), workers=0)
    assert_array_equal(np.isnan(results.values), [[[False, False]], [[True, False]]])
    assert results.failures() == [{'id': 'b', 'stage': stage, 'metric': RATED, 'reason': 'too short'}
                                  for stage in ('clean', 'noisy')]


def test_a_model_that_breaks_does_not_stop_the_run(monkeypatch):
    def broken(waveforms, sample_rate, names):
        raise UserError('weights.npz: damaged')

    monkeypatch.setattr(nisqa, 'score_all', broken)
    results = scored([{'id': 'a'}], noise(4000), {'noisy': noise(4000, seed=1)}, 16000, ('si_sdr', RATED), 0)
    assert_array_equal(np.isnan(results.values), [[[False, True]]])
    assert [(f['stage'], f['reason']) for f in results.failures()] == [
        (row, 'UserError: weights.npz: damaged') for row in ('clean', 'noisy')]


def test_metrics_that_need_no_reference_take_any_rate(calls):
    scoring.check((RATED,), 48000)
    results = scored([{'id': 'a'}], noise(4000), {'noisy': noise(4000)}, 48000, (RATED,))
    assert calls == [(1, 48000, [RATED])] * 2 and np.isfinite(results.values).all()
    with pytest.raises(UserError, match='not at 48000'):
        scoring.check((RATED, 'si_sdr'), 48000)


@pytest.mark.parametrize(('names', 'there', 'chosen', 'printed'), [
    (None, {'nisqa_v2', 'nisqa_tts'}, (*DEFAULT, *nisqa.DEFAULT), [dnsmos.how_to_get()]),
    (None, {'nisqa_tts'}, DEFAULT, [dnsmos.how_to_get(), 'get nisqa_v2']),
    (('llr', RATED, 'nisqa_v2_noi', NATURALNESS), {'nisqa_tts'}, ('llr', RATED, 'nisqa_v2_noi', NATURALNESS),
     ['get nisqa_v2']),
    ((RATED, NATURALNESS), {'nisqa_v2'}, (RATED, NATURALNESS), ['get nisqa_tts']),
    (('llr',), set(), ('llr',), [])])
def test_the_choice_of_metrics_and_messages_on_missing_weights(monkeypatch, capsys, names, there, chosen, printed):
    rater.install(monkeypatch, there)
    scoring.check(names, 16000)
    assert scoring.choose(names) == chosen
    assert capsys.readouterr().out.splitlines() == printed


def test_a_choice_of_only_metrics_without_weights_is_refused(monkeypatch):
    rater.install(monkeypatch, there=())
    with pytest.raises(UserError) as error:
        scoring.check((RATED, 'nisqa_v2_col', NATURALNESS), 16000)
    assert str(error.value) == 'get nisqa_v2; get nisqa_tts'


@pytest.mark.parametrize(('names', 'start'), [
    (('pesq_wb', 'nisqa_mos'), "metric 'nisqa_mos' does not exist, "), ((), 'no metric named, ')])
def test_an_unknown_metric_lists_all_metrics(names, start):
    with pytest.raises(UserError) as error:
        scoring.check(names, 16000)
    message, _, known = str(error.value).partition('expected some of: ')
    assert message == start and known.split(', ') == list(METRICS)


def test_metrics_of_networks_are_scored_side_by_side(calls, monkeypatch):
    def loudness(signal, sample_rate, names):
        return Scores(dict.fromkeys(names, float(np.max(signal))), {})

    monkeypatch.setattr(dnsmos, 'score', loudness)
    clean, noisy = noise(4000, 6000), noise(4000, 6000, seed=1)
    names = ('dnsmos_ovrl', 'sdr', RATED, 'dnsmos_sig')
    results = scored([{'id': 'a'}, {'id': 'b'}], clean, {'noisy': noisy}, 16000, names)
    for i in range(2):
        sdr = 10 * np.log10(np.sum(clean[i] ** 2) / np.sum((noisy[i] - clean[i]) ** 2))
        assert_allclose(results.values[i, 0], [np.max(noisy[i]), sdr, np.mean(np.abs(noisy[i])), np.max(noisy[i])])
        assert list(results.clean[i].values) == ['dnsmos_ovrl', RATED, 'dnsmos_sig']
        assert_allclose(list(results.clean[i].values.values()), [np.max(clean[i]), np.mean(np.abs(clean[i])),
                                                                 np.max(clean[i])])


def test_metrics_that_need_the_noise_get_the_difference_of_noisy_and_clean():
    """With the output equal to speech plus a share of the noise plus something else, all orthogonal."""
    speech, interference, other = np.eye(3, 3000)
    clean, noisy, enhanced = [speech], [speech + 2 * interference], [3 * speech + 0.3 * interference + 0.03 * other]
    for given, expected in ((noisy, [20, 40]), (None, [np.nan, np.nan])):
        with Pool(1) as pool:
            rows = scoring.score(clean, {'enhanced': enhanced}, 16000, ('si_sir', 'si_sar'), pool, given)
        assert_allclose(list(rows['enhanced'][0].values.values()), expected)
    assert rows['enhanced'][0].reasons == dict.fromkeys(('si_sir', 'si_sar'), 'needs the noisy signal')
