"""The launch scripts, with stand-ins for the programs of clusters."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.faults.processes import environment, lines, write_pairs

ROOT = pathlib.Path(__file__).parents[1]
# Two tasks on one node, with the variables that SLURM sets.
SRUN = """#!/bin/bash
[ "$1" = --kill-on-bad-exit=1 ] && shift
export SLURM_JOB_ID=$$ SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=1
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" &
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" && wait $!
"""


def run(script, *words, stand_in, folder, **env):
    """Runs a script with `stand_in`, (name, text), in the path."""
    program = folder / 'bin' / stand_in[0]
    program.parent.mkdir()
    program.write_text(stand_in[1])
    program.chmod(0o755)
    path = f'{program.parent}{os.pathsep}{os.environ["PATH"]}'
    return subprocess.run(['bash', f'scripts/{script}', *map(str, words)], cwd=ROOT, capture_output=True, text=True,
                          env=environment() | {'PATH': path} | env)


def test_slurm_s_processes_train_together(tmp_path):
    write_pairs(tmp_path, 4)
    python = tmp_path / 'python'  # which knows the toy system
    python.write_text(f'#!/bin/bash\nexec {sys.executable} -m tests.faults.processes 0 0 "$@"\n')
    python.chmod(0o755)
    done = run('slurm.sh', 'train.py', '--config', 'tests/faults/config.py', '--workdir', tmp_path / 'run',
               '--config.train.steps=2', *(f'--config.data.train.{x}={tmp_path / x}' for x in ('clean', 'noisy')),
               stand_in=('srun', SRUN), folder=tmp_path, PYTHON=str(python))
    assert done.returncode == 0, done.stderr
    assert '2 device(s), from step 0 to 2' in done.stdout and lines(tmp_path / 'run' / 'log.jsonl') == 3


@pytest.mark.parametrize(('cache', 'told'), [('', ''), ('/nfs/my cache', r'JAX_DIFFSE_CACHE=/nfs/my\ cache ')])
def test_every_host_of_a_pod_gets_the_command_word_by_word(tmp_path, cache, told):
    stand_in = ('gcloud', '#!/bin/bash\nprintf "%s\\n" "$@"\n')
    done = run('tpu_pod.sh', 'pod', 'zone', 'train.py', '--workdir', '/nfs/my runs/a', stand_in=stand_in,
               folder=tmp_path, JAX_DIFFSE_CACHE=cache)
    assert done.stdout.splitlines() == [
        'compute', 'tpus', 'tpu-vm', 'ssh', 'pod', '--zone=zone', '--worker=all',
        rf'--command=cd jax_diffse && {told}.venv/bin/python train.py --distributed --workdir /nfs/my\ runs/a']


def test_missing_arguments_are_named(tmp_path):
    for script in ('slurm.sh', 'tpu_pod.sh'):
        done = subprocess.run(['bash', f'scripts/{script}'], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith('usage: ')
