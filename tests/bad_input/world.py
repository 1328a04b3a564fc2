"""Builds the files and runs of the cases and runs their commands, mostly in this process."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import resource
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import soundfile

from jax_diffse import audio_files, cli, runs, systems
from jax_diffse.pretrained import storage
from jax_diffse.runs import checksums
from jax_diffse.spectral import mask_frames
from jax_diffse.systems.base import Refiner, Sampling, System
from jax_diffse.systems.dccrn import Dccrn
from tests import reference, toys

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOBODY = 65534
RATE = 16_000

Make = Callable[[], object]  # creates files in the current folder


class Case(NamedTuple):
    """A command, its input and the expected outcome."""

    given: str  # in words
    command: str  # as typed in the folder of the case
    make: tuple[Make, ...]
    status: int
    line: str  # a regular expression for the line on standard error; for good input, a description of the result
    check: Callable[[], None] = lambda: None  # checks the result of good input
    leaves: tuple[str, ...] = ()  # new paths after a failure
    replaces: tuple[str, ...] = ()  # earlier results, as patterns
    lines: int = 1  # number of lines on standard error
    room: int | None = None  # maximum size of files in bytes, to simulate a full disk
    locked: str = ''  # a path without permissions
    process: bool = False  # run in a separate process

    @property
    def words(self) -> list[str]:
        return shlex.split(self.command)

    @property
    def entry(self) -> str:
        """The name of the command, such as 'train'."""
        return self.words[1]


class Unreachable(Exception):
    """The case cannot be built on this machine."""


class Outcome(NamedTuple):
    """The outcome of a command."""

    status: int
    lines: list[str]  # on standard error, without the folders of this machine
    before: dict[str, str | bytes]  # path -> bytes of a file, target of a link
    after: dict[str, str | bytes]


# ---------------------------------------------------------------------------------------------------------- systems


@dataclasses.dataclass(frozen=True)
class Half(System):
    """Halves the signal; has a weight, as checkpoints need one."""

    sample_rate, front_end, losses = RATE, None, MappingProxyType({})

    def init(self, key):
        return {'params': {'half': {'gain': jnp.full((1, 1), 0.5)}}}

    def gain(self, noisy, num_samples):
        return jnp.ones(len(noisy))

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        return {'enhanced': mask_frames(variables['params']['half']['gain'] * noisy, num_samples)}


class Eight(Half):
    """Works at 8 kHz."""

    sample_rate = 8000


class Sampler(Sampling, Half):
    """Takes 1 to 10 steps."""

    default_steps, check_steps = 3, toys.Stepped.check_steps


class Prior(Refiner, Half):
    """Refines, in one step."""

    generate = toys.Refiner.generate

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        return {'refined': mask_frames(0.25 * (noisy + processed), num_samples)}


TOYS = {'half': Half, 'prior': Prior, 'eight': Eight, 'sampler': Sampler, 'toy': toys.Trainable}
DCCRN = {'channels': (2, 4), 'lstm_units': 4, 'lstm_layers': 1}
TOY_CONFIG = """from jax_diffse.experiment import sections


def get_config(variant=''):
    config = sections('toy', {'width': 4, 'stage': 'toy'})
    config.train.update(steps=2, batch_size=4, crop_seconds=0.25, eval_every=2, save_every=2, log_every=2)
    config.log.audio_examples = 0
    return config.lock()
