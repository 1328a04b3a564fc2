"""How far a long loop is."""

import sys
from collections.abc import Iterable, Iterator

import rich.progress

MARKS = 5  # lines where there is no terminal


def track(items: Iterable, total: int, label: str) -> Iterator:
    """Passes `items` on, with a bar on a terminal and a few plain lines elsewhere."""
    if sys.stdout.isatty():
        yield from rich.progress.track(items, label, total, transient=True)
        return
    for done, item in enumerate(items, start=1):
        yield item
        if done * MARKS // total > (done - 1) * MARKS // total:
            print(f'{label}: {done} of {total}', flush=True)
