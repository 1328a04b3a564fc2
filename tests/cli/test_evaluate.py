import dataclasses
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from ml_collections import ConfigDict
from numpy.testing import assert_allclose

from jax_diffse import runs
from jax_diffse.errors import UserError
from tests import toys
from tests.evaluation.test_evaluate import METRICS, ToySource, strict_json, toy_run
from tests.metrics import rater

pytestmark = pytest.mark.usefixtures('drawn_once')
ROOT = pathlib.Path(__file__).resolve().parents[2]


def _main(monkeypatch, *arguments, run=None):
    """Runs evaluate.py on a toy run and returns its exit status."""
    def load(workdir, step='best', model=None):
        return dataclasses.replace(toy_run(), workdir=pathlib.Path(workdir)) if workdir == 'before' else (
            run or toy_run(**model))

    monkeypatch.setattr(runs, 'load', load)
    named = [] if '--compare' in arguments else ['--workdir', 'toy']
    monkeypatch.setattr(sys, 'argv', ['evaluate.py', *named, *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / 'evaluate.py'), run_name='__main__')
    return stop.value.code


@pytest.fixture
def folders(tmp_path):
    """Makes clean/ and noisy/ with two files of the same names, and noise/ with two classes."""
    source = ToySource(['a', 'b'], lengths=(8000, 9600))
    for i, name in enumerate(('a', 'b')):
        clean, noisy = source.read(i)
        noise = 0.1 * np.random.default_rng(10 + i).standard_normal(16000)
        for folder, samples in (('clean', clean), ('noisy', noisy), (f'noise/class_{name}', noise)):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / folder / f'{name}.wav', samples, 16000)
    return tmp_path


def _made(folder):
    folder.mkdir(parents=True)
    return folder


def test_main_evaluates_paired_folders(folders, monkeypatch, capsys):
    status = _main(monkeypatch, '--output', folders / 'out', '--clean', folders / 'clean', '--noisy', folders / 'noisy',
                   '--metrics', 'si_sdr,llr', '--workers', 1)
    printed = capsys.readouterr().out
    assert status == 0
    assert printed.splitlines()[-1] == f'report: {folders / "out" / "index.html"}'
    assert '| noisy ' in printed and '| enhanced ' in printed
    summary = strict_json(folders / 'out' / 'summary.json')
    assert (summary['files'], summary['metrics'], summary['groups']) == (2, list(METRICS), {})
    assert str(folders / 'clean') in summary['data'] and str(folders / 'noisy') in summary['data']


def test_main_resamples_folders_if_the_config_of_the_run_says_so(folders, monkeypatch):
    for folder in ('clean', 'noisy'):
        for path in (folders / folder).iterdir():
            soundfile.write(path, np.repeat(soundfile.read(path)[0], 3), 48000)
    run = dataclasses.replace(toy_run(), config=ConfigDict({'data': {'resample': True}}))
    assert _main(monkeypatch, '--output', folders / 'out', '--clean', folders / 'clean', '--noisy', folders / 'noisy',
                 '--metrics', 'sdr', '--workers', 0, '--save-audio', run=run) == 0
    summary = strict_json(folders / 'out' / 'summary.json')
    assert (summary['files'], summary['failures'], summary['metrics']) == (2, [], ['sdr'])
    assert summary['audio_seconds'] == 17600 / 16000
    saved = soundfile.info(folders / 'out' / 'audio' / 'enhanced' / 'b.wav')
    assert (saved.samplerate, saved.frames) == (16000, 9600)


def test_main_refuses_metrics_without_weights_before_reading_data(tmp_path, monkeypatch, capsys):
    rater.install(monkeypatch, there=())
    assert _main(monkeypatch, '--output', tmp_path / 'out', '--clean', tmp_path / 'gone', '--noisy', tmp_path / 'gone',
                 '--metrics', 'nisqa_tts_mos') == 2
    assert capsys.readouterr().err == 'error: get nisqa_tts\n' and not (tmp_path / 'out').exists()


def test_main_mixes_folders(folders, monkeypatch):
    assert _main(monkeypatch, '--output', folders / 'out', '--speech', folders / 'clean', '--noise', folders / 'noise',
                 '--snr-db=-5,5', '--metrics', 'si_sdr', '--workers', 0) == 0
    summary = strict_json(folders / 'out' / 'summary.json')
    assert list(summary['groups']['snr_db']) == ['-5', '5']
    assert list(summary['groups']['noise']) == ['class_a', 'class_b']
    listed = (folders / 'out' / 'mixtures.tsv').read_text().splitlines()
    assert listed[0].startswith('id\tspeech\tnoise') and len(listed) == 1 + summary['files']
    assert_allclose(summary['groups']['snr_db']['5']['statistics']['noisy']['si_sdr']['mean'], 5, atol=0.3)
    assert summary['noise_kinds'] == {}


