"""The enhancer in the package: its size, its files, what uses it, and that it helps real speech."""

import json
import logging
import pathlib

import jax
import numpy as np
import pytest
import soundfile
from ml_collections import ConfigDict
from numpy.testing import assert_allclose, assert_array_equal

import jax_diffse
from docs import pretrained as script
from docs import results
from jax_diffse import cli, pretrained, runs
from jax_diffse.errors import UserError
from jax_diffse.runs import layout
from jax_diffse.systems.base import Streaming
from jax_diffse.systems.dccrn import Dccrn
from tests import reference

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / 'examples'
NAMES = sorted(path.name for path in (EXAMPLES / 'noisy').iterdir())
MEGABYTE = 10**6


def example(name: str, kind: str = 'noisy') -> np.ndarray:
    samples, rate = soundfile.read(EXAMPLES / kind / name, dtype='float32')
    assert rate == 16_000
    return samples


def si_sdr(estimate: np.ndarray, target: np.ndarray) -> float:
    """Le Roux et al., SDR: half-baked or well done?, ICASSP 2019, equation 3, in dB."""
    estimate, target = estimate.astype(np.float64), target.astype(np.float64)
    scaled = (estimate @ target) / (target @ target) * target
    return 10 * np.log10((scaled @ scaled) / np.sum((scaled - estimate) ** 2))


@pytest.fixture(scope='module')
def enhance():
    return jax_diffse.load()


@pytest.fixture(scope='module')
def enhanced(enhance):
    return {name: enhance(example(name), 16_000) for name in NAMES}


# ------------------------------------------------------------------------------------------------------- the files


def test_sizes_are_within_their_limits():
    with np.load(pretrained.FOLDER / 'dccrn.npz', allow_pickle=False) as stored:
        parameters = sum(stored[name].size for name in stored.files if name.startswith('params/'))
    assert parameters <= 1_200_000
    assert (pretrained.FOLDER / 'dccrn.npz').stat().st_size <= 3 * MEGABYTE
    assert sum(path.stat().st_size for path in EXAMPLES.rglob('*') if path.is_file()) <= MEGABYTE


def test_it_is_a_run_that_says_how_it_was_trained():
    run = runs.load(pretrained.NAME)
    assert isinstance(run.system, Streaming) and run.system.sample_rate == 16_000
    history = runs.history_of(pretrained.NAME)
    assert history == run.history and history['seconds'] > 0 and history['data']
    assert all(command.startswith('python train.py --config dccrn:') for command in history['commands'])
    assert history['commits'] and not any('dirty' in commit for commit in history['commits'])


def test_a_step_or_size_that_it_lacks_is_named():
    step = runs.load(pretrained.NAME).step
    with pytest.raises(UserError, match=f'^package:dccrn: no checkpoint of step 3; available: {step}$'):
        runs.load(pretrained.NAME, step=3)
    with pytest.raises(UserError, match='^package:dccrn: the checkpoint of step .* does not fit its config'):
        runs.load(pretrained.NAME, model={'lstm_units': 8})


def test_every_kind_of_material_is_credited():
    credits = (pretrained.FOLDER / 'CREDITS.txt').read_text(encoding='utf-8')
    for corpus in ('LibriSpeech', 'LibriTTS', 'VCTK', 'VoiceBank-DEMAND', 'LJ Speech', 'ESC-10', 'Speech Commands',
                   'Blanket'):
        assert corpus in credits, corpus
    for refused in ('ARCTIC', 'MS-SNSD', 'SA 3.0', 'Apache'):
        assert refused not in credits, refused


def variables() -> dict:
    """Weights of many magnitudes, and statistics that float16 cannot hold."""
    rng = np.random.default_rng(0)
    kernel = (rng.standard_normal((50, 20)) * 10.0 ** rng.uniform(-6, 3, (50, 20))).astype(np.float32)
    return {'params': {'net': {'layer': {'kernel': kernel}}}, 'batch_stats': {'net': {'var': np.float32([1e-9, 1e9])}}}


