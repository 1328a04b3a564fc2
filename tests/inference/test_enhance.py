import dataclasses
import os
import pathlib
import runpy
import sys

import jax
import ml_collections
import numpy as np
import pytest
import soundfile
from numpy.testing import assert_allclose

from jax_diffse import audio, runs
from jax_diffse.diffusion import ddrm
from jax_diffse.errors import UserError
from jax_diffse.inference import enhance
from jax_diffse.inference.enhancer import Enhancer
from jax_diffse.inference.jobs import plan_jobs
from jax_diffse.inference.setting import Setting
from jax_diffse.runs import Run
from jax_diffse.systems.dccrn import Dccrn
from jax_diffse.systems.diffiner import Diffiner
from tests import reference, sounds, toys

ENTRY_POINT = pathlib.Path(__file__).resolve().parents[2] / 'enhance.py'


@pytest.fixture
def system(monkeypatch):
    """Makes every workdir a run of a toy system that halves its input."""
    chosen = {'system': toys.Toy()}
    monkeypatch.setattr(runs, 'load', lambda workdir, step='best', model=None: toys.run(chosen['system']))
    return chosen


def _write(path, n=800, rate=16000, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(n), rate, subtype='PCM_16')
    return path


def _main(monkeypatch, *arguments):
    """Runs the entry point and returns its exit status."""
    monkeypatch.setattr(sys, 'argv', ['enhance.py', *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ENTRY_POINT), run_name='__main__')
    return stop.value.code


def test_files_and_folders_are_enhanced_below_output(tmp_path, monkeypatch, capsys, system):
    inputs = [_write(tmp_path / 'single.wav'), _write(tmp_path / 'in' / 'a.wav', seed=1),
              _write(tmp_path / 'in' / 'deep' / 'b.flac', seed=2)]
    status = _main(monkeypatch, '--workdir', 'run', '--output', tmp_path / 'out', '--noise', tmp_path / 'noise',
                   inputs[0], tmp_path / 'in')
    assert status == 0
    for path, name in zip(inputs, ['single.wav', 'a.wav', 'deep/b.flac'], strict=True):
        noisy = audio.read(path)[0]
        for folder in ('out', 'noise'):  # the system halves, so output and removed noise are equal
            assert_allclose(audio.read(tmp_path / folder / name)[0], 0.5 * noisy, atol=2**-15)
    printed = capsys.readouterr().out
    assert all(str(tmp_path / 'out' / name) in printed for name in ('single.wav', 'a.wav', 'deep/b.flac'))
    assert 'real-time factor' in printed and 'compilation' in printed
    assert sorted(p.name for p in (tmp_path / 'out').rglob('[!.]*')) == [
        'a.wav', 'b.flac', 'deep', 'single.wav']


def test_flags_reach_the_enhancer(tmp_path, monkeypatch, system):
    system['system'] = toys.Stepped()
    path = _write(tmp_path / 'a.wav')
    asked = []
    load = runs.load
    monkeypatch.setattr(runs, 'load',
                        lambda *arguments, **named: asked.append((*arguments, named)) or load('run', 'best'))
    assert _main(monkeypatch, '--workdir', 'run', '--output', tmp_path / 'out', '--steps', 5, '--strength', 0.5,
                 '--checkpoint', 1000, '--chunk-seconds', 4, '--model', 'guidance=none', '--model', 'network.heads=2',
                 path) == 0
    assert asked == [('run', {'step': 1000, 'model': {'guidance': 'none', 'network.heads': '2'}})]
    assert_allclose(audio.read(tmp_path / 'out' / 'a.wav')[0], 0.6 * audio.read(path)[0], atol=2**-15)


