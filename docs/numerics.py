"""Writes docs/numerics.md: the numerical errors of networks and losses, measured on this machine.

    python -m docs.numerics
"""

import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from jax_diffse.errors import exit_with  # noqa: E402
from tests.numerics import precision  # noqa: E402

PAGE = pathlib.Path(__file__).parent / 'numerics.md'
INTRODUCTION = """# Numerics

Measure how exactly networks and losses compute on your machine:

```
python -m docs.numerics
```

The command takes some minutes and writes this page; no figure is typed.

Errors are relative to float64, |a - b| / |b| in the Euclidean norm. They are errors of a result, and of the gradient of
its product with fixed noise: over all parameters of a network, or with respect to the estimate of a loss. Networks are
small versions with random weights, on noise; those with batch normalisation are in training mode. float64 is the same
code with float64 in place of float32, parameters and statistics included, on the same weights and inputs. The limits,
which the tests check, are in brackets.

The derivative of a PReLU jumps at zero. A value that rounds across zero changes the gradient by a step, and in bfloat16
many values do. The slopes are therefore 1 here, except in one row that shows this effect alone. It is not an error of
the arithmetic: both values are derivatives at a point nearby.

Systems train in float32. With bfloat16 (`--config.model.dtype=bfloat16`, for some systems
`--config.model.network.dtype=bfloat16`), losses stay in float32, and so do the statistics of normalisations, softmax
and recurrent layers. The bfloat16 columns of a loss show its error if its estimate is rounded to bfloat16, and if the
gradient that goes back into the network is rounded, too; the gradient of multi_resolution does not survive that. NISQA,
a metric, runs in float32 only.
"""
CLOSING = """
## Silence

For every system, the gradient, loss and statistics of a training step are finite if a batch holds silence, almost
nothing (1e-30, denormal numbers), silence on one side only, equal, constant, inverted or loud (1e4) signals, a click,
single samples, or only padding. Every loss and its gradient are finite as well. The released losses of DCCRN have a
floor of 1e-12 where they divide or take a logarithm, which their authors' code lacks.

Metrics of such signals are within their range, or n/a with a reason ([metrics.md](metrics.md)).

## Damaged files

`python -m tests.fuzz --seconds 300` damages audio files and checkpoints (flipped bits, extreme values, cuts,
insertions, random bytes, missing files) and reads them in a process of their own. Each must be read, or refused in one
line. The command ends with status 1 after an exception of another kind, a crash, a minute without an answer, a GiB more
of memory, or weights that differ from the saved ones.
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