def test_main_reverberates_mixtures(folders, monkeypatch):
    """With a response of one sample the reverberant speech is the dry one; the list names the response."""
    soundfile.write(_made(folders / 'rir') / 'x.wav', [0.5], 16000)
    data = ['--output', folders / 'out', '--speech', folders / 'clean', '--noise', folders / 'noise', '--snr-db=5',
            '--metrics', 'si_sdr', '--workers', 0]
    means = []
    for flags in ([], ['--rir', folders / 'rir']):
        assert _main(monkeypatch, *data, *flags) == 0
        summary = strict_json(folders / 'out' / 'summary.json')
        means.append(summary['statistics']['noisy']['si_sdr']['mean'])
        header, *rows = [row.split('\t') for row in (folders / 'out' / 'mixtures.tsv').read_text().splitlines()]
        assert ('rir' in header) == bool(flags)
    assert_allclose(means[0], means[1], atol=1e-4)
    assert {row[header.index('rir')] for row in rows} == {str(folders / 'rir' / 'x.wav')}
    assert summary['data'].endswith(f'rir {folders / "rir"}, target early 50 ms')


def test_main_refines_the_audio_that_an_earlier_evaluation_saved(folders, monkeypatch):
    """Also for mixtures, whose ids are not file names; --preceding gives the same result."""
    data = ['--speech', folders / 'clean', '--noise', folders / 'noise', '--snr-db=-2.5', '--metrics', 'si_sdr',
            '--workers', 0]
    assert _main(monkeypatch, '--output', folders / 'first', '--save-audio', *data, run=toy_run(toys.LowPass())) == 0
    prior, scores = toy_run(toys.Refiner()), []
    for flags in (['--processed', folders / 'first' / 'audio' / 'enhanced'], ['--preceding', 'before']):
        assert _main(monkeypatch, '--output', folders / 'out', *flags, *data, run=prior) == 0
        summary = strict_json(folders / 'out' / 'summary.json')
        assert summary['stages'] == ['noisy', 'preceding', 'refined']
        scores.append([summary['statistics'][stage]['si_sdr']['mean'] for stage in summary['stages']])
    assert_allclose(scores[0], scores[1], atol=0.01)
    assert summary['preceding']['workdir'] == 'before'


@pytest.mark.parametrize(('workdir', 'arguments', 'words'), [
    ('prior', [], ['refines the output of another enhancer', '--processed DIR', '--preceding RUN']),
    ('prior', ['--processed', 'x', '--preceding', 'before'], ['refines one input']),
    ('toy', ['--processed', 'x'], ['LowPass enhances noisy speech by itself']),
    ('toy', ['--preceding', 'before'], ['LowPass enhances noisy speech by itself'])])
def test_main_checks_refiner_inputs_before_reading_data(tmp_path, monkeypatch, capsys, workdir, arguments, words):
    run = toy_run(toys.Refiner() if workdir == 'prior' else toys.LowPass())
    data = ['--clean', tmp_path / 'not_there', '--noisy', tmp_path / 'not_there']
    assert _main(monkeypatch, '--output', tmp_path / 'out', *data, *arguments, run=run) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and all(word in error for word in words)


@pytest.mark.parametrize(('name', 'flags', 'seconds', 'kinds'), [
    ('folders', [], 0.4, ['seen', 'unseen']),
    ('folders', ['--clip-seconds', 0.3], 0.3, ['seen', 'unseen']),
    ('folders', ['--clip-seconds', 0], 0.55, ['seen', 'unseen']),
    ('spoken_demo', [], 0.4, []),  # a run that was not trained on these folders
])
def test_main_mixes_clips_and_knows_the_noise_of_training(folders, monkeypatch, name, flags, seconds, kinds):
    soundfile.write(_made(folders / 'trained' / 'class_b') / 'x.wav', np.full(16000, 0.1), 16000)
    soundfile.write(_made(folders / 'trained' / 'class_c') / 'x.wav', np.full(16000, 0.1), 16000)
    train = {'speech': 'gone', 'noise': str(folders / 'trained')}
    data = {'name': name, 'train': train, 'validation': train, 'clip_seconds': 0.4}
    run = dataclasses.replace(toy_run(), config=ConfigDict({'data': data}))
    assert _main(monkeypatch, '--output', folders / 'out', '--speech', folders / 'clean', '--noise', folders / 'noise',
                 '--snr-db=-5,5', '--metrics', 'si_sdr', '--workers', 0, *flags, run=run) == 0
    summary = strict_json(folders / 'out' / 'summary.json')
    assert_allclose(summary['audio_seconds'], summary['files'] * seconds)
    assert list(summary['noise_kinds']) == kinds
    assert ('id="kinds"' in (folders / 'out' / 'index.html').read_text()) == bool(kinds)
    for kind, noise in zip(kinds, ('class_b', 'class_a')):
        assert summary['noise_kinds'][kind]['Avg']['files'] == summary['groups']['noise'][noise]['files'] == 2
        assert_allclose(summary['noise_kinds'][kind]['-5']['statistics']['noisy']['si_sdr']['mean'], -5, atol=0.5)


