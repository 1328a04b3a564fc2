"""Checkpoints of SGMSE+, the bridge and FlowSE: files in the format of their trainer, written here with small networks.

The format was measured on files of Lightning 2.6.6 and torch-ema: see the docstring of each writer.
"""

import sys
import types

import jax
import numpy as np
import pytest
import torch

from jax_diffse import runs
from jax_diffse.cli import run as command_line
from jax_diffse.conversion import layouts
from jax_diffse.conversion import ncsnpp as conversion
from jax_diffse.diffusion.preconditioning import Preconditioning
from jax_diffse.diffusion.processes import Ouve
from jax_diffse.errors import UserError
from jax_diffse.inference.enhancer import Enhancer
from jax_diffse.networks.ncsnpp import BACKBONES, NcsnppConfig
from jax_diffse.systems.bridge import SchroedingerBridge
from jax_diffse.systems.flowse import FlowSe
from jax_diffse.systems.sgmse import Sgmse
from tests import reference

SIZES = {'nf': 16, 'ch_mult': [1, 2, 2], 'num_res_blocks': 1, 'attn_resolutions': [16], 'n_fft': 62}
DATA = 'sgmse.data_module.SpecsDataModule'


def weights_of(name='ncsnpp'):
    """The weights of the fixture's small network, under the released names and in their order."""
    return reference.load('sgmse_nets').state_dict(f'{name}.')


def named_class(name):
    """A class that pickles as `name`; its modules exist while a file is written."""
    module, _, own = name.rpartition('.')
    return type(own, (), {'__module__': module})


def write(path, weights, hyper_parameters=None, data_module=DATA, **ema):
    """Writes what Lightning writes: the network below `dnn.`, a loss's own weights, and torch-ema's lists."""
    tensors = {f'dnn.{name}': torch.tensor(value) for name, value in weights.items()}
    tensors['pesq_loss.fbank'] = torch.zeros(3)
    checkpoint = {
        'epoch': 3, 'global_step': 70, 'pytorch-lightning_version': '2.6.6', 'state_dict': tensors,
        'loops': {'fit_loop': {'state_dict': {}}}, 'callbacks': {"ModelCheckpoint{'monitor': None}": {'best': 1.0}},
        'optimizer_states': [{'state': {0: {'step': torch.tensor(7.0)}}}], 'lr_schedulers': [],
        'hparams_name': 'kwargs', 'hyper_parameters': SIZES if hyper_parameters is None else hyper_parameters}
    if data_module:
        cls = named_class(data_module)
        checkpoint['hyper_parameters'] = {**checkpoint['hyper_parameters'], 'data_module_cls': cls}
    if ema:
        checkpoint['ema'] = {'decay': 0.999, 'num_updates': 70, 'collected_params': None} | {
            name: values and [torch.tensor(value) for value in values] for name, values in ema.items()}
    with pytest.MonkeyPatch.context() as patch:
        if data_module:
            package, _, _ = data_module.partition('.')
            module, _, own = data_module.rpartition('.')
            patch.setitem(sys.modules, package, types.ModuleType(package))
            patch.setitem(sys.modules, module, types.ModuleType(module))
            setattr(sys.modules[module], own, cls)
        torch.save(checkpoint, path)
    return path


def shifted(weights, by, skip=()):
    """Other values of the same shapes, in the same order."""
    return [value + np.float32(by) for name, value in weights.items() if name not in skip]


def to_torch(variables, backbone='ncsnpp'):
    config, bins = conversion.network(dict(conversion.DEFAULTS, **SIZES, backbone=backbone))
    return layouts.to_torch(conversion.entries(config, bins), variables)


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'x.ckpt'


@pytest.mark.parametrize('name', BACKBONES)
def test_every_weight_is_used_once_and_comes_back(name):
    weights = weights_of(name)
    config, bins = conversion.network({**conversion.DEFAULTS, **SIZES, 'backbone': name})
    assert (config.division, config.progressive) == (BACKBONES[name].division, BACKBONES[name].progressive)
    assert_equal(layouts.to_torch(conversion.entries(config, bins), conversion.variables(weights, config, bins)),
                 weights)


