"""`jax-diffse score` without its command line, and `jax_diffse.score`."""

import csv
import logging
import unicodedata

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import jax_diffse
from jax_diffse import files
from jax_diffse.errors import UserError
from jax_diffse.evaluation.score import ScoreOptions, score_folders
from jax_diffse.metrics import DEFAULT
from jax_diffse.metrics import score as score_pair
from tests.evaluation.systems import RATE, folders, noise, speech, write
from tests.evaluation.test_evaluate import strict_json
from tests.metrics import rater

pytestmark = pytest.mark.usefixtures('drawn_once')
METRICS = ('si_sdr', 'llr')


def run(root, systems, noisy=None, clean='clean', output='report', **options):
    return score_folders(clean and root / clean, systems, root / output, noisy,
                         ScoreOptions(**{'metrics': METRICS, 'workers': 0, **options}))


def table(folder):
    """scores.csv: (id, stage) -> row."""
    with (folder / 'scores.csv').open(newline='') as file:
        return {(row['id'], row['stage']): row for row in csv.DictReader(file)}


def test_every_file_of_every_system_is_scored(tmp_path):
    ids = ('a', 'größe', 'sub/b')
    found = folders(tmp_path, ids, noisy=1.0, half=0.5, double=2.0)
    noisy = found.pop('noisy')
    summary = run(tmp_path, found, noisy)
    rows = table(tmp_path / 'report')
    assert list(rows) == [(name, stage) for name in ids for stage in ('noisy', 'half', 'double')]
    for i, name in enumerate(ids):
        for stage, gain in (('noisy', 1.0), ('half', 0.5), ('double', 2.0)):
            signals = [x.astype(np.float32) for x in (speech(i), speech(i) + gain * noise(i))]
            expected = score_pair(*signals, RATE, METRICS).values
            assert_allclose([float(rows[name, stage][m]) for m in METRICS], [expected[m] for m in METRICS])
    stored = strict_json(tmp_path / 'report' / 'summary.json')
    assert stored['stages'] == summary['stages'] == ['noisy', 'half', 'double'] and stored['failures'] == []
    entry = stored['statistics']['half']['si_sdr']['against']['noisy']
    change = [float(rows[name, 'half']['si_sdr']) - float(rows[name, 'noisy']['si_sdr']) for name in ids]
    ends = stats.bootstrap((change,), np.mean, n_resamples=5000, method='percentile', batch=500,
                           rng=np.random.default_rng(0)).confidence_interval
    assert_allclose([entry['difference'], entry['low'], entry['high']], [np.mean(change), *ends])
    worse = {stage: stored['statistics'][stage]['si_sdr']['against']['noisy']['worse'] for stage in ('half', 'double')}
    assert worse == {'half': 0, 'double': 3}
    page = (tmp_path / 'report' / 'index.html').read_text()
    assert all(f'aria-label="a, {name}"' in page for name in ('clean', 'noisy', 'half', 'double'))
    assert 'double − half' in page and 'si_sdr of every system' in page


def test_a_system_may_lack_files(tmp_path, capsys):
    found = folders(tmp_path, ('a', 'b', 'c'), noisy=1.0, full=0.5)
    folders(tmp_path, ('a',), part=0.1)
    write(tmp_path / 'part' / 'more.wav', speech(0))
    write(tmp_path / 'clean' / 'nobody.wav', speech(7))
    summary = run(tmp_path, {'full': found['full'], 'part': str(tmp_path / 'part')}, found['noisy'], sort='si_sdr')
    printed = capsys.readouterr().out
    assert 'not scored, as no system has a file of the name: 1 file: nobody' in printed
    assert summary['not_scored'] == ['nobody']
    assert '1 file not scored, as no system' in (tmp_path / 'report' / 'index.html').read_text()
    assert 'part: 1 of 3 files; lacks b, c; not used, as they are named as no utterance: more' in printed
    assert 'compare systems by their paired differences' in printed
    assert summary['files'] == 3 and summary['failures'] == []
    assert summary['systems']['part']['lacking'] == ['b', 'c'] and summary['systems']['part']['unused'] == ['more']
    entry = summary['statistics']['part']['si_sdr']
    assert entry['files'] == 1 and {name: against['paired'] for name, against in entry['against'].items()} == {
        'noisy': 1, 'full': 1}
    assert list(summary['statistics']) == ['part', 'full', 'noisy']  # by SI-SDR
    assert summary['groups']['shared']['every system']['files'] == 1
    assert table(tmp_path / 'report')['b', 'part']['reasons'] == 'si_sdr: no file; llr: no file'
    text = (tmp_path / 'report' / 'summary.md').read_text()
    assert '## By files of' in text and '| every system | part ' in text