@pytest.mark.parametrize(('system', 'model', 'steps', 'name'), [
    (Diffiner(), {}, None, 'diffiner+_eta_a=0.4_eta_b=0.6_eta_c=0.0_eta_d=0.6_steps=200'),  # the paper's
    (Diffiner(sampler='diffiner', diffiner=ddrm.Diffiner(0.5, 1.0)),
     {'sampler': 'diffiner', 'diffiner.eta_a': '0.5', 'diffiner.eta_b': '1.0', 'sigma_hat': 'modulus'}, 20,
     'diffiner_eta_a=0.5_eta_b=1.0_sigma_hat=modulus_steps=20'),
    (toys.Stepped(), {'guidance': 'none', 'path': 'a/b'}, None, 'toy_guidance=none_path=a%2Fb_steps=3'),
    (toys.Toy(), {}, None, 'toy')])
def test_a_folder_is_named_by_its_setting(system, model, steps, name):
    run = Run(system, {}, ml_collections.ConfigDict({'system': 'toy'}), 7, 'abc', pathlib.Path('run'))
    assert Setting(run, steps).folder_name(model) == name


def test_results_are_written_to_a_folder_named_by_the_setting(tmp_path, monkeypatch, system):
    system['system'], config = toys.Stepped(), ml_collections.ConfigDict({'system': 'toy'})
    load = runs.load
    monkeypatch.setattr(runs, 'load', lambda *args, **named: dataclasses.replace(load(*args, **named), config=config))
    path = _write(tmp_path / 'in' / 'a.wav')
    for steps in (2, 5):
        assert _main(monkeypatch, '--workdir', 'run', '--output', tmp_path / 'out', '--noise', tmp_path / 'noise',
                     '--name-by-setting', '--steps', steps, path) == 0
    assert _main(monkeypatch, '--workdir', 'run', '--output', tmp_path / 'out', '--name-by-setting', '--strength', 0.5,
                 path) == 0
    for steps in (2, 5):
        result = audio.read(tmp_path / 'out' / f'toy_steps={steps}' / 'a.wav')[0]
        assert_allclose(result, audio.read(path)[0] / steps, atol=2**-15)
        assert (tmp_path / 'noise' / f'toy_steps={steps}' / 'a.wav').is_file()
    assert (tmp_path / 'out' / 'toy_steps=3_strength=0.5' / 'a.wav').is_file()
    assert len(list((tmp_path / 'out').iterdir())) == 3


def test_bad_files_are_reported_at_the_end_and_the_others_enhanced(tmp_path, monkeypatch, capsys, system):
    good, late = _write(tmp_path / 'in' / 'b.wav'), _write(tmp_path / 'in' / 'z.wav')
    (tmp_path / 'in' / 'a.wav').write_bytes(b'RIFF')
    (tmp_path / 'in' / 'c.wav').write_bytes(b'')
    soundfile.write(tmp_path / 'in' / 'd.wav', np.array([0, np.nan]), 16000, subtype='FLOAT')
    soundfile.write(tmp_path / 'in' / 'e.wav', np.zeros(0), 16000)
    status = _main(monkeypatch, '--workdir', 'run', '--output', tmp_path / 'out', tmp_path / 'in', tmp_path / 'no.wav')
    assert status == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(': ')[:2] for line in lines] == [
        ['not enhanced', str(tmp_path / 'in' / f'{name}.wav')] for name in 'acde'] + [
        ['not enhanced', str(tmp_path / 'no.wav')]]
    assert [line.split(': ')[2].split(' (')[0] for line in lines] == [
        'not readable as audio', 'the file is empty', 'holds samples that are NaN or infinite', 'no samples',
        'no such file']
    assert sorted(p.name for p in (tmp_path / 'out').glob('[!.]*')) == [good.name, late.name]


@pytest.mark.parametrize('link', [None, 'symbolic', 'hard', 'folder'])
@pytest.mark.parametrize('flag', ['--output', '--noise'])
def test_an_input_is_never_overwritten(tmp_path, monkeypatch, capsys, system, link, flag):
    path = _write(tmp_path / 'in' / 'a.wav')
    before, target = path.read_bytes(), tmp_path / 'target'
    if link is None:
        target = path.parent
    elif link == 'folder':
        target.symlink_to(path.parent)
    else:
        target.mkdir()
        (os.symlink if link == 'symbolic' else os.link)(path, target / 'a.wav')
    folders = {'--output': tmp_path / 'out', '--noise': tmp_path / 'noise', flag: target}
    status = _main(monkeypatch, '--workdir', 'run', *(x for item in folders.items() for x in item), path)
    assert status == 2
    assert 'would overwrite the input' in capsys.readouterr().err
    assert path.read_bytes() == before
    assert not (tmp_path / 'out').exists() and not (tmp_path / 'noise').exists()


