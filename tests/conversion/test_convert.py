"""The converter, on the weight table of the released network (fixtures) and on the released file format."""

import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch

from jax_diffse import conversion, runs, systems
from jax_diffse.cli import run as command_line
from jax_diffse.conversion import layouts
from jax_diffse.errors import UserError
from jax_diffse.networks.guided_unet import UNetConfig
from jax_diffse.systems.base import shapes
from jax_diffse.systems.dccrn import Dccrn
from jax_diffse.systems.diffiner import Diffiner
from jax_diffse.systems.dr_diffuse import DrDiffuse
from jax_diffse.systems.segan import Segan
from tests import reference

KIND = 'dr-diffuse-base'
PREFIXES = {KIND: 'c_gen/', 'dr-diffuse-diffuse': 'diffuse/', 'dr-diffuse-diffusec': 'diffusec/',
            'dr-diffuse-refiner': 'refiner/', 'dccrn': 'clstm/', 'diffiner': 'model.', 'segan': 'generator.',
            'segan-discriminator': 'discriminator.', 'compact-unet': '', 'noise-unet': ''}


def weights_of(kind):
    fixtures = {'dr-diffuse-refiner': 'dr_diffuse_sampling', 'dccrn': 'dccrn', 'diffiner': 'diffiner', 'segan': 'segan',
                'segan-discriminator': 'segan', 'compact-unet': 'compact_unet', 'noise-unet': 'noise_unet'}
    return reference.load(fixtures.get(kind, 'dr_diffuse_nets')).state_dict(PREFIXES[kind])


@pytest.fixture(scope='module')
def weights():
    return weights_of(KIND)


