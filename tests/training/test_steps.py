"""Steps run ahead of the devices, are compiled once, and log their speed."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from jax_diffse.data import pipeline
from jax_diffse.errors import UserError
from jax_diffse.training import loop, parallel
from jax_diffse.training.loop import train
from tests.training.tiny import assert_same, make_config, weights

COMPILED = '/jax/core/compile/backend_compile_duration'


@pytest.fixture
def asynchronous(monkeypatch):
    """The loop as it is on accelerators."""
    monkeypatch.setattr(parallel.Parallel, 'asynchronous', True)


@pytest.fixture
def compiled():
    """The names of the programs that are compiled, or taken from the cache."""
    names = []

    def note(event, seconds, **about):
        if event == COMPILED:
            names.append(about['fun_name'])

    jax.monitoring.register_event_duration_secs_listener(note)
    yield names
    jax.monitoring.unregister_event_duration_listener(note)


class Value:
    """A metric on a device, which notes what is done with it."""

    def __init__(self, step, events):
        self._step, self._events = step, events

    def block_until_ready(self):
        self._events.append(f'wait for {self._step}')

    def __array__(self, *_, **__):
        self._events.append(f'fetch {self._step}')
        return np.float32(self._step)


@pytest.fixture
def events(monkeypatch):
    """What a training does, in order; the steps' metrics are `Value`s."""
    events, set_up = [], loop.set_up

    def step(training):
        class Step:
            def lower(self, *args):
                return training.train_step.lower(*args)

            def __call__(self, state, batch):
                number = 1 + sum(event.startswith('step') for event in events)
                events.append(f'step {number}')
                return training.train_step(state, batch)[0], {'loss': Value(number, events)}

        return Step()

    def with_events(*args):
        training = set_up(*args)

        def place(batch):
            events.append('place')
            return training.place(batch)

        return dataclasses.replace(training, train_step=step(training), place=place)

    monkeypatch.setattr(loop, 'set_up', with_events)
    return events


def test_between_due_steps_nothing_is_fetched(corpus, tmp_path, events, asynchronous):
    """At most two steps are in flight beside the one that is dispatched, and the next batch is placed meanwhile."""
    train(make_config(corpus, steps=5, log_every=4, eval_every=100, save_every=100), tmp_path)
    assert events == ['place', 'step 1', 'place', 'step 2', 'place', 'step 3', 'place', 'wait for 1', 'step 4', 'place',
                      'wait for 2', 'fetch 1', 'fetch 2', 'fetch 3', 'fetch 4', 'step 5', 'fetch 5']


def test_on_cpus_a_batch_is_placed_when_it_is_due(corpus, tmp_path, events):
    train(make_config(corpus, steps=3, log_every=4, eval_every=100, save_every=100), tmp_path)
    assert events == ['place', 'step 1', 'place', 'step 2', 'place', 'step 3', 'wait for 1',
                      *(f'fetch {step}' for step in (1, 2, 3))]


def test_running_ahead_changes_no_result_and_no_resumption(corpus, tmp_path, monkeypatch):
    train(make_config(corpus), tmp_path / 'plain')
    monkeypatch.setattr(parallel.Parallel, 'asynchronous', True)
    train(make_config(corpus, steps=4), tmp_path / 'ahead')
    train(make_config(corpus), tmp_path / 'ahead')
    assert_same(weights(tmp_path / 'ahead', 6), weights(tmp_path / 'plain', 6))


def test_what_is_due_is_done_before_an_error_of_the_data(corpus, tmp_path, monkeypatch, asynchronous):
    batches = pipeline.train_batches

    def failing(*args, **kwargs):
        for i, batch in enumerate(batches(*args, **kwargs)):
            if i == 3:
                raise UserError('a file is gone')
            yield batch

    monkeypatch.setattr(pipeline, 'train_batches', failing)
    with pytest.raises(UserError, match='a file is gone'):
        train(make_config(corpus), tmp_path)
    assert any('validation/toy/loss' in line for line in (tmp_path / 'log.jsonl').read_text().splitlines())


@pytest.mark.parametrize('mapper', parallel.MAPPERS)
def test_a_run_compiles_its_step_once(corpus, tmp_path, capsys, compiled, mapper):
    """With validations, and when it resumes; the second time, the program comes from the cache of these tests."""
    def call(steps):
        compiled.clear()
        jax.clear_caches()
        config = make_config(corpus, steps=steps, accumulate=1)
        with config.unlocked():
            config.parallel.mapper = mapper
        train(config, tmp_path)
        line, = (line for line in capsys.readouterr().out.splitlines() if 'training step' in line)
        assert line.startswith(f'{tmp_path}: ')
        return line

    step, validation = ('jit(train_step)', 'jit(eval_step)') if mapper == 'shard_map' else ('jit(_fun)', 'jit(_fun)')
    call(4)
    assert sorted(name for name in compiled if name in (step, validation)) == sorted([step, validation])
    assert 'took the compiled training step from the cache in' in call(5)
    assert sorted(name for name in compiled if name in (step, validation)) == sorted([step, validation])
    shutil.rmtree(tmp_path)


def test_the_log_has_the_speed_and_the_terminal_examples_per_second(corpus, tmp_path, capsys):
    train(make_config(corpus, steps=2), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    logged = next(line for line in lines if 'examples_per_second' in line)
    assert logged['seconds_per_step'] >= logged['data_wait_seconds_per_step'] > 0
    assert logged['examples_per_second'] == pytest.approx(4 / logged['seconds_per_step'])
    assert logged['examples_per_second_per_device'] == pytest.approx(logged['examples_per_second'] / 4)
    assert not {'utilisation', 'device_memory_gb'} & logged.keys()  # on CPUs
    shown = next(line for line in capsys.readouterr().out.splitlines() if line.startswith('step 2: '))
    assert 'examples_per_second ' in shown and 'seconds_per_step' not in shown and 'per_device' not in shown
