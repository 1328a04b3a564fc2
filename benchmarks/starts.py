"""Measures starts of a training on many files, from opening the data to the first batch, and crops per second.

The same files are read from a disk and from an emulator of object storage on this machine, one by one and packed. The
emulator shows what requests cost the reader and, with `LATENCY`, the waiting. A child process, `python -m
benchmarks.starts SETTINGS`, is one start; it prints what it measured as JSON.
"""

import contextlib
import io
import itertools
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from benchmarks import pipeline as crops
from benchmarks.figures import Figure, LeftOut, figure
from jax_diffse import audio_files
from jax_diffse.data import DataConfig, manifest, open_training
from jax_diffse.data.columns import Names
from jax_diffse.data.config import Folders
from jax_diffse.data.facts import SOUND, Facts

SAMPLE_RATE = 16_000  # Hz
SECONDS, CLIPS = 2, 200  # of a file, and different ones
CROP_SECONDS = 5.0  # that crops are counted for
RESUMED = 100_000  # the step that a resumed start continues at
SIMULATED = 100_000  # from this number on, files have no samples, and their manifest says that they have
BATCH = 64
LATENCY = 0.03  # seconds per request, an assumption


def run(counts: tuple[int, ...], processes: tuple[int, ...]) -> Iterator[Figure]:
    """Yields the seconds of the first start, the second one and one at a later step, and crops per second.

    Args:
      counts: numbers of speech files; there is a tenth as many noise files. Very many files are simulated: they are
        never read, and the second start is then the opening of the data alone.
      processes: numbers of processes that start at once.

    Raises:
      LeftOut: TensorFlow is not installed.
    """
    try:
        from jax_diffse.data import packing
    except ImportError as error:
        raise LeftOut(f'TensorFlow cannot be imported ({error})') from error
    for count in counts:
        with tempfile.TemporaryDirectory() as root:
            speech, noise = f'{root}/speech', f'{root}/noise'
            write_files(speech, 0 if count >= SIMULATED else count, count)
            noises = 2000 if count >= SIMULATED else max(count // 10, 2)
            write_files(noise, noises, noises)
            if count >= SIMULATED:
                simulate_manifest(root, speech)
            kinds = {'loose': Folders(speech=speech, noise=noise)}
            if count < SIMULATED:
                kinds['packed'] = Folders(speech=f'{root}/packed_speech', noise=f'{root}/packed_noise')
                packing.pack(Folders(speech=speech), kinds['packed'].speech, packing.PackOptions())
                packing.pack(Folders(noise=noise), kinds['packed'].noise, packing.PackOptions())
            for (kind, folders), number in itertools.product(kinds.items(), processes):
                yield from starts(root, kind, folders, count, number)
            if count < SIMULATED:
                yield from starts_in_store(root, kinds, count, processes)


def starts_in_store(root: str, kinds: dict[str, Folders], count: int, processes: tuple[int, ...]) -> Iterator[Figure]:
    """Yields the figures of the same files in object storage, and of one process with the latency of a network."""
    with emulated(root, kinds) as (store, there):
        for (kind, folders), number in itertools.product(there.items(), processes):
            yield from starts(root, f'{kind}, object storage', folders, count, number)
        store.delay = LATENCY
        for kind, folders in there.items():
            yield from starts(root, f'{kind}, object storage, {1000 * LATENCY:g} ms per request', folders, count, 1)


@contextlib.contextmanager
def emulated(root: str, kinds: dict[str, Folders]) -> Iterator[tuple[Any, dict[str, Folders]]]:
    """Copies folders into an emulator of object storage, which all clients use within it, and yields both."""
    from tests import gcs

    store, known = gcs.Store(), {}
    store.buckets['data'] = {}
    for folder in (folder for folders in kinds.values() for folder in (folders.speech, folders.noise)):
        for path in (path for path in pathlib.Path(folder).rglob('*') if path.is_file()):
            data = path.read_bytes()
            store.put('data', path.relative_to(root).as_posix(), known.setdefault(data, data), {}, {})
    before = dict(os.environ)
    os.environ.update(store.environment())
    try:
        yield store, {kind: Folders(**{role: f'gs://data/{os.path.basename(getattr(folders, role))}'
                                       for role in ('speech', 'noise')}) for kind, folders in kinds.items()}
    finally:
        os.environ.clear()
        os.environ.update(before)
        store.close()


def starts(root: str, kind: str, folders: Folders, count: int, number: int) -> Iterator[Figure]:
    """Yields the figures of a kind of folders and a number of processes."""
    simulated = count >= SIMULATED
    settings = {'files': count, 'kind': kind, 'processes': number, 'seconds': SECONDS, 'batch': BATCH}
    subject = f'{count} files, {kind}, {number} process(es)'
    if not simulated:
        shutil.rmtree(f'{root}/cache', ignore_errors=True)
    for what, step in (('first', 0), ('second', 0), ('resumed', RESUMED)):
        if simulated and what != 'second':
            continue
        given = {'speech': folders.speech, 'noise': folders.noise, 'step': step, 'count': number,
                 'batch': not simulated, 'crops': what == 'second' and not simulated}
        found = start_all(root, given, number)
        yield figure(subject, 'start', what, max(x['seconds'] for x in found), 's', 1, settings)
        if what == 'second':
            if not simulated:
                rate = sum(x['crops'] for x in found)
                yield figure(subject, 'crops per second', 'mixtures', rate, '1/s', 1, settings)
            yield figure(subject, 'memory', 'data source', max(x['bytes'] for x in found), 'B', 1, settings)


def start_all(root: str, given: dict[str, Any], number: int) -> list[dict]:
    """Starts processes at once, and returns what they measured."""
    env = os.environ | {'JAX_DIFFSE_CACHE': f'{root}/cache', 'TF_CPP_MIN_LOG_LEVEL': '2'}
    running = [subprocess.Popen([sys.executable, '-m', 'benchmarks.starts', json.dumps(given | {'index': index})],
                                env=env, text=True, stdout=subprocess.PIPE) for index in range(number)]
    said = [process.communicate()[0] for process in running]
    failed = [process.returncode for process in running if process.returncode]
    if failed:
        raise RuntimeError(f'a process ended with status {failed[0]}')
    return [json.loads(text.splitlines()[-1]) for text in said]


def write_files(folder: str, written: int, count: int) -> None:
    """Writes `count` FLAC files, copies of a few, in folders of 200; the files behind `written` are empty."""
    rng, clips = np.random.default_rng(0), []
    for _ in range(min(CLIPS, written)):
        buffer = io.BytesIO()
        samples = np.convolve(rng.standard_normal(SECONDS * SAMPLE_RATE), np.hanning(9), 'same')
        soundfile.write(buffer, 0.02 * samples, SAMPLE_RATE, format='FLAC')
        clips.append(buffer.getvalue())
    for i in range(count):
        below = os.path.join(folder, f'g{i // 200:05d}')
        if i % 200 == 0:
            os.makedirs(below)
        with open(os.path.join(below, f'{i:07d}.flac'), 'wb') as file:
            file.write(clips[i % CLIPS] if i < written else b'')


def simulate_manifest(root: str, folder: str) -> None:
    """Writes a manifest that says that the files of a folder are speech."""
    paths = audio_files.list_paths(folder)
    facts = Facts.unknown(Names.of(paths))
    facts.num_samples[:], facts.sample_rate[:] = SECONDS * SAMPLE_RATE, SAMPLE_RATE
    facts.num_channels[:], facts.content[:] = 1, SOUND
    facts.changed[:] = [os.stat(os.path.join(folder, path)).st_mtime_ns for path in paths]
    os.environ['JAX_DIFFSE_CACHE'] = f'{root}/cache'
    manifest.Manifest(os.path.realpath(folder), folder).save(facts)


def main() -> None:
    """Starts, as a training does, and prints the seconds and the memory that it took."""
    from jax_diffse.data import pipeline

    given = json.loads(sys.argv[1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    config = DataConfig(train=Folders(speech=given['speech'], noise=given['noise']))
    source, _ = open_training(config)
    taken = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)  # kB on Linux
    if given['batch']:
        batches = pipeline.train_batches(source, None, batch_size=BATCH, num_samples=SAMPLE_RATE, seed=0,
                                         start_step=given['step'],
                                         process=pipeline.Process(given['index'], given['count']))
        next(batches)
    found = {'seconds': time.perf_counter() - started, 'bytes': taken}
    if given['crops']:
        found['crops'] = crops.per_second(batches, CROP_SECONDS) * BATCH / given['count']
    print(json.dumps(found), flush=True)
    os._exit(0)  # threads of TensorFlow would delay the exit


if __name__ == '__main__':
    main()
