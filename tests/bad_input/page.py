"""The text of docs/bad_input.md."""

import re

from tests.bad_input.cases import CASES, SECTIONS
from tests.bad_input.world import ROOT, Case, Outcome, World

PATH = ROOT / 'docs' / 'bad_input.md'
LONGEST = 300  # characters of a line that are shown
HEAD = '| given | command | status | what is printed, or comes of it |\n|---|---|--:|---|'
INTRODUCTION = f"""# Bad input

What `jax-diffse train`, `evaluate`, `enhance` and `convert` do with {len(CASES)} mistakes and oddities.
This page is written by `python -m tests.bad_input`, and the tests run every command on it.

What is wrong is answered by one line on standard error that names the file, key or value, without a traceback, and
by the exit status 2; where several files are at fault, by a line for each. `enhance` does the other files and
returns 1, or 2 where there is none. Nothing that was there is changed, nothing in a file is executed, and no half
of a file is left.

The runs are of toy systems: `runs/half` halves its input, `runs/prior` refines, `runs/sampler` takes 1 to 10 steps,
`runs/eight` works at 8 kHz; `runs/dccrn` is a small DCCRN. `toy.py` is a config of the system in `runs/toy`. Long
lines end in an ellipsis here.
"""
LONG = """## Three hours

A file of any length is read, enhanced and written piece by piece. With a DCCRN of the size
`dccrn:small` a file of 3 hours (16 kHz, one channel, 16 bits, 346 MB) took 475 MB at most and one of 10
minutes 467 MB: the peak resident set of the process `jax-diffse enhance --workdir run --output out three_hours.wav`
as the kernel counts it (`ru_maxrss`), JAX and the program included, which the cache held already. It took 437 s, a
real-time factor of 0.040, on two cores of an AMD EPYC shared with other work.
"""


def head(case: Case) -> str:
    """The row of a case, up to what comes of it."""
    return f'| {case.given} | `{case.command}` | {case.status} | '


def row(case: Case, outcome: Outcome) -> str:
    """The row of a case."""
    text = '<br>'.join(map(_shown, outcome.lines)) if case.status else case.line
    return f'{head(case)}{text} |'


def _shown(line: str) -> str:
    line = re.sub(r'\b([0-9a-f]{16}|[0-9a-f]{64})\b', '…', ' '.join(line.split()))  # hashes, of versions among others
    line = re.sub(r'\((DATA_LOSS|NOT_FOUND|OUT_OF_RANGE): .*', '(…', line)  # of whichever array was read first
    line = line if len(line) <= LONGEST else line[:LONGEST] + '…'
    for special in '\\|<*_`':
        line = line.replace(special, f'\\{special}')
    return line


def fixed() -> str:
    """The page without its rows."""
    return ''.join([INTRODUCTION, *(f'\n## {title}\n\n{HEAD}\n' for title in SECTIONS), f'\n{LONG}'])


def render(world: World) -> str:
    """The page, for which every command is run."""
    tables = [f'\n## {title}\n\n{HEAD}\n' + ''.join(f'{row(case, world.outcome(case))}\n' for case in cases)
              for title, cases in SECTIONS.items()]
    return ''.join([INTRODUCTION, *tables, f'\n{LONG}'])