def test_main_takes_the_classes_of_noise_that_it_is_given(folders, monkeypatch, capsys):
    """The classes of the training do not count."""
    train = {'speech': 'gone', 'noise': str(folders / 'noise')}
    data = {'train': train, 'validation': train, 'noise_classes': ('class_b',)}
    run = dataclasses.replace(toy_run(), config=ConfigDict({'data': data}))
    mixing = ['--output', folders / 'out', '--speech', folders / 'clean', '--noise', folders / 'noise', '--metrics',
              'si_sdr', '--workers', 0]
    for flags, classes in (([], ['class_a', 'class_b']), (['--noise-classes', 'class_a'], ['class_a'])):
        assert _main(monkeypatch, *mixing, *flags, run=run) == 0
        summary = strict_json(folders / 'out' / 'summary.json')
        listed = [row.split('\t')[4] for row in (folders / 'out' / 'mixtures.tsv').read_text().splitlines()[1:]]
        assert sorted(set(listed)) == classes and set(summary['noise_kinds']) == {
            {'class_a': 'unseen', 'class_b': 'seen'}[name] for name in classes}
    assert _main(monkeypatch, *mixing, '--noise-classes', 'rain,class_a', run=run) == 2
    error = capsys.readouterr().err
    assert '(evaluate: --noise-classes): no class rain in ' in error and error.endswith('class_a, class_b\n')


def test_main_evaluates_a_share_and_says_of_how_many_files(folders, monkeypatch):
    """Of a speaker with two files, one; the share of the training does not count."""
    run = dataclasses.replace(toy_run(), config=ConfigDict({'data': {'share': 0.5}}))
    data = ['--clean', folders / 'clean', '--noisy', folders / 'noisy', '--metrics', 'si_sdr', '--workers', 0]
    for flags, files, described in (([], 2, 'noisy'), (['--share', 0.5], 1, ', a share of 0.5: 1 of 2 utterances')):
        assert _main(monkeypatch, '--output', folders / 'out', *data, *flags, run=run) == 0
        summary = strict_json(folders / 'out' / 'summary.json')
        assert summary['files'] == files and summary['data'].endswith(described)


def test_main_scores_an_array_by_noise_kind_and_snr(tmp_path, monkeypatch):
    """Input (noisy) first, target second; the SNRs of the noisy speech are those of the classes."""
    rng, levels = np.random.default_rng(0), (-5, 0, 5)
    clean = 0.1 * rng.standard_normal((2, 3, 2, 4800))
    noise = rng.standard_normal(clean.shape)
    gain = np.linalg.norm(clean, axis=-1) / np.linalg.norm(noise, axis=-1) / 10 ** (np.reshape(levels, (3, 1)) / 20)
    np.save(tmp_path / 'test.npy', np.stack([clean + gain[..., None] * noise, clean], axis=-2).astype(np.float32))
    assert _main(monkeypatch, '--output', tmp_path / 'out', '--arrays', tmp_path / 'test.npy', '--snr-db=-5,0,5',
                 '--metrics', 'sdr', '--workers', 0, '--save-audio') == 0
    summary = strict_json(tmp_path / 'out' / 'summary.json')
    assert summary['files'] == 12 and summary['data'] == f'arrays {tmp_path / "test.npy"}'
    assert list(summary['noise_kinds']) == ['seen', 'unseen']
    for kind in ('seen', 'unseen'):
        for level in levels:
            cell = summary['noise_kinds'][kind][str(level)]
            assert cell['files'] == 2
            assert_allclose(cell['statistics']['noisy']['sdr']['mean'], level, atol=1e-3)
    assert (tmp_path / 'out' / 'audio' / 'enhanced' / 'unseen' / '-5dB' / '0001.wav').is_file()


