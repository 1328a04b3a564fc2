"""SGMSE+, the Schroedinger bridge and FlowSE: names of their network and the files of their trainer, Lightning.

sp-uhh/sgmse and seongq/flowmse share the network NCSN++ and the format of their checkpoints.
"""

import dataclasses
import functools
import operator
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jax_diffse.conversion import layouts, reading
from jax_diffse.conversion.layouts import Entry, Path
from jax_diffse.errors import UserError
from jax_diffse.networks.ncsnpp import BACKBONES, Ncsnpp, NcsnppConfig

PREFIX = 'dnn.'  # of the network's names
FROZEN = 'all_modules.0.W'
DATA_MODULES = ('sgmse.data_module.SpecsDataModule', 'flowmse.data_module.SpecsDataModule')  # mentioned, never used

# What files do not tell; those of 2022 leave out several.
DEFAULTS = {
    'backbone': 'ncsnpp', 'loss_type': 'score_matching', 'loss_weighting': 'sigma^2', 'network_scaling': None,
    'c_in': '1', 'c_out': '1', 'c_skip': '0', 'sigma_data': 0.1, 'l1_weight': 0.001, 'pesq_weight': 0.0, 't_eps': 0.03,
    'sr': 16_000, 'n_fft': 510, 'hop_length': 128, 'window': 'hann', 'spec_factor': 0.15, 'spec_abs_exponent': 0.5,
    'transform_type': 'exponent', 'normalize': 'noisy', 'nf': 128, 'ch_mult': [1, 1, 2, 2, 2, 2, 2],
    'num_res_blocks': 2,
}
PROCESSES = {  # further ones of each `sde` or `ode`
    'ouve': {'theta': 1.5, 'sigma_min': 0.05, 'sigma_max': 0.5, 'N': 30},
    'sbve': {'k': 2.6, 'c': 0.4, 'N': 50},
    'flowmatching': {'loss_type': 'mse', 'sigma_min': 0.0, 'sigma_max': 0.487, 'T_rev': 1.0, 'N': 5},
}
AT_48K = {  # of the backbone ncsnpp_48k, as published
    'front_end': {'sr': 48_000, 'n_fft': 1534, 'hop_length': 384, 'spec_factor': 0.065, 'spec_abs_exponent': 0.667},
    'ouve': {'theta': 2.0, 'sigma_min': 0.1, 'sigma_max': 1.0},
}
KINDS = {'sgmse': 'ouve', 'bridge': 'sbve', 'flowse': 'flowmatching'}  # our name of a system -> their `sde` or `ode`
LOSSES = {'ouve': ('score_matching', 'denoiser'), 'sbve': ('data_prediction',), 'flowmatching': ('mse', 'mae')}
WINDOWS = {'hann': False, 'sqrthann': True}  # -> sqrt_hann
TRANSFORMS = {'exponent': 'power', 'log': 'log1x', 'none': 'none'}


def load(path: str | os.PathLike, weights: str = 'ema') -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a checkpoint and converts its network. Code in the file is not executed.

    Args:
      path: a Lightning checkpoint of sgmse or flowmse.
      weights: 'ema', the moving averages that the released code enhances with, or 'raw', the trained weights.

    Returns:
      The variables of an `Ncsnpp`, `{'params': tree}` of NumPy arrays, and the hyper-parameters, see `read`.

    Raises:
      UserError: a file that cannot be read, that mentions other classes, or whose weights do not fit its
        hyper-parameters.
    """
    state_dict, hyper_parameters = read(path, weights)
    try:
        config, bins = network(hyper_parameters)
        return variables(state_dict, config, bins), hyper_parameters
    except UserError as error:
        raise UserError(f'{path}: {error}') from error


def read(path: str | os.PathLike, weights: str = 'ema') -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the weights of a checkpoint's network, under the released names without `dnn.`, and its hyper-parameters.

    The latter are the plain values under the released names; `DEFAULTS` and those of the process fill in absent ones.
    `sde` or `ode` names the process: 'ouve', 'sbve' or 'flowmatching'. See `load` for arguments and errors.
    """
    if weights not in ('ema', 'raw'):
        raise UserError(f"weights must be 'ema' or 'raw', got {weights!r}")
    checkpoint = reading.load(path, DATA_MODULES)
    wanted = {'state_dict', 'hyper_parameters'} | ({'ema'} if weights == 'ema' else set())
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(name), dict) for name in wanted):
        raise UserError(f'{path}: expected a checkpoint of Lightning with {", ".join(sorted(wanted))}')
    try:
        return _weights(checkpoint, weights), filled(checkpoint['hyper_parameters'])
    except UserError as error:
        raise UserError(f'{path}: {error}') from error


def _weights(checkpoint, kind):
    state_dict = {name.removeprefix(PREFIX): value for name, value in checkpoint['state_dict'].items()
                  if isinstance(name, str) and name.startswith(PREFIX)}  # the rest belongs to a loss
    averages = checkpoint.get('ema')
    values = None
    if isinstance(averages, dict):
        values = averages.get('shadow_params' if kind == 'ema' else 'collected_params')
    if values is None and kind == 'raw':
        return state_dict
    return state_dict | _named(values, state_dict)


