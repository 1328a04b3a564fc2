"""Injects faults into trainings, evaluations and enhancements and checks their outcome."""

import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import soundfile

from tests.faults.processes import (
    ROOT,
    TIMEOUT,
    call,
    finish,
    lines,
    start,
    start_together,
    wait_for_files,
    wait_for_lines,
    write_pairs,
)

CONFIG = ROOT / 'tests' / 'faults' / 'config.py'
# Relative difference of losses after 24 steps on other devices. It exceeds float32's 6e-8, as Adam makes a full step of
# a gradient that rounds to either side of zero: up to 1.2e-5 was seen; another seed gives 4e-2 and more.
ROUNDING = 1e-4


class Outcome(NamedTuple):
    """A row of the drill's table."""

    fault: str
    injected: int
    survived: int
    seen: str


class Drill:
    """A folder with data and an undisturbed run, and the faults.

    Args:
      folder: an empty one.
      steps: of the trainings.
      seed: of the moments.
    """

    def __init__(self, folder: pathlib.Path, steps: int = 24, seed: int = 0):
        self.folder, self.random, self._count = folder, random.Random(seed), 0
        write_pairs(folder, 16)
        self.train = ['train.py', '--config', CONFIG, f'--config.data.train.clean={folder / "clean"}',
                      f'--config.data.train.noisy={folder / "noisy"}', f'--config.train.steps={steps}']
        self.whole = folder / 'whole'
        self._expect(0, call([*self.train, '--workdir', self.whole]))  # again, now with cached programs
        shutil.rmtree(self.whole)
        started = time.monotonic()
        self._expect(0, call([*self.train, '--workdir', self.whole]))
        self.seconds = time.monotonic() - started

    # -------------------------------------------------------------------------------------------------- one process
    def kills(self, count: int) -> Outcome:
        """SIGKILL at random moments of a training; the same command resumes."""
        return self._interrupted('SIGKILL while training', count, self.train, self.whole, self.seconds)

    def kills_of_segan(self, count: int) -> Outcome:
        """The same with a real system."""
        words = ['train.py', '--config', 'segan:folders,quick', '--config.log.audio_examples=0',
                 f'--config.data.train.clean={self.folder / "clean"}',
                 f'--config.data.train.noisy={self.folder / "noisy"}', '--config.train.save_every=3']
        self._expect(0, call([*words, '--workdir', self.new('segan')]))
        whole, started = self.new('segan'), time.monotonic()
        self._expect(0, call([*words, '--workdir', whole]))
        return self._interrupted('SIGKILL while training SEGAN', count, words, whole, time.monotonic() - started)

    def _interrupted(self, fault, count, words, whole, seconds) -> Outcome:
        expected, injected, survived, runs = contents(whole), 0, 0, 0
        while injected < count:
            workdir, since = self.new('killed'), injected
            while True:
                process = start([*words, '--workdir', workdir])
                try:
                    wait = self.random.uniform(0, seconds) if injected < count else None
                    process.wait(wait)
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    finish(process)
                    injected += 1
            runs += 1
            if finish(process)[0] == 0 and contents(workdir) == expected:
                survived += injected - since
        return Outcome(fault, injected, survived, f'{runs} runs ended with the bits of the undisturbed one')

    def terminations(self, count: int) -> Outcome:
        """SIGTERM at random steps: status 0, a checkpoint of the step it was in, and the same end."""
        survived, slowest = 0, 0.0
        steps = lines(self.whole / 'log.jsonl')
        for _ in range(count):
            workdir = self.new('terminated')
            process = start([*self.train, '--workdir', workdir])
            wait_for_lines(workdir / 'log.jsonl', self.random.randrange(1, steps // 2), process)
            started = time.monotonic()
            process.terminate()
            status, output, _ = finish(process)
            slowest = max(slowest, time.monotonic() - started)
            last = json.loads((workdir / 'log.jsonl').read_text().splitlines()[-1])['step']
            saved = status == 0 and 'asked to stop' in output and last in saved_steps(workdir)
            again = call([*self.train, '--workdir', workdir])[0]
            survived += saved and again == 0 and contents(workdir) == contents(self.whole)
        return Outcome('SIGTERM while training', count, survived,
                       f'status 0 within {slowest:.1f} s, then the bits of the undisturbed run')

    def interruptions(self, count: int) -> Outcome:
        """Ctrl-C at random steps: one line, status 130, nothing half-written, and the same end."""
        survived, slowest, steps = 0, 0.0, lines(self.whole / 'log.jsonl')
        for _ in range(count):
            workdir = self.new('interrupted')
            process = start([*self.train, '--workdir', workdir])
            wait_for_lines(workdir / 'log.jsonl', self.random.randrange(1, steps // 2), process)
            sound, seconds = self._interrupt(process, workdir)
            slowest = max(slowest, seconds)
            again = call([*self.train, '--workdir', workdir])[0]
            survived += sound and again == 0 and contents(workdir) == contents(self.whole)
        return Outcome('Ctrl-C while training', count, survived,
                       f'one line and status 130 within {slowest:.1f} s, then the bits of the undisturbed run')

    def interrupted_compilation(self) -> Outcome:
        """Ctrl-C while a step compiles, for longer than anybody waits: one line, status 130."""
        workdir, sign = self.new('interrupted'), self.new('compiling')
        process = start([*self.train, '--workdir', workdir, '--config.model.width=5'], compile_seconds=2 * TIMEOUT,
                        COMPILING=str(sign))
        wait_for_files(self.folder, sign.name, 1, process)
        sound, seconds = self._interrupt(process, workdir)
        return Outcome('Ctrl-C while compiling', 1, int(sound), f'one line and status 130 within {seconds:.1f} s')

    @staticmethod
    def _interrupt(process, workdir) -> tuple[bool, float]:
        """Whether a Ctrl-C ended as expected, and after how many seconds."""
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        status, _, error = finish(process)
        seconds, left = time.monotonic() - started, list(workdir.glob('**/*.partial'))
        told = error.splitlines()[-1:] == ['interrupted'] and 'Traceback' not in error
        return status == 130 and told and not left, seconds

    def truncations(self, count: int) -> Outcome:
        """A truncated file of the latest checkpoint: a warning, the previous one is used, and the same end."""
        newest = max(saved_steps(self.whole))
        survived = 0
        for _ in range(count):
            workdir = self._copy(self.whole)
            sizes = {path: path.stat().st_size for path in (workdir / 'checkpoints' / str(newest)).glob('*/**/*')
                     if path.is_file() and path.stat().st_size}
            path = self.random.choice(sorted(sizes))
            os.truncate(path, self.random.randrange(sizes[path]))
            status, _, error = call([*self.train, '--workdir', workdir])
            warned = f'the checkpoint of step {newest} is damaged' in error
            survived += status == 0 and warned and contents(workdir) == contents(self.whole)
        return Outcome('newest checkpoint truncated', count, survived,
                       'a warning names it, the one before was used, the same bits at the end')

    def no_room(self, mount: bool) -> Outcome:
        """No room for a checkpoint: one line, status 2, the last one is whole, and with room the same end.

        Args:
          mount: a file system that is full, which needs to be root; else files may not exceed a size.
        """
        # Wide, so that checkpoints are the largest files.
        words = [*self.train, '--config.model.width=2000', '--config.train.steps=6']
        whole, workdir = self.new('wide'), self.new('full')
        self._expect(0, call([*words, '--workdir', whole]))
        if mount:
            workdir.mkdir()
            subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=16m', 'none', workdir], check=True)
        try:
            self._expect(0, call([*words, '--workdir', workdir, '--config.train.steps=2']))
            if mount:
                filler = workdir / 'filler'
                filler.write_bytes(bytes(shutil.disk_usage(workdir).free - 100_000))
                status, _, error = call([*words, '--workdir', workdir])
                filler.unlink()
            else:
                status, _, error = call([*words, '--workdir', workdir], largest_file=30_000)
            told = 'cannot be written' in error and 'step 2 is kept' in error and 'Traceback' not in error
            kept = saved_steps(workdir) == [2]
            again = call([*words, '--workdir', workdir])[0]
            survived = status == 2 and told and kept and again == 0 and contents(workdir) == contents(whole)
        finally:
            if mount:
                subprocess.run(['umount', workdir], check=True)
        what = 'a full file system' if mount else 'files that may not grow'
        return Outcome(f'no room for a checkpoint ({what})', 1, int(survived),
                       'one line, status 2; the last one was kept, and with room the same bits at the end')

    def second_process(self) -> Outcome:
        """A second training in the workdir of a running one: refused, and the first is not affected."""
        workdir = self.new('shared')
        first = start([*self.train, '--workdir', workdir])
        wait_for_lines(workdir / 'log.jsonl', 1, first)
        first.send_signal(signal.SIGSTOP)  # must not finish before the second one starts
        status, _, error = call([*self.train, '--workdir', workdir])
        first.send_signal(signal.SIGCONT)
        survived = (status == 2 and 'is using it' in error and 'Traceback' not in error
                    and finish(first)[0] == 0 and contents(workdir) == contents(self.whole))
        return Outcome('a second process in the workdir', 1, int(survived), 'refused, status 2; the first went on')

    def other_config(self) -> Outcome:
        """A key changed on resumption: refused by name; with the flag it resumes."""
        words = [*self.train, '--workdir', self._copy(self.whole), '--config.optimizer.learning_rate=0.5']
        status, _, error = call(words)
        survived = (status == 2 and 'optimizer.learning_rate was 0.001, is 0.5' in error
                    and call([*words, '--change-config'])[0] == 0)
        return Outcome('another config on resumption', 1, int(survived), 'refused by key; --change-config goes on')

    def killed_evaluations(self, count: int) -> Outcome:
        """SIGKILL during an evaluation: finished files are not measured again, and the report is the same."""
        words = ['evaluate.py', '--workdir', self.whole, '--clean', self.folder / 'clean', '--noisy',
                 self.folder / 'noisy', '--workers', '0', '--metrics', 'stoi,si_sdr', '--output']
        whole, survived, kept = self.new('report'), 0, 0
        self._expect(0, call([*words, whole]))
        files = len(list((self.folder / 'clean').iterdir()))
        for _ in range(count):
            output = self.new('report')
            process = start([*words, output])
            wait_for_files(output, 'cache/*/[!s]*.json', self.random.randrange(1, 2 * files), process)
            process.kill()
            finish(process)
            before = stamps(output.glob('cache/*/[!s]*.json'))
            status = call([*words, output])[0]
            untouched = before.items() <= stamps(output.glob('cache/*/[!s]*.json')).items()
            same = (output / 'scores.csv').read_text() == (whole / 'scores.csv').read_text()
            kept += len(before)
            survived += status == 0 and untouched and same
        return Outcome('SIGKILL while evaluating', count, survived,
                       f'{kept} of {2 * files * count} results were kept and none made again; the same scores')

    def killed_enhancements(self, count: int) -> Outcome:
        """SIGKILL during an enhancement: finished files are not enhanced again, and the results are the same."""
        inputs = self.folder / 'long'
        for i in range(8):
            path = inputs / f'{i}.wav'
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, np.random.default_rng(i).uniform(-0.1, 0.1, 16_000 * 60), 16_000)
        words = ['enhance.py', '--workdir', self.whole, inputs, '--output']
        whole, survived, kept = self.new('enhanced'), 0, 0
        self._expect(0, call([*words, whole]))
        for _ in range(count):
            output = self.new('enhanced')
            process = start([*words, output])
            wait_for_lines(output / '.enhanced.jsonl', self.random.randrange(1, 7), process)
            process.kill()
            finish(process)
            done = lines(output / '.enhanced.jsonl')
            names = [json.loads(line)[0] for line in (output / '.enhanced.jsonl').read_text().splitlines()[:done]]
            before = stamps(output / name for name in names)
            status, printed, _ = call([*words, output])
            same = all((output / path.name).read_bytes() == path.read_bytes() for path in whole.glob('*.wav'))
            kept += len(names)
            survived += (status == 0 and same and before.items() <= stamps(output.glob('*.wav')).items()
                         and f'{len(names)} of 8 files were enhanced before' in printed)
        return Outcome('SIGKILL while enhancing', count, survived,
                       f'{kept} of {8 * count} files were kept and not done again; the same bytes')

    # --------------------------------------------------------------------------------------------- several processes
    def together(self) -> Outcome:
        """Two processes with two devices each train as one with four, and as one with one device, up to rounding.

        They start with one mapper and go on with the other.
        """
        two, four = self.new('two'), self.new('four')
        for others in (['--config.parallel.mapper=pmap', '--config.train.steps=6'], []):
            ended = [finish(process) for process in start_together([*self.train, '--workdir', two, *others])]
            for status in ended:
                self._expect(0, status)
            early = '[Gloo]' not in ended[0][1].partition('device(s), from step')[2]  # connected before compilation
            assert early, ended[0]
        self._expect(0, call([*self.train, '--workdir', four], devices=4))
        worst = {name: max(abs(a - b) / abs(b) for a, b in zip(losses(two), losses(path), strict=True))
                 for name, path in (('four', four), ('one', self.whole))}
        return Outcome('two processes with two devices each', 1, int(max(worst.values()) < ROUNDING),
                       f'pmap, then shard_map; losses as of one process with 4 devices to {worst["four"]:.1e}, with 1 '
                       f'to {worst["one"]:.1e}')

    def compiled_late(self, seconds: float = 40) -> Outcome:
        """One of two processes finds its programs in the cache and waits for the other, which is slow to compile them.

        On CPUs only the first finds them. `seconds` are more than the 30 s that processes wait when they first meet.
        """
        workdirs = self.new('first'), self.new('second')
        for process in start_together([*self.train, '--workdir', workdirs[0]]):
            self._expect(0, finish(process))
        ended = [finish(process) for process in start_together(
            [*self.train, '--workdir', workdirs[1]], compile_seconds=seconds,
            JAX_DEBUG_LOG_MODULES='jax._src.compiler')]
        found = [error.count('Persistent compilation cache hit') for *_, error in ended]
        same = all(status == 0 for status, *_ in ended) and contents(workdirs[0]) == contents(workdirs[1])
        return Outcome(f'a process that takes {seconds:g} s longer to compile', 1, int(same),
                       f'the same bits; the cache had {found[0]} programs for process 0 and {found[1]} for process 1')

    def moved(self) -> Outcome:
        """A checkpoint from four devices resumes on one and on two, with the same losses up to rounding."""
        half, last = self.new('half'), losses(self.whole)[-1]
        self._expect(0, call([*self.train, '--workdir', half, '--config.train.steps=6'], devices=4))
        found = []
        for devices in (1, 2):
            workdir = self._copy(half)
            self._expect(0, call([*self.train, '--workdir', workdir], devices=devices))
            found.append(abs(losses(workdir)[-1] / last - 1))
        return Outcome('a checkpoint from 4 devices on 1 and on 2', 2, sum(x < ROUNDING for x in found),
                       f'the last loss to {max(found):.1e}')

    def terminated_together(self) -> Outcome:
        """SIGTERM to one of two processes: both save the same step and end with status 0; one process resumes."""
        workdir = self.new('two')
        processes = start_together([*self.train, '--workdir', workdir, '--config.train.steps=100000',
                                    '--config.train.eval_every=100000'])
        wait_for_lines(workdir / 'log.jsonl', 5, processes[0])
        started = time.monotonic()
        processes[1].terminate()
        ended = [finish(process)[0] for process in processes]
        seconds = time.monotonic() - started
        step, = saved_steps(workdir)[:1]
        status = call([*self.train, '--workdir', workdir, f'--config.train.steps={step + 2}',
                       '--config.train.eval_every=100000'])[0]
        return Outcome('SIGTERM to one of two processes', 1, int(ended == [0, 0] and status == 0),
                       f'both saved step {step} and ended with status 0 within {seconds:.1f} s; one process went on')

    def killed_together(self, victim: int) -> Outcome:
        """SIGKILL of one of two processes: the other ends within a minute with a reason."""
        workdir = self.new('two')
        processes = start_together([*self.train, '--workdir', workdir, '--config.train.steps=100000',
                                    '--config.train.eval_every=100000'])
        wait_for_lines(workdir / 'log.jsonl', 5, processes[0])
        started = time.monotonic()
        processes[victim].kill()
        status, _, error = finish(processes[1 - victim])
        seconds = time.monotonic() - started
        finish(processes[victim])
        told = 'another one ended, most likely' in error or 'another task died' in error
        status_again = call([*self.train, '--workdir', workdir, '--config.train.steps=100000',
                             '--config.train.eval_every=100000', '--config.train.max_minutes=0.001'])[0]
        return Outcome(f'SIGKILL of process {victim} of two', 1,
                       int(status != 0 and told and seconds < 60 and status_again == 0),
                       f'the other one ended after {seconds:.1f} s and said why; one process went on')

    def evaluated_together(self) -> Outcome:
        """Two processes evaluate as one does."""
        words = ['evaluate.py', '--workdir', self.whole, '--clean', self.folder / 'clean', '--noisy',
                 self.folder / 'noisy', '--workers', '0', '--metrics', 'stoi,si_sdr', '--output']
        one, two = self.new('report'), self.new('report')
        self._expect(0, call([*words, one]))
        ended = [finish(process) for process in start_together([*words, two])]
        same = (one / 'scores.csv').read_text() == (two / 'scores.csv').read_text()
        shared = all('waiting for' in output or '8 of 8' in output for _, output, _ in ended)
        survived = same and shared and all(status == 0 for status, *_ in ended)
        return Outcome('an evaluation by two processes', 1, int(survived), 'half the files each, the scores of one')

    # ------------------------------------------------------------------------------------------------------ helpers
    def new(self, name: str) -> pathlib.Path:
        """A path in the folder that nothing has yet."""
        self._count += 1
        return self.folder / f'{name}_{self._count}'

    def _copy(self, workdir: pathlib.Path) -> pathlib.Path:
        return pathlib.Path(shutil.copytree(workdir, self.new('copy')))

    @staticmethod
    def _expect(status: int, ended: tuple[int, str, str]) -> None:
        assert ended[0] == status, ended


def contents(workdir: pathlib.Path) -> dict[str, str]:
    """Item of the latest checkpoint -> a hash of its arrays: weights, averages, optimiser state."""
    folder = workdir / 'checkpoints' / str(max(saved_steps(workdir)))
    found = {}
    for item in ('variables', 'ema', 'optimizer'):
        if (folder / item).exists():
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
                tree = checkpointer.metadata(folder / item).item_metadata.tree
                kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
                arrays = checkpointer.restore(folder / item, args=ocp.args.PyTreeRestore(restore_args=kinds))
            leaves = jax.tree_util.tree_leaves_with_path(arrays)
            parts = (jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes() for path, leaf in leaves)
            found[item] = hashlib.sha256(b''.join(parts)).hexdigest()
    return found


def saved_steps(workdir: pathlib.Path) -> list[int]:
    """The latest first."""
    names = (path.name for path in (workdir / 'checkpoints').iterdir())
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def losses(workdir: pathlib.Path) -> list[float]:
    """The losses of every logged step and validation."""
    found = map(json.loads, (workdir / 'log.jsonl').read_text().splitlines())
    return [values.get('toy/loss', values.get('validation/toy/loss')) for values in found]


def stamps(paths: Iterable[pathlib.Path]) -> dict[pathlib.Path, tuple[int, int]]:
    """A value that changes when a file is written again."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def can_mount(folder: pathlib.Path) -> bool:
    """Whether this process may mount a file system."""
    tried = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', folder], capture_output=True)
    return tried.returncode == 0 and subprocess.run(['umount', folder], capture_output=True).returncode == 0


def table(outcomes: Iterable[Outcome]) -> str:
    """Markdown."""
    head = '| fault | injected | survived | |\n|---|--:|--:|---|\n'
    return head + ''.join(f'| {x.fault} | {x.injected} | {x.survived} | {x.seen} |\n' for x in outcomes)
