"""The text of docs/bad_input.md."""

import re

from tests.bad_input.cases import CASES, SECTIONS
from tests.bad_input.world import ROOT, Case, Outcome, World

PATH = ROOT / 'docs' / 'bad_input.md'
LONGEST = 300  # characters of a shown line
HEAD = '| input | command | status | output or result |\n|---|---|--:|---|'
INTRODUCTION = f"""# Bad input

How `jax-diffse train`, `evaluate`, `score`, `enhance`, `convert` and `pack` react to {len(CASES)} mistakes and
oddities.
`python -m tests.bad_input` writes this page, and the tests run every command on it.

A mistake gives one line on standard error, without a traceback, and the exit status 2. The line names the file, key or
value; several bad files give a line each. `enhance` enhances the other files and returns 1, or 2 if there are none.
Existing files do not change, code in files is not executed, and no partial files remain.

The runs are of toy systems: `runs/half` halves its input, `runs/prior` is a refiner, `runs/sampler` takes 1 to 10
steps, `runs/eight` works at 8 kHz; `runs/dccrn` is a small DCCRN. `toy.py` is a config of the system in `runs/toy`.
Long lines end in an ellipsis here.
"""
LONG = """## Three hours

Files of any length are read, enhanced and written block by block. With a DCCRN of the size `dccrn:small`, a file of
3 hours (16 kHz, one channel, 16 bits, 346 MB) took at most 475 MB and one of 10 minutes 467 MB. This is the peak
resident set (`ru_maxrss`) of the process `jax-diffse enhance --workdir run --output out three_hours.wav`, including JAX
and the program, which was cached. It took 437 s, a real-time factor of 0.040, on two cores of an AMD EPYC under other
load.
"""


def head(case: Case) -> str:
    """The row of a case without its outcome."""
    return f'| {case.given} | `{case.command}` | {case.status} | '


def row(case: Case, outcome: Outcome) -> str:
    """The row of a case."""
    text = '<br>'.join(map(_shown, outcome.lines)) if case.status else case.line
    return f'{head(case)}{text} |'


def _shown(line: str) -> str:
    line = re.sub(r'\b([0-9a-f]{16}|[0-9a-f]{64})\b', '…', ' '.join(line.split()))  # hashes, which depend on versions
    line = re.sub(r'\((DATA_LOSS|NOT_FOUND|OUT_OF_RANGE): .*', '(…', line)  # depends on the array that was read first
    line = line if len(line) <= LONGEST else line[:LONGEST] + '…'
    for special in '\\|<*_`':
        line = line.replace(special, f'\\{special}')
    return line


def fixed() -> str:
    """The page without its rows."""
    return ''.join([INTRODUCTION, *(f'\n## {title}\n\n{HEAD}\n' for title in SECTIONS), f'\n{LONG}'])


def render(world: World) -> str:
    """Runs every command and renders the page."""
    tables = [f'\n## {title}\n\n{HEAD}\n' + ''.join(f'{row(case, world.outcome(case))}\n' for case in cases)
              for title, cases in SECTIONS.items()]
    return ''.join([INTRODUCTION, *tables, f'\n{LONG}'])
