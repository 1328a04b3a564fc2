import csv
import dataclasses
import json
import math
import pathlib
import re

import numpy as np
import pytest
import soundfile
from ml_collections import ConfigDict
from numpy.testing import assert_allclose

from jax_diffse import audio
from jax_diffse.errors import UserError
from jax_diffse.evaluation.utterances import file_name
from jax_diffse.inference.enhancer import Enhancer
from jax_diffse.metrics import DEFAULT as COMPARING
from jax_diffse.metrics import score
from tests import toys
from tests.evaluation.spread import evaluate
from tests.metrics import rater

pytestmark = pytest.mark.usefixtures('drawn_once')
ROOT = pathlib.Path(__file__).resolve().parents[2]
METRICS = ('si_sdr', 'llr')
NAN = math.nan


class ToySource:
    """Modulated noise in white noise; the utterances in `silent` are all zero."""

    sample_rate = 16000

    def __init__(self, ids, silent=(), lengths=(4000, 6000)):
        self.ids, self.silent, self.lengths = ids, silent, lengths

    def __len__(self):
        return len(self.ids)

    def info(self, i):
        return {'id': self.ids[i], 'num_samples': self.lengths[i % len(self.lengths)], 'snr_db': (5.0, -5.0)[i % 2],
                'noise': 'white'}

    def read(self, i):
        rng = np.random.default_rng(i)
        length = self.lengths[i % len(self.lengths)]
        clean = 0.1 * np.sin(np.arange(length) / 300) * np.convolve(rng.standard_normal(length), np.ones(8) / 8, 'same')
        noisy = clean + 0.02 * rng.standard_normal(length)
        keep = self.ids[i] not in self.silent
        return (clean * keep).astype(np.float32), (noisy * keep).astype(np.float32)


def toy_run(system=None):
    return dataclasses.replace(toys.run(system or toys.LowPass()), config=ConfigDict({'model': {'levels': (0.0, NAN)}}))


def run_toy(tmp_path, source, **options):
    return evaluate(toy_run(), source, tmp_path / 'out', **{'metrics': METRICS, 'workers': 0, 'data': 'toy', **options})


def strict_json(path):
    """Parses standard JSON, without NaN and Infinity."""
    def refuse(name):
        raise AssertionError(f'{name} is not JSON')

    return json.loads(path.read_text(), parse_constant=refuse)


def test_scores_are_those_of_the_enhancer_and_round_trip(tmp_path):
    source = ToySource(['a,"1"', 'b\nc', 'd'])
    summary = run_toy(tmp_path, source)
    with (tmp_path / 'out' / 'scores.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['id'], row['stage']) for row in rows] == [
        (name, stage) for name in source.ids for stage in ('noisy', 'enhanced')]
    for i in range(3):
        clean, noisy = source.read(i)
        enhanced = Enhancer(toy_run())(noisy, 16000, utterance=source.ids[i])
        for row, waveform in zip(rows[2 * i:2 * i + 2], (noisy, enhanced), strict=True):
            expected = score(clean, waveform, 16000, METRICS).values
            assert_allclose([float(row[m]) for m in METRICS], [expected[m] for m in METRICS], rtol=1e-3)
            assert (float(row['snr_db']), row['noise'], row['reasons']) == (source.info(i)['snr_db'], 'white', '')
    of_enhanced = [float(row['llr']) for row in rows if row['stage'] == 'enhanced']
    assert_allclose(summary['statistics']['enhanced']['llr']['mean'], np.mean(of_enhanced), rtol=1e-12)


