"""The drill in short; `python -m tests.faults` is the long one. What one process can show of it is in test_loop.py."""

import sys

import pytest

from tests.faults.drill import Drill

pytestmark = pytest.mark.skipif(sys.platform == 'win32', reason='signals are those of POSIX')


@pytest.fixture(scope='module')
def drill(tmp_path_factory) -> Drill:
    return Drill(tmp_path_factory.mktemp('drill'), seed=1)


@pytest.mark.parametrize('fault', [
    lambda drill: drill.kills(1),
    lambda drill: drill.no_room(mount=False),
    lambda drill: drill.killed_evaluations(1),
    lambda drill: drill.killed_enhancements(1),
    Drill.together, Drill.moved, Drill.terminated_together,
    lambda drill: drill.killed_together(1),
    Drill.evaluated_together,
], ids=['kill', 'no room', 'evaluation', 'enhancement', 'together', 'moved', 'term of one of two', 'kill of one of two',
        'evaluation together'])
def test_a_fault_is_survived(drill, fault):
    outcome = fault(drill)
    assert outcome.injected > 0 and outcome.survived == outcome.injected, outcome