def test_the_table_below_a_root():
    config, bins = conversion.network({**conversion.DEFAULTS, **SIZES})
    for plain, rooted in zip(conversion.entries(config, bins), conversion.entries(config, bins, ('score',)),
                             strict=True):
        assert rooted.path == (plain.path[0], 'score', *plain.path[1:])
        assert rooted.name == plain.name


@pytest.mark.parametrize('data_module', [DATA, 'flowmse.data_module.SpecsDataModule', None])
def test_moving_averages_are_read_by_default(path, data_module):
    weights = weights_of()
    write(path, weights, data_module=data_module, shadow_params=shifted(weights, 1))
    variables, hyper_parameters = conversion.load(path)
    assert_equal(to_torch(variables), dict(zip(weights, shifted(weights, 1), strict=True)))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype('float32')}
    assert 'data_module_cls' not in hyper_parameters


def test_moving_averages_without_the_frozen_frequencies(path):
    """torch-ema 0.2 left out what is not trained; the state dict has it."""
    weights = weights_of()
    frozen = 'all_modules.0.W'
    write(path, weights, shadow_params=shifted(weights, 1, {frozen}))
    found = to_torch(conversion.load(path)[0])
    assert_equal(found, {name: value if name == frozen else value + np.float32(1) for name, value in weights.items()})


def test_raw_weights(path):
    """From the state dict, or, where a file was written during validation, from the list beside the averages."""
    weights = weights_of()
    write(path, weights, shadow_params=shifted(weights, 1))
    assert_equal(to_torch(conversion.load(path, 'raw')[0]), weights)
    write(path, weights, shadow_params=shifted(weights, 1), collected_params=shifted(weights, 2))
    assert_equal(to_torch(conversion.load(path, 'raw')[0]), dict(zip(weights, shifted(weights, 2), strict=True)))
    assert_equal(to_torch(conversion.load(path)[0]), dict(zip(weights, shifted(weights, 1), strict=True)))
    write(path, weights)  # without averages
    assert_equal(to_torch(conversion.load(path, 'raw')[0]), weights)


def test_absent_hyper_parameters_take_the_released_defaults(path):
    weights = weights_of()
    write(path, weights, SIZES, shadow_params=shifted(weights, 1))
    _, found = conversion.read(path)
    expected = {'backbone': 'ncsnpp', 'sde': 'ouve', 'theta': 1.5, 'sigma_min': 0.05, 'sigma_max': 0.5, 'N': 30,
                't_eps': 0.03, 'sr': 16_000, 'n_fft': 62, 'hop_length': 128, 'spec_factor': 0.15, 'nf': 16,
                'spec_abs_exponent': 0.5, 'loss_type': 'score_matching', 'network_scaling': None, 'c_in': '1',
                'c_out': '1', 'c_skip': '0', 'sigma_data': 0.1, 'transform_type': 'exponent', 'window': 'hann'}
    assert {name: found[name] for name in expected} == expected
    assert 'ode' not in found and 'k' not in found and 'T_rev' not in found


@pytest.mark.parametrize(('given', 'expected'), [
    ({'sde': 'sbve', 'k': 2.5, 'backbone': 'ncsnpp_v2', 'loss_type': 'data_prediction'},
     {'sde': 'sbve', 'k': 2.5, 'c': 0.4, 'N': 50, 'loss_type': 'data_prediction', 'attn_resolutions': [16]}),
    ({'ode': 'flowmatching', 'N': 30},
     {'ode': 'flowmatching', 'sigma_min': 0.0, 'sigma_max': 0.487, 'T_rev': 1.0, 'N': 30, 'loss_type': 'mse'}),
    ({'backbone': 'ncsnpp_48k', 'sde': 'ouve', 'theta': 2.0, 'sigma_max': 1.0},
     {'theta': 2.0, 'sigma_min': 0.1, 'sigma_max': 1.0, 'attn_resolutions': [], 'sr': 48_000, 'n_fft': 1534,
      'hop_length': 384, 'spec_factor': 0.065, 'spec_abs_exponent': 0.667}),
    ({'backbone': 'ncsnpp_48k', 'sr': 16_000, 'n_fft': 510, 'hop_length': 128},
     {'theta': 2.0, 'sr': 16_000, 'n_fft': 510, 'hop_length': 128, 'spec_factor': 0.065})])
