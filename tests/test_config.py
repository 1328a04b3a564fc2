"""Configs: what the command line may say, and that every experiment in configs/ builds what it names."""

import pathlib

import pytest
from ml_collections import ConfigDict

from jax_diffse import config, data, systems
from jax_diffse.errors import UserError
from jax_diffse.training.settings import TrainConfig
from jax_diffse.training.state import OptimizerConfig

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / 'configs').glob('[!_]*.py'))


def experiments():
    """Every config with the variants that its kind has."""
    own = {'dccrn': ['mse+lms', 'sdr+pmsqe,released', 'voicebank', 'si_snr,quick'],
           'diffiner': ['diffiner', 'released,diffiner', 'quick,diffiner'],
           'segan': ['no_adversary', 'released,no_adversary', 'quick,no_adversary'],
           'compact_diffiner': ['silu', 'relu', 'gelu', 'released,relu', 'quick,gelu', 'quick,released']}
    own['diffgmm'] = ['k1', 'k2', 'k3', 'k8', 'small', 'small,k8', 'quick,k3']
    for path in CONFIGS:
        kind = next((kind for kind in own if path.stem.startswith(kind)), None)
        released = [] if kind == 'diffgmm' else ['released']  # nothing of it is
        for variant in ['', 'quick', *released, *own.get(kind, ['noisy', 'quick,noisy'])]:
            yield pytest.param(path, f':{variant}' if variant else '', id=f'{path.stem}-{variant}')


@pytest.mark.parametrize(('path', 'variant'), experiments())
def test_every_experiment_builds(path, variant):
    loaded = config.load(f'{path}{variant}')
    stages = [config.stage_config(loaded, name) for name in loaded.chain] if 'chain' in loaded else [loaded]
    for stage in stages:
        system = systems.build(stage.system, stage.model)
        data.DataConfig.from_config_dict(stage.data)
        settings = config.from_config_dict(TrainConfig, stage.train, 'config.train')
        config.from_config_dict(OptimizerConfig, stage.optimizer, 'config.optimizer')
        assert system.losses and (settings.steps <= 100 or 'quick' not in variant)


@pytest.mark.parametrize(('variant', 'expected'), [
    ('', {'si_snr': 1}), ('pmsqe', {'pmsqe': 1}), ('mse+lms', {'mse': 1000, 'lms': 1}),
    ('mse+si_snr', {'mse': 100, 'si_snr': 1}), ('si_snr+si_sdr', {'si_snr': 1, 'si_sdr': 1}),
    ('sdr+lms', {'sdr': 1, 'lms': 2}), ('sdr+pmsqe', {'sdr': 1, 'pmsqe': 15}), ('si_snr+lms', {'si_snr': 1, 'lms': 2}),
    ('si_snr+pmsqe', {'si_snr': 1, 'pmsqe': 8})])
def test_released_losses_have_the_weights_of_the_released_code(variant, expected):
    """Those of its table (`loss_mode`)."""
    loss = config.load(f'{CONFIGS[0].with_name("dccrn.py")}:{variant},released').model.loss.to_dict()
    assert {term: weight for term, weight in loss.items() if weight} == expected


@pytest.mark.parametrize(('variant', 'expected'), [
    ('', ('diffiner+', 0.4, 0.6, False)), ('released', ('diffiner+', 0.4, 0.4, True)),
    ('diffiner', ('diffiner', 0.9, 0.9, False)), ('released,diffiner', ('diffiner', 0.9, 0.9, True))])
def test_samplers_of_diffiner_are_those_documented_and_those_run(variant, expected):
    """The authors' Arguments.md, and their run_refiner.py, which passes eta_a for eta_b to Diffiner+."""
    model = config.load(f'{CONFIGS[0].with_name("diffiner.py")}:{variant}').model
    rule = model.diffiner if model.sampler == 'diffiner' else model.diffiner_plus
    assert (model.sampler, rule.eta_a, rule.eta_b, model.released) == expected


@pytest.mark.parametrize(('variant', 'expected'), [
    ('', (100.0, (), 'plateau', {'discriminator', 'generator'})),
    ('no_adversary', (100.0, (), 'plateau', {'generator'})),
    ('released', (0.001, (0.0, 5.0, 10.0, 15.0), 'constant', {'discriminator', 'generator'}))])
