"""Errors that a user can mend, and how the entry points report them."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """Something the user gave is wrong: one line naming it, what was expected and what to do."""


class Parser(argparse.ArgumentParser):
    """A command line in which a mistake is a `UserError` too: one line, not the usage and then the line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f'{message} (see {self.prog} --help)')


def exit_with(main: Callable[[], int | None]) -> None:
    """Runs an entry point and exits with its status; a `UserError` becomes one line and status 2."""
    try:
        status = main() or 0
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = 130
    sys.exit(status)
