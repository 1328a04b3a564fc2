import os
import pathlib
import runpy
import sys

import numpy as np
import pytest
import soundfile
from numpy.testing import assert_allclose

from jax_diffse import audio
from jax_diffse.errors import UserError
from jax_diffse.evaluation import enhance
from jax_diffse.training import checkpoints
from tests import toys

ENTRY_POINT = pathlib.Path(__file__).resolve().parents[2] / 'enhance.py'


@pytest.fixture
def system(monkeypatch):
    """Makes every workdir a run of a toy system, which halves."""
    chosen = {'system': toys.Toy()}
    monkeypatch.setattr(checkpoints, 'load', lambda workdir, step: toys.run(chosen['system']))
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
        for folder in ('out', 'noise'):  # the system halves: what stays and what goes are alike
            assert_allclose(audio.read(tmp_path / folder / name)[0], 0.5 * noisy, atol=2**-15)
    printed = capsys.readouterr().out
    assert all(str(tmp_path / 'out' / name) in printed for name in ('single.wav', 'a.wav', 'deep/b.flac'))
    assert 'real-time factor' in printed and 'compilation' in printed
    assert sorted(p.name for p in (tmp_path / 'out').rglob('*')) == ['a.wav', 'b.flac', 'deep', 'single.wav']


def test_flags_reach_the_enhancer(tmp_path, monkeypatch, system):
    system['system'] = toys.Stepped()
    path = _write(tmp_path / 'a.wav')
    asked = []
    load = checkpoints.load
    monkeypatch.setattr(checkpoints, 'load', lambda workdir, step: asked.append((workdir, step)) or load(workdir, step))
    assert _main(monkeypatch, '--workdir', 'run', '--output', tmp_path / 'out', '--steps', 5, '--strength', 0.5,
                 '--checkpoint', 1000, '--chunk-seconds', 4, path) == 0
    assert asked == [('run', 1000)]
    assert_allclose(audio.read(tmp_path / 'out' / 'a.wav')[0], 0.6 * audio.read(path)[0], atol=2**-15)


def test_bad_files_are_reported_at_the_end_and_the_others_done(tmp_path, monkeypatch, capsys, system):
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
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [good.name, late.name]


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
        enhance.plan([first, second, tmp_path / 'x' / 'b.wav'], tmp_path / 'y')


def test_results_of_the_same_name_are_a_user_error(tmp_path, system):
    first, second = _write(tmp_path / 'x' / 'a.wav'), _write(tmp_path / 'y' / 'a.wav')
    with pytest.raises(UserError, match='both .*x/a.wav and .*y/a.wav'):
        enhance.plan([first, second], tmp_path / 'out')
    with pytest.raises(UserError, match='both .*x/a.wav and .*x/a.wav'):
        enhance.plan([first], tmp_path / 'out', noise=tmp_path / 'out')


@pytest.mark.parametrize('output', ['in', 'in/out'])
def test_results_among_the_inputs_are_a_user_error(tmp_path, output):
    _write(tmp_path / 'in' / 'a.wav')
    with pytest.raises(UserError, match='would overwrite|lies in the input folder'):
        enhance.plan([tmp_path / 'in'], tmp_path / output)


def test_a_folder_without_audio_is_a_user_error(tmp_path):
    (tmp_path / 'in').mkdir()
    with pytest.raises(UserError, match='no audio files'):
        enhance.plan([tmp_path / 'in'], tmp_path / 'out')


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--steps', 11], '--steps=11: takes 1 to 10'), (['--strength', 1.5], '--strength=1.5'),
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
        assert enhance.enhance('run', [path], tmp_path / 'out', strength=strength) == 0
    assert_allclose(audio.read(tmp_path / 'out' / 'a.wav')[0], audio.read(path)[0], atol=2**-15)
