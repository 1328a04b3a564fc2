"""Checkpoints of SGMSE+, the bridge and FlowSE: files in the format of their trainer, written here with small networks.

The format was measured on files of Lightning 2.6.6 and torch-ema: see the docstring of each writer.
"""

import sys
import types

import jax
import numpy as np
import pytest
import torch

from jax_diffse.conversion import layouts
from jax_diffse.conversion import ncsnpp as conversion
from jax_diffse.errors import UserError
from jax_diffse.networks.ncsnpp import BACKBONES, NcsnppConfig
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