def test_offsets_and_lengths_are_reported_and_removed(tmp_path):
    found = folders(tmp_path, same=0.5)
    for i, name in enumerate('abc'):
        late = np.concatenate([np.zeros(80), speech(i) + 0.5 * noise(i)])
        write(tmp_path / 'late' / f'{name}.wav', late[:8000 + 40 * i])
    systems = found | {'late': str(tmp_path / 'late')}
    kept = run(tmp_path, systems)
    removed = run(tmp_path, systems, align=True)
    assert kept['systems']['late']['offset'] == removed['systems']['late']['offset'] == dict.fromkeys('abc', 80)
    assert kept['systems']['late']['excess'] == {'b': 40, 'c': 80} and not kept['systems']['same']['offset']
    means = [summary['statistics'][name]['si_sdr']['mean'] for summary in (kept, removed) for name in ('late', 'same')]
    assert means[0] < 0 < means[1] and means[1] == means[3]
    assert_allclose(means[2], means[3], atol=0.3)  # without the last 80 samples of two files
    page = (tmp_path / 'report' / 'index.html').read_text()
    assert 'Offsets were removed before scoring' in page and '3 files<span class="count">+80</span>' in page


def test_bad_files_are_nan_with_a_reason(tmp_path, capsys):
    found = folders(tmp_path, ('a', 'b', 'c', 'd', 'e', 'f'), noisy=1.0)
    bad = tmp_path / 'bad'
    write(bad / 'a.wav', np.zeros(8000))
    write(bad / 'b.wav', np.full(8000, np.nan))
    (bad / 'c.wav').write_text('once upon a time')
    (bad / 'd.flac').touch()
    write(bad / 'e.wav', speech(4)[:2000])
    write(bad / 'f.wav', speech(5))
    summary = run(tmp_path, {'bad': str(bad)}, found['noisy'], metrics=('si_sdr',))
    reasons = {failure['id']: failure['reason'] for failure in summary['failures']}
    for name, reason in zip('abcdef', ('degraded signal is all zero', 'NaN or infinite', 'not readable as audio',
                                       'the file is empty', 'the lengths differ by 0.38 s', 'inf'), strict=True):
        assert reason in reasons[name]
    assert summary['statistics']['bad']['si_sdr']['files'] == 0 and 'n/a: bad, 1 file (d): the file is empty' in (
        capsys.readouterr().out.replace('.flac', ''))


def test_broken_clean_speech_concerns_its_file_alone(tmp_path):
    found = folders(tmp_path, mine=0.5)
    (tmp_path / 'clean' / 'b.wav').write_text('once upon a time')
    summary = run(tmp_path, found)
    assert summary['statistics']['mine']['llr']['files'] == 2
    assert {failure['id']: failure['reason'] for failure in summary['failures']} == {
        'b': 'the clean speech: not readable as audio (Format not recognised)'}


def test_one_system_without_noisy_files(tmp_path):
    summary = run(tmp_path, folders(tmp_path, mine=0.5))
    assert summary['stages'] == ['mine'] and summary['statistics']['mine']['si_sdr']['against'] == {}
    assert 'Paired differences' not in (tmp_path / 'report' / 'index.html').read_text()
    assert 'difference' not in (tmp_path / 'report' / 'summary.md').read_text().split('Arrows')[0]


def test_without_clean_speech_only_what_needs_none_is_computed(tmp_path, monkeypatch):
    rater.install(monkeypatch)
    found = folders(tmp_path, noisy=1.0, mine=0.5)
    write(tmp_path / 'mine' / 'd.wav', speech(3))
    default = run(tmp_path, {'mine': found['mine']}, found['noisy'], clean=None, metrics=None)
    assert default['metrics'] == [f'nisqa_v2_{part}' for part in ('mos', 'noi', 'dis', 'col', 'loud')]
    assert default['stages'] == ['noisy', 'mine'] and default['files'] == 3
    alone = run(tmp_path, {'mine': found['mine'], 'too': found['noisy']}, clean=None, metrics=('nisqa_v2_mos',))
    assert alone['files'] == 4 and alone['systems']['too']['lacking'] == ['d']
    values = [np.mean(np.abs((speech(i) + 0.5 * noise(i) * (i < 3)).astype(np.float32))) for i in range(4)]
    assert_allclose(alone['statistics']['mine']['nisqa_v2_mos']['mean'], np.mean(values), rtol=1e-6)
    assert '0 dB: the loudest point</span>' in (tmp_path / 'report' / 'index.html').read_text()