def test_given_hyper_parameters_stay_and_the_process_fills_in_its_own(path, given, expected):
    write(path, weights_of(), given, shadow_params=shifted(weights_of(), 0))
    _, found = conversion.read(path)
    assert {name: found[name] for name in expected} == expected


def test_default_sizes_are_the_published_ones():
    for name, config in BACKBONES.items():
        found, bins = conversion.network({**conversion.DEFAULTS, 'attn_resolutions': list(config.attention),
                                          'backbone': name})
        assert (found, bins) == (config, 256)
    assert conversion.network({**conversion.DEFAULTS, 'attn_resolutions': [16]})[0] == NcsnppConfig()


# -------------------------------------------------------------------------------------------------------- whole runs

FRONT_END = {'n_fft': 62, 'hop': 16}
NETWORK = NcsnppConfig(16, (1, 2, 2), 1)
V2 = NcsnppConfig(16, (1, 2, 2), 1, division='none')
EDM = {'c_in': 'edm', 'c_out': 'edm', 'c_skip': 'edm'}
RUNS = {  # kind, backbone, hyper-parameters besides the sizes, and the system that they make
    'sgmse': ('sgmse', 'ncsnpp', {}, Sgmse(NETWORK, **FRONT_END)),
    'sgmse, all given': (
        'sgmse', 'ncsnpp', {'sde': 'ouve', 'theta': 1.0, 'sigma_min': 0.1, 'sigma_max': 0.9, 'N': 3, 't_eps': 0.05,
                            'sr': 8000, 'window': 'sqrthann', 'spec_factor': 0.2, 'spec_abs_exponent': 0.6},
        Sgmse(NETWORK, 8000, **FRONT_END, sqrt_hann=True, exponent=0.6, factor=0.2, steps=3, t_eps=0.05,
              ouve=Ouve(1.0, 0.1, 0.9))),
    'sgmse, objectives': (
        'sgmse', 'ncsnpp_v2', {'loss_type': 'denoiser', 'loss_weighting': 'edm', 'transform_type': 'log', **EDM},
        Sgmse(V2, **FRONT_END, compression='log1x', padding='reflection', loss_weighting='edm',
              preconditioning=Preconditioning('denoiser', 'none', 'edm', 'edm', 'edm'))),
    'sgmse, 48 kHz': (
        'sgmse', 'ncsnpp_48k', {'attn_resolutions': [16]},
        Sgmse(NcsnppConfig(16, (1, 2, 2), 1, progressive=False, division='after'), 48_000, **FRONT_END, exponent=0.667,
              factor=0.065, padding='reflection', ouve=Ouve(2.0, 0.1, 1.0))),
    'bridge': (
        'bridge', 'ncsnpp_v2', {'sde': 'sbve', 'loss_type': 'data_prediction', 'k': 2.5, 'pesq_weight': 5e-4, 'N': 4},
        SchroedingerBridge(V2, **FRONT_END, k=2.5, pesq_weight=5e-4, steps=4)),
    'bridge, inverse': (
        'bridge', 'ncsnpp_v2', {'sde': 'sbve', 'loss_type': 'data_prediction', 'network_scaling': '1/sigma'},
        SchroedingerBridge(V2, **FRONT_END, released=True,
                           preconditioning=Preconditioning('data_prediction', '1/sigma'))),
    'flowse': ('flowse', 'ncsnpp', {'ode': 'flowmatching', 'loss_type': 'mae', 'T_rev': 0.9, 'N': 3},
               FlowSe(NETWORK, **FRONT_END, objective='mae', t_max=0.9, steps=3)),
}


def write_run(path, name, **ema):
    _, backbone, given, _ = RUNS[name]
    hyper_parameters = {**SIZES, 'hop_length': 16, 'backbone': backbone, **given}
    return write(path, weights_of(backbone), hyper_parameters, **ema)


@pytest.mark.parametrize('name', RUNS)
def test_a_checkpoint_becomes_a_run(path, name):
    kind, backbone, _, expected = RUNS[name]
    weights = weights_of(backbone)
    write_run(path, name, shadow_params=shifted(weights, 0.001))
    for flags, values in (([], shifted(weights, 0.001)), (['--raw'], weights.values())):
        workdir = path.parent / f'run{len(flags)}'
        command_line(['convert', f'{kind}={path}', '--workdir', str(workdir), *flags])
        run = runs.load(workdir)
        assert run.system == expected
        entries = conversion.entries(expected.network, 32)
        assert_equal(layouts.to_torch(entries, {'params': run.variables['params']['ncsnpp']}),
                     dict(zip(weights, values, strict=True)))


