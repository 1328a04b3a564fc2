"""Folders with the files of several systems, for tests."""

import pathlib

import numpy as np
import soundfile

RATE = 16_000
LENGTH = 8000


def speech(i: int, length: int = LENGTH) -> np.ndarray:
    """Modulated noise `[N]`, another one for each i."""
    rng = np.random.default_rng(i)
    return 0.1 * np.sin(np.arange(length) / 300) * np.convolve(rng.standard_normal(length), np.ones(8) / 8, 'same')


def noise(i: int, length: int = LENGTH) -> np.ndarray:
    """White noise `[N]`, another one for each i."""
    return 0.02 * np.random.default_rng(100 + i).standard_normal(length)


def write(path: pathlib.Path, samples: np.ndarray, rate: int = RATE, **kind) -> pathlib.Path:
    """Writes a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **({'subtype': 'FLOAT'} if path.suffix.lower() == '.wav' else {}) | kind)
    return path


def folders(root: pathlib.Path, ids=('a', 'b', 'c'), suffix: str = '.wav', **gains) -> dict[str, str]:
    """Writes clean/ and a folder per name, whose noise has this gain; returns name -> folder."""
    for i, name in enumerate(ids):
        write(root / 'clean' / f'{name}.wav', speech(i))
        for system, gain in gains.items():
            write(root / system / f'{name}{suffix}', speech(i) + gain * noise(i))
    return {system: str(root / system) for system in gains}
