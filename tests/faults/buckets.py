"""Injects faults into trainings, evaluations and enhancements whose files are in object storage."""

import signal
import subprocess

from jax_diffse import audio, files
from tests import gcs
from tests.faults.drill import Drill, Outcome, contents
from tests.faults.processes import Process, call, finish, start, start_together, wait_until

BUCKET = 'drill'


class BucketDrill:
    """The faults, in a bucket of an emulated store, compared with the runs of a drill on a disk.

    Args:
      drill: on a disk.
      store: whose environment this process and its children have.
    """

    def __init__(self, drill: Drill, store: gcs.Store):
        self.drill, self.store, self._count = drill, store, 0
        store.buckets[BUCKET] = {}

    def kills(self, count: int) -> Outcome:
        """SIGKILL at random moments of a training; the same command resumes once the lock is stale."""
        survived = 0
        for _ in range(count):
            workdir = self._new('killed')
            process = start([*self.drill.train, '--workdir', self._address(workdir)])
            self._wait_for(f'{workdir}/checkpoints/2/', process)
            try:
                process.wait(self.drill.random.uniform(0, self.drill.seconds / 2))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            finish(process)
            status = call([*self.drill.train, '--workdir', self._address(workdir)])[0]
            survived += status == 0 and self._same(workdir)
        return Outcome('SIGKILL while training into a bucket', count, survived,
                       'the bits of the undisturbed run on a disk')

    def unavailable(self, seconds: float = 20) -> Outcome:
        """The store answers nothing but errors for a while: the training waits and goes on."""
        workdir = self._new('unavailable')
        process = start([*self.drill.train, '--workdir', self._address(workdir)])
        self._wait_for(f'{workdir}/checkpoints/4/commit_success.txt', process)
        self.store.fail_for(seconds)
        survived = finish(process)[0] == 0 and self._same(workdir)
        return Outcome(f'a bucket that is unavailable for {seconds:g} s while training', 1, int(survived),
                       'the training waited; the bits of the undisturbed run on a disk')

    def refused(self) -> Outcome:
        """The account loses its permission while training: one line, status 2; with it the same end."""
        workdir = self._new('refused')
        process = start([*self.drill.train, '--workdir', self._address(workdir)])
        self._wait_for(f'{workdir}/checkpoints/4/commit_success.txt', process)
        self.store.refused = 403
        status, _, error = finish(process)
        self.store.refused = 0
        told = error.strip().splitlines()[-1:]
        one_line = bool(told) and 'storage.objects.create access' in told[0] and 'Traceback' not in error
        again = call([*self.drill.train, '--workdir', self._address(workdir)])[0]
        return Outcome('a bucket that refuses requests while training', 1,
                       int(status == 2 and one_line and again == 0 and self._same(workdir)),
                       'one line, status 2; with permission the bits of the undisturbed run on a disk')

    def together(self) -> Outcome:
        """Two processes with two devices each, both killed, resume with the bits of the same training on a disk."""
        local, there = self.drill.new('two'), self._new('two')
        for process in start_together([*self.drill.train, '--workdir', local]):
            assert finish(process)[0] == 0
        processes = start_together([*self.drill.train, '--workdir', self._address(there)])
        self._wait_for(f'{there}/checkpoints/6/commit_success.txt', processes[0])
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            finish(process)
        ended = [finish(process) for process in start_together([*self.drill.train, '--workdir', self._address(there)])]
        same = contents(files.path(self._address(there))) == contents(local)
        return Outcome('SIGKILL of two processes that train into a bucket', 1,
                       int(same and [status for status, *_ in ended] == [0, 0]),
                       'two devices each; the bits of the same training on a disk')

    def evaluated(self) -> Outcome:
        """Two processes evaluate a run, and write the report and the cache, in a bucket."""
        run, local, there = self._new('run'), self.drill.new('report'), self._new('report')
        self._upload(self.drill.whole, run)
        words = ['evaluate.py', '--clean', self.drill.folder / 'clean', '--noisy', self.drill.folder / 'noisy',
                 '--workers', '0', '--metrics', 'si_sdr', '--workdir']
        assert call([*words, self.drill.whole, '--output', local])[0] == 0
        words += [self._address(run), '--output', self._address(there)]
        ended = [finish(process) for process in start_together(words)]
        same = (local / 'scores.csv').read_text() == (files.path(self._address(there)) / 'scores.csv').read_text()
        return Outcome('an evaluation by two processes into a bucket', 1,
                       int(same and [status for status, *_ in ended] == [0, 0]), 'the scores of one on a disk')

    def enhanced(self) -> Outcome:
        """SIGKILL of an enhancement from a bucket to a bucket; the same command does what is missing."""
        noisy, there = self._new('noisy'), self._new('enhanced')
        self._upload(self.drill.folder / 'noisy', noisy)
        words = ['enhance.py', '--workdir', self.drill.whole, '--output', self._address(there), self._address(noisy)]
        process = start(words)
        self._wait_for(f'{there}/3.wav', process)
        process.send_signal(signal.SIGKILL)
        finish(process)
        status = call(words)[0]
        local = self.drill.new('enhanced')
        words = ['enhance.py', '--workdir', self.drill.whole, '--output', local, self.drill.folder / 'noisy']
        assert call(words)[0] == 0
        same = all((audio.read(f'{self._address(there)}/{path.name}')[0] == audio.read(path)[0]).all()
                   for path in local.glob('*.wav'))
        return Outcome('SIGKILL of an enhancement from and to a bucket', 1, int(status == 0 and same),
                       'the results of the same command on a disk')

    def _new(self, name: str) -> str:
        self._count += 1
        return f'{name}_{self._count}'

    @staticmethod
    def _address(name: str) -> str:
        return f'gs://{BUCKET}/{name}'

    def _same(self, workdir: str) -> bool:
        return contents(files.path(self._address(workdir))) == contents(self.drill.whole)

    def _wait_for(self, start_of_name: str, process: Process) -> None:
        wait_until(lambda: self.store.names(BUCKET, start_of_name), process)

    def _upload(self, folder, name: str) -> None:
        for path in folder.rglob('*'):
            if path.is_file():
                files.upload(path, f'{self._address(name)}/{path.relative_to(folder).as_posix()}')
