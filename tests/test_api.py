"""The public names of the package."""

import inspect
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from numpy.testing import assert_allclose

import jax_diffse
from jax_diffse import runs, systems
from jax_diffse.errors import UserError
from jax_diffse.systems.base import System
from tests import toys
from tests.training.tiny import make_config


def test_every_name_is_there_and_documented():
    assert set(jax_diffse.__all__) <= set(dir(jax_diffse))
    for name in jax_diffse.__all__:
        assert inspect.getdoc(getattr(jax_diffse, name)), name
    assert jax_diffse.System is System and re.match(r'\d+\.\d+', jax_diffse.__version__)
    with pytest.raises(AttributeError, match="no attribute 'enhance'"):
        jax_diffse.enhance  # noqa: B018


def test_the_package_is_lazy():
    code = ('import sys, jax_diffse; heavy = {"jax", "numpy", "tensorflow", "torch"}; print(heavy & set(sys.modules)); '
            'jax_diffse.load; print(heavy & set(sys.modules) == {"jax", "numpy"})')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['set()', 'True']


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    """Pairs of clean and noisy files."""
    folder, rng = tmp_path_factory.mktemp('corpus'), np.random.default_rng(0)
    for name in ('clean', 'noisy'):
        (folder / name).mkdir()
    for i in range(4):
        clean = 0.1 * rng.standard_normal(9000)
        soundfile.write(folder / 'clean' / f'{i}.wav', clean, 16_000)
        soundfile.write(folder / 'noisy' / f'{i}.wav', clean + 0.05 * rng.standard_normal(9000), 16_000)
    return folder


def test_train_load_and_evaluate(corpus, tmp_path, monkeypatch):
    """From a config to a report; each step is tested in full elsewhere."""
    monkeypatch.setitem(systems.SYSTEMS, 'toy', toys.Trainable)
    results = jax_diffse.train(make_config(corpus, steps=2), tmp_path / 'run')
    assert results.keys() == {'toy'} and results['toy']['step'] == 2 and results['toy']['finished']
    noisy, rate = soundfile.read(corpus / 'noisy' / '0.wav')
    enhanced = jax_diffse.load(tmp_path / 'run')(noisy, rate)
    assert enhanced.shape == noisy.shape and np.std(enhanced) > 0
    data = jax_diffse.EvaluationData(clean=corpus / 'clean', noisy=corpus / 'noisy', limit=2)
    options = jax_diffse.EvaluationOptions(metrics=('si_sdr',), workers=0)
    summary = jax_diffse.evaluate(tmp_path / 'run', tmp_path / 'report', data=data, options=options)
    assert summary['files'] == 2 and summary['stages'] == ['noisy', 'enhanced']
    stored = json.loads((tmp_path / 'report' / 'summary.json').read_text())
    means = [found['statistics']['noisy']['si_sdr']['mean'] for found in (stored, summary)]
    assert means[0] == pytest.approx(means[1])
    assert (tmp_path / 'report' / 'index.html').is_file()


def test_load_passes_its_arguments_on(monkeypatch):
    noisy = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    monkeypatch.setattr(runs, 'load', lambda run, step='best', model=None: toys.run(toys.Stepped()))
    assert_allclose(jax_diffse.load('run', steps=4)(noisy, 16_000), noisy / 4, atol=1e-6)
    with pytest.raises(UserError, match='steps=11: takes 1 to 10'):
        jax_diffse.load('run', steps=11)
    with pytest.raises(UserError, match='seed -1'):
        jax_diffse.load('run', seed=-1)
    with pytest.raises(UserError, match='chunk_seconds=0.5'):
        jax_diffse.load('run', chunk_seconds=0.5)


def test_overrides_are_for_named_configs(corpus, tmp_path):
    with pytest.raises(UserError, match='overrides need the name or path of a config'):
        jax_diffse.train(make_config(corpus), tmp_path / 'run', overrides={'train.steps': 1})
    with pytest.raises(UserError, match='unknown key'):
        jax_diffse.train('dccrn:quick', tmp_path / 'run', overrides={'train.stesp': 1})
    with pytest.raises(UserError, match='--profile=3: expected FIRST:COUNT'):
        jax_diffse.train('dccrn:quick', tmp_path / 'run', profile='3')
    with pytest.raises(UserError, match='--profile=15:9: the training ends at step 20'):
        jax_diffse.train('dccrn:quick', tmp_path / 'run', profile='15:9')
