"""Folders that several tests of the data room read."""

import pathlib

import pytest

from jax_diffse.data import manifest, packing
from jax_diffse.data.config import Folders
from tests.data.corpora import RATE, wave, write


@pytest.fixture
def mix_folders(tmp_path):
    for speaker in range(6):
        for k in range(2):
            write(tmp_path / 'speech' / f'spk{speaker}' / f'{k}.flac', wave(10 * speaker + k))
    for c, kind in enumerate(('rain', 'wind', 'fan')):
        for k in range(4):
            write(tmp_path / 'noise' / kind / f'{k}.wav', wave(100 + 10 * c + k, 0.3 + 0.2 * k, 0.02))
    return Folders(speech=str(tmp_path / 'speech'), noise=str(tmp_path / 'noise'))


@pytest.fixture
def pair_folders(tmp_path):
    for k in range(5):
        clean = wave(k, 0.5 + 0.1 * k)
        write(tmp_path / 'clean' / f'{k}.wav', clean)
        write(tmp_path / 'noisy' / f'{k}.flac', clean + wave(100 + k, 0.5 + 0.1 * k, 0.01))
    return Folders(clean=str(tmp_path / 'clean'), noisy=str(tmp_path / 'noisy'))


@pytest.fixture
def speech_folder(mix_folders):
    return Folders(speech=mix_folders.speech)


@pytest.fixture
def pairs_at_other_rates(tmp_path):
    """Pairs of half a second, named by their rate, and one of two rates."""
    for name, rates in {'48': (48_000, 48_000), '44': (44_100, 44_100), '16': (16_000, 16_000),
                        'both': (16_000, 48_000)}.items():
        for seed, (part, rate) in enumerate(zip(('clean', 'noisy'), rates, strict=True)):
            write(tmp_path / part / f'{name}.wav', wave(seed, 0.5005 * rate / RATE), rate)
    return Folders(str(tmp_path / 'clean'), str(tmp_path / 'noisy'))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own, and a process that knows nothing yet."""
    monkeypatch.setenv('JAX_DIFFSE_CACHE', str(tmp_path / 'cache'))
    manifest._seen.clear()
    return tmp_path / 'cache' / 'manifests'


@pytest.fixture
def upload(bucket, store):
    """Copies a folder into the bucket, and returns its address."""
    def copy(folder):
        folder = pathlib.Path(folder)
        for path in sorted(folder.rglob('*')):
            if path.is_file():
                name = f'{folder.name}/{path.relative_to(folder).as_posix()}'
                store.put(bucket.removeprefix('gs://'), name, path.read_bytes(), {}, {})
        return f'{bucket}/{folder.name}'

    return copy


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of about four recordings of half a second."""
    monkeypatch.setattr(packing, 'SHARD_SAMPLES', 30_000)
