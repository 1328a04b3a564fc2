"""Errors that a user can fix, and how the entry points report them."""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from jax_diffse import interrupts, terminal

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space for a file


class UserError(Exception):
    """A mistake of the user. The message is one line: what is wrong, what was expected and what to do."""


class NoRoomError(UserError):
    """There is no space for the files of a run, nor for logs that are still open."""


class StoreError(OSError):
    """Object storage refuses a request or cannot be reached: `filename` is the address, `strerror` the reason."""


class Parser(argparse.ArgumentParser):
    """A parser that raises a `UserError` for a mistake: one line, without the usage before it."""

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
    """Runs an entry point -> its exit status. A mistake of the user prints one line and gives status 2."""
    try:
        return main() or 0
    except NoRoomError as error:
        _end(f'error: {error}')
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
    except StoreError as error:
        print(f'error: {error.filename}: {error.strerror}', file=sys.stderr)
    except OSError as error:
        if error.errno not in FULL:
            raise
        _end(f'error: {error.filename or "a file"}: {error.strerror}; free some space and rerun the command')
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
    """Why JAX has no device, if $JAX_PLATFORMS is the reason; otherwise ''."""
    named = os.environ.get('JAX_PLATFORMS')
    if not named or 'jax' not in sys.modules:
        return ''
    import jax

    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # an AssertionError has no message, if a plugin of JAX is missing
        reason = f' ({" ".join(str(error).split())})' if str(error) else ''
        return f'JAX_PLATFORMS={named}: JAX finds no such device{reason}; install JAX for it, or unset the variable'
    return ''


def _end(message: str) -> NoReturn:
    """Ends with status 2 at once; otherwise TensorBoard's writer would retry at exit, and print pages about it."""
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(2)
