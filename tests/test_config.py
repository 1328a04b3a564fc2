"""Configs: their location, command-line overrides, and the facts of papers in configs/."""

import pathlib
import shutil
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from jax_diffse import config, systems
from jax_diffse.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(('variant', 'expected'), [
    ('', {'si_snr': 1}), ('pmsqe', {'pmsqe': 1}), ('mse+lms', {'mse': 1000, 'lms': 1}),
    ('mse+si_snr', {'mse': 100, 'si_snr': 1}), ('si_snr+si_sdr', {'si_snr': 1, 'si_sdr': 1}),
    ('sdr+lms', {'sdr': 1, 'lms': 2}), ('sdr+pmsqe', {'sdr': 1, 'pmsqe': 15}), ('si_snr+lms', {'si_snr': 1, 'lms': 2}),
    ('si_snr+pmsqe', {'si_snr': 1, 'pmsqe': 8})])
def test_released_losses_have_the_weights_of_the_released_code(variant, expected):
    """Those of its table (`loss_mode`)."""
    loss = config.load(f'dccrn:{variant},released').model.loss.to_dict()
    assert {term: weight for term, weight in loss.items() if weight} == expected


@pytest.mark.parametrize(('variant', 'expected'), [
    ('', ('diffiner+', 0.4, 0.6, False)), ('released', ('diffiner+', 0.4, 0.4, True)),
    ('diffiner', ('diffiner', 0.9, 0.9, False)), ('released,diffiner', ('diffiner', 0.9, 0.9, True))])
def test_samplers_of_diffiner_are_those_documented_and_those_run(variant, expected):
    """The authors' Arguments.md, and their run_refiner.py, which passes eta_a for eta_b to Diffiner+."""
    model = config.load(f'diffiner:{variant}').model
    rule = model.diffiner if model.sampler == 'diffiner' else model.diffiner_plus
    assert (model.sampler, rule.eta_a, rule.eta_b, model.released) == expected


@pytest.mark.parametrize(('variant', 'expected'), [
    ('', (100.0, (), 'plateau', {'discriminator', 'generator'})),
    ('no_adversary', (100.0, (), 'plateau', {'generator'})),
    ('released', (0.001, (0.0, 5.0, 10.0, 15.0), 'constant', {'discriminator', 'generator'}))])
def test_variants_of_segan(variant, expected):
    """The notebook's `lambda_l1`, its levels of white noise and its learning rate, which never falls."""
    loaded = config.load(f'segan:{variant}')
    system = systems.build(loaded.system, loaded.model)
    assert (system.l1_weight, system.white_noise_db, loaded.optimizer.decay, set(system.losses)) == expected


@pytest.mark.parametrize(('name', 'expected'), [
    ('compact_diffiner', (4, 1e-3, 0.5, 1e-6)), ('compact_diffiner:released', (4, 1e-3, 0.5, 1e-6)),
    ('segan', (4, 1e-3, 0.5, 1e-6)), ('dr_diffuse:released', (2, 0.0, 0.5, 0.0))])
def test_plateau_rules_are_the_authors(name, expected):
    """The notebook's ReduceLROnPlateau; DR-DiffuSE's `half_lr`, which halves at the third epoch without improvement."""
    rule = config.load(name).optimizer
    assert rule.decay == 'plateau'
    assert (rule.plateau_patience, rule.plateau_threshold, rule.plateau_factor, rule.plateau_min_rate) == expected


@pytest.mark.parametrize('activation', ['silu', 'relu', 'gelu'])
def test_each_activation_of_the_compact_prior_is_a_config(activation):
    loaded = config.load(f'compact_diffiner:{activation}')
    assert systems.build(loaded.system, loaded.model).network.activation == activation


@pytest.mark.parametrize('count', [1, 2, 3, 5, 8])
def test_each_number_of_components_is_a_config(count):
    loaded = config.load(f'diffgmm:folders,small,k{count}')
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


def test_stages_inherit_overrides_of_the_chain():
    """What a stage does not change itself, it has from the rest; what is given for one stage stays there."""
    loaded = config.load('dr_diffuse', ['--config.train.batch_size=3', '--config.data.train.speech=x',
                                        '--config.stages.refiner.train.steps=7'])
    stages = {name: config.stage_config(loaded, name) for name in loaded.chain}
    assert list(stages) == ['c_gen', 'diffusion', 'refiner'] == [stage.model.stage for stage in stages.values()]
    assert {(stage.train.batch_size, stage.data.train.speech) for stage in stages.values()} == {(3, 'x')}
    assert [stage.train.steps for stage in stages.values()] == [67500, 67500, 7]
    assert [stage.optimizer.learning_rate for stage in stages.values()] == [1e-3, 2e-4, 1e-3]
    assert 'chain' not in stages['refiner'] and 'stages' not in stages['refiner']


def test_overrides_reach_nested_keys_with_their_type():
    loaded = config.load('dccrn', ['--config.train.batch_size=3', '--config.data.train.speech=a b',
                                   '--config.data.snr_db=(1.0,2.0)'])
    assert (loaded.train.batch_size, loaded.data.train.speech, loaded.data.snr_db) == (3, 'a b', (1.0, 2.0))
    with pytest.raises(AttributeError):
        loaded.train.batchsize = 3  # locked


