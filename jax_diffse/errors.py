"""Errors that a user can mend, and how the entry points report them."""

import argparse
import errno
import sys
from collections.abc import Callable
from typing import NoReturn

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room for a file


class UserError(Exception):
    """Something the user gave is wrong: one line naming it, what was expected and what to do."""


class Parser(argparse.ArgumentParser):
    """A command line in which a mistake is a `UserError` too: one line, not the usage and then the line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f'{message} (see {self.prog} --help)')


def exit_with(main: Callable[[], int | None]) -> None:
    """Runs an entry point and exits with its `status`."""
    sys.exit(status(main))


def status(main: Callable[[], int | None]) -> int:
    """Runs an entry point -> its exit status; of what the user can mend one line, and status 2."""
    try:
        return main() or 0
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
    except OSError as error:
        if error.errno not in FULL:
            raise
        print(f'error: {error.filename or "a file"}: {error.strerror}; make room, and repeat the command',
              file=sys.stderr)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    return 2