def test_variants_of_segan(variant, expected):
    """The notebook's `lambda_l1`, its levels of white noise and its learning rate, which never falls."""
    loaded = config.load(f'{CONFIGS[0].with_name("segan.py")}:{variant}')
    system = systems.build(loaded.system, loaded.model)
    assert (system.l1_weight, system.white_noise_db, loaded.optimizer.decay, set(system.losses)) == expected


@pytest.mark.parametrize(('name', 'expected'), [
    ('compact_diffiner.py', (4, 1e-3, 0.5, 1e-6)), ('compact_diffiner.py:released', (4, 1e-3, 0.5, 1e-6)),
    ('segan.py', (4, 1e-3, 0.5, 1e-6)), ('dr_diffuse.py:released', (2, 0.0, 0.5, 0.0))])
def test_plateau_rules_are_the_authors(name, expected):
    """The notebook's ReduceLROnPlateau; DR-DiffuSE's `half_lr`, which halves at the third epoch without improvement."""
    rule = config.load(str(CONFIGS[0].with_name(name))).optimizer
    assert rule.decay == 'plateau'
    assert (rule.plateau_patience, rule.plateau_threshold, rule.plateau_factor, rule.plateau_min_rate) == expected


@pytest.mark.parametrize('activation', ['silu', 'relu', 'gelu'])
def test_each_activation_of_the_compact_prior_is_a_config(activation):
    loaded = config.load(f'{CONFIGS[0].with_name("compact_diffiner.py")}:{activation}')
    assert systems.build(loaded.system, loaded.model).network.activation == activation


@pytest.mark.parametrize('count', [1, 2, 3, 5, 8])
@pytest.mark.parametrize('name', ['diffgmm', 'diffgmm_short'])
def test_each_number_of_components_is_a_config(name, count):
    loaded = config.load(f'{CONFIGS[0].with_name(name)}.py:k{count}')
    assert systems.build(loaded.system, loaded.model).network.components == count


@pytest.mark.parametrize(('text', 'expected'), [
    ('eta_b=0.4', 0.4), ('network.attention=(1,2)', (1, 2)), ('sampler=diffiner+', 'diffiner+'), ('sampler=a=b', 'a=b'),
    ('respacing=10', '10'), ('respacing=10,5', '10,5')])
def test_settings_of_a_command_line(text, expected):
    """Text stays text where the field is text, even where it looks like a number."""
    model = ConfigDict({'eta_b': 0.6, 'sampler': '', 'respacing': 'ddim200', 'network': {'attention': (16, 32)}})
    key, value = config.setting(text)
    config.override(model, {key: value})
    *path, last = key.split('.')
    assert (model[path[0]] if path else model)[last] == expected


def test_overriding_a_model():
    model = ConfigDict({'eta_b': 0.6, 'network': {'heads': 4}})
    config.override(model, {'network.heads': 8, 'eta_b': 0.5})
    assert model.to_dict() == {'eta_b': 0.5, 'network': {'heads': 8}}
    for key, value in (('network.heads', 'many'), ('eta_b.heads', 1), ('net.heads', 1)):
        with pytest.raises(UserError, match=f'config.model.{key}={value!r}'):
            config.override(model, {key: value})


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
    (f'{CONFIGS[0].with_name("dr_diffuse.py")}:slow', [],
     "dr_diffuse.py:slow: unknown variant 'slow', expected quick, released, noisy"),
    (f'{CONFIGS[0].with_name("dccrn.py")}:mse,lms', [], 'mse and lms: expected one loss; join its terms with +'),
    (f'{CONFIGS[0].with_name("diffgmm.py")}:k2,k3', [], 'k2 and k3: expected one number of components'),
    (str(CONFIGS[0]), ['--config.train.batchsize=3'], 'batchsize'),
    (str(CONFIGS[0]), ['--config.train.batch_size=three'], 'batch_size'),
    (str(CONFIGS[0]), ['--batch_size=3'], 'expected --config.KEY=VALUE'),
])
def test_mistakes_are_one_line_that_names_them(path, overrides, message):
    with pytest.raises(UserError) as error:
        config.load(path, overrides)
    assert message in str(error.value) and '\n' not in str(error.value) and 'Traceback' not in str(error.value)


def test_values_that_a_system_refuses_name_the_key():
    with pytest.raises(UserError, match="compression must be one of .* got 'cube'"):
        systems.build('dr_diffuse', {'compression': 'cube'})
    with pytest.raises(UserError, match="unknown system 'dr_difuse'"):
        systems.build('dr_difuse', {})
