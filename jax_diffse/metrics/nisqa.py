"""Quality scores without a reference signal: NISQA v2 (Mittag et al., Interspeech 2021), batched.

The network is `networks/nisqa.py`. The licence of its weights does not allow us to distribute them: the user converts
the authors' files with `jax-diffse convert nisqa`, which writes to the cache folder.
"""

import functools
import pathlib
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jax_diffse import files, launch
from jax_diffse.errors import UserError
from jax_diffse.metrics import Scores, catalogue, numba_cache
from jax_diffse.networks.nisqa import MELS, NISQA_TTS, NISQA_V2, NISQA_V2_MOS_ONLY, SEGMENT, Nisqa, NisqaConfig
from jax_diffse.spectral import hann

MODELS = {'nisqa_v2': NISQA_V2, 'nisqa_v2_mos_only': NISQA_V2_MOS_ONLY, 'nisqa_tts': NISQA_TTS}
FILES = {'nisqa_v2': 'nisqa.tar', 'nisqa_v2_mos_only': 'nisqa_mos_only.tar', 'nisqa_tts': 'nisqa_tts.tar'}
METRICS = {name: metric.model for name, metric in catalogue.METRICS.items() if metric.model in MODELS}  # -> model
DEFAULT = tuple(name for name in METRICS if catalogue.METRICS[name].default)
LICENCE = 'CC BY-NC-SA 4.0, non-commercial'

N_FFT = 4096
AMIN = 1e-4  # the smallest magnitude, -80 dB
TOP_DB = 80.0  # dynamic range: lower values are raised to this far below a file's maximum
LARGEST = 1e30  # float32 magnitudes may overflow for larger samples

FRAMES_AT_ONCE = 512
SEGMENTS_AT_ONCE = 128
SEGMENTS_IN_BATCH = 4096  # in all files of a batch
SHORTEST = 32  # minimum number of segments that files are padded to


# ------------------------------------------------------------------------------------------------------------- weights


def cached(model: str) -> pathlib.Path:
    """The file of converted weights in `launch.cache()`; $JAX_DIFFSE_CACHE=off does not move it."""
    return launch.cache() / f'{model}.npz'


def is_available(model: str) -> bool:
    """Whether converted weights of a model are in the cache folder."""
    path = cached(model)
    return _in_store(path) if files.is_address(path) else path.is_file()


@functools.cache  # it is asked for each file
def _in_store(path: pathlib.Path) -> bool:
    return files.is_file(path)


def how_to_get(model: str) -> str:
    """How to get the weights of a model, in one line."""
    return (f'{model} needs weights: get {FILES[model]} from github.com/gabrielmittag/NISQA, folder weights '
            f'({LICENCE}), then: jax-diffse convert nisqa {FILES[model]}')


def save(model: str, variables: Mapping[str, Any]) -> pathlib.Path:
    """Writes weights to the cache folder, atomically, and returns the file.

    Raises:
      UserError: the file cannot be written.
    """
    path = cached(model)
    try:
        with files.atomic_write(path) as partial, open(partial, 'wb') as file:
            np.savez(file, **traverse_util.flatten_dict(variables, sep='/'))
    except OSError as error:
        raise UserError(f'{path}: cannot be written ({files.reason(error)}); $JAX_DIFFSE_CACHE names another folder') \
            from error
    _in_store.cache_clear()
    return path


def shapes(config: NisqaConfig) -> dict[str, Any]:
    """The shapes of a network's variables."""
    segments = jax.ShapeDtypeStruct((1, 1, SEGMENT, MELS), jnp.float32)
    return jax.eval_shape(Nisqa(config).init, jax.random.key(0), segments, jax.ShapeDtypeStruct((1,), jnp.int32))


def load(model: str) -> dict[str, Any]:
    """Loads the converted weights of a model onto the device; a file is read only once.

    Raises:
      UserError: the file is missing or damaged.
    """
    path = cached(model)
    try:
        changed = files.entry(path).version if files.is_address(path) else path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({files.reason(error)}); {how_to_get(model)}') from error
    return _read(model, path, changed)