"""


class World:
    """Runs and folders for cases, in one folder that is removed at the end."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        folder.chmod(0o755)  # cases of locked files give up root's rights
        with self._systems():
            for name in TOYS:
                config = ml_collections.ConfigDict({'system': name, 'model': {}})
                runs.save(folder / 'runs' / name, config, systems.build(name, {}).init(jax.random.key(0)))
        config = ml_collections.ConfigDict({'system': 'dccrn', 'model': DCCRN})
        variables = reference.random_variables(jax.eval_shape(Dccrn(**DCCRN).init, jax.random.key(0)))
        runs.save(folder / 'runs' / 'dccrn', config, variables)

    def outcome(self, case: Case) -> Outcome:
        """Builds the input of a case and runs its command."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        folder.chmod(0o755)
        for name in set(re.findall(r'runs/(\w+)', case.command)):
            if (self.folder / 'runs' / name).exists():
                shutil.copytree(self.folder / 'runs' / name, folder / 'runs' / name)
        (folder / 'configs').symlink_to(ROOT / 'configs')
        (folder / 'toy.py').write_text(TOY_CONFIG)
        with contextlib.chdir(folder):
            with mock.patch.dict(os.environ), self._systems():
                with contextlib.redirect_stdout(io.StringIO()):
                    for make in case.make:
                        make()
                before = _snapshot()
                with _locked(case.locked), _room(case.room), _packaged():
                    status, err = (_in_a_process if case.process else _in_this_process)(case.words)
                    if status == 0:
                        case.check()
            printed = err.replace(f'{folder}/', '').encode(errors='backslashreplace').decode()
            return Outcome(status, printed.splitlines(), before, _snapshot())

    @staticmethod
    def _systems():
        return mock.patch.dict(systems.SYSTEMS, TOYS)


def _packaged() -> contextlib.AbstractContextManager:
    """Has the package look for its enhancer in the folder 'pretrained' of a case that has one."""
    folder = pathlib.Path('pretrained')
    return mock.patch.object(storage, 'FOLDER', folder) if folder.exists() else contextlib.nullcontext()


@contextlib.contextmanager
def open_world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix='bad_input_') as folder:
        yield World(pathlib.Path(folder).resolve())


def _in_this_process(words: list[str]) -> tuple[int, str]:
    """Returns the exit status and the standard error."""
    sys.modules.pop('config_config', None)  # ml_collections' name of an earlier config
    out, err = io.StringIO(), io.StringIO()
    audio_files._say_once.cache_clear()
    # Undoes what entry points set for their process: --stream pins it to one core.
    alone = mock.patch.object(os, 'sched_setaffinity', create=True), mock.patch.dict(os.environ)
    with contextlib.ExitStack() as stack:
        for context in (*alone, mock.patch.object(sys, 'argv', words), contextlib.redirect_stdout(out),
                        contextlib.redirect_stderr(err)):
            stack.enter_context(context)
        try:
            cli.main()
        except SystemExit as end:
            return end.code or 0, err.getvalue()



def _in_a_process(words: list[str]) -> tuple[int, str]:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-m', 'jax_diffse', *words[1:]], capture_output=True, text=True,
                          env=environment, timeout=120)
    return done.returncode, done.stderr


@contextlib.contextmanager
def _room(size: int | None) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Removes all permissions on a path; root also changes its identity, as permissions do not bind it."""
    if not path:
        yield
        return
    mode = stat.S_IMODE(os.stat(path).st_mode)
    os.chmod(path, 0o555 if os.path.isdir(path) else 0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        if not os.path.exists(os.path.abspath('.')):
            raise Unreachable('somebody without rights does not get into the folder for temporary files')
        yield
    finally:
        if root:
            os.seteuid(0)
        os.chmod(path, mode)


def _snapshot() -> dict[str, str | bytes]:
    found: dict[str, str | bytes] = {}
    for path in sorted(pathlib.Path().rglob('*')):
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        elif path.is_file():
            found[str(path)] = path.read_bytes()
        else:
            found[str(path)] = 'folder' if path.is_dir() else 'special'
    return found


# ---------------------------------------------------------------------------------------------------------- inputs


def sound(n: int = 1600, channels: int = 1, rate: int = RATE, level: float = 0.1) -> np.ndarray:
    """A tone of 440 Hz `[n, channels]`, with a different phase in each channel."""
    t = np.arange(n)[:, None] / rate
    return level * np.sin(2 * np.pi * 440 * t + 1 + np.arange(channels))


def wav(path: str, samples: np.ndarray | None = None, rate: int = RATE, **kind: str) -> Make:
    """Writes an audio file; `format` and `subtype` are soundfile's."""
    def make():
        make_room(path)
        soundfile.write(path, sound(rate=rate) if samples is None else np.asarray(samples), rate, **kind)

    return make


def data(path: str, content: bytes) -> Make:
    """Writes a file of these bytes."""
    def make():
        make_room(path)
        pathlib.Path(path).write_bytes(content)

    return make


def cut(path: str, size: int) -> Make:
    """Truncates an existing file to this number of bytes."""
    return lambda: os.truncate(path, size)


def empty_folder(path: str) -> Make:
    return lambda: os.makedirs(path)


def link(path: str, target: str) -> Make:
    def make():
        make_room(path)
        os.symlink(target, path)

    return make


def fifo(path: str) -> Make:
    def make():
        make_room(path)
        os.mkfifo(path)

    return make


def make_room(path: str) -> None:
    """Creates the parent folder of a path."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)


def pairs(clean: str = 'clean', noisy: str = 'noisy', names=('a', 'b'), n: int = 8000) -> Make:
    """Makes two folders whose files, of half a second, have the same names."""
    def make():
        for i, name in enumerate(names):
            rng = np.random.default_rng(i)
            speech = 0.1 * rng.standard_normal(n)
            wav(f'{clean}/{name}.wav', speech)()
            wav(f'{noisy}/{name}.wav', speech + 0.1 * rng.standard_normal(n))()

    return make


def meta(run: str, change: Callable[[dict], object]) -> Make:
    """Replaces the metadata of a run's checkpoint by what `change` returns; text is written as it is."""
    def make():
        path, = pathlib.Path(run).glob('checkpoints/*/meta/metadata')
        changed = change(json.loads(path.read_text()))
        path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
        if not isinstance(changed, str):  # a whole checkpoint of another version
            (path.parents[1] / checksums.SUMS).unlink()

    return make