def test_an_input_is_not_overwritten_by_the_result_of_another(tmp_path, system):
    first, second = _write(tmp_path / 'x' / 'a.wav'), _write(tmp_path / 'y' / 'b.wav')
    _write(tmp_path / 'x' / 'b.wav')
    with pytest.raises(UserError, match='would overwrite the input'):
        plan_jobs([first, second, tmp_path / 'x' / 'b.wav'], tmp_path / 'y')


def test_results_of_the_same_name_are_a_user_error(tmp_path, system):
    first, second = _write(tmp_path / 'x' / 'a.wav'), _write(tmp_path / 'y' / 'a.wav')
    with pytest.raises(UserError, match='both .*x/a.wav and .*y/a.wav'):
        plan_jobs([first, second], tmp_path / 'out')
    with pytest.raises(UserError, match='both .*x/a.wav and .*x/a.wav'):
        plan_jobs([first], tmp_path / 'out', noise=tmp_path / 'out')


@pytest.mark.parametrize('output', ['in', 'in/out'])
def test_results_among_the_inputs_are_a_user_error(tmp_path, output):
    _write(tmp_path / 'in' / 'a.wav')
    with pytest.raises(UserError, match='would overwrite|lies in the input folder'):
        plan_jobs([tmp_path / 'in'], tmp_path / output)


def test_a_folder_without_audio_is_a_user_error(tmp_path):
    (tmp_path / 'in').mkdir()
    with pytest.raises(UserError, match='no audio files'):
        plan_jobs([tmp_path / 'in'], tmp_path / 'out')


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--steps', 11], 'steps=11: takes 1 to 10'), (['--strength', 1.5], '--strength=1.5'),
    (['--chunk-seconds', 1], 'chunk_seconds=1')])
def test_settings_are_checked_before_any_work(tmp_path, monkeypatch, capsys, system, arguments, message):
    system['system'] = toys.Stepped()
    path = _write(tmp_path / 'a.wav')
    assert _main(monkeypatch, '--workdir', 'run', '--output', tmp_path / 'out', *arguments, path) == 2
    assert capsys.readouterr().err.startswith(f'error: {message}')
    assert not (tmp_path / 'out').exists()


def test_a_result_of_an_earlier_run_is_replaced(tmp_path, system):
    path = _write(tmp_path / 'a.wav')
    for strength in (1.0, 0.0):
        options = enhance.EnhanceOptions(strength=strength)
        assert enhance.enhance('run', [path], tmp_path / 'out', options) == 0
    assert_allclose(audio.read(tmp_path / 'out' / 'a.wav')[0], audio.read(path)[0], atol=2**-15)


# ---- refiners: the toy gives 0.5 noisy + 0.25 processed ----


@pytest.fixture
def two_runs(monkeypatch):
    """Makes the workdir 'prior' a refiner and every other one a run that halves its input."""
    monkeypatch.setattr(runs, 'load', lambda workdir, step='best', model=None: toys.run(
        toys.Refiner() if str(workdir) == 'prior' else toys.Toy(), workdir))


def _refine(monkeypatch, tmp_path, *arguments):
    return _main(monkeypatch, '--workdir', 'prior', '--output', tmp_path / 'out', *arguments)


def _folders(tmp_path, noisy, processed):
    for folder, names in (('noisy', noisy), ('made', processed)):
        for i, name in enumerate(names):
            _write(tmp_path / folder / name, seed=100 * len(folder) + i)
    return ['--noisy', tmp_path / 'noisy', '--processed', tmp_path / 'made']


