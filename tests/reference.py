"""Reference values of the authors' PyTorch code, and the tolerances.

Fixtures are `.npz` files with outputs only; their weights and inputs follow from a formula over NumPy's legacy random
streams, evaluated here. The folder is `tests/fixtures`, or the environment variable JAX_DIFFSE_FIXTURES.
"""

import dataclasses
import functools
import json
import os
import pathlib
import zlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FIXTURES = pathlib.Path(os.environ.get('JAX_DIFFSE_FIXTURES', ROOT / 'tests' / 'fixtures'))
GOLDEN = pathlib.Path(os.environ.get('JAX_DIFFSE_GOLDEN', ROOT.parent / 'shared' / 'golden'))

FACTOR = 20.0  # tolerance in units of the float32 deviation between two correct computations
FLOOR = 1e-5  # smallest tolerance, in units of the rms


def _stream(salt: str, name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(f'{salt}/{name}'.encode()))


def array(salt: str, name: str, shape: Sequence[int]) -> np.ndarray:
    """Standard normal float32 noise that is a function of its salt, name and shape."""
    return np.asarray(_stream(salt, name).standard_normal(tuple(shape)), np.float32)


def waveform(salt: str, name: str, num_samples: int, sample_rate: int = 16_000) -> np.ndarray:
    """A speech-like signal `[num_samples]`, float32 with a peak of 0.5: a gliding harmonic tone in syllables."""
    rng = _stream(salt, name)
    pitch, glide = rng.uniform(90, 220), rng.uniform(-0.3, 0.3)
    rate, decay = rng.uniform(3, 5), rng.uniform(0.5, 0.9)
    t = np.arange(num_samples) / sample_rate
    phase = 2 * np.pi * pitch * (t + glide * np.sin(2 * np.pi * 0.7 * t) / (2 * np.pi * 0.7))
    wave = sum(decay**k * np.sin(k * phase + rng.uniform(0, 6.28)) for k in range(1, 25))
    envelope = np.maximum(np.sin(2 * np.pi * rate * t + rng.uniform(0, 6.28)), 0) ** 0.7
    wave = wave * envelope + 0.05 * rng.standard_normal(num_samples) * (1 - envelope)
    return (wave * (0.5 / np.max(np.abs(wave)))).astype(np.float32)