def write(path, weights, step=7):
    """Writes the format of the authors' trainers."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    torch.save({'step': step, 'model_state_dict': tensors, 'optimizer_state_dict': {}}, path)
    return str(path)


@pytest.mark.parity
@pytest.mark.parametrize('kind', conversion.KINDS)
def test_every_weight_is_used_once_and_comes_back(kind):
    assert_comes_back(kind, weights_of(kind))


def assert_comes_back(kind, weights):
    found = conversion.KINDS[kind]
    variables = conversion.from_weights(kind, weights)
    fields = found.model(weights)
    expected = {collection: {found.group: groups[found.group]}
                for collection, groups in shapes(systems.build(found.system, fields)).items() if found.group in groups}
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, expected)
    back = layouts.to_torch(found.entries(fields), variables)
    assert set(back) == {name for name in weights if not name.endswith('num_batches_tracked')}
    for name, value in back.items():
        np.testing.assert_array_equal(value, weights[name], err_msg=name)


@pytest.mark.parity
def test_the_variant_of_a_diffiner_follows_from_its_weights():
    weights = reference.load('diffiner').state_dict('variant.')
    assert_comes_back('diffiner', weights)
    assert conversion.describe({'diffiner': weights}) == ('diffiner', {'network': {
        'channels': 32, 'multipliers': (1, 1, 2), 'blocks': 1, 'attention': (2,), 'scale_shift': False,
        'resample_blocks': True}})


def test_layouts_agree_with_torch():
    """A single non-zero tap of a kernel has the same input, output, time and frequency here as in torch."""
    for layout, (out, into) in ((layouts.CONV_2D, (0, 1)), (layouts.CONV_TRANSPOSE_2D, (1, 0))):
        kernel = np.zeros((3, 4, 2, 5))
        kernel[1, 2, 0, 3] = 1
        index = [1, 2]
        assert layout.from_torch(kernel)[0, 3, index[into], index[out]] == 1
        assert layout.torch_shape(layout.from_torch(kernel).shape) == kernel.shape
    for layout, shape in ((layouts.CONV_1D, (4, 3, 5)), (layouts.DENSE_1D, (4, 3, 1)), (layouts.DENSE_2D, (4, 3, 1, 1)),
                          (layouts.DENSE_TRANSPOSE_2D, (3, 4, 1, 1)), (layouts.SCALAR, (1,))):
        x = np.random.default_rng(0).standard_normal(shape)
        ours = layout.from_torch(x)
        assert ours.shape[-2:] == ((3, 4) if len(shape) > 1 else ())
        assert layout.torch_shape(ours.shape) == shape
        np.testing.assert_array_equal(layout.to_torch(ours), x)


def test_tensors_and_arrays_convert_alike(weights):
    tensors = {name: torch.nn.Parameter(torch.from_numpy(np.array(value))) for name, value in weights.items()}
    jax.tree.map(np.testing.assert_array_equal, conversion.from_weights(KIND, tensors),
                 conversion.from_weights(KIND, weights))


def test_every_wrong_entry_is_named(weights):
    wrong = dict(weights)
    del wrong['en.conv1.l.weight'], wrong['TCMs.2.residual6.conv2.1.running_var']
    wrong['en.conv9.l.weight'] = np.zeros(3)
    wrong['de_imag.de1.0.r.bias'] = np.zeros((32, 2))
    with pytest.raises(UserError) as error:
        conversion.from_weights(KIND, wrong)
    message = str(error.value)
    assert 'missing: TCMs.2.residual6.conv2.1.running_var, en.conv1.l.weight' in message
    assert 'not expected: en.conv9.l.weight' in message
    assert 'of another shape: de_imag.de1.0.r.bias [32, 2] for [32]' in message
    assert '\n' not in message


def test_a_table_with_too_many_arrays_is_refused():
    entries = [layouts.Entry(('params', 'x'), f'x{i}', place=i) for i in range(3)]
    torch_weights = {f'x{i}': np.full(4, i, np.float32) for i in range(3)}
    shape = {'params': {'x': jax.ShapeDtypeStruct((3, 4), np.float32)}}
    found = layouts.convert(entries, torch_weights, shape)
    np.testing.assert_array_equal(found['params']['x'][:, 0], [0, 1, 2])
    assert {name: value[0] for name, value in layouts.to_torch(entries, found).items()} == {'x0': 0, 'x1': 1, 'x2': 2}
    with pytest.raises(ValueError, match='does not match the system'):
        layouts.convert(entries[:2], torch_weights, shape)


def test_unknown_kind_is_named():
    with pytest.raises(UserError, match="unknown kind of checkpoint 'base', expected one of dr-diffuse-base"):
        conversion.from_weights('base', {})


@pytest.mark.parametrize('bare', [False, True])
def test_file_becomes_a_run(weights, tmp_path, bare):
    path = write(tmp_path / 'base.pth', weights)
    if bare:
        torch.save(torch.load(path, weights_only=True)['model_state_dict'], path)
    command_line(['convert', f'{KIND}={path}', '--workdir', str(tmp_path / 'run')])
    run = runs.load(tmp_path / 'run')
    assert isinstance(run.system, DrDiffuse) and run.system.stage == 'c_gen' and run.step == 0
    jax.tree.map(np.testing.assert_array_equal, run.variables, conversion.from_weights(KIND, weights))


def test_several_files_become_one_run(tmp_path):
    kinds = [KIND, 'dr-diffuse-diffuse', 'dr-diffuse-refiner']
    paths = [write(tmp_path / f'{kind}.pth', weights_of(kind)) for kind in kinds]
    pairs = [f'{kind}={path}' for kind, path in zip(kinds, paths, strict=True)]
    command_line(['convert', *pairs, '--workdir', str(tmp_path / 'run')])
    run = runs.load(tmp_path / 'run')
    assert run.system == DrDiffuse('refiner', denoiser='diffuse', condition='c_gen', guidance='released')
    for kind in kinds:
        for collection, groups in conversion.from_weights(kind, weights_of(kind)).items():
            for group, tree in groups.items():
                jax.tree.map(np.testing.assert_array_equal, run.variables[collection][group], tree)


@pytest.mark.parametrize(('kinds', 'expected'), [
    (['dr-diffuse-diffusec'], ('diffusion', 'diffusec', 'noisy')),
    (['dr-diffuse-diffuse', KIND], ('diffusion', 'diffuse', 'c_gen')),
    (['dr-diffuse-refiner', 'dr-diffuse-diffusec'], ('refiner', 'diffusec', 'noisy')),
])
def test_the_system_that_networks_form(kinds, expected):
    name, model = conversion.describe({kind: {} for kind in kinds})
    system = DrDiffuse(**model)
    assert name == 'dr_diffuse' and (system.stage, system.denoiser, system.condition) == expected
    assert set(shapes(system)['params']) == {conversion.KINDS[kind].group for kind in kinds}


def test_a_released_dccrn_becomes_a_run(tmp_path):
    """In the authors' format, with the constants of their transforms; the weights determine the configuration."""
    weights = weights_of('dccrn') | {'stft.weight': np.zeros((514, 1, 400), np.float32),
                                     'istft.window': np.zeros((1, 400, 1), np.float32)}
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    torch.save({'model': tensors, 'optimizer': {}, 'epoch': 3}, tmp_path / 'chkpt_3.pt')
    command_line(['convert', f'dccrn={tmp_path}/chkpt_3.pt', '--workdir', str(tmp_path / 'run')])
    run = runs.load(tmp_path / 'run')
    assert run.system == Dccrn(clamp=True, mask_padding=False)
    kernel = run.variables['params']['dccrn']['encoder_0']['real']['kernel']
    np.testing.assert_array_equal(kernel[1, 4, 0], weights['encoder.0.0.real_conv.weight'][:, 0, 4, 1])