def test_the_run_of_a_checkpoint_enhances(path):
    """Weights of zero have no velocity: sampling ends where it starts, at noisy speech with noise."""
    weights = {name: np.zeros_like(value) for name, value in weights_of().items()}
    write(path, weights, {**SIZES, 'hop_length': 16, 'sr': 1000, 'ode': 'flowmatching', 'sigma_max': 1e-6, 'N': 1},
          shadow_params=shifted(weights, 0))
    command_line(['convert', f'flowse={path}', '--workdir', str(path.parent / 'run')])
    noisy = 0.1 * np.random.default_rng(0).standard_normal(700).astype(np.float32)
    out = Enhancer(runs.load(path.parent / 'run'))(noisy, 1000)
    np.testing.assert_allclose(out[:-31], noisy[:-31], rtol=0, atol=1e-4)  # frames of zeros meet the last half window


@pytest.mark.parametrize(('kind', 'name', 'given', 'message'), [
    ('flowse', 'sgmse', {}, "'ouve' is the process of sgmse, not of flowse; give sgmse=FILE"),
    ('sgmse', 'bridge', {}, "'sbve' is the process of bridge, not of sgmse; give bridge=FILE"),
    ('sgmse', 'sgmse', {'normalize': 'clean'}, "expected a normalize of noisy, got 'clean'"),
    ('sgmse', 'sgmse', {'loss_type': 'mse'}, "expected a loss_type of score_matching, denoiser, got 'mse'"),
    ('sgmse', 'sgmse', {'loss_type': 'denoiser'}, "denoiser needs the backbone ncsnpp_v2, got 'ncsnpp'"),
    ('sgmse', 'sgmse', {'transform_type': 'mel'}, "expected a transform_type of exponent, log, none, got 'mel'"),
    ('sgmse', 'sgmse', {'N': 0}, 'expected one or more sampling steps, got 0'),
    ('sgmse', 'sgmse', {'sr': '16k'}, "config.model.sample_rate: expected int, got '16k'"),
    ('bridge', 'bridge', {'c_in': 'vp'}, "c_in must be one of ('1', 'edm'), got 'vp'")])
def test_checkpoints_that_make_no_such_system_are_named_and_nothing_is_written(path, kind, name, given, message):
    _, backbone, own, _ = RUNS[name]
    hyper_parameters = {**SIZES, 'hop_length': 16, 'backbone': backbone, **own, **given}
    write(path, weights_of(backbone), hyper_parameters, shadow_params=shifted(weights_of(backbone), 0))
    with pytest.raises(UserError) as error:
        command_line(['convert', f'{kind}={path}', '--workdir', str(path.parent / 'run')])
    assert str(error.value).startswith(f'{path}: ') and message in str(error.value) and '\n' not in str(error.value)
    assert not (path.parent / 'run').exists()


@pytest.mark.parametrize(('arguments', 'message'), [
    (['dccrn=x.pt', '--raw'], '--raw: expected one file of sgmse or bridge or flowse, which have averaged weights'),
    (['sgmse=x.pt', 'flowse=y.pt'], 'sgmse: a whole system, to be converted alone'),
    (['sgmse=none.ckpt'], 'none.ckpt: cannot be read (No such file or directory)')])
def test_mistaken_commands_are_named(arguments, message, tmp_path):
    with pytest.raises(UserError) as error:
        command_line(['convert', *arguments, '--workdir', str(tmp_path / 'run')])
    assert message in str(error.value)


def test_settings_of_a_checkpoint_can_be_overridden(path):
    write_run(path, 'sgmse', shadow_params=shifted(weights_of(), 0))
    command_line(['convert', f'sgmse={path}', '--workdir', str(path.parent / 'run'), '--model', 'steps=5',
                  '--model', 'corrector=none'])
    assert runs.load(path.parent / 'run').system == Sgmse(NETWORK, **FRONT_END, steps=5, corrector='none')