def test_every_stage_is_scored_shown_and_saved(tmp_path):
    source, run = ToySource(['a', 'b', 'c']), toy_run(toys.Staged())
    stages = ['noisy', 'half', 'filtered', 'drawn']
    summary = evaluate(run, source, tmp_path / 'out', metrics=('si_sdr',), workers=0, save_audio=True)
    assert summary['stages'] == list(summary['statistics']) == stages
    with (tmp_path / 'out' / 'scores.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['id'], row['stage']) for row in rows] == [(name, stage) for name in 'abc' for stage in stages]
    scores = np.array([float(row['si_sdr']) for row in rows]).reshape(3, 4)
    assert_allclose(scores[:, 1], scores[:, 0], atol=1e-3)  # the metric does not see the scale
    change = scores[:, 3] - scores[:, 2]
    entry = strict_json(tmp_path / 'out' / 'summary.json')['statistics']['drawn']['si_sdr']['against']['filtered']
    assert_allclose(entry['difference'], change.mean(), rtol=1e-9)
    assert entry['worse'] == np.sum(change < 0) == 3  # the draw adds noise to speech
    page = (tmp_path / 'out' / 'index.html').read_text()
    assert all(f'aria-label="a, {name}"' in page for name in ('clean', *stages))
    assert sorted(path.name for path in (tmp_path / 'out' / 'audio').iterdir()) == sorted(stages[1:])
    saved = audio.read(tmp_path / 'out' / 'audio' / 'half' / 'b.wav')[0][:, 0]
    assert_allclose(saved, 0.5 * source.read(1)[1], atol=2**-14)


def test_scores_survive_audio_that_cannot_be_saved(tmp_path):
    (tmp_path / 'out' / 'audio' / 'enhanced' / 'b.wav').mkdir(parents=True)  # in the place of a file
    with pytest.raises(UserError, match=r'1 of 3 audio files were not saved \(the report was\): .*b\.wav: cannot be'):
        run_toy(tmp_path, ToySource(['a', 'b', 'c']), save_audio=True)
    assert strict_json(tmp_path / 'out' / 'summary.json')['files'] == 3
    assert {path.name for path in (tmp_path / 'out').iterdir()} >= {'index.html', 'scores.csv', 'summary.md'}
    assert all((tmp_path / 'out' / 'audio' / 'enhanced' / f'{name}.wav').is_file() for name in 'ac')


@pytest.mark.parametrize('name', ['x' * 255, '録音' * 42, 'a' * 300 + '/' + 'b' * 400, 'é/' + '録' * 90, '%?*' * 80])
def test_file_names_fit_into_a_file_system_and_differ(tmp_path, name):
    found = [file_name(name), file_name(name + 'z')]
    assert found[0] != found[1]
    for path in found:
        assert all(len(part.encode()) <= 255 for part in path.split('/')) and path.endswith('.wav')
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b'')


@pytest.mark.parametrize(('utterance', 'expected'), [
    ('p232_001', 'p232_001.wav'), ('a b/größe', 'a b/größe.wav'), ('録音', '録音.wav'), ('c#1', 'c%231.wav'),
    ('../up', 'up.wav'), ('a\nb', 'a%0Ab.wav'), ('', 'unnamed.wav')])
def test_file_names_keep_letters_and_encode_what_is_not_safe(utterance, expected):
    assert file_name(utterance) == expected


def test_a_file_without_scores_is_explained_and_does_not_stop_the_others(tmp_path):
    run_toy(tmp_path, ToySource(['a', 'mute', 'c'], silent=['mute']))
    summary = strict_json(tmp_path / 'out' / 'summary.json')
    assert summary['statistics']['noisy']['si_sdr']['files'] == 2
    assert {(f['id'], f['stage'], f['metric']) for f in summary['failures']} == {
        ('mute', stage, metric) for stage in ('noisy', 'enhanced') for metric in METRICS}
    assert all('zero' in f['reason'] for f in summary['failures'])
    alone = summary['groups']['snr_db']['-5']['statistics']['noisy']['si_sdr']
    assert alone == {'mean': None, 'files': 0, 'against': {}}
    with (tmp_path / 'out' / 'scores.csv').open(newline='') as file:
        mute = [row for row in csv.DictReader(file) if row['id'] == 'mute']
    assert all(math.isnan(float(row['si_sdr'])) and 'si_sdr: ' in row['reasons'] for row in mute)


