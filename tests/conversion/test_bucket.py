"""The authors' checkpoints in object storage."""

import pytest

from jax_diffse import cli, conversion, files
from jax_diffse.conversion import keras
from jax_diffse.errors import UserError
from jax_diffse.metrics import nisqa as metric
from tests.conversion import test_keras, test_nisqa


def test_weights_of_nisqa_go_to_a_cache_there(bucket, store, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('JAX_DIFFSE_CACHE', f'{bucket}/cache')
    metric._in_store.cache_clear()
    assert not metric.is_available('nisqa_v2')
    files.upload(test_nisqa.write(tmp_path / 'x.tar', 'nisqa_v2', monkeypatch), f'{bucket}/x.tar')
    assert cli.run(['convert', 'nisqa', f'{bucket}/x.tar']) in (0, None)
    assert f'{bucket}/x.tar (nisqa_v2) -> {bucket}/cache/nisqa_v2.npz' in capsys.readouterr().out
    assert store.names(bucket.removeprefix('gs://')) == ['cache/nisqa_v2.npz', 'x.tar']
    assert metric.is_available('nisqa_v2') and set(metric.load('nisqa_v2')) == {'params', 'batch_stats'}


def test_files_of_keras_and_torch_are_read_there(bucket, store, tmp_path):
    weights = test_keras.weights_of()
    test_keras.write_keras_3(tmp_path / 'x.weights.h5', weights)
    files.upload(tmp_path / 'x.weights.h5', f'{bucket}/x.weights.h5')
    found = keras.read_weights(f'{bucket}/x.weights.h5')
    assert set(found) == set(weights)
    store.put(bucket.removeprefix('gs://'), 'text', b'no checkpoint', {}, {})
    with pytest.raises(UserError, match=f'^{bucket}/text: refused, it is damaged'):
        conversion.read_state_dict(f'{bucket}/text')
    for read in (conversion.read_state_dict, lambda path: conversion.read('noise-unet', path)):
        with pytest.raises(UserError, match=f'^{bucket}/none: cannot be read .No such file'):
            read(f'{bucket}/none')