@pytest.mark.parametrize('kind', ['pairs', 'mixtures', 'array'])
def test_main_extends_shorter_files_with_zeros(folders, monkeypatch, kind):
    """Of 8000 and 9600 samples; the noisy speech of pairs and arrays is then silent at its end."""
    pair = [soundfile.read(folders / name / 'a.wav')[0] for name in ('noisy', 'clean')]
    np.save(folders / 'a.npy', [pair])
    data = {'pairs': ['--clean', folders / 'clean', '--noisy', folders / 'noisy'],
            'array': ['--arrays', folders / 'a.npy'],
            'mixtures': ['--speech', folders / 'clean', '--noise', folders / 'noise', '--clip-seconds', 0.6]}
    assert _main(monkeypatch, '--output', folders / 'out', *data[kind], '--pad-seconds', 0.6, '--metrics', 'sdr',
                 '--workers', 0, '--save-audio') == 0
    summary = strict_json(folders / 'out' / 'summary.json')
    assert summary['data'].endswith(', zero-padded to 0.6 s')
    assert_allclose(summary['audio_seconds'], summary['files'] * 0.6)
    assert summary['files'] == {'array': 1, 'pairs': 2, 'mixtures': 8}[kind]  # 2 classes at 4 SNRs
    for path in (folders / 'out' / 'audio' / 'enhanced').rglob('*.wav'):
        enhanced = soundfile.read(path)[0]
        assert len(enhanced) == 9600 and enhanced[-50:].any() == (kind == 'mixtures' or path.stem == 'b')


@pytest.mark.parametrize(('arguments', 'words'), [
    (['--arrays', 'x', '--clean', 'y', '--noisy', 'z'], ['--clean --noisy --arrays given', '--arrays alone']),
    (['--arrays', 'x', '--resample'], ['--resample is for folders', 'x']),
    (['--arrays', 'x', '--clip-seconds', '3'], ['--clip-seconds needs --speech']),
    (['--arrays', 'x', '--split', 'test'], ['--split=test given with --arrays']),
    (['--arrays', 'no_such_file.npy'], ['no_such_file.npy: cannot be read']),
    (['--arrays', 'pairs.npy', '--snr-db', '0'], ['--snr-db: pairs.npy has no axis of dB classes']),
])
def test_main_refuses_arrays_in_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    np.save('pairs.npy', np.full((2, 2, 4800), 0.1, np.float32))
    assert _main(monkeypatch, '--output', tmp_path / 'out', *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1 and all(word in error for word in words)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('arguments', 'words'), [
    (['--clean', 'x', '--noisy', 'y', '--noise-classes', 'rain'], ['--noise-classes', '--speech']),
    (['--clean', 'x', '--noisy', 'y', '--share', '1.5'], ['--share', 'above 0 and at most 1, got 1.5']),
    (['--split', 'validation', '--share', '0.5'], ['--share', '--split=validation']),
    (['--clean', 'x'], ['--clean', '--noisy']),
    (['--clean', 'x', '--noise', 'y'], ['--clean --noise given']),
    (['--snr-db', '0'], ['--snr-db', '--speech']),
    (['--clean', 'x', '--noisy', 'y', '--clip-seconds', '3'], ['--clip-seconds', '--speech']),
    (['--speech', 'x', '--noise', 'y', '--clip-seconds', '0.1'], ['clip-seconds', '0.25']),
    (['--speech', 'x', '--noise', 'y', '--pad-seconds', '-1'], ['--pad-seconds', 'got -1']),
    (['--clean', 'x', '--noisy', 'y', '--split', 'test'], ['--split=test']),
    (['--clean', 'no_such_folder', '--noisy', 'y'], ['no_such_folder']),
    (['--metrics', 'pesq'], ['pesq', 'pesq_wb']),
    ([], ['toy: ', 'no test data', '--clean and --noisy']),
])
def test_main_reports_wrong_arguments_in_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    assert _main(monkeypatch, '--output', tmp_path / 'out', *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1 and all(word in error for word in words)


def test_main_passes_model_overrides_on(monkeypatch, capsys):
    def load(workdir, step, model):
        raise UserError(repr(model))

    arguments = ['--output', 'out', '--model', 'guidance=none', '--model', 'guidance_weight=0.25', '--model', 'steps=3']
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'argv', ['evaluate.py', '--workdir', 'toy', *arguments])
        patch.setattr(runs, 'load', load)
        with pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / 'evaluate.py'), run_name='__main__')
    assert capsys.readouterr().err == "error: {'guidance': 'none', 'guidance_weight': '0.25', 'steps': '3'}\n"


def test_evaluating_folders_leaves_tensorflow_alone(folders):
    script = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
