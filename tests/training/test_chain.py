"""Stages that build on each other: inherited weights, refused runs, and interrupted chains."""

import jax
import numpy as np
import pytest
import soundfile
from ml_collections import ConfigDict

from jax_diffse import runs
from jax_diffse.errors import UserError
from jax_diffse.spectral import FrontEnd
from jax_diffse.training import chain
from jax_diffse.training.initial import initial_variables
from jax_diffse.training.loop import train
from tests.toys import Trainable


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp('corpus'), np.random.default_rng(0)
    for kind, scale in (('clean', 0.1), ('noisy', 0.3)):
        (root / kind).mkdir()
        for i in range(6):
            soundfile.write(root / kind / f'{i}.wav', scale * rng.standard_normal(8000), 16_000)
    return root


def make_config(corpus, **late) -> ConfigDict:
    """Two stages: `late` learns on top of `toy`."""
    folders = {'clean': str(corpus / 'clean'), 'noisy': str(corpus / 'noisy')}
    return ConfigDict({
        'system': 'toy', 'model': {'stage': 'toy', 'width': 4}, 'chain': ('toy', 'late'), 'init_from': '',
        'data': {'name': 'folders', 'train': folders, 'validation': {}},
        'train': {'steps': 2, 'batch_size': 4, 'crop_seconds': 0.25, 'eval_every': 2, 'save_every': 2, 'log_every': 2,
                  'ema_decay': 0.9, 'max_minutes': 0.0, 'early_stop': 0},
        'optimizer': {'learning_rate': 1e-2}, 'log': {'audio_examples': 0}, 'parallel': {},
        'stages': {'toy': {}, 'late': {'model': {'stage': 'late'}, **late}}}).lock()


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


@pytest.fixture(scope='module')
def whole(corpus, tmp_path_factory):
    """A finished chain."""
    workdir = tmp_path_factory.mktemp('whole')
    return workdir, chain.train(make_config(corpus), workdir)


def test_the_last_run_holds_every_stage(whole):
    workdir, results = whole
    assert list(results) == ['toy', 'late'] and all(result['finished'] for result in results.values())
    first, last = runs.load(workdir / 'toy'), runs.load(workdir)
    assert last.system.stage == 'late' and last.config.init_from == str(workdir / 'toy')
    for collection in ('params', 'batch_stats'):
        assert set(last.variables[collection]) == {'toy', 'late'}
        assert_same(last.variables[collection]['toy'], first.variables[collection]['toy'])  # averaged weights, frozen
    assert set(first.variables['params']) == {'toy'}


def test_stage_by_stage_gives_the_same(whole, corpus, tmp_path):
    config = chain.stage_config(make_config(corpus), 'late')
    with config.unlocked():
        config.init_from = str(whole[0] / 'toy')
    train(config, tmp_path)
    assert_same(runs.load(tmp_path).variables, runs.load(whole[0]).variables)


def test_a_finished_chain_does_nothing_more(whole, corpus):
    before = (whole[0] / 'log.jsonl').read_text()
    results = chain.train(make_config(corpus), whole[0])
    assert results['late']['step'] == 2 and all(result['finished'] for result in results.values())
    assert (whole[0] / 'log.jsonl').read_text() == before


def test_an_interrupted_chain_resumes(whole, corpus, tmp_path):
    """A chain that its time limit stops after each step ends with the same result."""
    limited = make_config(corpus)
    with limited.unlocked():
        limited.train.max_minutes = 1e-9
    reached = []
    while not reached or reached[-1] != ('late', 2):
        results = chain.train(limited, tmp_path)
        stage = list(results)[-1]
        reached.append((stage, results[stage]['step']))
        assert results[stage]['finished'] == (results[stage]['step'] == 2)
    # A stage's last step finishes it in the same call in which the next one makes its first.
    assert reached == [('toy', 1), ('late', 1), ('late', 2)]
    assert_same(runs.load(tmp_path, step='latest').variables,
                runs.load(whole[0], step='latest').variables)


def test_a_stage_that_stopped_early_is_finished(corpus, tmp_path):
    config = chain.stage_config(make_config(corpus), 'toy')
    with config.unlocked():
        config.train.update(steps=50, eval_every=1, early_stop=2, ema_decay=0.0)
        config.optimizer.learning_rate = 3.0  # leaps over every minimum
    first, again = train(config, tmp_path), train(config, tmp_path)
    assert first['finished'] and again['finished'] and first['step'] == again['step'] < 50


def test_a_trained_group_starts_from_its_origin(whole):
    """The second stage starts as a copy of the first, or resumes from a run that has it."""
    system = Trainable(stage='late')
    from_first = initial_variables(system, jax.random.key(0), str(whole[0] / 'toy'))
    assert_same(from_first['params']['late'], from_first['params']['toy'])
    last = runs.load(whole[0]).variables
    assert_same(initial_variables(system, jax.random.key(0), str(whole[0])), last)
    assert_same(initial_variables(Trainable(), jax.random.key(0), str(whole[0]))['params']['toy'],
                last['params']['toy'])


def test_without_an_earlier_run_frozen_groups_are_an_error(tmp_path):
    assert_same(initial_variables(Trainable(), jax.random.key(3)), Trainable().init(jax.random.key(3)))
    with pytest.raises(UserError, match='config.init_from: this stage builds on trained toy: name the run'):
        initial_variables(Trainable(stage='late'), jax.random.key(0))
    with pytest.raises(UserError, match='not a run'):
        initial_variables(Trainable(stage='late'), jax.random.key(0), str(tmp_path))


@pytest.mark.parametrize(('system', 'message'), [
    (Trainable(width=5), 'the size or kind of its toy differs from config.model.*"width": 4'),
    (Trainable(front_end=FrontEnd(compression='cubic')),
     "has compression='[a-z0-9]+', but this config has compression='cubic'"),
])
def test_a_run_that_does_not_fit_is_refused(whole, system, message):
    with pytest.raises(UserError, match=message):
        initial_variables(system, jax.random.key(0), str(whole[0] / 'toy'))


def test_a_missing_frozen_group_is_named(whole, monkeypatch):
    monkeypatch.setattr(Trainable, 'origins', {'toy': ('early',)})
    with pytest.raises(UserError, match='holds toy, but this stage needs toy as well'):
        initial_variables(Trainable(stage='late'), jax.random.key(0), str(whole[0] / 'toy'))


def test_mistakes_in_stages_are_named_before_anything_runs(corpus, tmp_path):
    config = make_config(corpus, optimizer={'learning_rat': 1.0})
    with pytest.raises(UserError, match='config.stages.late.*learning_rat'):
        chain.train(config, tmp_path / 'run')
    with config.unlocked():
        config.chain = ('toy', 'last')
    with pytest.raises(UserError, match="config.chain: unknown stage 'last', expected some of late, toy"):
        chain.train(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()
