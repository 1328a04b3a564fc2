"""Writes docs/numerics.md: how exactly networks and losses compute, measured on this machine.

    python -m docs.numerics
"""

import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from jax_diffse.errors import exit_with  # noqa: E402
from tests.numerics import precision  # noqa: E402

PAGE = pathlib.Path(__file__).parent / 'numerics.md'
INTRODUCTION = """# Numerics

Written by `python -m docs.numerics`; no figure is typed. It takes some minutes.

Errors are relative, |a - b| / |b| in the Euclidean norm: of a result, and of the gradient of its product with fixed
noise, over all parameters of a network, or with respect to the estimate of a loss. Networks are small versions with
random weights, on noise; those with batch normalisation are in training. float64 is the same code, with all that says
float32 in it read as float64, parameters and statistics included, on the same weights and inputs. In brackets: the
limit, which the tests hold.

A PReLU has another derivative on the other side of zero. A value that rounds across changes the gradient by a step,
and in bfloat16 many do, so the slopes are 1 here, but for one row which shows what that alone comes to. It is no
error of the arithmetic: both are the derivative at a point nearby.

Systems train in float32; losses are always in float32, and so are statistics of normalisations, softmax and recurrent
layers in bfloat16 (`--config.model.dtype=bfloat16`, of some systems `--config.model.network.dtype=bfloat16`). Under
bfloat16 stands what becomes of a loss whose estimate rounds to it, and so does the gradient that goes back into the
network; that of multi_resolution does not survive it. NISQA, a metric, is in float32 alone.
"""
CLOSING = """
## Silence

For every system, the training step's gradient, loss and statistics are finite where a batch holds silence, next to
nothing (1e-30, denormal numbers), silence on one side only, equal, constant, inverted or loud (1e4) signals, a click,
single samples, or padding alone. So is every loss with its gradient. The released losses of DCCRN have a floor for
that, of 1e-12 where they divide or take a logarithm, which their authors' code lacks.

Metrics of such signals are values that they can have, or n/a with a reason ([metrics.md](metrics.md)).

## Damaged files

`python -m tests.fuzz --seconds 300` damages audio files and checkpoints (flipped bits, extreme values, cuts,
insertions, random bytes, files that are gone) and has them read in a process of their own. Each must be read, or
refused in one line; an exception of another kind, a crash, a minute without an answer, a GiB more of memory, or
weights other than those that were saved end it with status 1.
"""


def page() -> str:
    """The text of docs/numerics.md."""
    parts = [INTRODUCTION]
    for title, cases in (('Networks', precision.NETWORKS), ('Losses', precision.LOSSES)):
        parts.append(f'## {title}\n\n| | {" | ".join(precision.COLUMNS.values())} |\n'
                     f'|---|{"--:|" * len(precision.COLUMNS)}\n'
                     + ''.join(f'| {name} | {" | ".join(_cell(name, column) for column in precision.COLUMNS)} |\n'
                               for name in cases))
    return '\n'.join(parts) + CLOSING


def _cell(name, column) -> str:
    value, limit = (getattr(errors, column) for errors in (precision.measure(name), precision.LIMITS[name]))
    return '' if value is None else f'{value:.1e} ({limit:.0e})'


def main() -> int:
    PAGE.write_text(page(), encoding='utf-8')
    beyond = [name for name, limits in precision.LIMITS.items() for column in precision.COLUMNS
              if (getattr(precision.measure(name), column) or 0) > (getattr(limits, column) or 0)]
    if beyond:
        print(f'beyond their limits: {", ".join(beyond)}')
    return int(bool(beyond))


if __name__ == '__main__':
    exit_with(main)