@pytest.mark.parametrize('name, overrides, message', [
    ('nothing.py', [], 'nothing.py: no such file'),
    ('configs/nothing', [], 'configs/nothing: no such file'),
    ('nothing', [], 'nothing: no such config, expected the path of a file or one of bridge, compact_diffiner, dccrn, '),
    ('', [], 'no such config'),
    ('__init__', [], 'no such config'),
    ('segan:slow', [], "segan:slow: unknown variant 'slow', expected at most one of each group: adversary: "
     'no_adversary; data: voicebank, folders, dns, dns_fullband, spoken_demo; size: small, quick; length: short; '
     'faithfulness: released'),
    ('dccrn:mse,lms', [], 'mse and lms: expected one variant of the group loss'),
    ('diffgmm:k2,short,k3', [], 'k2 and k3: expected one variant of the group components'),
    ('segan:small,quick', [], 'small and quick: expected one variant of the group size'),
    ('dccrn', ['--config.train.batchsize=3'], "dccrn: unknown key 'batchsize'. Did you mean \"batch_size\""),
    ('dccrn', ['--config.train.batch_size=three'], 'batch_size'),
    ('dccrn', ['--batch_size=3'], 'expected --config.KEY=VALUE'),
])
def test_mistakes_are_one_line_that_names_them(name, overrides, message):
    with pytest.raises(UserError) as error:
        config.load(name, overrides)
    assert message in str(error.value) and '\n' not in str(error.value) and 'Traceback' not in str(error.value)


@pytest.mark.parametrize(('earlier', 'present'), [
    ('dr_diffuse_c_gen_short', 'dr_diffuse:c_gen,folders,short'),
    ('dr_diffuse_short.py:quick', 'dr_diffuse:quick,folders'),
    ('dr_diffuse_diffuse', 'dr_diffuse:diffusion'),
    ('configs/dr_diffuse_diffusec.py', 'dr_diffuse:diffusion,diffusec'),
    ('dr_diffuse_refiner:noisy', 'dr_diffuse:noisy,refiner'),
    ('configs/dccrn_short.py:si_snr+lms', 'dccrn:si_snr+lms,folders,small,short'),
    ('dccrn_short:quick,mse', 'dccrn:quick,mse,folders'),
    ('diffiner_small', 'diffiner:folders,small,short'),
    ('segan_short', 'segan:folders,short'),
    ('compact_diffiner_short:relu', 'compact_diffiner:relu,folders,short'),
    ('diffgmm_short:k5', 'diffgmm:k5,folders,small,short'),
    ('diffgmm_birds', 'diffgmm:birds')])
def test_an_earlier_name_of_a_config_names_the_new_one(earlier, present):
    with pytest.raises(UserError) as error:
        config.load(earlier)
    assert str(error.value) == f'--config={earlier}: is now {present}'
    config.load(present)


def test_every_earlier_name_has_a_new_name():
    for name in config.RENAMED.values():
        config.load(name)


@pytest.mark.parametrize('path', ['configs/dccrn.py', './configs/dccrn.py', str(ROOT / 'configs' / 'dccrn.py')])
def test_a_path_is_the_same_config_as_its_name(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert config.load(f'{path}:si_snr+lms,small') == config.load('dccrn:small,si_snr+lms')


def test_a_user_file_is_a_config(tmp_path):
    (tmp_path / 'mine.py').write_text(
        'from jax_diffse.config import load\n\n\ndef get_config():\n    config = load("dccrn:small").unlock()\n'
        '    config.train.steps = 3\n    return config.lock()\n')
    loaded = config.load(str(tmp_path / 'mine.py'), ['--config.train.batch_size=2'])
    assert (loaded.train.steps, loaded.train.batch_size, loaded.model.lstm_units) == (3, 2, 64)
    assert [path.name for path in tmp_path.iterdir()] == ['mine.py']


def test_an_installed_package_has_the_configs_within_it(tmp_path):
    """As they are mapped in pyproject.toml; a folder named configs beside the package is somebody else's."""
    shutil.copytree(ROOT / 'jax_diffse', tmp_path / 'jax_diffse', ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copytree(ROOT / 'configs', tmp_path / 'jax_diffse' / 'configs')
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'dccrn.py').write_text('raise ValueError')
    check = ("from jax_diffse import config; config.load('dccrn:mse,small'); config.load('demo')\n"
             "print(*(listed.name for listed in config.available()), sep='\\n')")
    done = subprocess.run([sys.executable, '-c', check], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == [listed.name for listed in config.available()], done.stderr


def test_all_configs_are_listed_with_their_titles():
    listed = {found.name: found for found in config.available()}
    assert set(listed) == {path.stem for path in (ROOT / 'configs').glob('[!_]*.py')}
    assert listed['segan'].title.startswith('SEGAN, scaled down')
    assert listed['segan'].variants['adversary'] == {
        'no_adversary': 'only the L1 distance, without a discriminator'}
    assert listed['dccrn'].defaults == {'loss': 'si_snr', 'data': 'folders'}


def test_values_that_a_system_refuses_name_the_key():
    with pytest.raises(UserError, match="compression must be one of .* got 'cube'"):
        systems.build('dr_diffuse', {'compression': 'cube'})
    with pytest.raises(UserError, match="unknown system 'dr_difuse'"):
        systems.build('dr_difuse', {})