def test_the_averaged_weights_of_a_released_diffiner_become_a_run(tmp_path):
    """As the authors' trainer saves them: a bare state dict."""
    weights = weights_of('diffiner')
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    torch.save(tensors, tmp_path / 'ema_0.9999_000010.pt')
    command_line(['convert', f'diffiner={tmp_path}/ema_0.9999_000010.pt', '--workdir', str(tmp_path / 'run')])
    run = runs.load(tmp_path / 'run')
    assert run.system == Diffiner(network=UNetConfig(channels=32, multipliers=(1, 2), blocks=1, attention=(1, 2)))
    jax.tree.map(np.testing.assert_array_equal, run.variables['params'],
                 conversion.from_weights('diffiner', weights)['params'])
    kernel = run.variables['params']['prior']['down0']['kernel']  # theirs: features, channels, bins, frames
    np.testing.assert_array_equal(kernel[2, 0, 1], weights['input_blocks.0.0.weight'][:, 1, 0, 2])


def test_a_notebooks_checkpoint_holds_both_networks_of_segan(tmp_path):
    tensors = {kind: {name: torch.from_numpy(np.array(value)) for name, value in weights_of(kind).items()}
               for kind in ('segan', 'segan-discriminator')}
    path = tmp_path / 'epoch_65.pt'
    torch.save({'epoch': 65, 'generator_state_dict': tensors['segan'],
                'discriminator_state_dict': tensors['segan-discriminator']}, path)
    command_line(['convert', f'segan={path}', f'segan-discriminator={path}', '--workdir', str(tmp_path / 'both')])
    command_line(['convert', f'segan={path}', '--workdir', str(tmp_path / 'generator')])
    both, alone = (runs.load(tmp_path / name) for name in ('both', 'generator'))
    assert both.system == Segan(l1_weight=0.001, released=True)
    assert alone.system == Segan(l1_weight=0.001, released=True, adversary=False)
    jax.tree.map(np.testing.assert_array_equal, both.variables['params']['generator'],
                 alone.variables['params']['generator'])
    kernel = both.variables['params']['generator']['decoder_0']['kernel']  # theirs: inputs, outputs, samples
    np.testing.assert_array_equal(kernel[3, 5, 7], weights_of('segan')['dec1.weight'][5, 7, 3])


