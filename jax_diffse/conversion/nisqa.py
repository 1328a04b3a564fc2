"""NISQA: names in the authors' checkpoints (gabrielmittag/NISQA, `model_state_dict`), and the files by hash."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from jax_diffse import files
from jax_diffse.conversion import layouts
from jax_diffse.conversion.layouts import Entry, Path
from jax_diffse.errors import UserError
from jax_diffse.metrics.nisqa import FILES, MODELS, shapes
from jax_diffse.networks.nisqa import CHANNELS, LAYERS, NisqaConfig

# SHA-256 of the released files.
KNOWN = {
    '7ec4cf937514dd3f8860b21e66fabd8ca87a168572675ef8d979c4c4ad2e805c': 'nisqa_v2',
    '16b2632bea0a481b1bba485587a8da2265f2c7797b525712ae0c072986ee783c': 'nisqa_v2_mos_only',
    'c556a954cd9536360b4fe6f524ad432816509cd22f436f345b281a7851360656': 'nisqa_tts',
}


def identify(path: str | os.PathLike) -> str:
    """Identifies the model in a released file by its SHA-256.

    Raises:
      UserError: the file cannot be read, or is not one of the released files.
    """
    try:
        found = hashlib.sha256(files.path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({files.reason(error)})') from error
    if found not in KNOWN:
        expected = ', '.join(f'{FILES[model]} {known}' for known, model in KNOWN.items())
        raise UserError(f'{path}: has the SHA-256 {found}, expected {expected}; perhaps the download is damaged')
    return KNOWN[found]


def variables(model: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a state dict; torch itself is not needed.

    Args:
      model: a key of `metrics.nisqa.MODELS`.
      state_dict: torch's names -> tensors or NumPy arrays in torch's layout.

    Returns:
      The variables of the network, float32 NumPy arrays: `{'params': tree, 'batch_stats': tree}`.

    Raises:
      UserError: weights that do not fit; names every missing, extra or misshapen entry.
    """
    return layouts.convert(entries(MODELS[model]), state_dict, shapes(MODELS[model]))


def entries(config: NisqaConfig) -> list[Entry]:
    """Their `NISQA` or `NISQA_DIM` -> our `Nisqa`."""
    found = []
    for i in range(1, len(CHANNELS) + 1):
        found += layouts.conv(('cnn', f'block{i}', 'conv'), f'cnn.model.conv{i}', layouts.CONV_2D_BY_FREQUENCY)
        found += layouts.batch_norm(('cnn', f'block{i}', 'norm'), f'cnn.model.bn{i}')
    if config.recurrent:
        found += _dense(('cnn', 'out'), 'cnn.model.fc_out') + _lstm()
        return found + _dense(('pools_0', 'score'), 'pool.model.linear')
    found += _attention()
    for i in range(config.heads):
        theirs = f'pool_layers.{i}.model' if config.heads > 1 else 'pool.model'
        for number, ours in enumerate(('hidden', 'importance', 'score'), 1):
            found += _dense((f'pools_{i}', ours), f'{theirs}.linear{number}')
    return found


def _attention() -> list[Entry]:
    root = 'time_dependency.model'
    found = _dense(('time', 'project'), f'{root}.linear') + _norm(('time', 'norm'), f'{root}.norm1')
    for i in range(LAYERS):
        ours, theirs = ('time', f'layer{i}'), f'{root}.layers.{i}'
        found += [Entry(('params', *ours, 'attention', 'qkv', 'kernel'), f'{theirs}.self_attn.in_proj_weight',
                        layouts.DENSE),
                  Entry(('params', *ours, 'attention', 'qkv', 'bias'), f'{theirs}.self_attn.in_proj_bias')]
        found += _dense((*ours, 'attention', 'out'), f'{theirs}.self_attn.out_proj')
        found += _dense((*ours, 'hidden'), f'{theirs}.linear1') + _dense((*ours, 'out'), f'{theirs}.linear2')
        found += _norm((*ours, 'norm1'), f'{theirs}.norm1') + _norm((*ours, 'norm2'), f'{theirs}.norm2')
    return found


def _lstm() -> list[Entry]:
    found = []
    for direction, suffix in (('forward', ''), ('backward', '_reverse')):
        for ours, theirs in (('input', 'ih'), ('recurrent', 'hh')):
            here, name = ('params', 'time', direction, ours), f'{theirs}_l0{suffix}'
            found += [Entry((*here, 'kernel'), f'time_dependency.model.lstm.weight_{name}', layouts.DENSE),
                      Entry((*here, 'bias'), f'time_dependency.model.lstm.bias_{name}')]
    return found


def _dense(path: Path, name: str) -> list[Entry]:
    return layouts.conv(path, name, layouts.DENSE)


def _norm(path: Path, name: str) -> list[Entry]:
    return [Entry(('params', *path, 'scale'), f'{name}.weight'), Entry(('params', *path, 'bias'), f'{name}.bias')]