@pytest.mark.parametrize(('options', 'message'), [
    ({'metrics': ('stoi',)}, "'stoi' compares with clean speech: give --clean, or name only some of: .*nisqa_v2_mos"),
    ({'metrics': None}, 'get nisqa_v2$'), ({'metrics': ('nisqa_v2_mos',)}, '^get nisqa_v2$'),
    ({'metrics': ('nisqa_tts_mos',), 'align': True}, '--align needs --clean')])
def test_what_needs_clean_speech_is_refused_without(tmp_path, monkeypatch, options, message):
    rater.install(monkeypatch, there=('nisqa_tts',))
    with pytest.raises(UserError, match=message):
        run(tmp_path, folders(tmp_path, mine=0.5), clean=None, **options)
    assert not (tmp_path / 'report').exists()


def test_rates_are_brought_together_on_request(tmp_path):
    t = np.arange(RATE) / RATE
    tones = np.sin(2 * np.pi * 440 * t) * np.sin(2 * np.pi * 3 * t)
    fast = np.arange(3 * RATE) / (3 * RATE)
    write(tmp_path / 'clean' / 'a.wav', tones)
    write(tmp_path / 'mine' / 'a.wav', np.sin(2 * np.pi * 440 * fast) * np.sin(2 * np.pi * 3 * fast), 3 * RATE)
    mine = {'mine': str(tmp_path / 'mine')}
    with pytest.raises(UserError, match=r'mine/a.wav: 48000 Hz, expected 16000 Hz; --resample'):
        run(tmp_path, mine)
    summary = run(tmp_path, mine, resample=True, metrics=('si_sdr',))
    assert summary['sample_rate'] == RATE and summary['statistics']['mine']['si_sdr']['mean'] > 40
    with pytest.raises(UserError, match='files of 48000 Hz: metrics that compare .* --sample-rate 16000 resamples all'):
        run(tmp_path, {'mine': str(tmp_path / 'clean')}, clean='mine')
    both = run(tmp_path, {'mine': str(tmp_path / 'clean')}, clean='mine', sample_rate=8000, metrics=('si_sdr',))
    assert both['sample_rate'] == 8000 and both['statistics']['mine']['si_sdr']['mean'] > 40


@pytest.mark.parametrize('late', [0, 40, -40])
def test_metrics_that_need_the_noise_get_it(tmp_path, late):
    found = folders(tmp_path, noisy=1.0)
    pairs = [[x.astype(np.float32) for x in (
        speech(i), speech(i) + 0.5 * noise(i) + 0.1 * noise(9), speech(i) + noise(i))] for i in range(3)]
    for name, (_, enhanced, _) in zip('abc', pairs, strict=True):
        write(tmp_path / 'mine' / f'{name}.wav', np.roll(enhanced, late))
    names, mine = ('si_sir', 'si_sdr', 'si_sar'), {'mine': str(tmp_path / 'mine')}
    summary = run(tmp_path, mine, found['noisy'], metrics=names, align=True)
    cut = slice(max(-late, 0), 8000 - max(late, 0))
    expected = [score_pair(clean[cut], enhanced[cut], RATE, names, noisy[cut]).values
                for clean, enhanced, noisy in pairs]
    for name in names:
        assert_allclose(summary['statistics']['mine'][name]['mean'], np.mean([found[name] for found in expected]))
    with pytest.raises(UserError, match="'si_sir' needs the noise: give --noisy"):
        run(tmp_path, mine, metrics=names)
    clean, enhanced, noisy = pairs[0]
    assert jax_diffse.score(clean, enhanced, RATE, metrics=names, noisy=noisy) == score_pair(
        clean, enhanced, RATE, names, noisy).values
    assert np.isnan(jax_diffse.score(clean, enhanced, RATE, metrics=names)['si_sar'])


def test_the_noise_is_that_at_the_time_of_the_clean_speech(tmp_path):
    """With offsets removed, late noisy files give the ratios of noisy files that are in time."""
    found = folders(tmp_path, noisy=1.0, mine=0.5)
    for i, name in enumerate('abc'):
        write(tmp_path / 'mine' / f'{name}.wav', speech(i) + 0.5 * noise(i) + 0.1 * noise(9))
        write(tmp_path / 'late' / f'{name}.wav', np.roll(speech(i) + noise(i), 8))
    means = [run(tmp_path, {'mine': found['mine']}, noisy, metrics=('si_sir', 'si_sar'), align=True)['statistics']
             for noisy in (found['noisy'], tmp_path / 'late')]
    for name in ('si_sir', 'si_sar'):
        assert_allclose(means[1]['mine'][name]['mean'], means[0]['mine'][name]['mean'], atol=0.2)
    assert means[1]['noisy']['si_sar']['files'] == 0  # noisy speech has no artefacts


