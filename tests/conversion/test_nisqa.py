"""The converter for NISQA, on the weight tables of the released networks (fixtures)."""

import hashlib

import numpy as np
import pytest
import torch
from flax import traverse_util

from jax_diffse.cli import run as command_line
from jax_diffse.conversion import layouts, nisqa
from jax_diffse.errors import UserError
from jax_diffse.metrics import nisqa as scorer
from tests import reference

PREFIXES = {'nisqa_v2': 'dim', 'nisqa_v2_mos_only': 'mos_only', 'nisqa_tts': 'tts'}


def state_dict(model):
    return reference.load('nisqa').state_dict(f'{PREFIXES[model]}/')


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('JAX_DIFFSE_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def write(path, model, monkeypatch):
    """A file in the authors' format that is accepted as the released one."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in state_dict(model).items()}
    torch.save({'args': {'ms_n_mels': 48, 'name': model}, 'model_state_dict': tensors}, path)
    monkeypatch.setitem(nisqa.KNOWN, hashlib.sha256(path.read_bytes()).hexdigest(), model)
    return str(path)


@pytest.mark.parity
@pytest.mark.parametrize('model', PREFIXES)
def test_every_weight_is_used_once_and_comes_back(model):
    weights = state_dict(model)
    back = layouts.to_torch(nisqa.entries(scorer.MODELS[model]), nisqa.variables(model, weights))
    assert set(back) == {name for name in weights if not name.endswith('num_batches_tracked')}
    for name, value in back.items():
        np.testing.assert_array_equal(value, weights[name], err_msg=name)


def test_weights_of_another_model_are_named():
    with pytest.raises(UserError) as error:
        nisqa.variables('nisqa_v2', state_dict('nisqa_v2_mos_only'))
    assert 'missing: pool_layers.0.model.linear1.bias, ' in str(error.value)
    assert 'not expected: pool.model.linear1.bias, ' in str(error.value)


def test_files_go_to_the_cache(cache, tmp_path, monkeypatch, capsys):
    models = ['nisqa_v2_mos_only', 'nisqa_tts']
    paths = [write(tmp_path / f'{i}.tar', model, monkeypatch) for i, model in enumerate(models)]
    command_line(['convert', 'nisqa', *paths])
    assert capsys.readouterr().out.splitlines() == [
        *(f'{path} ({model}) -> {cache}/{model}.npz' for path, model in zip(paths, models, strict=True)),
        'These weights are under CC BY-NC-SA 4.0, non-commercial.']
    for model in models:
        assert scorer.is_available(model)
        with np.load(cache / f'{model}.npz') as file:
            found = {name: file[name] for name in file.files}
        expected = traverse_util.flatten_dict(nisqa.variables(model, state_dict(model)), sep='/')
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)
            assert found[name].dtype == np.float32


def test_an_unknown_file_is_refused_before_anything_is_written(cache, tmp_path, monkeypatch):
    known = write(tmp_path / 'known.tar', 'nisqa_v2', monkeypatch)
    (tmp_path / 'nisqa.tar').write_bytes(b'half a download')
    with pytest.raises(UserError) as error:
        command_line(['convert', 'nisqa', known, str(tmp_path / 'nisqa.tar')])
    message = str(error.value)
    found = hashlib.sha256(b'half a download').hexdigest()
    assert message.startswith(f'{tmp_path}/nisqa.tar: has the SHA-256 {found}, expected nisqa.tar 7ec4cf93')
    assert message.endswith('; perhaps the download is damaged') and '\n' not in message
    assert not cache.exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r'none.tar: cannot be read \(No such file or directory\)$'):
        command_line(['convert', 'nisqa', str(tmp_path / 'none.tar')])


@pytest.mark.parametrize(('arguments', 'message'), [
    (['nisqa'], 'nisqa takes files, and neither --workdir nor --model'),
    (['nisqa', 'x.tar', '--workdir', 'run'], 'nisqa takes files, and neither --workdir nor --model'),
    (['nisqa', 'x.tar', '--model', 'a=1'], 'nisqa takes files, and neither --workdir nor --model'),
    (['dccrn=x.pt'], 'the following arguments are required: --workdir'),
])
def test_the_two_forms_of_the_command_do_not_mix(arguments, message):
    with pytest.raises(UserError, match=message):
        command_line(['convert', *arguments])
