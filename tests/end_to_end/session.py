"""Runs Python commands, a JSON list of lists of words on standard input, one after the other in one process.

Importing JAX and TensorFlow takes longer than most of what the tests' commands do. Each command is echoed; the first
that fails ends the session with its status.
"""

import json
import runpy
import shlex
import sys


def run(words: list[str]) -> None:
    """`['python', 'SCRIPT', ...]` or `['python', '-m', 'MODULE', ...]`, as the interpreter would."""
    module = words[1] == '-m'
    sys.argv = words[2:] if module else words[1:]
    if module:
        runpy.run_module(words[2], run_name='__main__', alter_sys=True)
    else:
        runpy.run_path(words[1], run_name='__main__')


if __name__ == '__main__':
    sys.path[0] = ''  # the folder that the commands run in
    for command in json.load(sys.stdin):
        print('$', shlex.join(command), flush=True)
        try:
            run(command)
        except SystemExit as exit:
            if exit.code:
                sys.exit(exit.code)
