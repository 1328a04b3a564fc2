"""Runs a job in a process of its own, so that peak memory is that of the job and a failure affects no other job.

The child, `python -m benchmarks.job PART FILE`, reads the settings as JSON from standard input. It writes a line of
JSON to FILE for each figure at once, so that figures from before a crash are kept.
"""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import traceback
from typing import Any, NamedTuple

from benchmarks.figures import LeftOut
from benchmarks.plan import Job
from jax_diffse import errors, launch
from jax_diffse.errors import UserError


class Outcome(NamedTuple):
    """The outcome of a job."""

    figures: list[dict[str, Any]]
    left_out: str  # why it was not measured
    failure: str  # why it ended early


def start(job: Job) -> Outcome:
    """Runs a job and waits for it."""
    env = dict(os.environ)
    if job.simulated:
        env['XLA_FLAGS'] = f'{env.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={job.simulated}'
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, 'lines')
        done = subprocess.run([sys.executable, '-m', 'benchmarks.job', job.part, path], env=env, text=True,
                              input=json.dumps(job.settings))
        lines = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()] if path.exists() else []
    ends = {key: value for line in lines for key, value in line.items() if key in ('left_out', 'failure')}
    if done.returncode and not ends:
        ends['failure'] = ended_by(done.returncode)
    return Outcome([line for line in lines if 'part' in line], ends.get('left_out', ''), ends.get('failure', ''))


def ended_by(status: int) -> str:
    """Why a process ended that gave no reason."""
    if status == -9:
        return 'killed (signal 9), most likely because memory ran out: try a smaller --batch'
    return f'ended by signal {-status}' if status < 0 else f'ended with status {status}'


def main() -> None:
    part, path = sys.argv[1:]
    settings = json.load(sys.stdin)
    with open(path, 'w', encoding='utf-8') as file:
        def write(line):
            print(json.dumps(line), file=file, flush=True)

        try:
            for item in importlib.import_module(f'benchmarks.{part}').run(**settings):
                write({'part': part, **item})
        except LeftOut as reason:
            write({'left_out': str(reason)})
        except UserError as error:
            write({'failure': str(error)})
        except Exception as error:
            traceback.print_exc()
            write({'failure': f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}'})


if __name__ == '__main__':
    launch.tune()
    errors.exit_with(main)