def test_all_files_without_scores(tmp_path):
    run_toy(tmp_path, ToySource(['mute'], silent=['mute']))
    assert strict_json(tmp_path / 'out' / 'summary.json')['statistics']['enhanced']['llr']['mean'] is None
    assert 'No file has' in (tmp_path / 'out' / 'index.html').read_text()


def test_summary_describes_the_run(tmp_path):
    source = ToySource(['a', 'b'])
    run_toy(tmp_path, source)
    summary = strict_json(tmp_path / 'out' / 'summary.json')
    assert summary['checkpoint'] == {'workdir': 'toy', 'step': 7, 'hash': 'abc', 'history': {}}
    assert summary['config'] == {'model': {'levels': [0.0, None]}}
    assert {'python', 'jax', 'flax', 'numpy', 'jax_diffse'} <= summary['versions'].keys()
    assert (summary['data'], summary['files'], summary['stages']) == ('toy', 2, ['noisy', 'enhanced'])
    assert summary['audio_seconds'] == (4000 + 6000) / 16000
    seconds = summary['seconds']
    assert_allclose(summary['real_time_factor'], seconds['enhancing'] / summary['audio_seconds'])
    assert {'reading', 'enhancing', 'compiling', 'scoring', 'report', 'total'} == seconds.keys()


def test_outputs_are_complete_and_replace_earlier_ones(tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'index.html').write_text('old')
    run_toy(tmp_path, ToySource(['a']))
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        'cache', 'index.html', 'scores.csv', 'summary.json', 'summary.md']
    assert 'old' != (tmp_path / 'out' / 'index.html').read_text()


