"""DR-DiffuSE: the names in the authors' checkpoints (judiebig/DR-DiffuSE, `model_state_dict`)."""

from jax_diffse.convert import layouts
from jax_diffse.convert.layouts import Entry, Layout, Path


def base(group: str) -> list[Entry]:
    """Their network `Base` (condition generator, refiner) -> our `TwoBranchUNet` in a parameter group."""
    entries = []
    for i in range(1, 6):
        entries += _gated((group, 'encoder', f'conv{i}'), f'en.conv{i}', layouts.CONV_2D, layouts.DENSE_2D)
        entries += _norm_act((group, 'encoder', f'post{i}'), f'en.en{i}.0', f'en.en{i}.1')
    for ours, theirs in (('decoder_real', 'de_real'), ('decoder_imag', 'de_imag')):
        for i in range(1, 6):
            block = f'{theirs}.de{i}'
            entries += _gated((group, ours, f'conv{i}'), f'{block}.0', layouts.CONV_TRANSPOSE_2D,
                              layouts.DENSE_TRANSPOSE_2D)
            if i > 1:
                entries += _norm_act((group, ours, f'post{i}'), f'{block}.2', f'{block}.3')
    for i in range(18):
        entries += _temporal((group, f'temporal_{i}'), f'TCMs.{i // 6}.residual{i % 6 + 1}')
    return entries


def _gated(path: Path, name: str, kernel: Layout, dense: Layout) -> list[Entry]:
    parts = {'in': ('conv1', dense), 'left': ('l', kernel), 'left_gate': ('l_conv', dense), 'right': ('r', kernel),
             'right_gate': ('r_conv', dense), 'out': ('conv2', dense)}
    return [entry for ours, (theirs, layout) in parts.items()
            for entry in layouts.conv((*path, ours), f'{name}.{theirs}', layout)]


def _norm_act(path: Path, norm: str, act: str) -> list[Entry]:
    return layouts.batch_norm((*path, 'norm'), norm) + layouts.prelu((*path, 'act'), act)


def _temporal(path: Path, name: str) -> list[Entry]:
    entries = layouts.conv((*path, 'in'), f'{name}.conv1', layouts.DENSE_1D)
    for ours, theirs, layout in (('main', 'mainbranch', layouts.CONV_1D), ('gate', 'maskbranch', layouts.CONV_1D),
                                 ('out', 'conv2', layouts.DENSE_1D)):
        entries += layouts.prelu((*path, f'{ours}_act'), f'{name}.{theirs}.0')
        entries += layouts.batch_norm((*path, f'{ours}_norm'), f'{name}.{theirs}.1')
        entries += layouts.conv((*path, ours), f'{name}.{theirs}.2', layout)
    return entries
