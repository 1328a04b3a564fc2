"""Runs of the loop on a few small files: resuming, stopping, refusing."""

import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
import soundfile
from ml_collections import ConfigDict

from jax_diffse import files, runs
from jax_diffse.data import DataConfig, open_source, pipeline
from jax_diffse.errors import UserError
from jax_diffse.runs import history
from jax_diffse.training.loop import train
from tests.toys import Trainable
from tests.training.tiny import assert_same, make_config, weights


@pytest.fixture(scope='module')
def whole_run(corpus, tmp_path_factory):
    workdir, config = tmp_path_factory.mktemp('whole'), make_config(corpus)
    with config.unlocked():
        config.log.audio_examples = 1
    return workdir, train(config, workdir)


@pytest.fixture(scope='module')
def half_run(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('half')
    train(make_config(corpus, steps=3), workdir)
    return workdir


def test_resumed_run_equals_the_uninterrupted_one(whole_run, half_run, corpus, tmp_path):
    shutil.copytree(half_run, tmp_path, dirs_exist_ok=True)
    result = train(make_config(corpus), tmp_path)
    assert_same(weights(tmp_path, 6), weights(whole_run[0], 6))
    assert result == whole_run[1]


def test_a_training_on_segments_counts_them(corpus, tmp_path, capsys):
    """Of 8 files of 8000 + 500 i samples, one is held out; a segment has 4000."""
    config = make_config(corpus, steps=1)
    with config.unlocked():
        config.data.segments = True
    train(config, tmp_path)
    held = int(open_source(DataConfig.from_config_dict(config.data), 'validation').info(0)['id'])
    expected = sum((8000 + 500 * i) // 4000 for i in range(8) if i != held)
    assert f': {expected} training segments and 1 validation utterances, ' in capsys.readouterr().out
    assert runs.load(tmp_path).history['data'].endswith(f'; {expected} segments')


def test_sigterm_saves_and_the_same_command_resumes(whole_run, corpus, tmp_path, monkeypatch):
    batches = pipeline.train_batches

    def interrupted(*args, **kwargs):
        for i, batch in enumerate(batches(*args, **kwargs)):
            if i == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, 'train_batches', interrupted)
        assert train(make_config(corpus), tmp_path)['step'] == 2
    train(make_config(corpus), tmp_path)
    assert_same(weights(tmp_path, 6), weights(whole_run[0], 6))


def test_sigterm_in_a_validation_saves_and_resumption_validates(whole_run, corpus, tmp_path, monkeypatch):
    batches = pipeline.eval_batches

    def interrupted(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        yield from batches(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, 'eval_batches', interrupted)
        stopped = train(make_config(corpus), tmp_path)
    assert stopped['step'] == 3 and np.isnan(stopped['validation_loss']) and not stopped['finished']
    assert train(make_config(corpus), tmp_path) == whole_run[1]
    assert_same(weights(tmp_path, 6), weights(whole_run[0], 6))


@pytest.mark.parametrize('item', ['variables/manifest.ocdbt', 'optimizer/d/*', 'meta/metadata', 'metrics/metrics',
                                  'SHA256SUMS'])
def test_a_truncated_checkpoint_is_moved_aside_and_the_previous_one_used(item, whole_run, corpus, tmp_path, caplog):
    shutil.copytree(whole_run[0], tmp_path, dirs_exist_ok=True)
    path = next((tmp_path / 'checkpoints' / '6').glob(item))
    os.truncate(path, path.stat().st_size // 2)
    assert runs.load(tmp_path, step='latest').step == 3
    with pytest.raises(UserError, match='the checkpoint of step 6 is damaged'):
        runs.load(tmp_path, step=6)
    assert train(make_config(corpus), tmp_path) == whole_run[1]
    assert_same(weights(tmp_path, 6), weights(whole_run[0], 6))
    assert sum('step 6 is damaged' in message for message in caplog.messages) == 2
    assert [folder.name.partition('-')[0] for folder in (tmp_path / 'damaged').iterdir()] == ['6']


def test_a_run_with_only_damaged_checkpoints_is_left_unchanged(half_run, corpus, tmp_path):
    shutil.copytree(half_run, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'checkpoints' / '3' / 'meta' / 'metadata').write_text('')
    with pytest.raises(UserError, match='none of its checkpoints can be read .step 3'):
        train(make_config(corpus), tmp_path)
    assert (tmp_path / 'checkpoints' / '3').exists()


def test_a_workdir_is_locked_by_one_process(half_run, corpus, tmp_path):
    shutil.copytree(half_run, tmp_path, dirs_exist_ok=True)
    with files.locked(tmp_path / '.lock', 'run'):
        with pytest.raises(UserError, match=f'process {os.getpid()} on .* is using it'):
            train(make_config(corpus), tmp_path)
    assert train(make_config(corpus), tmp_path)['finished']


def test_workdir_holds_logs_and_the_best_and_latest_checkpoints(whole_run):
    workdir, result = whole_run
    lines = (workdir / 'log.jsonl').read_text().splitlines()
    assert any('"validation/toy/loss"' in line for line in lines) and any('"toy/twice"' in line for line in lines)
    assert list((workdir / 'tensorboard').iterdir())
    assert (workdir / 'config.json').exists()
    run = runs.load(workdir)
    assert run.step in (3, 6) and run.config.train.steps == 6
    assert runs.load(workdir, step='latest').step == result['step'] == 6
    with pytest.raises(UserError, match='no checkpoint of step 5'):
        runs.load(workdir, step=5)


def test_fields_of_the_model_can_be_replaced_on_loading(whole_run):
    run = runs.load(whole_run[0], model={'stage': 'toy'})
    assert run.config.model.stage == run.system.stage == 'toy'
    with pytest.raises(UserError, match='config.model.stge: unknown key'):
        runs.load(whole_run[0], model={'stge': 'toy'})
    with pytest.raises(UserError, match='does not fit its config'):
        runs.load(whole_run[0], model={'width': 5})


def test_a_value_of_another_type_is_named_on_loading(tmp_path):
    config = ConfigDict({'system': 'toy', 'model': {'width': 4}})
    runs.save(tmp_path, config, Trainable().init(jax.random.key(0)))
    with pytest.raises(UserError, match="config.model.width='x': "):
        runs.load(tmp_path, model={'width': 'x'})


def test_an_interrupted_save_can_be_repeated(tmp_path):
    (tmp_path / 'checkpoints' / '0.orbax-checkpoint-tmp-1').mkdir(parents=True)
    config = ConfigDict({'system': 'toy', 'model': {'width': 4}})
    runs.save(tmp_path, config, Trainable().init(jax.random.key(0)))
    assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['0']
    with pytest.raises(UserError, match='holds checkpoints already'):
        runs.save(tmp_path, config, Trainable().init(jax.random.key(0)))


def test_a_diverging_run_names_the_step_and_keeps_the_checkpoint(half_run, corpus, tmp_path):
    shutil.copytree(half_run, tmp_path, dirs_exist_ok=True)
    before = weights(tmp_path, 'latest')
    batches = pipeline.train_batches

    def poisoned(*args, **kwargs):
        for i, batch in enumerate(batches(*args, **kwargs)):
            batch = dict(batch)
            if i == 1:
                batch['noisy_spec'] = np.full_like(batch['noisy_spec'], np.inf)
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, 'train_batches', poisoned)
        with pytest.raises(UserError, match='at step 5.*checkpoint of step 3 is kept'):
            train(make_config(corpus), tmp_path)
    assert_same(weights(tmp_path, 'latest'), before)


def test_another_config_is_refused_by_key(whole_run, corpus):
    config = make_config(corpus)
    with config.unlocked():
        config.optimizer.learning_rate = 1e-2
    with pytest.raises(UserError, match='optimizer.learning_rate was 0.001, is 0.01'):
        train(config, whole_run[0])


def test_another_config_is_accepted_on_request(half_run, corpus, tmp_path, capsys):
    shutil.copytree(half_run, tmp_path, dirs_exist_ok=True)
    config = make_config(corpus)
    with config.unlocked():
        config.optimizer.learning_rate = 1e-2
    train(config, tmp_path, change_config=True)
    assert 'the config was changed: optimizer.learning_rate was 0.001, is 0.01' in capsys.readouterr().out
    assert runs.load(tmp_path).config.optimizer.learning_rate == 0.01
    train(config, tmp_path)  # now the config of the run


def test_data_at_another_rate_than_the_system_are_refused(tmp_path):
    for kind in ('clean', 'noisy'):
        (tmp_path / kind).mkdir()
        for i in range(8):
            soundfile.write(tmp_path / kind / f'{i}.wav', np.full(4000, 0.1), 8000)
    config = make_config(tmp_path)
    with config.unlocked():
        config.data.sample_rate = 8000
    with pytest.raises(UserError, match=r'the data are at 8000 Hz \(config.data.sample_rate\), expected the 16000 Hz'):
        train(config, tmp_path / 'run')


def test_early_stop_and_time_limit(corpus, tmp_path):
    config = make_config(corpus, steps=50, eval_every=1, early_stop=2)
    with config.unlocked():
        config.optimizer.learning_rate = 3.0  # leaps over every minimum
        config.train.ema_decay = 0.0
    assert train(config, tmp_path / 'stale')['step'] < 50
    assert train(make_config(corpus, max_minutes=1e-9), tmp_path / 'late')['step'] == 1


def test_misspelt_and_mistyped_keys_are_named(corpus, tmp_path):
    config = make_config(corpus)
    with config.unlocked():
        config.train.learning_rte = 1.0
    with pytest.raises(UserError, match=r'config\.train\.learning_rte: unknown key'):
        train(config, tmp_path)
    with pytest.raises(UserError, match=r'config\.train\.batch_size: expected int'):
        train(make_config(corpus, batch_size='8'), tmp_path)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match='not a run'):
        runs.load(tmp_path)


def test_weights_and_biases_gets_the_scalars_if_a_project_is_named(corpus, tmp_path, monkeypatch):
    class Wandb:
        logged = []

        def init(self, **kwargs):
            assert kwargs['project'] == 'speech' and kwargs['config']['train']['steps'] == 1
            return self

        def log(self, values, step):
            self.logged.append((step, values))

        def finish(self):
            self.logged.append('finished')

    monkeypatch.setitem(sys.modules, 'wandb', Wandb())
    config = make_config(corpus, steps=1)
    with config.unlocked():
        config.log.wandb_project = 'speech'
    train(config, tmp_path)
    assert Wandb.logged[0][0] == 1 and 'toy/loss' in Wandb.logged[0][1] and Wandb.logged[-1] == 'finished'


def test_a_run_keeps_the_record_of_its_training(half_run, corpus, tmp_path, monkeypatch):
    """The record covers all calls of the run, and the run that it started from."""
    def call(workdir, commit, **keys):
        monkeypatch.setattr(history, 'commit', lambda: commit)
        monkeypatch.setattr(sys, 'argv', ['train.py', '--workdir', f'the {commit}'])
        config = make_config(corpus, **keys)
        with config.unlocked():
            config.init_from = str(half_run) if workdir.name == 'next' else ''
        train(config, workdir, change_config=True)
        return runs.load(workdir, step='latest').history

    shutil.copytree(half_run, tmp_path / 'run')
    before = runs.load(half_run).history
    assert before['seconds'] > 0 and before['from'] == {}
    assert before['data'] == f'clean {corpus / "clean"}, noisy {corpus / "noisy"}; 7 utterances'
    after = call(tmp_path / 'run', 'abc')
    assert after['commands'] == [*before['commands'], "python train.py --workdir 'the abc'"]
    assert after['commits'] == [*before['commits'], 'abc']
    assert after['seconds'] > before['seconds'] and after['date'] == before['date']
    assert after['processor_seconds'] > before['processor_seconds'] > 0
    assert call(tmp_path / 'run', 'abc', steps=7)['commands'] == after['commands']  # the same command again
    following = call(tmp_path / 'next', 'xyz', steps=1)
    assert (following['commits'], following['from']) == (['xyz'], before)


def test_the_commit_is_that_of_the_clone(tmp_path, monkeypatch):
    def git(*words):
        return subprocess.run(['git', '-C', tmp_path, '-c', 'user.name=a', '-c', 'user.email=a@b', *words], check=True,
                              capture_output=True, text=True).stdout.strip()

    source = tmp_path / 'jax_diffse' / 'training' / 'history.py'
    source.parent.mkdir(parents=True)
    source.write_text('')
    monkeypatch.setattr(history, '__file__', str(source))
    found = []
    for prepare in (lambda: None, lambda: git('init'), lambda: (git('add', '.'), git('commit', '-m', 'x')),
                    lambda: source.write_text('changed')):
        prepare()
        history.commit.cache_clear()
        found.append(history.commit())
    head = git('rev-parse', '--short=12', 'HEAD')
    assert found == ['', '', head, f'{head}-dirty']
    history.commit.cache_clear()


def test_a_prepared_array_is_training_data(corpus, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / 'train.npy', (0.1 * rng.standard_normal((8, 2, 8000))).astype(np.float32))
    config = make_config(corpus, steps=3)
    with config.unlocked():
        config.data.train = {'arrays': str(tmp_path / 'train.npy')}
    assert train(config, tmp_path / 'run')['finished']
    assert runs.load(tmp_path / 'run').history['data'] == f'arrays {tmp_path / "train.npy"}; 7 utterances'


def test_a_run_older_than_a_key_resumes_unless_the_key_is_set(half_run, corpus, tmp_path):
    shutil.copytree(half_run, tmp_path, dirs_exist_ok=True)
    config = make_config(corpus, steps=4)
    with config.unlocked():
        config.data.train.arrays, config.data.snr_uniform, config.data.clip_seconds = '', False, 0.0
        config.data.share, config.data.esc_test_fold = 1.0, 5  # neutral values that are not empty
    assert train(config, tmp_path)['step'] == 4
    with config.unlocked():
        config.data.min_seconds = 0.3
    with pytest.raises(UserError, match='data.min_seconds was None, is 0.3'):
        train(config, tmp_path)
    with config.unlocked():
        config.data.min_seconds, config.data.share = 0.25, 0.5
    with pytest.raises(UserError, match='data.share was 1.0, is 0.5'):
        train(config, tmp_path)
