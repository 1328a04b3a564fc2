"""The drill: `python -m tests.faults` injects faults into runs, prints a table and returns 1 if one was not survived.

It takes some fifteen minutes on two cores. `--write` puts the table into docs/faults.md.
"""

import argparse
import os
import pathlib
import re
import sys
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'faults.md'
HEADING = '\n## The drill\n'


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tests.faults', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=20, help='of a training (default: 20)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments (default: 0)')
    parser.add_argument('--write', action='store_true', help='put the table into docs/faults.md')
    args = parser.parse_args()

    from tests import gcs
    from tests.faults.buckets import BucketDrill
    from tests.faults.drill import Drill, can_mount, table

    with tempfile.TemporaryDirectory(prefix='jax_diffse_faults_') as name:
        folder = pathlib.Path(name)
        os.environ['JAX_DIFFSE_CACHE'] = str(folder / 'cache')
        (folder / 'drill').mkdir()
        drill = Drill(folder / 'drill', steps=96, seed=args.seed)
        store = gcs.Store()
        os.environ.update(store.environment())
        buckets = BucketDrill(drill, store)
        faults = [lambda: drill.kills(args.kills), lambda: drill.kills_of_segan(max(args.kills // 4, 1)),
                  lambda: drill.terminations(5), lambda: drill.interruptions(5),
                  drill.interrupted_compilation, lambda: drill.truncations(5), lambda: drill.no_room(mount=False),
                  drill.second_process, drill.other_config, lambda: drill.killed_evaluations(5),
                  lambda: drill.killed_enhancements(5), drill.together, drill.compiled_late, drill.moved,
                  drill.terminated_together,
                  lambda: drill.killed_together(1), lambda: drill.killed_together(0), drill.evaluated_together,
                  lambda: buckets.kills(3), buckets.unavailable, buckets.refused, buckets.together, buckets.evaluated,
                  buckets.enhanced]
        if can_mount(folder):
            faults.insert(7, lambda: drill.no_room(mount=True))
        outcomes = []
        for fault in faults:
            outcomes.append(fault())
            print(table(outcomes[-1:]).splitlines()[-1], flush=True)
    found = table(outcomes)
    print(f'\n{found}')
    if args.write:
        PAGE.write_text(with_table(PAGE.read_text(encoding='utf-8'), found), encoding='utf-8')
    return int(any(outcome.survived < outcome.injected for outcome in outcomes))


def with_table(page: str, found: str) -> str:
    """The page with a new table under `HEADING` and no other change."""
    before, heading, after = page.partition(HEADING)
    return before + heading + re.sub(r'(\|[^\n]*\n)+', lambda _: found, after, count=1)


if __name__ == '__main__':
    sys.exit(main())
