"""Connects several processes that work together, and ends them together."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable

from jax_diffse import errors
from jax_diffse.errors import UserError

HEARTBEAT_SECONDS = 30  # without a heartbeat of a process, after which the others end
# A process that has finished waits this long for the others, for example for the one that writes the report. Then JAX
# ends all of them. The time may be long, because missing heartbeats reveal a process that died.
SHUTDOWN_SECONDS = 24 * 3600
# Words in errors that other processes cause: of collectives (on CPUs, on GPUs) and of JAX's coordination service.
REMOTE = ('Gloo', 'NCCL', 'CoordinationService', 'Barrier')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that `run` reads."""
    group = parser.add_argument_group('several processes')
    group.add_argument('--distributed', action='store_true',
                       help='run as one of several processes of a TPU pod slice, SLURM or Open MPI')
    group.add_argument('--coordinator', metavar='HOST:PORT',
                       help='elsewhere: the address of the first process; goes with --processes and --process')
    group.add_argument('--processes', type=int, metavar='N', help='number of processes')
    group.add_argument('--process', type=int, metavar='I', help='index of this process, 0 to N - 1')


def run(work: Callable[[], int | None], args: argparse.Namespace) -> int | None:
    """Runs `work`, as one of several processes if `args` say so; call it before JAX computes anything.

    A process that fails ends at once. At exit JAX would wait for the others, which wait for this one. They end when its
    heartbeats are missing.

    Returns:
      The exit status.

    Raises:
      UserError: the processes cannot be connected; with a single process, what `work` raises.
    """
    given = {'--coordinator': args.coordinator, '--processes': args.processes, '--process': args.process}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given) and not args.distributed:
        return work()
    import jax

    _connect(args, missing)
    try:
        status = errors.status(work)
    except BaseException as error:
        cause = _remote_cause(error)
        if cause:
            print(f'error: process {jax.process_index()} cannot continue ({str(error).splitlines()[0]}): {cause}; '
                  'rerun the command in all processes to resume from what was saved', file=sys.stderr)
        else:
            traceback.print_exc()
        status = 1
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _remote_cause(error: BaseException) -> str:
    """How another process caused an error, or ''.

    If a process died, its heartbeats are missed within `HEARTBEAT_SECONDS`, and JAX then ends this process. If a longer
    wait fails, the other process is alive.
    """
    if not isinstance(error, RuntimeError) or not any(sign in str(error) for sign in REMOTE):
        return ''
    if 'DEADLINE_EXCEEDED' in str(error):
        return 'it waited too long for another one, which may still be at work: see what that one is doing'
    return 'another one ended, most likely: see what that one printed'


def _connect(args: argparse.Namespace, missing: list[str]) -> None:
    import jax

    if len(missing) in (1, 2):
        raise UserError(f'{" and ".join(missing)}: missing, expected --coordinator, --processes and --process together')
    if not missing and not 0 <= args.process < args.processes:
        raise UserError(f'--process={args.process}: expected 0 to {args.processes - 1}, for --processes='
                        f'{args.processes}')
    if not missing and not args.coordinator.rpartition(':')[2].isdecimal():
        raise UserError(f'--coordinator={args.coordinator}: expected HOST:PORT')
    try:
        jax.distributed.initialize(args.coordinator, args.processes, args.process,
                                   heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                                   shutdown_timeout_seconds=SHUTDOWN_SECONDS)
    except (ValueError, RuntimeError) as error:
        if missing:
            raise UserError('--distributed: found no TPU pod slice, SLURM or Open MPI '
                            f'({" ".join(str(error).split())}); elsewhere give --coordinator, --processes and '
                            '--process') from error
        raise UserError(f'--coordinator={args.coordinator}: {" ".join(str(error).split())}') from error