def _expected(noisy, made):
    return 0.5 * audio.read(noisy)[0] + 0.25 * audio.read(made)[0]


def test_folders_are_paired_by_name_without_extension(tmp_path, monkeypatch, capsys, two_runs):
    flags = _folders(tmp_path, ['a.wav', 'b.flac', 'deep/a.wav'], ['0.wav', 'b.wav', 'deep/a.flac', 'a.wav', '1.wav'])
    assert _refine(monkeypatch, tmp_path, *flags, '--noise', tmp_path / 'removed') == 0
    for name, made in (('a.wav', 'a.wav'), ('b.flac', 'b.wav'), ('deep/a.wav', 'deep/a.flac')):
        expected = _expected(tmp_path / 'noisy' / name, tmp_path / 'made' / made)
        assert_allclose(audio.read(tmp_path / 'out' / name)[0], expected, atol=2**-15)
        removed = audio.read(tmp_path / 'noisy' / name)[0] - expected
        assert_allclose(audio.read(tmp_path / 'removed' / name)[0], removed, atol=2**-15)
    assert f'{tmp_path / "made"}: 2 of 5 files have no partner' in capsys.readouterr().out


def test_two_files_form_a_pair_with_any_names(tmp_path, monkeypatch, two_runs):
    noisy, made = _write(tmp_path / 'a.wav'), _write(tmp_path / 'b.wav', seed=1)
    assert _refine(monkeypatch, tmp_path, '--noisy', noisy, '--processed', made) == 0
    assert_allclose(audio.read(tmp_path / 'out' / 'a.wav')[0], _expected(noisy, made), atol=2**-15)


def test_missing_and_wrong_partners_are_reported_at_the_end_and_the_others_enhanced(tmp_path, monkeypatch, capsys,
                                                                                    two_runs):
    flags = _folders(tmp_path, ['a.wav', 'b.wav', 'c.wav', 'd.wav'], ['b.wav', 'd.wav'])
    _write(tmp_path / 'made' / 'c.wav', 801)
    assert _refine(monkeypatch, tmp_path, *flags) == 1
    noisy, made = tmp_path / 'noisy', tmp_path / 'made'
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f'not enhanced: {noisy / "a.wav"}: no file of this name in {made}'
    assert lines[1].startswith(f'not enhanced: {made / "c.wav"}: 801 samples, but 800 in {noisy / "c.wav"}')
    assert len(lines) == 2
    assert sorted(path.name for path in (tmp_path / 'out').glob('[!.]*')) == ['b.wav', 'd.wav']


def test_a_preceding_run_enhances_first(tmp_path, monkeypatch, two_runs):
    path = _write(tmp_path / 'in' / 'a.wav')
    assert _refine(monkeypatch, tmp_path, '--preceding', 'halving', tmp_path / 'in') == 0
    assert_allclose(audio.read(tmp_path / 'out' / 'a.wav')[0], 0.625 * audio.read(path)[0], atol=2**-15)


@pytest.mark.parametrize(('processed', 'words'), [
    (['x.wav', 'y.wav'], ['made: no file here has the name of one in']),
    (['a.wav', 'a.flac'], ['made/a.wav: has the same name as', 'made/a.flac']),
    ([], ['made: no such directory'])])
def test_folders_that_do_not_pair_are_a_user_error(tmp_path, monkeypatch, capsys, two_runs, processed, words):
    flags = _folders(tmp_path, ['a.wav'], processed)
    assert _refine(monkeypatch, tmp_path, *flags) == 2
    printed = capsys.readouterr().err
    assert printed.count('\n') == 1 and all(word in printed for word in words)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('workdir', 'arguments', 'message'), [
    ('prior', ['IN'], 'prior: Refiner refines the output of another enhancer: it needs `processed`'),
    ('prior', ['--noisy', 'IN', '--processed', 'IN', '--preceding', 'toy'], 'prior: refines one input'),
    ('prior', ['--preceding', 'prior', 'IN'], 'prior: refines the output of another enhancer itself'),
    ('prior', ['--preceding', 'toy', '--stream', 'IN'], 'prior: Refiner needs the whole recording'),
    ('prior', ['--noisy', 'IN'], '--noisy: given alone'),
    ('prior', ['--processed', 'IN', 'IN'], '--processed: given alone'),
    ('prior', ['--noisy', 'IN', '--processed', 'IN/a.wav'], '--noisy IN and --processed IN/a.wav: expected two'),
    ('prior', ['--noisy', 'IN', '--processed', 'IN', 'IN'], 'expected files or folders to enhance, or --noisy'),
    ('prior', [], 'expected files or folders to enhance, or --noisy'),
    ('toy', ['--noisy', 'IN', '--processed', 'IN'], 'toy: Toy enhances noisy speech by itself'),
    ('toy', ['--preceding', 'toy', 'IN'], 'toy: Toy enhances noisy speech by itself')])