def _named(values, state_dict):
    """Names for the values of torch-ema, which stand in the order of the parameters; version 0.2 omits frozen ones."""
    names = list(state_dict)
    if isinstance(values, list) and len(values) == len(names) - 1:
        names = [name for name in names if name != FROZEN]
    if not isinstance(values, list) or len(values) != len(names):
        found = f'{len(values)} arrays' if isinstance(values, list) else 'none'
        raise UserError(f'ema: expected {len(names)} arrays, one per parameter, got {found}')
    for name, value in zip(names, values, strict=True):
        shape, expected = (list(getattr(x, 'shape', ())) for x in (value, state_dict[name]))
        if shape != expected:
            raise UserError(f'ema: expected {expected} for {name}, got {shape}')
    return dict(zip(names, values, strict=True))


def filled(found: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters without the class of the data, and with the defaults of backbone and process.

    Raises:
      UserError: values that are not plain, or an unknown process.
    """
    found = {name: value for name, value in found.items() if name != 'data_module_cls'}
    odd = [str(name) for name, value in found.items() if not _plain(value)]
    if odd:
        raise UserError(f'hyper_parameters: expected numbers, strings and lists, got another kind in {", ".join(odd)}')
    process = found.get('sde', found.get('ode', 'ouve'))
    if process not in PROCESSES:
        raise UserError(f'hyper_parameters: expected an sde or ode of {", ".join(PROCESSES)}, got {process!r}')
    name = 'ode' if process == 'flowmatching' else 'sde'
    backbone = found.get('backbone', DEFAULTS['backbone'])
    published = BACKBONES.get(backbone, NcsnppConfig())
    defaults = {name: process, 'attn_resolutions': list(published.attention)} | DEFAULTS | PROCESSES[process]
    if backbone == 'ncsnpp_48k':
        defaults |= AT_48K['front_end'] | AT_48K.get(process, {})
    return defaults | found


def _plain(value):
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return value is None or isinstance(value, (str, bool, int, float))


def network(hyper_parameters: Mapping[str, Any]) -> tuple[NcsnppConfig, int]:
    """The network's size and its number of bins, from hyper-parameters as `read` returns them.

    Raises:
      UserError: a backbone that is not known, or sizes that make no network.
    """
    backbone = hyper_parameters['backbone']
    if backbone not in BACKBONES:
        raise UserError(f'hyper_parameters: expected a backbone of {", ".join(BACKBONES)}, got {backbone!r}')
    published = BACKBONES[backbone]
    try:
        channels, blocks, n_fft = (operator.index(hyper_parameters[name]) for name in ('nf', 'num_res_blocks', 'n_fft'))
        multipliers, attention = (tuple(map(operator.index, hyper_parameters[name]))
                                  for name in ('ch_mult', 'attn_resolutions'))
    except TypeError as error:
        raise UserError('hyper_parameters: expected whole numbers nf, num_res_blocks and n_fft, and lists of them '
                        f'ch_mult and attn_resolutions; {error}') from error
    try:
        return NcsnppConfig(channels, multipliers, blocks, attention, published.progressive,
                            published.division), n_fft // 2 + 1
    except ValueError as error:
        raise UserError(f'hyper_parameters: {error}') from error


def fields(kind: str, hyper_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the system `kind` (a key of `KINDS`), from hyper-parameters as `read` returns them.

    Frames are padded as the released scripts for enhancement do it.

    Raises:
      UserError: a checkpoint of another system, or a value that the system cannot have.
    """
    found, process = hyper_parameters, hyper_parameters.get('sde', hyper_parameters.get('ode'))
    if process != KINDS[kind]:
        other = next(name for name, known in KINDS.items() if known == process)
        raise UserError(f'hyper_parameters: {process!r} is the process of {other}, not of {kind}; give {other}=FILE')
    backbone, v2 = found['backbone'], found['backbone'] == 'ncsnpp_v2'
    transform = _known(found, 'transform_type', TRANSFORMS)
    _known(found, 'normalize', ('noisy',))
    loss = _known(found, 'loss_type', LOSSES[process])
    common = {
        'network': dataclasses.asdict(network(found)[0]), 'sample_rate': found['sr'], 'n_fft': found['n_fft'],
        'hop': found['hop_length'], 'sqrt_hann': WINDOWS[_known(found, 'window', WINDOWS)],
        'compression': TRANSFORMS[transform], 'exponent': found['spec_abs_exponent'],
        'factor': 1.0 if transform == 'none' else found['spec_factor'],
        'padding': 'zeros' if backbone == 'ncsnpp' or kind == 'flowse' else 'reflection',
        'steps': found['N'], 't_eps': found['t_eps']}
    if kind == 'flowse':
        return common | {'sigma_min': found['sigma_min'], 'sigma_max': found['sigma_max'], 't_max': found['T_rev'],
                         'objective': loss}
    if loss == 'denoiser' and not v2:
        raise UserError(f'hyper_parameters: the loss_type denoiser needs the backbone ncsnpp_v2, got {backbone!r}')
    rule = {name: found[name] for name in ('c_in', 'c_out', 'c_skip', 'sigma_data')}
    rule['network_scaling'] = found['network_scaling'] or 'none'
    common['preconditioning'] = {'objective': loss, **(rule if v2 else {})}  # others take no part in it
    if kind == 'sgmse':
        common['ouve'] = {name: found[name] for name in ('theta', 'sigma_min', 'sigma_max')}
        if loss == 'score_matching':
            _known(found, 'loss_weighting', ('sigma^2',))  # the only one, in which ours has no choice
            return common
        return common | {'loss_weighting': found['loss_weighting']}
    infinite = '1/sigma' in common['preconditioning'].values()  # at t = 1, where only the released sampler never is
    return common | {'k': found['k'], 'c': found['c'], 'l1_weight': found['l1_weight'],
                     'pesq_weight': found['pesq_weight'], 'released': infinite}


def _known(found, name, known):
    if found[name] not in known:
        raise UserError(f'hyper_parameters: expected a {name} of {", ".join(known)}, got {found[name]!r}')
    return found[name]


def variables(state_dict: Mapping[str, Any], config: NcsnppConfig, bins: int) -> dict[str, Any]:
    """Converts the released weights, without `dnn.`, to the variables of an `Ncsnpp` for so many bins.

    Raises:
      UserError: weights that do not fit; names every missing, extra or misshapen one.
    """
    spec = jax.ShapeDtypeStruct((1, config.multiple, bins, 2), jnp.float32)
    try:
        shapes = jax.eval_shape(Ncsnpp(config).init, jax.random.key(0), spec, spec, jnp.ones(1))
    except ValueError as error:
        raise UserError(f'not a network for {bins} bins: {error}') from error
    return layouts.convert(entries(config, bins), state_dict, shapes)


def entries(config: NcsnppConfig, bins: int, root: Path = ()) -> list[Entry]:
    """Their `NCSNpp` -> our `Ncsnpp` for so many bins, whose parameters lie below `root`."""
    found = layouts.conv((*root, 'out'), 'output_layer', layouts.DENSE_2D)
    for number, (table, name) in enumerate(_modules(config, bins)):
        found += table((*root, name), f'all_modules.{number}')
    return found


def _modules(config, bins):
    """Their layers in order: a function that makes the table of one, and our name."""
    last = len(config.widths) - 1
    found = [(_frequencies, 'frequencies'), (_dense, 'time1'), (_dense, 'time2'), (_conv, 'conv_in')]
    before = config.channels
    for level, width in enumerate(config.widths):
        for i in range(config.blocks):
            found.append((_projected if before != width else _block, f'down{level}_{i}'))
            found += [(_attention, f'down{level}_{i}_attention')] * config.attends(level, bins)
            before = width
        if level < last:
            found.append((_projected, f'shrink{level}'))
            found += [(_combine, f'combine{level}')] * config.progressive
    found += [(_block, 'middle1'), (_attention, 'middle_attention'), (_block, 'middle2')]
    for level in range(last, -1, -1):
        found += [(_projected, f'up{level}_{i}') for i in range(config.blocks + 1)]
        found += [(_attention, f'up{level}_attention')] * config.attends(level, bins)
        found += [(_norm, f'norm{level}'), (_conv, f'conv{level}')] * (config.progressive or level == 0)
        found += [(_projected, f'rise{level}')] * (level > 0)
    return found


def _frequencies(path: Path, name: str) -> list[Entry]:
    return [Entry(('params', *path), f'{name}.W')]


def _norm(path: Path, name: str) -> list[Entry]:
    return [Entry(('params', *path, 'scale'), f'{name}.weight'), Entry(('params', *path, 'bias'), f'{name}.bias')]


_dense = functools.partial(layouts.conv, layout=layouts.DENSE)
_conv = functools.partial(layouts.conv, layout=layouts.CONV_2D_BY_FREQUENCY)


def _combine(path: Path, name: str) -> list[Entry]:
    return layouts.conv(path, f'{name}.Conv_0', layouts.DENSE_2D)


def _block(path: Path, name: str) -> list[Entry]:
    return [*_norm((*path, 'norm_in'), f'{name}.GroupNorm_0'), *_conv((*path, 'conv_in'), f'{name}.Conv_0'),
            *_dense((*path, 'time'), f'{name}.Dense_0'), *_norm((*path, 'norm_out'), f'{name}.GroupNorm_1'),
            *_conv((*path, 'conv_out'), f'{name}.Conv_1')]


def _projected(path: Path, name: str) -> list[Entry]:
    return _block(path, name) + layouts.conv((*path, 'skip'), f'{name}.Conv_2', layouts.DENSE_2D)


def _attention(path: Path, name: str) -> list[Entry]:
    found = _norm((*path, 'norm'), f'{name}.GroupNorm_0')
    for i, ours in enumerate(('query', 'key', 'value', 'out')):
        found += [Entry(('params', *path, ours, 'kernel'), f'{name}.NIN_{i}.W', layouts.Layout((0, 1))),
                  Entry(('params', *path, ours, 'bias'), f'{name}.NIN_{i}.b')]
    return found
