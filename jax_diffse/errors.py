"""Errors that a user can mend, and how the entry points report them."""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from jax_diffse import interrupts, terminal

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room for a file


class UserError(Exception):
    """Something the user gave is wrong: one line naming it, what was expected and what to do."""


class NoRoomError(UserError):
    """What a run has to keep cannot be written, so neither can logs that are still open."""


class Parser(argparse.ArgumentParser):
    """A command line in which a mistake is a `UserError` too: one line, not the usage and then the line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f'{message} (see {self.prog} --help)')


def exit_with(main: Callable[[], int | None]) -> None:
    """Runs an entry point and exits with its `status`."""
    terminal.prepare()
    interrupts.watch()
    result = status(main)
    if result == interrupts.STATUS:
        sys.stdout.flush()
        interrupts.leave()
    interrupts.finish()
    sys.exit(result)


def status(main: Callable[[], int | None]) -> int:
    """Runs an entry point -> its exit status; of what the user can mend one line, and status 2."""
    try:
        return main() or 0
    except NoRoomError as error:
        _end(f'error: {error}')
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
    except OSError as error:
        if error.errno not in FULL:
            raise
        _end(f'error: {error.filename or "a file"}: {error.strerror}; make room, and repeat the command')
    except (AssertionError, RuntimeError):
        reason = _no_device()
        if not reason:
            raise
        print(f'error: {reason}', file=sys.stderr)
    except KeyboardInterrupt:
        interrupts.tell()
        return interrupts.STATUS
    return 2


def _no_device() -> str:
    """Why JAX has nothing to compute on, where that is so because of $JAX_PLATFORMS; '' elsewhere."""
    named = os.environ.get('JAX_PLATFORMS')
    if not named or 'jax' not in sys.modules:
        return ''
    import jax

    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # the former, without words, where a plugin of JAX is missing
        reason = f' ({" ".join(str(error).split())})' if str(error) else ''
        return f'JAX_PLATFORMS={named}: JAX finds no such device{reason}; install JAX for it, or unset the variable'
    return ''


def _end(message: str) -> NoReturn:
    """Ends with status 2 at once: TensorBoard's writer would try again at exit, and print pages of its failure."""
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(2)
