"""A short drill; `python -m tests.faults` is the long one. test_loop.py has the faults that one process can test."""

import sys

import pytest

from tests.faults.__main__ import HEADING, PAGE, with_table
from tests.faults.buckets import BucketDrill
from tests.faults.drill import Drill, Outcome, table

pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(sys.platform == 'win32', reason='signals are those of POSIX')]


@pytest.fixture(scope='module')
def drill(tmp_path_factory) -> Drill:
    return Drill(tmp_path_factory.mktemp('drill'), seed=1)


@pytest.mark.parametrize('fault', [
    lambda drill: drill.kills(1),
    Drill.interrupted_compilation,
    lambda drill: drill.no_room(mount=False),
    lambda drill: drill.killed_evaluations(1),
    lambda drill: drill.killed_enhancements(1),
    Drill.together, Drill.moved, Drill.terminated_together,
    lambda drill: drill.killed_together(1),
    Drill.evaluated_together,
], ids=['kill', 'interrupt', 'no room', 'evaluation', 'enhancement', 'together', 'moved', 'term of one of two',
        'kill of one of two', 'evaluation together'])
def test_faults_are_survived(drill, fault):
    outcome = fault(drill)
    assert outcome.injected > 0 and outcome.survived == outcome.injected, outcome


@pytest.mark.parametrize('fault', [
    BucketDrill.unavailable, BucketDrill.refused, BucketDrill.together, BucketDrill.evaluated, BucketDrill.enhanced],
    ids=['unavailable', 'refused', 'kill of one of two', 'evaluation', 'enhancement'])
def test_faults_are_survived_in_object_storage(drill, store, fault):
    outcome = fault(BucketDrill(drill, store))
    assert outcome.injected > 0 and outcome.survived == outcome.injected, outcome


def test_the_drill_replaces_its_own_table_in_the_page_and_nothing_else():
    page = PAGE.read_text(encoding='utf-8')
    found = table([Outcome('a fault', 2, 1, r'\1 bits')])
    changed = with_table(page, found)
    before, heading, after = page.partition(HEADING)
    assert changed.startswith(before + heading) and '| fault | what happens |' in before
    rows = [line for line in after.splitlines() if line.startswith('| ')]
    left = [line for line in changed.removeprefix(before).splitlines() if line not in found.splitlines()]
    assert left == [line for line in (heading + after).splitlines() if not line.startswith('|')] and len(rows) > 10
    assert changed.count(found) == 1
