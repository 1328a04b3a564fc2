"""Configs: what the command line may say, and that every experiment in configs/ builds what it names."""

import pathlib

import pytest

from jax_diffse import config, data, systems
from jax_diffse.errors import UserError
from jax_diffse.training import loop
from jax_diffse.training.state import OptimizerConfig

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / 'configs').glob('[!_]*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize('variant', ['', ':quick', ':released', ':noisy', ':quick,noisy'])
def test_every_experiment_builds(path, variant):
    loaded = config.load(f'{path}{variant}')
    stages = [config.stage_config(loaded, name) for name in loaded.chain] if 'chain' in loaded else [loaded]
    for stage in stages:
        system = systems.build(stage.system, stage.model)
        data.DataConfig.from_config_dict(stage.data)
        settings = config.from_config_dict(loop.TrainConfig, stage.train, 'config.train')
        config.from_config_dict(OptimizerConfig, stage.optimizer, 'config.optimizer')
        assert system.losses and (settings.steps <= 100 or 'quick' not in variant)


def test_stages_take_over_what_is_given_for_the_chain():
    """What a stage does not change itself, it has from the rest; what is given for one stage stays there."""
    path = str(CONFIGS[0].with_name('dr_diffuse.py'))
    loaded = config.load(path, ['--config.train.batch_size=3', '--config.data.train.speech=x',
                                '--config.stages.refiner.train.steps=7'])
    stages = {name: config.stage_config(loaded, name) for name in loaded.chain}
    assert list(stages) == ['c_gen', 'diffusion', 'refiner'] == [stage.model.stage for stage in stages.values()]
    assert {(stage.train.batch_size, stage.data.train.speech) for stage in stages.values()} == {(3, 'x')}
    assert [stage.train.steps for stage in stages.values()] == [67500, 67500, 7]
    assert [stage.optimizer.learning_rate for stage in stages.values()] == [1e-3, 2e-4, 1e-3]
    assert 'chain' not in stages['refiner'] and 'stages' not in stages['refiner']


def test_overrides_reach_nested_keys_with_their_type():
    loaded = config.load(str(CONFIGS[0]), ['--config.train.batch_size=3', '--config.data.train.speech=a b',
                                           '--config.data.snr_db=(1.0,2.0)'])
    assert (loaded.train.batch_size, loaded.data.train.speech, loaded.data.snr_db) == (3, 'a b', (1.0, 2.0))


@pytest.mark.parametrize('path, overrides, message', [
    ('nothing.py', [], 'nothing.py: no such file'),
    (f'{CONFIGS[0]}:slow', [], "unknown variant 'slow', expected quick, released, noisy"),
    (str(CONFIGS[0]), ['--config.train.batchsize=3'], 'batchsize'),
    (str(CONFIGS[0]), ['--config.train.batch_size=three'], 'batch_size'),
    (str(CONFIGS[0]), ['--batch_size=3'], 'expected --config.KEY=VALUE'),
])
def test_mistakes_are_one_line_that_names_them(path, overrides, message):
    with pytest.raises(UserError) as error:
        config.load(path, overrides)
    assert message in str(error.value) and '\n' not in str(error.value)


def test_values_that_a_system_refuses_name_the_key():
    with pytest.raises(UserError, match="compression must be one of .* got 'cube'"):
        systems.build('dr_diffuse', {'compression': 'cube'})
    with pytest.raises(UserError, match="unknown system 'dr_difuse'"):
        systems.build('dr_difuse', {})