from ml_collections import ConfigDict
import dataclasses
from jax_diffse import runs
from tests import toys
runs.load = lambda workdir, step, model: dataclasses.replace(toys.run(toys.Toy()), config=ConfigDict())
sys.argv = ['evaluate.py', '--workdir', 'toy', '--output', 'out', '--clean', 'clean', '--noisy', 'noisy', '--metrics',
            'si_sdr', '--workers', '0']
try:
    runpy.run_path({str(ROOT / 'evaluate.py')!r}, run_name='__main__')
except SystemExit as stop:
    assert stop.code == 0, stop.code
assert 'jax' in sys.modules and not {{'tensorflow', 'tensorflow_datasets', 'torch'}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, '-c', script], cwd=folders, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- sweeps ----


def _study(folders, monkeypatch, *arguments, run=None):
    status = _main(monkeypatch, '--output', folders / 'out', '--clean', folders / 'clean', '--noisy', folders / 'noisy',
                   '--metrics', 'sdr', '--workers', 0, *arguments, run=run or toy_run(toys.Stepped()))
    return strict_json(folders / 'out' / 'sweep.json') if status == 0 else status


def test_main_sweeps_steps_and_seeds(folders, monkeypatch):
    summary = _study(folders, monkeypatch, '--steps=1,2', '--seeds', '0,7')
    assert [point['sampling_steps'] for point in summary['points']] == [1, 2]
    assert summary['seeds'] == [0, 7] and str(folders / 'clean') in summary['data']
    assert (folders / 'out' / 'index.html').exists()


def test_main_puts_several_runs_side_by_side(folders, monkeypatch):
    summary = _study(folders, monkeypatch, '--workdir', 'before', '--steps', '2')
    assert [point['label'] for point in summary['points']] == ['toy, 2 steps', 'before']


def test_main_compares_two_settings(folders, monkeypatch):
    summary = _study(folders, monkeypatch, '--compare', 'toy@steps=1', 'before')
    assert [point['label'] for point in summary['points']] == ['toy, 1 step', 'before']
    found = summary['points'][1]['differences']['sdr']
    assert (found['better'], found['worse'], found['files']) == (0, 2, 2) and found['high'] < 0


def test_main_evaluates_one_setting_with_a_seed(folders, monkeypatch):
    assert _main(monkeypatch, '--output', folders / 'out', '--clean', folders / 'clean', '--noisy', folders / 'noisy',
                 '--metrics', 'sdr', '--workers', 0, '--steps', 4, '--seeds', 3, '--cache', folders / 'kept',
                 run=toy_run(toys.Stepped())) == 0
    summary = strict_json(folders / 'out' / 'summary.json')
    assert (summary['sampling_steps'], summary['seed']) == (4, 3)
    assert (folders / 'kept').is_dir() and not (folders / 'out' / 'cache').exists()


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--steps', '1,2', '--save-audio'], '--save-audio: is for one setting'),
    (['--compare', 'toy', 'before', '--steps', '3'], '--compare: cannot be combined'),
    (['--compare', 'toy@six', 'before'], "toy@six: 'six' has no value"),
    (['--compare', 'before@steps=3', 'toy'], 'before: does not sample'),
    (['--compare', 'toy', 'toy'], 'toy, 3 steps: given twice'),
    (['--seeds=0,0'], 'seeds 0, 0: expected distinct')])
def test_main_refuses_invalid_sweeps(folders, monkeypatch, capsys, arguments, message):
    assert _study(folders, monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'error: {message}') and error.count('\n') == 1 and not (folders / 'out').exists()


@pytest.mark.parametrize('arguments', [[], ['--workdir', 'a', '--compare', 'b', 'c'],
                                       ['--workdir', 'a', '--sweep', 'x']])
def test_main_needs_either_workdir_or_compare(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, 'argv', ['evaluate.py', '--output', 'out', *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / 'evaluate.py'), run_name='__main__')
    assert stop.value.code == 2 and 'expected' in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--limit', '0'], 'limit=0: expected 1 or more'), (['--seeds', '-1'], 'seed -1'),
    (['--processed', 'clean'], 'refines nothing'), (['--workers', '-1'], 'workers is -1')])
def test_a_mistake_leaves_no_report_of_mixtures(folders, monkeypatch, capsys, arguments, message):
    """The list of mixtures is written with the report, not before the last check."""
    arguments = [folders / 'clean' if argument == 'clean' else argument for argument in arguments]
    status = _main(monkeypatch, '--output', folders / 'out', '--speech', folders / 'clean', '--noise',
                   folders / 'noise', '--metrics', 'si_sdr', *arguments)
    assert status == 2 and message in capsys.readouterr().err
    assert not (folders / 'out').exists()