def test_incompatible_flags_are_refused(tmp_path, monkeypatch, capsys, two_runs, pinned, workdir, arguments, message):
    _write(tmp_path / 'IN' / 'a.wav')
    monkeypatch.chdir(tmp_path)
    assert _main(monkeypatch, '--workdir', workdir, '--output', 'out', *arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f'error: {message}') and printed.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_a_refiner_is_asked_whether_it_takes_the_steps(tmp_path, monkeypatch, two_runs):
    flags = _folders(tmp_path, ['a.wav'], ['a.wav'])
    assert _refine(monkeypatch, tmp_path, *flags, '--steps', 4) == 0


@pytest.mark.parametrize('folder', ['noisy', 'made', 'made/out'])
@pytest.mark.parametrize('flag', ['--output', '--noise'])
def test_no_result_goes_into_an_input_folder(tmp_path, monkeypatch, capsys, two_runs, folder, flag):
    flags = _folders(tmp_path, ['a.wav'], ['a.flac'])  # whose name no result has
    results = {'--output': tmp_path / 'out', '--noise': tmp_path / 'removed', flag: tmp_path / folder}
    assert _main(monkeypatch, '--workdir', 'prior', *(x for item in results.items() for x in item), *flags) == 2
    printed = capsys.readouterr().err
    assert f'{tmp_path / folder}: is or lies in the input folder' in printed
    assert sorted(path.name for path in tmp_path.rglob('*')) == ['a.flac', 'a.wav', 'made', 'noisy']


def test_a_processed_file_is_not_overwritten(tmp_path, two_runs):
    noisy, made = _write(tmp_path / 'noisy' / 'a.wav'), _write(tmp_path / 'made' / 'a.wav')
    with pytest.raises(UserError, match='made/a.wav: would overwrite the input .*made/a.wav'):
        plan_jobs([noisy], tmp_path / 'made', processed=made)


@pytest.fixture
def pinned(monkeypatch):
    """Records the cores that processes are pinned to; does not pin this process, which runs the other tests."""
    cores = []
    monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
    monkeypatch.setattr(os, 'sched_setaffinity', lambda pid, mask: cores.append(mask), raising=False)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: cores[-1] if cores else {3, 5}, raising=False)
    return cores