def test_networks_of_different_systems_are_refused():
    with pytest.raises(UserError, match=r'dccrn, dr-diffuse-base: networks of different systems \(dccrn, dr_diffuse\)'):
        conversion.describe({'dccrn': {}, KIND: {}})


def test_weights_of_another_network_are_named():
    for kind, missing in (('dccrn', 'decoder.0.0.imag_conv.bias'), ('diffiner', 'input_blocks.0.0.bias')):
        with pytest.raises(UserError, match=f'not the weights of this network; missing: {missing}'):
            conversion.from_weights(kind, {'en.conv1.l.weight': np.zeros(3)})


@pytest.mark.parametrize(('arguments', 'message'), [
    (['dr-diffuse-base'], 'dr-diffuse-base: expected KIND=FILE, KIND one of dr-diffuse-base'),
    (['base=x.pth'], 'base=x.pth: expected KIND=FILE'),
    ([f'{KIND}=x.pth', f'{KIND}=y.pth'], f'{KIND}=y.pth: {KIND} given twice'),
])
def test_arguments_that_are_no_pairs(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message):
        command_line(['convert', *arguments, '--workdir', str(tmp_path / 'run')])


@pytest.mark.parametrize('kinds', [['dr-diffuse-refiner'], [KIND, 'dr-diffuse-refiner'],
                                   ['dr-diffuse-diffuse', 'dr-diffuse-diffusec']])
def test_networks_that_do_not_make_an_enhancer(kinds):
    with pytest.raises(UserError, match='do not make an enhancer: expected dr-diffuse-base'):
        conversion.describe({kind: {} for kind in kinds})


def test_errors_name_the_file_and_write_nothing(weights, tmp_path):
    weights = {name: value for name, value in weights.items() if name != 'en.conv1.l.weight'}
    path = write(tmp_path / 'short.pth', weights)
    with pytest.raises(UserError, match=r'short.pth: not the weights of this network; missing: en.conv1.l.weight$'):
        command_line(['convert', f'{KIND}={path}', '--workdir', str(tmp_path / 'run')])
    assert not (tmp_path / 'run').exists()


def test_command_line_reports_in_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, '-m', 'jax_diffse', 'convert', f'{KIND}={tmp_path}/none.pth', '--workdir', str(tmp_path)],
        capture_output=True, text=True, cwd=reference.ROOT)
    assert result.returncode == 2
    assert result.stderr == f'error: {tmp_path}/none.pth: cannot be read (No such file or directory)\n'


class Code:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return open, ('executed', 'w')


def test_code_in_a_file_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'model_state_dict': {'x': Code()}}, 'zip.pth')
    (tmp_path / 'plain.pth').write_bytes(pickle.dumps(Code()))
    for name in ('zip.pth', 'plain.pth'):
        with pytest.raises(UserError, match=f'^{name}: refused, it is damaged or contains code besides tensors$'):
            conversion.read_state_dict(name)
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize('content', [b'', b'hi\n', b'PK\x03\x04 damaged'])
def test_files_that_are_no_checkpoints(tmp_path, content):
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(UserError, match='x.pth: (not a PyTorch checkpoint, or damaged|refused, it is damaged)'):
        conversion.read_state_dict(tmp_path / 'x.pth')


@pytest.mark.parametrize('content', [[1, 2], {'model_state_dict': 3}, {'step': 3}])
def test_checkpoints_without_weights(tmp_path, content):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(UserError, match='x.pth: expected a dict with model_state_dict or model, or a state dict'):
        conversion.read_state_dict(tmp_path / 'x.pth')


def test_torch_is_loaded_only_to_read_files():
    code = 'import sys; import jax_diffse.conversion, jax_diffse.conversion.writing; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], cwd=reference.ROOT).returncode == 0
