"""docs/study.py and the studies that it runs."""

import json
import os
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest

from docs import study
from jax_diffse import audio, cli, config
from jax_diffse.errors import UserError

STUDIES = sorted(path.stem for path in study.STUDIES.glob('*.toml'))


@pytest.mark.parametrize('name', STUDIES)
def test_configs_and_arguments_of_a_study_exist(name):
    found = study.load(name)
    for training in study.trainings(found, 'data'):
        _, experiment, *keys = training.arguments
        loaded = config.load(experiment, keys)
        assert loaded.data.train.speech.startswith('data/') or loaded.data.train.clean.startswith('data/')
    for _, arguments in study.evaluations(found, 'data', pathlib.Path('runs', name)):
        parsed = cli.parser('evaluate').parse_args(arguments)
        assert len(parsed.workdir) == len(found['systems']) * len(found['seeds'])


def test_every_seed_has_a_run_of_its_own():
    found = {'data': {'train.clean': 'c'}, 'seeds': [0, 5], 'systems': {'a': {'config': 'dccrn', 'keys': {'x.y': 3}}}}
    assert list(study.trainings(found, 'd')) == [
        (f'a_{seed}', ['--config', 'dccrn', '--config.data.train.clean=d/c', '--config.x.y=3',
                       f'--config.train.seed={seed}']) for seed in (0, 5)]


@pytest.mark.parametrize('cores', [[None], [2, 5, 7]])
def test_each_lane_has_its_core_and_all_work_at_once(cores):
    """Only as many jobs as there are lanes get past the barrier, each on another core."""
    barrier, found, done = threading.Barrier(len(cores), timeout=60), [], []

    def work(job, core):
        found.append(core)
        if not barrier.wait():
            done.append(sorted(found[-len(cores):], key=str))
        barrier.wait()

    study.on_lanes(list(range(12)), cores, work)
    assert done == 12 // len(cores) * [cores]


def test_lanes_are_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {7, 2, 5}, raising=False)
    assert study.lanes(None) == [2, 5, 7] and study.lanes(2) == [2, 5] and study.lanes(1) == [None]
    for wrong in (0, 4):
        with pytest.raises(UserError, match=f'--lanes={wrong}: expected 1 to 3'):
            study.lanes(wrong)


def test_mistakes_are_one_line(monkeypatch):
    with pytest.raises(UserError, match='none: no such study, expected one of: .*generative'):
        study.load('none')
    monkeypatch.setattr(sys, 'argv', ['study', 'generative', '--data', 'x', '--only', 'sgmse,typo'])
    with pytest.raises(UserError, match='--only=sgmse,typo: expected some of sgmse, bridge'):
        study.main()


def test_the_speed_of_a_training_is_that_after_its_first_steps(monkeypatch):
    def train(training, workdir, core, log, *more):
        assert '--config.train.steps=40' in more and (training.name, core) == ('a', 3)
        pathlib.Path(workdir).mkdir()
        pathlib.Path(workdir, 'config.json').write_text('{"train": {"batch_size": 8}}')
        rates = {10: 0.1, 20: 4.0, 30: 2.0, 40: 4.0}  # examples per second: 2, 4 and 2 seconds per step
        pathlib.Path(workdir, 'log.jsonl').write_text(''.join(
            json.dumps({'step': step, 'examples_per_second': rate}) + '\n' for step, rate in rates.items())
            + '{"step": 40, "validation_loss": 1.0}\n')

    monkeypatch.setattr(study, 'train', train)
    assert study.speed(study.Training('a', []), 3, 10.0) == 'a: 2.67 s per step, 225 steps in 10 minutes'


@pytest.mark.slow
def test_a_study_trains_evaluates_and_stores(tmp_path):
    """In a copy of the scripts and of docs, with a study of a tiny system."""
    root = pathlib.Path(study.__file__).parents[1]
    for name in ('train.py', 'evaluate.py', 'configs', 'jax_diffse'):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / 'docs' / 'studies').mkdir(parents=True)
    (tmp_path / 'docs' / 'results').mkdir()
    for name in ('study.py', 'results.py', 'results/published.json'):
        (tmp_path / 'docs' / name).write_bytes((root / 'docs' / name).read_bytes())
    rng = np.random.default_rng(0)
    for name in ('speech/a/1', 'speech/a/2', 'speech/b/1', 'speech/b/2', 'noise/x/1', 'noise/y/1'):
        audio.write(tmp_path / 'data' / f'{name}.wav', 0.1 * rng.standard_normal(16_000), 16_000)
    (tmp_path / 'docs' / 'studies' / 'tiny.toml').write_text("""
about = "a test"
seeds = [0]
minutes = 0.1
[data]
"train.speech" = "speech"
"train.noise" = "noise"
[systems.mse]
config = "dccrn:mse,folders,quick"
keys = { "train.steps" = 4, "train.batch_size" = 4, "train.crop_seconds" = 0.5 }
[evaluations.mixtures]
arguments = ["--speech", "{data}/speech", "--noise", "{data}/noise", "--metrics", "si_sdr", "--limit", "2"]
""")
    done = subprocess.run([sys.executable, '-m', 'docs.study', 'tiny', '--data', 'data', '--lanes', '1'], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    stored = json.loads((tmp_path / 'docs' / 'results' / 'tiny_mixtures.json').read_text())
    assert (stored['files'], stored['note'], stored['checkpoint']['step']) == (2, 'a test', 4)
    assert stored['checkpoint']['history']['processor_seconds'] > 0
    assert 'tiny_mixtures' in (tmp_path / 'docs' / 'results.md').read_text()