def test_streaming_gives_what_the_whole_file_gives(tmp_path, monkeypatch, capsys, pinned):
    model = {'channels': (2, 4), 'lstm_units': 4, 'lstm_layers': 1}
    variables = reference.random_variables(jax.eval_shape(Dccrn(**model).init, jax.random.key(0)))
    config = ml_collections.ConfigDict({'system': 'dccrn', 'model': model})
    runs.save(tmp_path / 'run', config, variables)
    paths = [_write(tmp_path / 'in' / 'a.wav', 3333), _write(tmp_path / 'in' / 'b.wav', 4444, seed=1)]
    stereo = 0.1 * np.random.default_rng(2).standard_normal((5001, 2))
    paths.append(tmp_path / 'in' / 'c.wav')
    soundfile.write(paths[-1], stereo, 44100, subtype='FLOAT')
    soundfile.write(tmp_path / 'in' / 'd.wav', np.array([0, np.nan]), 16000, subtype='FLOAT')
    assert _main(monkeypatch, '--workdir', tmp_path / 'run', '--output', tmp_path / 'out', '--stream', '--strength',
                 0.9, '--noise', tmp_path / 'noise', tmp_path / 'in') == 1
    printed = capsys.readouterr()
    assert pinned == [{3}]
    enhancer = Enhancer(runs.load(tmp_path / 'run'))
    for path in paths:
        noisy, rate = audio.read(path)
        enhanced, expected = audio.read(tmp_path / 'out' / path.name)[0], enhancer(noisy, rate, strength=0.9)
        assert_allclose(enhanced, expected, atol=1e-4)
        assert_allclose(audio.read(tmp_path / 'noise' / path.name)[0], noisy - expected, atol=1e-4)
    first, *files, last = printed.out.splitlines()
    assert first.startswith('streaming on one core: look-ahead 30.5 ms')  # 2 + 3 hops of 100 samples, less 12
    for line, path, seconds in zip(files, paths, ('0.2', '0.3', '0.1'), strict=True):
        assert line.startswith(f'{tmp_path / "out" / path.name}: {seconds} s of audio in ')
        assert 'real-time factor' in line
    assert last.startswith('real-time factor ') and ' on one core: 0.6 s of audio in ' in last
    assert printed.err == f'not enhanced: {tmp_path / "in" / "d.wav"}: holds samples that are NaN or infinite\n'


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--steps', 3], '--stream: cannot be combined with --steps'),
    (['--chunk-seconds', 16], '--stream: cannot be combined with --chunk-seconds'),
    ([], 'toy: Toy needs the whole recording')])
def test_options_that_exclude_streaming_are_refused(tmp_path, monkeypatch, capsys, system, pinned, arguments, message):
    path = _write(tmp_path / 'a.wav')
    assert _main(monkeypatch, '--workdir', 'run', '--output', tmp_path / 'out', '--stream', *arguments, path) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f'error: {message}') and printed.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_an_interrupted_command_resumes(tmp_path, monkeypatch, capsys, system):
    inputs = [_write(tmp_path / 'in' / f'{name}.wav', seed=i) for i, name in enumerate('abc')]
    results = [tmp_path / 'out' / path.name for path in inputs]

    def made_now(*options) -> str:
        """The files that a call writes, as one word."""
        before = {path: path.stat().st_ino for path in results if path.exists()}  # a new file takes the place
        assert _main(monkeypatch, '--workdir', 'run', '--output', tmp_path / 'out', *options, tmp_path / 'in') == 0
        return ''.join(path.stem for path in results if path.stat().st_ino != before.get(path))

    assert made_now() == 'abc' and made_now() == ''
    assert '3 of 3 files were enhanced before' in capsys.readouterr().out
    results[1].unlink()
    assert made_now() == 'b'
    _write(inputs[2], seed=9)
    assert made_now() == 'c'
    assert_allclose(audio.read(results[2])[0], 0.5 * audio.read(inputs[2])[0], atol=2**-15)
    soundfile.write(results[0], np.zeros(800), 16000)  # someone else's
    assert made_now() == 'a'
    assert made_now('--strength', '0.5') == 'abc' and made_now('--strength', '0.5') == ''
    assert made_now('--noise', tmp_path / 'noise') == 'abc'
    journal = tmp_path / 'out' / '.enhanced.jsonl'
    lines = journal.read_text().splitlines()
    journal.write_text('\n'.join([*lines[:-1], lines[-1][:20]]))  # a partial last line
    assert made_now('--noise', tmp_path / 'noise') == 'c'
    system['system'] = toys.Constant()
    assert made_now() == 'abc'