@functools.lru_cache(maxsize=len(MODELS))
def _read(model, path, changed):
    del changed  # only part of the cache key
    try:
        with files.local_copy(path) as copy, np.load(copy) as file:
            flat = {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(_damaged(path, model)) from error
    expected = traverse_util.flatten_dict(shapes(MODELS[model]), sep='/')
    if {name: x.shape for name, x in flat.items()} != {name: leaf.shape for name, leaf in expected.items()}:
        raise UserError(_damaged(path, model))
    return jax.device_put(traverse_util.unflatten_dict(flat, sep='/'))


def _damaged(path, model):
    return f'{path}: damaged, or not weights of {model}; convert again: jax-diffse convert nisqa ' \
           f'{FILES[model]}'


# ----------------------------------------------------------------------------------------------------------- front end


class FrontEnd:
    """Mel spectrograms in dB, with hop and window of 10 and 20 ms at the signals' own rate.

    Only the samples of the window are transformed, padded to 4096 points: NISQA centres them in the padding, but the
    position among zeros does not change magnitudes.
    """

    def __init__(self, sample_rate: int, max_hz: int):
        self.hop, window = int(0.01 * sample_rate), int(0.02 * sample_rate)
        self._before = (window + 1) // 2  # samples of the first frame that lie before the signal
        self._decibels = functools.partial(_decibels, window=jnp.asarray(hann(window), jnp.float32),
                                           filters=jnp.asarray(_mel_filters(sample_rate, max_hz).T))

    def num_frames(self, num_samples: int) -> int:
        """The number of frames of a signal: one centred in each hop and one at the end."""
        return num_samples // self.hop + 1

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Waveforms `[N]`, at least 14 hops long -> spectrograms in dB `[num_frames(N), 48]`."""
        rows = np.concatenate([self._rows(waveform) for waveform in waveforms])
        decibels = in_slices(self._decibels, rows, FRAMES_AT_ONCE, overlap=2)
        found, start = [], 0
        for waveform in waveforms:
            count = self.num_frames(len(waveform))
            mel = decibels[start:start + count]
            found.append(np.maximum(mel, mel.max() - TOP_DB))
            start += count + 2
        return found

    def _rows(self, waveform):
        """Cuts `[N]`, reflected at both ends, into hops `[num_frames(N) + 2, hop]`."""
        rows = self.num_frames(len(waveform)) + 2
        padded = np.pad(np.asarray(waveform, np.float32), self._before, mode='reflect')
        return np.pad(padded, (0, max(0, rows * self.hop - len(padded))))[:rows * self.hop].reshape(rows, self.hop)


def _mel_filters(sample_rate, max_hz):
    numba_cache.ensure()
    from librosa.filters import mel  # slow to import, and only needed here

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # upper bands are empty at low rates
        return mel(sr=sample_rate, n_fft=N_FFT, n_mels=MELS, fmax=max_hz)


@jax.jit
def _decibels(rows, window, filters):
    """Hops `[T + 2, hop]` -> Mel spectra of the windows that start at each hop, in dB `[T, 48]`."""
    frames = jnp.concatenate([rows[:-2], rows[1:-1], rows[2:]], axis=1)[:, :len(window)]
    magnitude = jnp.abs(jnp.fft.rfft(frames * window[None], N_FFT))
    mel = jnp.matmul(magnitude, filters, precision='highest')  # matrix units round
    return 20 * jnp.log10(jnp.maximum(mel, AMIN))


def in_slices(function: Callable, x: np.ndarray, size: int, overlap: int = 0) -> np.ndarray:
    """Applies a compiled function `[size + overlap, ...] -> [size, ...]` along an array `[n + overlap, ...]`."""
    count = len(x) - overlap
    x = np.pad(x, ((0, -count % size), *[(0, 0)] * (x.ndim - 1)))
    return np.concatenate([function(x[i:i + size + overlap]) for i in range(0, count, size)])[:count]


# ------------------------------------------------------------------------------------------------------------- scoring


@functools.cache
def _front_end(sample_rate, max_hz):
    return FrontEnd(sample_rate, max_hz)


@functools.cache
def _programs(config):
    """The compiled halves of the network: features of slices of segments, and ratings of padded batches of files."""
    network = Nisqa(config)

    def program(method):
        def run(*args):
            with jax.default_matmul_precision('highest'):
                return network.apply(*args, method=method)

        return jax.jit(run)

    return program('features'), program('rate')


def predict(config: NisqaConfig, variables: Mapping[str, Any], waveforms: Sequence[np.ndarray],
            sample_rate: int) -> np.ndarray:
    """Applies a network to files of any length; the released program stops at 52 s (60 s for speech synthesis).

    Args:
      waveforms: `[N]` each, in [-1, 1], at least 14 hops of 10 ms long.
      sample_rate: in Hz; there is no resampling.

    Returns:
      `[len(waveforms), heads]`. The outputs of a file do not depend on the other files.
    """
    front_end = _front_end(sample_rate, config.max_hz)
    counts = np.array([num_segments(config, front_end.num_frames(len(x))) for x in waveforms], np.int32)
    scores = np.zeros((len(waveforms), config.heads), np.float32)
    for places, padded in _batches(counts):
        mels = front_end([waveforms[i] for i in places])
        scores[places] = _rate(config, variables, mels, counts[places], padded)
    return scores


def num_segments(config: NisqaConfig, num_frames: int) -> int:
    """The number of complete segments of 15 frames; 0 or less if there is none."""
    return -((SEGMENT - 1 - num_frames) // config.hop)


def _batches(counts):
    """Yields batches of files of similar length (indices), and the number of segments to pad to, a power of two."""
    padded = np.maximum(SHORTEST, 2 ** np.ceil(np.log2(counts)).astype(int))
    order = np.argsort(counts, kind='stable')
    for size in np.unique(padded):
        members = order[padded[order] == size]
        batch = max(1, SEGMENTS_IN_BATCH // size)
        for i in range(0, len(members), batch):
            yield members[i:i + batch], size


def _rate(config, variables, mels, counts, padded):
    """Rates spectrograms `[T, 48]` with `counts` segments each -> scores `[files, heads]`."""
    extract, rate = _programs(config)
    first = np.cumsum([0, *(len(mel) for mel in mels[:-1])])
    starts = np.concatenate([start + config.hop * np.arange(count) for start, count in zip(first, counts)])
    frames = np.concatenate(mels)
    features = in_slices(lambda starts: extract(variables, frames[starts[:, None] + np.arange(SEGMENT)]), starts,
                         SEGMENTS_AT_ONCE)
    batch = max(1, SEGMENTS_IN_BATCH // padded)
    x, lengths = np.zeros((batch, padded, features.shape[1]), np.float32), np.ones(batch, np.int32)
    lengths[:len(counts)] = counts
    x[:len(counts)][np.arange(padded) < counts[:, None]] = features
    return np.asarray(rate(variables, x, lengths))[:len(counts)]


def score_all(waveforms: Sequence[np.ndarray], sample_rate: int, names: Sequence[str] = DEFAULT) -> list[Scores]:
    """Scores signals without a reference.

    Args:
      waveforms: `[N]` each, in [-1, 1].
      sample_rate: in Hz; there is no resampling.
      names: of `METRICS`.

    Returns:
      For every signal the given metrics in the given order. A metric is NaN with a reason if the signal is too short,
      silent or not finite, or if the weights are missing.

    Raises:
      UserError: an unknown metric, or damaged weights.
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UserError(f'metric {unknown[0]!r} does not exist, expected some of: {", ".join(METRICS)}')
    reasons = [_unusable(waveform, sample_rate) for waveform in waveforms]
    usable = [i for i, reason in enumerate(reasons) if not reason]
    columns: dict[str, np.ndarray] = {}
    for model in dict.fromkeys(METRICS[name] for name in names):
        if is_available(model):
            outputs = predict(MODELS[model], load(model), [waveforms[i] for i in usable], sample_rate)
            columns |= zip([name for name, of in METRICS.items() if of == model], outputs.T)
    done = [Scores.undefined(names, reason or '') for reason in reasons]
    for row, i in enumerate(usable):
        values = {name: float(columns[name][row]) if name in columns else np.nan for name in names}
        done[i] = Scores(values, {name: how_to_get(METRICS[name]) for name in names if name not in columns})
    return done


def _unusable(waveform, sample_rate):
    """The reason why a signal cannot be scored, or None."""
    hop, window = int(0.01 * sample_rate), int(0.02 * sample_rate)
    if hop < 1 or window > N_FFT:
        return f'NISQA is defined from 100 Hz to 204.8 kHz, not at {sample_rate} Hz'
    if np.ndim(waveform) != 1:
        return f'the signal must have the shape [N], got {list(np.shape(waveform))}'
    shortest = (SEGMENT - 1) * hop
    if len(waveform) < shortest:
        return f'{len(waveform)} samples are too few for NISQA, which needs {shortest} ({shortest / sample_rate:.2f} s)'
    peak = np.max(np.abs(waveform))
    if not peak < LARGEST:
        return f'the signal has samples that are NaN, infinite or beyond {LARGEST:g}'
    return None if peak else 'the signal is all zero'