def test_a_rerun_computes_only_what_is_missing(tmp_path, monkeypatch):
    found = folders(tmp_path, mine=0.5, theirs=2.0)
    first = run(tmp_path, found)
    monkeypatch.setattr('jax_diffse.metrics.scoring.score', lambda *arguments: pytest.fail('scored again'))
    again = run(tmp_path, {'renamed': found['mine'], 'theirs': found['theirs']})
    assert again['statistics']['renamed']['llr']['mean'] == first['statistics']['mine']['llr']['mean']
    write(tmp_path / 'mine' / 'b.wav', speech(1) + 0.1 * noise(1))  # another content under the same name
    with pytest.raises(pytest.fail.Exception, match='scored again'):
        run(tmp_path, found)


def test_folders_and_reports_may_lie_in_a_bucket(tmp_path, bucket):
    found = folders(tmp_path, ('a', unicodedata.normalize('NFC', 'ü')), mine=0.5)
    local = run(tmp_path, found)
    for path in [*(tmp_path / 'clean').iterdir(), *(tmp_path / 'mine').iterdir()]:
        files.upload(path, f'{bucket}/{path.parent.name}/{path.name}')
    there = score_folders(f'{bucket}/clean', {'mine': f'{bucket}/mine'}, f'{bucket}/report',
                          options=ScoreOptions(metrics=METRICS, workers=0))
    assert there['statistics'] == local['statistics'] and (files.path(bucket) / 'report' / 'index.html').exists()


# ------------------------------------------------------------------------------------------------------------- arrays


def test_one_pair_of_arrays():
    clean, noisy = speech(0), speech(0) + noise(0)
    assert jax_diffse.score(clean, noisy, RATE) == pytest.approx(score_pair(clean, noisy, RATE, DEFAULT).values,
                                                                 nan_ok=True)
    found = jax_diffse.score(clean, noisy, RATE, metrics=('si_sdr',))
    assert list(found) == ['si_sdr'] and isinstance(found['si_sdr'], float)


def test_a_list_of_arrays_in_order_with_reasons_in_the_log(caplog):
    clean = [speech(0), np.zeros(3000), speech(2, 5000)]
    noisy = [speech(0) + noise(0), noise(1, 3000), speech(2, 5000) + 0.1 * noise(2, 5000)]
    with caplog.at_level(logging.WARNING, 'jax_diffse'):
        found = jax_diffse.score(clean, noisy, RATE, metrics=METRICS, workers=2)
    assert caplog.messages == [f'{m} of signal 1 is NaN: the clean signal is all zero' for m in METRICS]
    for metric in METRICS:
        expected = [score_pair(*pair, RATE, METRICS).values[metric] for pair in zip(clean, noisy)]
        assert_allclose(found[metric], expected)


def test_arrays_without_clean_speech(monkeypatch):
    rater.install(monkeypatch, there=('nisqa_v2',))
    found = jax_diffse.score(None, [speech(0), speech(1)], 44_100)
    assert list(found) == [f'nisqa_v2_{part}' for part in ('mos', 'noi', 'dis', 'col', 'loud')]
    assert_allclose(found['nisqa_v2_mos'], [np.mean(np.abs(speech(i))) for i in range(2)])


@pytest.mark.parametrize(('clean', 'enhanced', 'rate', 'metrics', 'message'), [
    (speech(0), [speech(0)], RATE, None, 'expected two arrays'),
    ([speech(0)] * 2, [speech(0)], RATE, None, 'clean has 2 signals and enhanced 1'),
    (speech(0)[None], speech(0)[None], RATE, None, r'enhanced: an array of float64 of the shape \[1, 8000\]'),
    (speech(0), speech(0).astype(complex), RATE, None, 'an array of complex128'),
    (speech(0), speech(0), 44_100, None, 'defined at 8000 and 16000 Hz, not at 44100'),
    (speech(0), speech(0), RATE, ('sisdr',), "metric 'sisdr' does not exist"),
    (None, speech(0), RATE, ('stoi',), "'stoi' compares with clean speech"), (speech(0), [], RATE, None, 'expected')])
def test_mistakes_in_arrays_are_named(clean, enhanced, rate, metrics, message):
    with pytest.raises(UserError, match=message):
        jax_diffse.score(clean, enhanced, rate, metrics=metrics)
