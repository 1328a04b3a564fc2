"""Several processes that work together: how they find one another, and end together."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable

from jax_diffse import errors
from jax_diffse.errors import UserError

HEARTBEAT_SECONDS = 30  # without a sign of life from a process before the others end
# A process that is done waits this long for the others, say for the one that writes the report. JAX ends all of them
# afterwards. It need not be short: a process that died is missed by its signs of life.
SHUTDOWN_SECONDS = 24 * 3600
# What errors that come from other processes say: of collectives (on CPUs, on GPUs) and of JAX's coordination service.
REMOTE = ('Gloo', 'NCCL', 'CoordinationService', 'Barrier')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `run` reads."""
    group = parser.add_argument_group('several processes')
    group.add_argument('--distributed', action='store_true',
                       help='one of several processes of a TPU pod slice, SLURM or Open MPI, which say which one')
    group.add_argument('--coordinator', metavar='HOST:PORT',
                       help='elsewhere: where the others reach the first process; goes with --processes and --process')
    group.add_argument('--processes', type=int, metavar='N', help='how many there are')
    group.add_argument('--process', type=int, metavar='I', help='which one this is, 0 to N - 1')


def run(work: Callable[[], int | None], args: argparse.Namespace) -> int | None:
    """Does `work` as one of several processes where `args` say so; call it before JAX computes anything.

    A process that fails ends at once: to wait for the others, as JAX does at exit, would be to wait for processes that
    wait for this one. They end when its signs of life are missing.

    Returns:
      The exit status.

    Raises:
      UserError: there are no such processes; without several, what `work` raises.
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
            print(f'error: process {jax.process_index()} cannot go on ({str(error).splitlines()[0]}): {cause}; the '
                  'same command, in all of them, goes on from what was saved', file=sys.stderr)
        else:
            traceback.print_exc()
        status = 1
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _remote_cause(error: BaseException) -> str:
    """What another process has to do with an error, or ''.

    One that died is missed by its signs of life within `HEARTBEAT_SECONDS`, and JAX then ends this process. Where a
    longer wait fails, the other process lives.
    """
    if not isinstance(error, RuntimeError) or not any(sign in str(error) for sign in REMOTE):
        return ''
    if 'DEADLINE_EXCEEDED' in str(error):
        return 'it waited too long for another one, which may still be at work: see what that one is doing'
    return 'another one ended, most likely: see what it printed'


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
            raise UserError('--distributed: no TPU pod slice, SLURM or Open MPI says which process this is '
                            f'({" ".join(str(error).split())}); elsewhere give --coordinator, --processes and '
                            '--process') from error
        raise UserError(f'--coordinator={args.coordinator}: {" ".join(str(error).split())}') from error
