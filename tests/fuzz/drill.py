"""Reads damaged files in a child process: each must be read, or refused with a `UserError`.

The child may end, hang, or ask for more memory than it is given: that is what anything else includes. What a file is
damaged with follows from the seed and its number (torch's older format has addresses of memory in it).
"""

import collections
import dataclasses
import io
import itertools
import pathlib
import queue
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHILD = (sys.executable, '-m', 'tests.fuzz', '--serve')  # kind, seed, first, count follow
READ, REFUSED = 'read', 'refused'
SECONDS = 60.0  # time limit per file
MEMORY = 1 << 30  # bytes that a reader may allocate in addition

Files = Mapping[str, bytes]  # path -> content


# --------------------------------------------------------------------------------------------------------- readers


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of files and its reader."""

    valid: Callable[[np.random.Generator], Files]
    read: Callable[[pathlib.Path], object]  # a folder with these files
    unread: tuple[str, ...] = ()  # parts of paths that the reader does not look at
    random: bool = True  # whether to try files of random bytes


def _audio(extension: str) -> Kind:
    def valid(rng):
        import soundfile

        subtypes = sorted(set(soundfile.available_subtypes(extension)) - {'MPEG_LAYER_III'})
        subtype, channels = subtypes[rng.integers(len(subtypes))], int(rng.integers(1, 4))
        if extension == 'wav' and subtype.startswith(('IMA', 'MS', 'GSM', 'G7', 'NMS')):
            channels = 1
        file = io.BytesIO()
        samples = 0.1 * rng.standard_normal((int(rng.integers(1, 5000)), channels))
        soundfile.write(file, samples, int(rng.choice([8000, 16_000, 44_100])), subtype, format=extension)
        return {f'a.{extension}': file.getvalue()}

    def read(folder):
        from jax_diffse import audio

        path = folder / f'a.{extension}'
        header = audio.info(path)
        samples, rate = audio.read(path)
        if (len(samples), samples.shape[1], rate) != (header.num_samples, header.num_channels, header.sample_rate):
            raise AssertionError(f'{samples.shape} at {rate} Hz, the header says {header}')

    return Kind(valid, read)


def _state_dict() -> Kind:
    def valid(rng):
        import torch

        file = io.BytesIO()
        weights = {f'layer{i}.weight': torch.ones(int(rng.integers(1, 20)), 3) for i in range(int(rng.integers(1, 5)))}
        zipped = bool(rng.random() < 0.7)  # the older format otherwise
        torch.save({'model_state_dict': weights, 'epoch': 3}, file, _use_new_zipfile_serialization=zipped)
        return {'a.pth': file.getvalue()}

    def read(folder):
        from jax_diffse import conversion

        for name, tensor in conversion.read_state_dict(folder / 'a.pth').items():
            if not (isinstance(name, str) and isinstance(tensor.shape, tuple)):
                raise AssertionError(f'{name!r}: {tensor!r}')

    return Kind(valid, read)


def _run(summed: bool) -> Kind:
    """A run of one or two checkpoints, with averaged weights; weights that are read must be intact.

    Without checksums, as an earlier version left it, nobody can tell.
    """
    from jax_diffse import runs
    from jax_diffse.runs import checksums

    made, saved = {}, {}

    def valid(rng):
        if not made:
            with tempfile.TemporaryDirectory() as folder:
                made.update(_trained(pathlib.Path(folder)))
        alone = rng.random() < 0.5
        return {name: content for name, content in made.items()
                if not (alone and 'checkpoints/5/' in name) and (summed or checksums.SUMS not in name)}

    def read(folder):
        for step in ('best', 'latest'):
            found = runs.load(folder, step=step).hash
            if summed and found != saved.setdefault('hash', found):  # the first that is read is intact
                raise AssertionError('other weights than those that were saved')

    # Files of the optimiser, and markers of writes and devices.
    unread = ('optimizer', 'commit_success', '_sharding', '_CHECKPOINT_METADATA')
    return Kind(valid, read, unread, random=False)


def _trained(folder) -> Files:
    import jax.numpy as jnp
    from ml_collections import ConfigDict

    from jax_diffse import systems
    from jax_diffse.systems.base import shapes
    from jax_diffse.training import state as state_lib
    from jax_diffse.training.checkpoints import Checkpoints
    from tests.reference import random_variables

    config = ConfigDict({'system': 'dccrn', 'model': {  # with arrays of more than 1 kB, which have files of their own
        'channels': (4,), 'lstm_units': 16, 'lstm_layers': 1, 'n_fft': 64, 'window': 64, 'hop': 16}})
    system = systems.build(config.system, config.model)
    state = state_lib.create(system, state_lib.OptimizerConfig(), 0.9, random_variables(shapes(system)))
    checkpoints = Checkpoints(folder, config, system.sample_rate)
    for step, loss in ((3, 1.0), (5, 2.0)):
        checkpoints.save(state.replace(step=jnp.int32(step)), loss)
    checkpoints.close()
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


KINDS: dict[str, Callable[[], Kind]] = {
    'wav': lambda: _audio('wav'), 'flac': lambda: _audio('flac'), 'torch': _state_dict, 'run': lambda: _run(True),
    'run without checksums': lambda: _run(False)}


# --------------------------------------------------------------------------------------------------------- damages


def _flipped(rng, data):
    """Flips a few bits in the first kilobyte, where headers are, or anywhere."""
    reach = min(len(data), 1024) if rng.random() < 0.7 else len(data)
    for place in rng.integers(0, reach, rng.integers(1, 9)):
        data[place] ^= 1 << int(rng.integers(8))
    return data


def _overwritten(rng, data):
    """Overwrites a range with extreme or random bytes."""
    start, size = int(rng.integers(0, min(len(data), 1024))), int(rng.choice([1, 2, 4, 8, 64]))
    fill = [b'\x00', b'\xff', b'\x7f', None][rng.integers(4)]
    data[start:start + size] = rng.bytes(size) if fill is None else fill * size
    return data


def _truncated(rng, data):
    return data[:int(rng.integers(0, len(data)))]


def _inserted(rng, data):
    place = int(rng.integers(0, len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 100))) + data[place:]


def _cut(rng, data):
    start = int(rng.integers(0, len(data)))
    return data[:start] + data[start + int(rng.integers(1, 100)):]


def _random(rng, data):
    """Random bytes, sometimes after a genuine beginning."""
    return data[:int(rng.choice([0, 4, 12, 42]))] + rng.bytes(int(rng.integers(0, 400)))


DAMAGES = (_flipped, _flipped, _overwritten, _truncated, _inserted, _cut, _random)


def damaged(kind: Kind, seed: int, number: int) -> tuple[Files, str]:
    """The files with one of them damaged or removed, and a description of the damage."""
    rng = np.random.default_rng([seed, number])
    files = dict(kind.valid(rng))
    chosen = [name for name in files if not any(part in name for part in kind.unread)]
    if len(chosen) > 1 and rng.random() < 0.3:  # the files that describe the others
        chosen = [name for name in chosen if name.endswith(('metadata', 'metrics', 'METADATA', '.txt'))]
    name = chosen[rng.integers(len(chosen))]
    if len(files) > 1 and rng.random() < 0.2:
        del files[name]
        return files, f'{name} deleted'
    damage = DAMAGES[rng.integers(len(DAMAGES) - (not kind.random))]
    if files[name]:
        files[name] = bytes(damage(rng, bytearray(files[name])))
    return files, f'{name} {damage.__name__.strip("_")}'


# ----------------------------------------------------------------------------------------------------- the processes


def serve(name: str, seed: int, first: int, count: int) -> None:
    """The child: prints a line before each file and one after it."""
    from jax_diffse.errors import UserError

    kind = KINDS[name]()
    with tempfile.TemporaryDirectory() as parent:
        intact = pathlib.Path(parent, 'intact')
        _lay_out(intact, kind.valid(np.random.default_rng(seed)))
        kind.read(intact)  # imports and starts everything before memory is limited
        used = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for number in range(first, first + count):
            folder = pathlib.Path(parent, 'damaged')
            files, how = damaged(kind, seed, number)
            _lay_out(folder, files)
            print('start', number, how, flush=True)
            try:
                kind.read(folder)
                outcome = READ
            except UserError as error:
                outcome = REFUSED if '\n' not in str(error) else f'a message of several lines: {error!r}'
            except BaseException as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                outcome = f'{how}: {type(error).__name__}: {error} ({pathlib.Path(place.filename).name}, {place.name})'
            print('end', number, ' '.join(outcome.split()), flush=True)
            shutil.rmtree(folder)


def _lay_out(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@dataclasses.dataclass
class Tally:
    """The outcome of the files of a kind."""

    read: int = 0
    refused: int = 0
    other: list[str] = dataclasses.field(default_factory=list)  # number, damage and what happened

    @property
    def tried(self) -> int:
        return self.read + self.refused + len(self.other)


def drill(name: str, *, seed: int = 0, count: int | None = None, seconds: float = float('inf')) -> Tally:
    """Lets children read damaged files until `count` files or `seconds` are reached; a dead child is replaced."""
    tally, number, end = Tally(), 0, time.monotonic() + seconds
    count = sys.maxsize if count is None else count
    while number < count and time.monotonic() < end:
        number = _one_child(name, seed, number, count - number, end, tally)
    return tally


def _one_child(name, seed, first, count, end, tally) -> int:
    """Adds the reports of a child to `tally`; returns the number of the next file."""
    command = [*CHILD, name, str(seed), str(first), str(count)]
    with tempfile.TemporaryFile('w+') as complaints:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True, cwd=ROOT)
        number, how, started = first, None, False
        try:
            for line in _lines(child.stdout):
                if line is None:  # nothing came for too long
                    tally.other.append(f'{number} {how}: takes more than {SECONDS:.0f} s')
                    return number + 1
                word, number, rest = line.rstrip('\n').split(' ', 2)
                number, started = int(number), True
                if word == 'start':
                    how = rest
                    continue
                how = None
                if rest == READ:
                    tally.read += 1
                elif rest == REFUSED:
                    tally.refused += 1
                else:
                    tally.other.append(f'{number} {rest}')
                if time.monotonic() > end:
                    break
        finally:
            child.kill()
            status = child.wait()
            child.stdout.close()
        if how is not None:
            tally.other.append(f'{number} {how}: the process died (exit status {status})')
        elif not started:
            complaints.seek(0)
            raise RuntimeError(f'the process that reads {name} did not start: {complaints.read()[-2000:]}')
        return number + 1


def _lines(stream):
    """The lines of a stream; None if a line takes more than `SECONDS`, the first one ten times that."""
    lines = queue.SimpleQueue()
    threading.Thread(target=lambda: [lines.put(line) for line in itertools.chain(stream, [''])], daemon=True).start()
    patience = 10 * SECONDS
    while True:
        try:
            line = lines.get(timeout=patience)
        except queue.Empty:
            line = None
        if line == '':
            return
        yield line
        patience = SECONDS


def table(tallies: Mapping[str, Tally]) -> str:
    """A Markdown table, followed by the unexpected outcomes."""
    rows = ['| files | tried | read | refused | anything else |', '|---|--:|--:|--:|--:|']
    rows += [f'| {name} | {tally.tried} | {tally.read} | {tally.refused} | {len(tally.other)} |'
             for name, tally in tallies.items()]
    for name, tally in tallies.items():
        kinds = collections.Counter(re.sub(r'[0-9a-f]{32}', '...', entry.partition(' ')[2])[:160]
                                    for entry in tally.other)
        rows += [f'{name}: {count} x {entry}' for entry, count in kinds.most_common(40)]
        rows += [f'{name}: numbers {", ".join(entry.partition(" ")[0] for entry in tally.other[:40])}'] * bool(kinds)
    return '\n'.join(rows)
