"""What the cases of bad input are given, and checks of what good input gave."""

import io
import json
import os
import pathlib
import pickle
import zipfile

import jax
import numpy as np
import soundfile

from jax_diffse import runs
from tests import sounds
from tests.bad_input.world import data, sound

NAN, INF = float('nan'), float('inf')


# ---------------------------------------------------------------------------------------------------------- checks


def kept(given: str, result: str) -> tuple[np.ndarray, np.ndarray]:
    """The samples `[N, C]` of a file and of its result; checks that the result is finite, of equal kind and length."""
    of = [soundfile.info(path) for path in (given, result)]
    kinds = [(found.samplerate, found.frames, found.channels, found.format, found.subtype) for found in of]
    assert kinds[0] == kinds[1], given
    before, after = (soundfile.read(path, always_2d=True)[0] for path in (given, result))
    assert np.isfinite(after).all()
    return before, after


def halved(folder: str = 'out', given: str = 'in') -> None:
    """Checks that every file has a result of its kind and length that is half as loud."""
    paths = [path for path in sorted(pathlib.Path(given).rglob('*')) if path.is_file()]
    assert paths
    for path in paths:
        samples = kept(str(path), str(pathlib.Path(folder, path.relative_to(given))))
        rms = [np.sqrt(np.mean(np.square(x), axis=0)) for x in samples]
        np.testing.assert_allclose(rms[1], 0.5 * rms[0], rtol=0.05, atol=0.004, err_msg=str(path))  # 8 bits: 1 / 256


def reported(files: int = 2) -> None:
    summary = json.loads(pathlib.Path('report/summary.json').read_text())
    assert summary['files'] == files and not summary['failures']
    assert all(np.isfinite(entry['si_sdr']['mean']) for entry in summary['statistics'].values())


def trained() -> None:
    assert runs.load('runs/new').step == 2


# ---------------------------------------------------------------------------------------------------------- inputs


class Payload:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ('executed',)


def torch_file(path: str, weights=None, **options):
    """Writes weights with torch.save."""
    def make():
        import torch

        tensors = weights if weights is not None else {'enc1.weight': torch.zeros(16, 1, 32)}
        torch.save(tensors, path, **options)

    return make


def segan_file(path: str, value: float = 0.0, bare: bool = False):
    """Writes a generator as its notebook saves it, or only its state dict."""
    def make():
        import torch

        from jax_diffse.conversion import segan
        from jax_diffse.conversion.layouts import to_torch
        from jax_diffse.systems.base import shapes
        from jax_diffse.systems.segan import Segan

        system = Segan(channels=(4, 8), segment=1024, overlap=128)
        filled = jax.tree.map(lambda x: np.full(x.shape, value, np.float32), shapes(system))
        arrays = to_torch(segan.generator({'channels': (4, 8)}), filled)
        weights = {name: torch.from_numpy(x.copy()) for name, x in arrays.items()}
        torch.save(weights if bare else {'generator_state_dict': weights}, path)

    return make


def add_member(path: str, name: str):
    """Adds a member to a zip archive, the format of torch.save."""
    def make():
        with zipfile.ZipFile(path, 'a') as archive:
            archive.writestr(name, b'outside')

    return make


def pickled(path: str):
    return data(path, pickle.dumps({'model_state_dict': Payload()}))


def array(path: str, shape: tuple[int, ...], level: float = 0.1):
    """Writes random pairs."""
    return lambda: np.save(path, level * np.random.default_rng(0).standard_normal(shape))


def pickled_array(path: str):
    return lambda: np.save(path, np.array([Payload()]))


def zipped_payload(path: str):
    """Writes the payload with torch.save."""
    def make():
        import torch

        torch.save({'model_state_dict': Payload()}, path)

    return make


def mp3(path: str):
    def make():
        file = io.BytesIO()
        soundfile.write(file, sound(8000), 16_000, format='MP3')
        data(path, file.getvalue())()

    return make


def at_home() -> None:
    """Makes the folder of the case the home folder; the environment is restored after the case."""
    os.environ['HOME'] = os.getcwd()


def halved_file(path: str):
    return lambda: os.truncate(path, os.path.getsize(path) // 2)


def joined(path: str, *rates: int):
    """Writes Ogg files joined end to end."""
    def make():
        whole = io.BytesIO()
        for rate in rates:
            file = io.BytesIO()
            soundfile.write(file, sound(8000, rate=rate), rate, format='OGG')
            whole.write(file.getvalue())
        data(path, whole.getvalue())()

    return make


def mp3_in_wav(path: str):
    def make():
        pathlib.Path('in').mkdir()
        data(path, sounds.mp3_in_wav(pathlib.Path('in/part.mp3')))()
        os.remove('in/part.mp3')

    return make


def several(*makes):
    return lambda: [make() for make in makes]
