"""Traces of steps: which, where, and what an interruption leaves."""

import gzip
import json
import os
import signal
import types

import jax
import pytest

from jax_diffse.data import pipeline
from jax_diffse.errors import UserError
from jax_diffse.training import chain, profile
from jax_diffse.training.loop import train
from jax_diffse.training.profile import Window
from tests.training.tiny import make_config


def traced(workdir) -> list[int]:
    """The steps that the only trace of a run names."""
    path, = (workdir / 'tensorboard' / 'plugins' / 'profile').glob('*/*.trace.json.gz')
    assert path.with_name(path.name.replace('.trace.json.gz', '.xplane.pb')).stat().st_size > 0
    with gzip.open(path) as file:
        events = json.load(file)['traceEvents']
    return sorted(int(event['args']['step_num']) for event in events if event.get('name') == 'train')


def only_logs(workdir) -> bool:
    """Whether no file of a trace is there, not even one under a temporary name."""
    return all('tfevents' in path.name for path in (workdir / 'tensorboard').rglob('*') if path.is_file())


def stopped_at(monkeypatch, batch: int, act) -> None:
    """Makes the data call `act` when a batch, from 0 on, is drawn."""
    batches = pipeline.train_batches

    def stopping(*args, **kwargs):
        for i, drawn in enumerate(batches(*args, **kwargs)):
            if i == batch:
                act()
            yield drawn

    monkeypatch.setattr(pipeline, 'train_batches', stopping)


@pytest.mark.parametrize('text', ['', '5', '0:0', '0:3', '3:0', '1:2:3', 'a:b', '-1:2', '1.5:2', '١:٢', ' 1:2',
                                  '1:2\n'])
def test_anything_but_two_whole_numbers_is_refused(text):
    with pytest.raises(UserError, match='expected FIRST:COUNT, two whole numbers from 1 on'):
        Window.of(text)


def test_a_window_lies_within_the_steps_that_are_left():
    assert Window.of('3:4') == Window(3, 4) and Window(3, 4).last == 6
    Window(3, 4).check(6)
    Window(3, 4).check(6, done=2)
    with pytest.raises(UserError, match='--profile=3:4: the training ends at step 5, expected steps from 1 to 5'):
        Window(3, 4).check(5)
    with pytest.raises(UserError, match='the training resumes after step 3 and ends at step 9, .*from 4 to 9'):
        Window(3, 4).check(9, done=3)


def test_a_trace_has_the_steps_of_the_window(corpus, tmp_path, capsys):
    train(make_config(corpus), tmp_path, profile=Window(2, 3))
    assert traced(tmp_path) == [2, 3, 4]
    board = tmp_path / 'tensorboard'
    assert (f'{board}: has the trace of steps 2 to 4; to see it: pip install xprof tensorboard, then tensorboard '
            f'--logdir {board}\n') in capsys.readouterr().out
    assert not list(board.glob('.*'))
    with pytest.raises(UserError, match='resumes after step 6 and ends at step 8'):
        train(make_config(corpus, steps=8), tmp_path, profile=Window(2, 3))
    assert train(make_config(corpus), tmp_path, profile=Window(2, 3))['finished']  # no step is left
    assert traced(tmp_path) == [2, 3, 4]


def test_an_interrupt_leaves_no_trace_and_a_later_one_can_start(corpus, tmp_path, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        stopped_at(patch, 2, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(make_config(corpus), tmp_path, profile=Window(2, 3))
    assert only_logs(tmp_path)
    train(make_config(corpus), tmp_path, profile=Window(1, 1))
    assert traced(tmp_path) == [1]


def test_a_run_that_stops_early_has_the_trace_until_then(corpus, tmp_path, monkeypatch, capsys):
    stopped_at(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert train(make_config(corpus), tmp_path, profile=Window(2, 4))['step'] == 3
    assert traced(tmp_path) == [2, 3] and 'has the trace of steps 2 to 3;' in capsys.readouterr().out


def test_a_trace_that_cannot_be_written_does_not_end_the_training(corpus, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(profile, 'os', types.SimpleNamespace(replace=full))
    assert train(make_config(corpus), tmp_path, profile=Window(2, 1))['finished']
    assert 'the trace of steps 2 to 2 cannot be written ([Errno 28] No space left' in capsys.readouterr().out
    assert only_logs(tmp_path)


def test_a_window_beyond_any_stage_is_found_before_the_training(corpus, tmp_path):
    config = make_config(corpus)
    for stages in ({}, {'chain': ('toy', 'late'), 'init_from': '',
                        'stages': {'toy': {}, 'late': {'model': {'stage': 'late'}, 'train': {'steps': 2}}}}):
        with config.unlocked():
            config.model.stage = 'toy'
            config.update(stages)
        with pytest.raises(UserError, match=f'ends at step {2 if stages else 6}, expected steps from 1'):
            chain.train(config, tmp_path / 'run', profile=Window(3, 1) if stages else Window(6, 2))
    assert not (tmp_path / 'run').exists()


def test_jax_has_no_open_trace_after_a_run(corpus, tmp_path):
    train(make_config(corpus, steps=2), tmp_path / 'run', profile=Window(1, 2))
    with jax.profiler.trace(tmp_path / 'own'):  # raises if there is one
        pass
