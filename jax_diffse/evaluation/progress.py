"""Progress of a long loop."""

import sys
from collections.abc import Iterable, Iterator

import rich.progress

MARKS = 5  # lines if the output is not a terminal


def track(items: Iterable, total: int, label: str) -> Iterator:
    """Yields `items` and shows the progress: a bar on a terminal, else a few plain lines."""
    if sys.stdout.isatty():
        yield from rich.progress.track(items, label, total, transient=True)
        return
    for done, item in enumerate(items, start=1):
        yield item
        if done * MARKS // total > (done - 1) * MARKS // total:
            print(f'{label}: {done} of {total}', flush=True)