def evaluate(expression: Mapping, inputs: Mapping[str, np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """Evaluates an input's expression: one source, then modifiers in their order. `inputs` are the earlier entries."""
    (source, argument), *modifiers = expression.items()
    if source == 'value':
        return np.asarray(argument, dict(modifiers)['dtype'])
    if source == 'draws':
        salt, name, shape = argument
        return [array(salt, name.format(k=k), shape) for k in range(dict(modifiers)['count'])]
    x = _source(source, argument, inputs)
    for modifier, value in modifiers:
        x = _modify(x, modifier, value)
    return x


def _source(source, argument, inputs):
    match source:
        case 'array':
            return array(*argument)
        case 'waveform':
            return waveform(*argument)
        case 'zeros':
            return np.zeros(argument, np.float32)
        case 'input':
            return inputs[argument]
        case 'sum':
            return functools.reduce(np.add, [evaluate(term, inputs) for term in argument])
        case 'stack':
            return np.stack([evaluate(term, inputs) for term in argument])
        case 'cat':
            return np.concatenate([evaluate(term, inputs) for term in argument], axis=-1)
    raise ValueError(f'unknown source {source!r}')


def _modify(x, modifier, value):
    match modifier:
        case 'scale':
            return x * np.float32(value)
        case 'offset':
            return x + np.float32(value)
        case 'abs':
            return np.abs(x) if value else x
        case 'clip':
            return np.clip(x, -np.float32(value), np.float32(value))
        case 'above':
            return (x > np.float32(value)).astype(np.float32)
        case 'shape':
            return x.reshape(value)
        case 'delay':
            return np.concatenate([np.zeros_like(x[..., :value]), x[..., :x.shape[-1] - value]], axis=-1)
        case 'slice':
            return x[..., value[0]:value[1]]
        case 'zero':
            x = x.copy()
            x[..., value[0]:value[1]] = 0
            return x
        case 'zero_frames':
            x = x.copy()
            for item, frame in value:
                x[item, :, frame] = 0
            return x
    raise ValueError(f'unknown modifier {modifier!r}')


def random_variables(shapes, seed: int = 0):
    """Variables like `shapes` (of `jax.eval_shape`) that keep signals at their size, without compiling anything."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        several = any(key.key in ('temporal', 'decoders') for key in path)  # along the leading axis
        scale = {'kernel': np.prod(leaf.shape[several:-1]) ** -0.5}.get(path[-1].key, 0.1)
        mean = {'scale': 1.0, 'var': 0.5, 'slope': 0.25}.get(path[-1].key, 0.0)
        return (mean + scale * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def tolerance(deviation, rms, factor: float = FACTOR):
    """`factor` times the known float32 deviation, and never below 1e-5 of the rms."""
    return np.maximum(factor * np.asarray(deviation), FLOOR * np.asarray(rms))


def assert_close(actual, expected, atol, label: str) -> None:
    """Absolute comparison that names what differs and by how much. `atol` broadcasts."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f'{label}: shape {actual.shape}, expected {expected.shape}'
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(divide='ignore'):
        excess = np.where(same, 0.0, np.abs(actual - expected) / atol)
    worst = np.max(excess, initial=0.0)
    assert worst <= 1, f'{label}: {np.sum(~(excess <= 1))} of {excess.size} values differ, the worst by ' \
                       f'{worst:.3g} times the tolerance'


def fingerprint(name: str, x: np.ndarray) -> np.ndarray:
    """`[2]` float64: the L2 norm, and the dot product with the probe of that name."""
    x = np.asarray(x, np.float64)
    return np.array([np.sqrt(np.sum(x**2)), np.sum(x * array('probe', name, x.shape))])


@dataclasses.dataclass(frozen=True)
class Fixture:
    """One file of reference outputs, with the weights and inputs they belong to."""

    name: str
    data: Mapping[str, np.ndarray]
    noise: Mapping[str, list[float]]  # {key: [largest deviation, rms]} between two correct float32 computations

    def __getitem__(self, key: str) -> np.ndarray:
        return self.data[key]

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def keys(self) -> list[str]:
        return list(self.data)

    def after(self, prefix: str) -> list[str]:
        """What follows the prefix in the names of those keys that begin with it."""
        return [key.removeprefix(prefix) for key in self.data if key.startswith(prefix)]

    def json(self, key: str):
        """A JSON string of the file, parsed."""
        return json.loads(str(self.data[key])) if key in self.data else {}

    @functools.cached_property
    def inputs(self) -> dict[str, np.ndarray | list[np.ndarray]]:
        """All inputs by name; recorded draws are lists, in the order of use."""
        inputs = {}
        for name, expression in self.json('inputs').items():
            inputs[name] = evaluate(expression, inputs)
        return inputs

    def state_dict(self, prefix: str = '') -> dict[str, np.ndarray]:
        """The weights of the network with that prefix (`'c_gen/'`), under torch's names and in torch's layout."""
        table = self.json('weights')
        return {name.removeprefix(prefix): np.asarray(
            np.float32(mean) + np.float32(scale) * array(table['salt'], name, shape), np.float32)
            for name, (shape, mean, scale) in table['weights'].items() if name.startswith(prefix)}

    def tolerance(self, key: str, factor: float = FACTOR) -> float:
        """Absolute tolerance of a key; where no deviation was measured, 1e-5 of the rms."""
        deviation, rms = self.noise.get(key) or (0.0, float(np.sqrt(np.nanmean(np.square(self.data[key])))))
        return float(tolerance(deviation, rms, factor))

    def check(self, key: str, actual, factor: float = FACTOR) -> None:
        """Compares an array, in the layout of the reference, with what is stored: in full, or samples and fingerprint.

        Norm and projection of a fingerprint may differ by the measured deviation relative to the norm.
        """
        actual = np.asarray(actual)
        if key in self.data:
            return assert_close(actual, self.data[key], self.tolerance(key, factor), f'{self.name}:{key}')
        stride = int(self.data[f'{key}/stride'])
        assert_close(actual.ravel()[::stride], self.data[f'{key}/sub'], self.tolerance(f'{key}/sub', factor),
                     f'{self.name}:{key}')
        expected = self.data[f'{key}/fingerprint']
        deviation, scale = self.noise.get(f'{key}/fingerprint', (0.0, 1.0))
        assert_close(fingerprint(key, actual), expected, tolerance(deviation / scale, 1.0, factor) * expected[0],
                     f'{self.name}:{key}/fingerprint')

    def names(self, key: str) -> list[str]:
        """The arrays of a table, in its order."""
        return [str(name) for name in self.data[f'{key}/names']]

    def check_table(self, key: str, actual: Mapping[str, np.ndarray], *, relative: float = FLOOR,
                    of_largest: float = 0.0, factor: float = FACTOR) -> None:
        """Compares a table of arrays, by name, with its fingerprints.

        Args:
          key: of the table.
          actual: name -> array in the layout of the reference; exactly the names of the table.
          relative: smallest tolerance of a row, in units of its norm.
          of_largest: added to that, in units of the largest norm in the table.
          factor: tolerance in units of the row's deviation, where the file states one.
        """
        names, expected = self.names(key), np.asarray(self.data[f'{key}/fingerprint'])
        assert set(names) == set(actual), f'{self.name}:{key}: names differ: {sorted(set(names) ^ set(actual))}'
        norms = expected[:, :1]
        atol = relative * norms + of_largest * np.max(norms)
        if f'{key}/deviation' in self.data:
            atol = np.maximum(atol, factor * self.data[f'{key}/deviation'].reshape(len(names), -1))
        else:  # measured for all rows together, relative to their norms
            atol = np.maximum(atol, factor * self.noise.get(f'{key}/fingerprint', [0.0])[0] * norms)
        actual = np.stack([fingerprint(name, actual[name]) for name in names])
        wrong = [f'{name}: {a} for {e}' for name, a, e, tol in zip(names, actual, expected, atol, strict=True)
                 if not np.all(np.abs(a - e) <= tol)]
        assert not wrong, f'{self.name}:{key}: {len(wrong)} of {len(names)} arrays differ: ' + '; '.join(wrong[:8])


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


@functools.cache
def load(name: str) -> Fixture:
    """The fixture `NAME.npz`."""
    data = _read(FIXTURES / f'{name}.npz')
    return Fixture(name, data, json.loads(str(data['noise'])))


def golden(name: str) -> pathlib.Path:
    """The path of a file of the larger reference set; the test is skipped, by the file's name, where it is absent."""
    path = GOLDEN / name
    if not path.exists():
        pytest.skip(f'needs the optional reference file {name} (folder: JAX_DIFFSE_GOLDEN)')
    return path


@functools.cache
def load_golden(name: str) -> Fixture:
    """A `.npz` file of the larger reference set, with its float32 deviations."""
    data = _read(golden(name))
    noise = json.loads(golden('float32_noise.json').read_text())
    return Fixture(name, data, noise.get(name, {}))


def known_recording() -> tuple[np.ndarray, np.ndarray]:
    """p232_001 of VoiceBank-DEMAND at 16 kHz, noisy and clean `[27861]`; skipped where the larger set has others."""
    pairs = load_golden('metrics.npz')
    for i, (name, clean) in enumerate(zip(pairs['names'], pairs['clean_index'], strict=True)):
        if name == 'voicebank_noisy' and pairs[f'deg_{i}'].shape == (27_861,):
            return pairs[f'deg_{i}'], pairs[f'clean_{clean}']
    pytest.skip('needs the recording p232_001 whole, as voicebank_noisy in metrics.npz (folder: JAX_DIFFSE_GOLDEN)')