def test_weights_come_back_rounded_to_half_precision_and_statistics_as_they_were(tmp_path):
    given = variables()
    pretrained.write({'step': 1}, given, tmp_path)
    meta, found = pretrained.read(pretrained.NAME, tmp_path)
    assert meta['step'] == 1
    assert_array_equal(found['batch_stats']['net']['var'], given['batch_stats']['net']['var'])
    # IEEE 754 binary16 has 11 significant bits, and steps of 2^-24 below 2^-14.
    kernel = given['params']['net']['layer']['kernel']
    error = np.abs(found['params']['net']['layer']['kernel'] - kernel)
    assert np.all(error <= np.maximum(2.0**-11 * np.abs(kernel), 2.0**-25)) and error.any()


@pytest.mark.parametrize(('value', 'shape', 'meta', 'message'), [
    (1e6, (2,), {}, 'params/net/kernel: holds values that are not finite in float16'),
    (np.nan, (2,), {}, 'not finite in float16'),
    (0.0, (1_200_001,), {}, '1200001 parameters'),
    (0.0, (2,), {'history': {'data': 'speech /home/me/speech'}}, 'absolute path'),
    (0.0, (2,), {'config': {'data': {'speech': '/data'}}}, 'absolute path'),
])
def test_what_may_not_be_packaged_is_refused(tmp_path, value, shape, meta, message):
    with pytest.raises(UserError, match=message):
        pretrained.write(meta, {'params': {'net': {'kernel': np.full(shape, value, np.float32)}}}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_files_than_the_weights_belong_to_are_refused(tmp_path):
    pretrained.write({'step': 1}, variables(), tmp_path)
    other = variables()
    other['params']['net']['layer']['kernel'] *= 2
    first = (tmp_path / 'dccrn.json').read_text()
    pretrained.write({'step': 2}, other, tmp_path)
    (tmp_path / 'dccrn.json').write_text(first)
    with pytest.raises(UserError, match='does not match its checksum'):
        pretrained.read(pretrained.NAME, tmp_path)


# -------------------------------------------------------------------------------------------------- what it does


def test_it_keeps_the_polarity_of_the_speech(enhanced):
    """SI-SDR, which the next test measures, is the same for inverted speech."""
    for name in NAMES:
        clean = example(name, 'clean')
        assert np.vdot(enhanced[name], clean) > 0.5 * np.vdot(clean, clean), name


def test_it_improves_real_speech(enhanced):
    gains = {name: si_sdr(enhanced[name], example(name, 'clean')) - si_sdr(example(name), example(name, 'clean'))
             for name in NAMES}
    assert len(gains) == 5 and min(gains.values()) > 0 and np.mean(list(gains.values())) > 2, gains


def test_it_gives_the_same_every_time(enhanced):
    again = jax_diffse.load(pretrained.NAME)
    for name in NAMES[:2]:
        assert_array_equal(again(example(name), 16_000), enhanced[name])


def test_a_stream_gives_what_the_whole_file_gives(enhanced):
    stream = jax_diffse.load_streaming()
    assert stream.latency_seconds == 8 * 0.016  # six blocks of the decoder, a window of two hops, and the hop itself
    noisy = example(NAMES[0])[:16_000]
    found = np.concatenate([*(stream(noisy[i:i + 777]) for i in range(0, len(noisy), 777)), stream.flush()])
    end = len(noisy) - round(stream.latency_seconds * 16_000)  # what follows changes nothing before this
    assert len(found) == len(noisy)
    assert_allclose(found[:end], enhanced[NAMES[0]][:end], atol=1e-4)


# ------------------------------------------------------------------------------------------------- who uses it


def test_load_says_that_no_run_was_named(caplog):
    with caplog.at_level(logging.WARNING):
        assert jax_diffse.load().run.workdir == pathlib.Path(pretrained.NAME)
    assert [record.getMessage() for record in caplog.records] == [pretrained.NOTICE]
    caplog.clear()
    jax_diffse.load(pretrained.NAME)
    assert not caplog.records
    assert pretrained.NAME in pretrained.NOTICE and 'docs/pretrained.md' in pretrained.NOTICE


def test_the_command_uses_it_and_says_so(enhanced, tmp_path, capsys):
    name = NAMES[0]
    arguments = ['enhance', str(EXAMPLES / 'noisy' / name)]
    assert cli.run([*arguments, '-o', str(tmp_path / 'out')]) == 0
    assert capsys.readouterr().out.splitlines()[0] == pretrained.NOTICE
    found, _ = soundfile.read(tmp_path / 'out' / name)
    assert_allclose(found, enhanced[name], atol=2**-15)  # 16 bits
    assert cli.run([*arguments, '--output', str(tmp_path / 'named'), '--workdir', pretrained.NAME]) == 0
    assert pretrained.NOTICE not in capsys.readouterr().out
    assert (tmp_path / 'named' / name).read_bytes() == (tmp_path / 'out' / name).read_bytes()


def test_a_pipe_has_the_notice_beside_the_samples(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr('jax_diffse.launch.use_one_core', lambda: None)
    monkeypatch.setattr('jax_diffse.inference.live.enhance_pcm',
                        lambda workdir, rate, **_: asked.append((workdir, rate)))
    cli.run(['enhance', '--stdin-pcm', '16000'])
    printed = capsys.readouterr()
    assert asked == [(pretrained.NAME, 16_000)] and not printed.out and printed.err == f'{pretrained.NOTICE}\n'


# ---------------------------------------------------------------------------------------------- docs/pretrained.py


HISTORY = {'commands': ['python train.py --config dccrn'], 'commits': ['0123abc'], 'data': 'speech', 'seconds': 1.0,
           'from': {}}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Makes a run of a tiny DCCRN with a history, as a training would."""
    def make(**history):
        model, new = {'channels': (2, 4), 'lstm_units': 4, 'lstm_layers': 1}, layout.new_meta
        weights = reference.random_variables(jax.eval_shape(Dccrn(**model).init, jax.random.key(0)))
        monkeypatch.setattr(layout, 'new_meta', lambda config, rate, _: new(config, rate, HISTORY | history))
        runs.save(tmp_path / 'run', ConfigDict({'system': 'dccrn', 'model': model}), weights, step=7)
        return str(tmp_path / 'run')

    return make


def test_a_run_is_packaged_with_its_history_and_gives_the_same_output(trained, tmp_path):
    folder = trained()
    printed = script.write(folder, 'best', tmp_path / 'package')
    run, (meta, stored) = runs.load(folder), pretrained.read(pretrained.NAME, tmp_path / 'package')
    assert meta['history'] == HISTORY and meta['step'] == 7 and meta['config']['system'] == 'dccrn'
    assert not meta['inverted']
    change = script.largest_change(run, stored)
    assert 0 < change <= script.TOLERANCE and change == pytest.approx(meta['float16_change'])
    assert 'step 7' in printed


def test_an_inverted_run_is_packaged_upright(trained, tmp_path):
    folder = trained(inverted=True)
    script.write(folder, 'best', tmp_path / 'package')
    run, (meta, stored) = runs.load(folder), pretrained.read(pretrained.NAME, tmp_path / 'package')
    assert meta['inverted'] and not meta['history']['inverted']  # so that nothing turns it once more
    assert script.largest_change(run, stored) <= script.TOLERANCE


@pytest.mark.parametrize(('history', 'message'), [
    ({'commands': []}, 'does not say how it was trained'), ({'commits': []}, 'does not say how'),
    ({'commits': ['0123abc-dirty']}, 'trained with local changes')])
def test_a_run_of_unknown_origin_is_not_packaged(trained, tmp_path, history, message):
    with pytest.raises(UserError, match=message):
        script.write(trained(**history), 'best', tmp_path / 'package')
    assert not (tmp_path / 'package').exists()


def test_the_card_is_what_the_script_writes():
    assert (ROOT / 'docs' / 'pretrained.md').read_text(encoding='utf-8') == script.page()


@pytest.mark.parametrize('name', script.TESTED)
def test_the_figures_are_better_than_those_of_the_noisy_input(name):
    found = json.loads((results.STORE / f'{name}.json').read_text(encoding='utf-8'))
    assert all(script.better(found).values()), script.better(found)


def test_figures_of_other_weights_are_refused(tmp_path, monkeypatch):
    for name in script.FIGURES:
        found = json.loads((results.STORE / f'{name}.json').read_text(encoding='utf-8'))
        found['checkpoint']['hash'] = 64 * '0'
        (tmp_path / f'{name}.json').write_text(json.dumps(found))
    monkeypatch.setattr(results, 'STORE', tmp_path)
    with pytest.raises(UserError, match='other weights than those in the package'):
        script.page()