@pytest.mark.parametrize(('count', 'labels'), [(1, ['Best']), (2, ['Best', 'Worst']), (4, ['Best', 'Median', 'Worst'])])
def test_examples_are_the_best_median_and_worst_file(tmp_path, count, labels):
    run_toy(tmp_path, ToySource([f'{i}' for i in range(count)], lengths=(4000,)), metrics=('si_sdr',))
    found = re.findall('<span class="tag">(.*?)</span> (.*?)</h3>', (tmp_path / 'out' / 'index.html').read_text())
    with (tmp_path / 'out' / 'scores.csv').open(newline='') as file:
        scores = [float(row['si_sdr']) for row in csv.DictReader(file)]
    gains = {str(i): scores[2 * i + 1] - scores[2 * i] for i in range(count)}
    ranked = sorted(gains, key=gains.get, reverse=True)
    assert found == list(zip(labels, dict.fromkeys([ranked[0], ranked[count // 2], ranked[-1]]), strict=True))


def test_limit_is_spread_over_the_source(tmp_path):
    run_toy(tmp_path, ToySource([f'{i}' for i in range(10)]), limit=4)
    text = (tmp_path / 'out' / 'scores.csv').read_text().splitlines()[1:]
    assert [line.split(',')[0] for line in text[::2]] == ['0', '2', '5', '7']


def test_saved_audio_is_what_was_scored_and_stays_in_its_folder(tmp_path):
    ids = ['plain', 'speaker/one', '../../escaped', '/absolute']
    source = ToySource(ids)
    run_toy(tmp_path, source, save_audio=True)
    folder = tmp_path / 'out' / 'audio' / 'enhanced'
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*.wav')}
    assert written == {f'out/audio/enhanced/{name}.wav' for name in ('plain', 'speaker/one', 'escaped', 'absolute')}
    noisy = source.read(1)[1]
    enhanced = Enhancer(toy_run())(noisy, 16000, utterance='speaker/one')
    assert_allclose(audio.read(folder / 'speaker' / 'one.wav')[0][:, 0], enhanced, atol=2**-14)


# ---- metrics that need no reference ----


def test_clean_speech_is_rated_too(tmp_path, monkeypatch, capsys):
    calls = rater.install(monkeypatch)
    source = ToySource(['a', 'b', 'short'], lengths=(4000, 6000, 900))
    run_toy(tmp_path, source, metrics=('nisqa_v2_mos', 'si_sdr'))
    clean, noisy = ([np.mean(np.abs(source.read(i)[s])) for i in range(2)] for s in range(2))
    enhanced = [np.mean(np.abs(Enhancer(toy_run())(source.read(i)[1], 16000, utterance='ab'[i]))) for i in range(2)]
    summary = strict_json(tmp_path / 'out' / 'summary.json')
    assert (summary['stages'], list(summary['statistics'])) == (['noisy', 'enhanced'], ['clean', 'noisy', 'enhanced'])
    assert summary['statistics']['clean'].keys() == {'nisqa_v2_mos'}
    means = [summary['statistics'][row]['nisqa_v2_mos']['mean'] for row in ('clean', 'noisy', 'enhanced')]
    assert_allclose(means, [np.mean(clean), np.mean(noisy), np.mean(enhanced)], rtol=1e-4)
    assert [failure for failure in summary['failures'] if failure['metric'] == 'nisqa_v2_mos'] == [
        {'id': 'short', 'stage': row, 'metric': 'nisqa_v2_mos', 'reason': 'too short'}
        for row in ('clean', 'noisy', 'enhanced')]
    assert calls == [(3, 16000, ['nisqa_v2_mos'])] * 3
    printed = [[cell.strip() for cell in line.split('|')] for line in capsys.readouterr().out.splitlines()]
    assert ['', 'clean', '3', f'{np.mean(clean):.3f} (2)', '–', ''] in printed
    with (tmp_path / 'out' / 'scores.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['stage'] for row in rows] == ['clean', 'noisy', 'enhanced'] * 3
    assert_allclose([float(row['nisqa_v2_mos']) for row in rows[:6:3]], clean, rtol=1e-6)
    assert [row['si_sdr'] for row in rows[::3]] == ['', '', '']


@pytest.mark.parametrize(('rate', 'there', 'added'), [
    (8000, ['nisqa_v2'], [f'nisqa_v2_{name}' for name in ('mos', 'noi', 'dis', 'col', 'loud')]),
    (16000, [], [])])
def test_the_default_has_all_available_metrics_and_names_missing_weights(tmp_path, monkeypatch, capsys, rate, there,
                                                                         added):
    rater.install(monkeypatch, there)
    source = ToySource(['a'], lengths=(rate,))
    source.sample_rate = rate
    summary = evaluate(toy_run(toys.Toy(sample_rate=rate)), source, tmp_path, workers=0)
    assert summary['metrics'] == [*COMPARING, *added]
    assert capsys.readouterr().out.count('get nisqa_v2') == (not added)
    assert ('clean' in summary['statistics']) == bool(added)
    assert all(math.isfinite(summary['statistics']['enhanced'][name]['mean']) for name in ('stoi', *added))


def test_named_without_weights_a_metric_is_nan_with_the_reason(tmp_path, monkeypatch, capsys):
    rater.install(monkeypatch, there=())
    run_toy(tmp_path, ToySource(['a']), metrics=('si_sdr', 'nisqa_v2_mos'))
    summary = strict_json(tmp_path / 'out' / 'summary.json')
    assert capsys.readouterr().out.splitlines().count('get nisqa_v2') == 1
    assert summary['statistics']['enhanced']['si_sdr']['files'] == 1
    assert summary['statistics']['clean'] == {'nisqa_v2_mos': {'mean': None, 'files': 0, 'against': {}, 'low': None,
                                                               'high': None}}
    assert [(f['stage'], f['reason']) for f in summary['failures']] == [
        (row, 'no weights') for row in ('clean', 'noisy', 'enhanced')]


@pytest.mark.parametrize(('options', 'words'), [
    ({'metrics': ('si_sdr', 'mos')}, ['mos', 'pesq_wb', 'stoi', 'nisqa_v2_mos']),
    ({'metrics': ()}, ['no metric', 'pesq_wb']),
    ({'limit': 0}, ['limit=0']),
    ({'source': ToySource([])}, ['empty']),
])
def test_what_cannot_be_evaluated_is_refused(tmp_path, options, words):
    with pytest.raises(UserError) as error:
        run_toy(tmp_path, **{'source': ToySource(['a']), **options})
    assert all(word in str(error.value) for word in words) and '\n' not in str(error.value)
    assert not (tmp_path / 'out').exists()


def test_a_wrong_sample_rate_is_refused(tmp_path):
    with pytest.raises(UserError, match='16000 Hz.*8000 Hz'):
        evaluate(toy_run(toys.Toy(sample_rate=8000)), ToySource(['a']), tmp_path, metrics=METRICS)


def test_steps_reach_the_system_and_its_refusal_the_user(tmp_path):
    run, source = toy_run(toys.Stepped()), ToySource(['a'])
    evaluate(run, source, tmp_path / 'out', metrics=METRICS, workers=0, steps=4, save_audio=True)
    saved = audio.read(tmp_path / 'out' / 'audio' / 'enhanced' / 'a.wav')[0][:, 0]
    assert_allclose(saved, source.read(0)[1] / 4, atol=2**-14)
    with pytest.raises(UserError, match='steps=11: takes 1 to 10'):
        evaluate(run, source, tmp_path / 'out', metrics=METRICS, workers=0, steps=11)


@pytest.mark.parametrize(('system', 'steps', 'used'), [
    (toys.Stepped(), None, 3), (toys.Stepped(), 4, 4), (toys.Toy(), None, None)])
def test_the_number_of_steps_is_recorded(tmp_path, system, steps, used):
    summary = evaluate(toy_run(system), ToySource(['a']), tmp_path, metrics=METRICS, workers=0, steps=steps)
    assert summary['sampling_steps'] == strict_json(tmp_path / 'summary.json')['sampling_steps'] == used
    noted = re.findall(r'^- sampling steps: (.*), network evaluations: ', (tmp_path / 'summary.md').read_text(), re.M)
    assert noted == ([] if used is None else [str(used)])
    assert (f'{used} sampling steps' in (tmp_path / 'index.html').read_text()) == (used is not None)


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / 'out').write_text('precious')
    with pytest.raises(UserError, match='out: cannot create the report folder'):
        run_toy(tmp_path, ToySource(['a']))
    assert (tmp_path / 'out').read_text() == 'precious'


# ---- refiners: the toy gives 0.5 noisy + 0.25 processed ----


def _refine(tmp_path, source, **options):
    return evaluate(toy_run(toys.Refiner()), source, tmp_path / 'out',
                    **{'metrics': ('si_sdr',), 'workers': 0, 'save_audio': True, **options})


def _write_processed(folder, source, files):
    """Writes noise for utterances to files {i: name} and returns its samples {i: [N]}."""
    written = {}
    for i, name in files.items():
        written[i] = 0.03 * np.random.default_rng(100 + i).standard_normal(source.info(i)['num_samples'])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, written[i], 16000)
    return written


def _saved(tmp_path, stage):
    return {path.stem: audio.read(path)[0][:, 0] for path in (tmp_path / 'out' / 'audio' / stage).rglob('*.wav')}


def test_processed_files_are_found_by_id_and_shown_as_a_stage(tmp_path):
    source, folder = ToySource(['b', 'speaker/a', 'c#1', 'd+2']), tmp_path / 'made'
    made = _write_processed(folder, source, {0: 'b.flac', 1: 'speaker/a.wav', 2: 'c%231.wav', 3: 'd+2.wav'})
    _write_processed(folder, source, {0: 'a.wav'})  # nobody's
    summary = _refine(tmp_path, source, processed=folder)
    assert summary['stages'] == ['noisy', 'preceding', 'refined']
    assert list(summary['statistics']['refined']['si_sdr']['against']) == ['noisy', 'preceding']
    came_in, refined = _saved(tmp_path, 'preceding'), _saved(tmp_path, 'refined')
    for i, name in enumerate(('b', 'a', 'c%231', 'd%2B2')):
        assert_allclose(came_in[name], made[i], atol=2**-14)
        assert_allclose(refined[name], 0.5 * source.read(i)[1] + 0.25 * made[i], atol=2**-14)
    assert strict_json(tmp_path / 'out' / 'summary.json')['preceding'] == {'folder': str(folder)}
    notes = (tmp_path / 'out' / 'summary.md').read_text()
    assert f'- preceding: {folder}\n' in notes and 'without compilation, without the preceding enhancer' in notes


def test_a_preceding_run_is_evaluated_too(tmp_path):
    source = ToySource(['a', 'b'])
    summary = _refine(tmp_path, source, preceding=toy_run(toys.Stepped()), steps=2)
    before = {name: source.read(i)[1] / 3 for i, name in enumerate('ab')}  # at its own number of steps
    came_in, refined = _saved(tmp_path, 'preceding'), _saved(tmp_path, 'refined')
    for i, name in enumerate('ab'):
        assert_allclose(came_in[name], before[name], atol=2**-14)
        assert_allclose(refined[name], 0.5 * source.read(i)[1] + 0.25 * before[name], atol=2**-14)
    assert summary['preceding'] == {'workdir': 'toy', 'step': 7, 'hash': 'abc', 'history': {}}
    notes = (tmp_path / 'out' / 'summary.md').read_text()
    assert '- preceding: toy, step 7, abc\n' in notes and 'without compilation, with the preceding enhancer' in notes


def test_partners_that_do_not_fit_are_listed_in_one_error_or_left_out(tmp_path, caplog):
    source, folder = ToySource(list('abcdef'), lengths=(4000,)), tmp_path / 'made'
    _write_processed(folder, source, {1: 'b.wav', 5: 'f.wav'})
    for name, samples, rate in (('c', np.zeros(3999), 16000), ('d', np.zeros(4000), 8000),
                                ('e', np.zeros((4000, 2)), 16000)):
        soundfile.write(folder / f'{name}.wav', samples, rate)
    with pytest.raises(UserError) as error:
        _refine(tmp_path, source, processed=folder)
    first, *lines = str(error.value).splitlines()
    assert first.startswith('4 of 6 audio files cannot be used') and '--skip-bad' in first
    assert [line.split(', expected')[0] for line in lines] == [
        f'  {folder / name}.wav: {reason}' for name, reason in (
            ('a', 'no such file, of any extension'), ('c', '3999 samples'), ('d', '8000 Hz'), ('e', '2 channels'))]
    assert not (tmp_path / 'out').exists()
    assert _refine(tmp_path, source, processed=folder, skip_bad=True)['files'] == 2
    assert 'left out 4 of 6' in caplog.text
    assert _saved(tmp_path, 'refined').keys() == {'b', 'f'}


def test_the_limit_counts_only_files_with_partners(tmp_path):
    source, folder = ToySource(list('abcdef')), tmp_path / 'made'
    _write_processed(folder, source, {2: 'c.wav', 3: 'd.wav', 4: 'e.wav'})
    _refine(tmp_path, source, processed=folder, skip_bad=True, limit=2)
    assert _saved(tmp_path, 'refined').keys() == {'c', 'd'}


def test_no_matching_partner_is_a_user_error(tmp_path):
    _write_processed(tmp_path / 'made', ToySource(['x']), {0: 'x.wav'})
    with pytest.raises(UserError, match='made: no utterance of the data has a matching file here'):
        _refine(tmp_path, ToySource(['a']), processed=tmp_path / 'made', skip_bad=True)


@pytest.mark.parametrize('folder', ['audio', 'audio/refined'])
def test_saved_audio_does_not_overwrite_processed_files(tmp_path, folder):
    source = ToySource(['a'])
    _write_processed(tmp_path / 'out' / folder, source, {0: 'a.wav'})
    with pytest.raises(UserError, match='--save-audio may overwrite'):
        _refine(tmp_path, source, processed=tmp_path / 'out' / folder)
    assert _refine(tmp_path, source, processed=tmp_path / 'out' / folder, save_audio=False)['files'] == 1