def test_results_are_recognised_by_the_content_of_their_input(tmp_path, monkeypatch, capsys, system):
    paths = [_write(tmp_path / name / 'rec.wav', seed=seed) for seed, name in enumerate('ab')]
    for path in paths:
        os.utime(path, (1_577_836_800, 1_577_836_800))
    assert paths[0].stat().st_size == paths[1].stat().st_size

    def enhanced(path):
        assert _main(monkeypatch, '--workdir', 'run', '--output', tmp_path / 'out', path) == 0
        assert_allclose(soundfile.read(tmp_path / 'out' / 'rec.wav')[0], 0.5 * soundfile.read(path)[0], atol=2**-15)
        return 'enhanced before' in capsys.readouterr().out

    assert [enhanced(path) for path in (*paths, paths[1], paths[0])] == [False, False, True, False]
    moved = tmp_path / 'moved' / 'rec.wav'
    moved.parent.mkdir()
    moved.write_bytes(paths[0].read_bytes())
    assert enhanced(moved)  # the same sound
    paths[0].write_bytes(paths[1].read_bytes())  # another sound with the same time
    os.utime(paths[0], (1_577_836_800, 1_577_836_800))
    assert not enhanced(paths[0])


def test_encodings_that_cannot_be_written_are_refused_before_the_work(tmp_path, monkeypatch, capsys, system):
    path = tmp_path / 'a.wav'
    path.write_bytes(sounds.mp3_in_wav(tmp_path / 'part.mp3'))
    monkeypatch.setattr(Enhancer, 'enhance_file', lambda *_, **__: pytest.fail('it was begun'))
    assert _main(monkeypatch, '--workdir', 'run', '--output', tmp_path / 'out', path) == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith(f'not enhanced: {path}: WAV with MPEG_LAYER_III') and 'convert the file first' in line
    assert not (tmp_path / 'out').exists()


def test_a_folder_of_many_formats_is_enhanced_and_skipped_files_are_reported(tmp_path, monkeypatch, capsys, system):
    for name, kind in (('a.wav', {}), ('b.mp3', {}), ('c.ogg', {}), ('d.aiff', {}), ('e.opus', {'format': 'OGG',
                                                                                              'subtype': 'OPUS'})):
        soundfile.write(tmp_path / name, sounds.sine(16_000, 16_000), 16_000, **kind)
    (tmp_path / 'notes.txt').write_text('')
    out = tmp_path.parent / f'{tmp_path.name}_out'
    assert _main(monkeypatch, '--workdir', 'run', '--output', out, tmp_path) == 0
    assert sorted(path.name for path in out.glob('[!.]*')) == ['a.wav', 'b.mp3', 'c.ogg', 'd.aiff', 'e.opus']
    for path in out.glob('[!.]*'):
        given, made = soundfile.info(tmp_path / path.name), soundfile.info(path)
        assert (made.format, made.subtype, made.frames) == (given.format, given.subtype, given.frames)
    assert f'{tmp_path}: left out 1 of 6 files: 1 .txt' in capsys.readouterr().out


@pytest.mark.parametrize('damage', [b'\xff\xfe\n', b'[["a"], 1]\n', b'[' * 100_000 + b'\n', b'[]\n', b'half a line'])
def test_a_damaged_journal_is_repaired(tmp_path, monkeypatch, capsys, system, damage):
    paths = [_write(tmp_path / 'in' / name, seed=seed) for seed, name in enumerate(('a.wav', 'b.wav'))]

    def before():
        assert _main(monkeypatch, '--workdir', 'run', '--output', tmp_path / 'out', *paths) == 0
        return capsys.readouterr().out.partition(' files were enhanced before')[0].splitlines()[0]

    before()
    journal = tmp_path / 'out' / '.enhanced.jsonl'
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0] + damage)
    assert before() == '1 of 2' and before() == '2 of 2'


def test_results_behind_links_are_not_inputs(tmp_path, monkeypatch, capsys, system):
    given, out = tmp_path / 'base' / 'in', tmp_path / 'base' / 'out'
    _write(given / 'a.wav')
    (given / 'up').symlink_to('..')
    for done in ('', '1 of 1 files were enhanced before'):
        assert _main(monkeypatch, '--workdir', 'run', '--output', out, given) == 0
        assert done in capsys.readouterr().out
    assert [path.name for path in out.rglob('*.wav')] == ['a.wav']