# ------------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize('name', ['sgmse.data_module.Other', 'evil.data_module.SpecsDataModule'])
def test_other_classes_are_refused(path, name):
    write(path, weights_of(), data_module=name, shadow_params=shifted(weights_of(), 0))
    with pytest.raises(UserError, match=rf'^\S*x.ckpt: refused, it mentions {name}, expected no class but {DATA} or '
                                        r'flowmse.data_module.SpecsDataModule$'):
        conversion.load(path)


class Code:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return open, ('executed', 'w')


def test_code_is_refused_and_not_run(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    write(path, weights_of(), {**SIZES, 'sr': Code()})
    with pytest.raises(UserError, match=r'x.ckpt: refused, it mentions \S*open, expected no class'):
        conversion.load(path)
    assert not (path.parent / 'executed').exists()


def test_weights_that_do_not_fit_are_named(path):
    weights = weights_of()
    missing = {name: value for name, value in weights.items() if name != 'all_modules.4.Conv_1.bias'}
    write(path, missing)
    with pytest.raises(UserError, match=r'x.ckpt: not the weights of this network; missing: all_modules.4.Conv_1.bias'):
        conversion.load(path, 'raw')
    write(path, weights | {'output_layer.bias': np.zeros(3, np.float32)})
    with pytest.raises(UserError, match=r'of another shape: output_layer.bias \[3\] for \[2\]$'):
        conversion.load(path, 'raw')
    write(path, weights | {'all_modules.99.bias': np.zeros(3, np.float32)})
    with pytest.raises(UserError, match='not expected: all_modules.99.bias$'):
        conversion.load(path, 'raw')
    write(path, weights, {**SIZES, 'nf': 32})
    with pytest.raises(UserError, match='of another shape: all_modules.0.W'):
        conversion.load(path, 'raw')


def test_averages_that_do_not_fit_are_named(path):
    weights = weights_of()
    for values, message in (
            (shifted(weights, 0)[:-2], f'ema: expected {len(weights)} arrays, one per parameter, got '
                                       f'{len(weights) - 2} arrays$'),
            (shifted(weights, 0)[::-1], r'ema: expected \[2, 4, 1, 1\] for output_layer.weight, got \[4\]$'),
            (shifted(weights, 0)[1:], r'ema: expected \[2, 4, 1, 1\] for output_layer.weight, got \[2\]$'),
            (None, f'ema: expected {len(weights)} arrays, one per parameter, got none$')):
        write(path, weights, shadow_params=values)
        with pytest.raises(UserError, match=f'x.ckpt: {message}'):
            conversion.load(path)


def test_files_without_what_is_needed_are_named(path):
    write(path, weights_of())
    with pytest.raises(UserError, match='x.ckpt: expected a checkpoint of Lightning with ema, hyper_parameters, state'):
        conversion.load(path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match='x.ckpt: expected a checkpoint of Lightning with hyper_parameters, state_dict'):
        conversion.load(path, 'raw')
    with pytest.raises(UserError, match="weights must be 'ema' or 'raw', got 'best'"):
        conversion.load(path, 'best')


@pytest.mark.parametrize(('given', 'message'), [
    ({'backbone': 'dcunet'}, "expected a backbone of ncsnpp, ncsnpp_v2, ncsnpp_48k, got 'dcunet'"),
    ({'sde': 'bbed'}, "expected an sde or ode of ouve, sbve, flowmatching, got 'bbed'"),
    ({'sr': {'a': 1}}, 'expected numbers, strings and lists, got another kind in sr'),
    ({'nf': 18}, 'channels: expected a multiple of 4'),
    ({'ch_mult': 3}, 'expected whole numbers nf, num_res_blocks and n_fft, and lists of them'),
    ({'n_fft': '62'}, 'expected whole numbers nf, num_res_blocks and n_fft, and lists of them'),
    ({'nf': 16.0}, 'expected whole numbers nf, num_res_blocks and n_fft, and lists of them'),
    ({'n_fft': 64}, 'not a network for 33 bins')])
def test_hyper_parameters_that_make_no_network_are_named(path, given, message):
    write(path, weights_of(), SIZES | given)
    with pytest.raises(UserError, match=f'x.ckpt: .*{message}'):
        conversion.load(path, 'raw')
