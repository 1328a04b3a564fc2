"""A short drill of every reader, and tests that the drill detects failures."""

import sys

import pytest

from tests.fuzz import __main__ as entry_point
from tests.fuzz import drill

COUNTS = {'wav': 300, 'flac': 300, 'torch': 400, 'run': 40, 'run without checksums': 40}


@pytest.mark.slow
@pytest.mark.parametrize('name', COUNTS)
def test_damaged_files_are_read_or_refused(name):
    tally = drill.drill(name, count=COUNTS[name])
    assert not tally.other, drill.table({name: tally})
    assert tally.tried == COUNTS[name] and min(tally.read, tally.refused) > 0


# ------------------------------------------------------------------------------------------------ detected failures


CHILD = """
import os, sys, time
from jax_diffse.errors import UserError
from tests.fuzz import drill

def read(folder):
    match (folder / 'a').read_bytes()[0]:
        case 1:
            raise UserError('refused')
        case 2:
            raise UserError('two\\nlines')
        case 3:
            raise ValueError('seen')
        case 4:
            bytearray(8 * drill.MEMORY)
        case 5:
            os.abort()
        case 6:
            time.sleep(60)

drill.KINDS['bad'] = lambda: drill.Kind(lambda rng: {'a': bytes(1)}, read)
drill.damaged = lambda kind, seed, number: ({'a': bytes([number])}, 'damaged')
drill.serve(sys.argv[1], *map(int, sys.argv[2:]))
"""


def test_exceptions_deaths_hangs_and_demands_for_memory_are_seen(monkeypatch):
    """File 0 is read, 1 is refused, and the others fail in forbidden ways."""
    monkeypatch.setattr(drill, 'CHILD', (sys.executable, '-c', CHILD))
    monkeypatch.setattr(drill, 'SECONDS', 5.0)
    tally = drill.drill('bad', count=8)
    assert (tally.read, tally.refused, tally.tried) == (2, 1, 8)
    for number, (seen, expected) in enumerate(zip(tally.other, (
            'a message of several lines', 'ValueError: seen', 'MemoryError', 'the process died (exit status -6)',
            'takes more than 5 s'), strict=True), 2):
        assert seen.startswith(f'{number} ') and expected in seen
    monkeypatch.setattr(drill, 'drill', lambda name, **options: tally)
    assert entry_point.main(['--kinds', 'wav']) == 1
    monkeypatch.setattr(drill, 'drill', lambda name, **options: drill.Tally(2, 3))
    assert entry_point.main(['--kinds', 'wav']) == 0
    assert drill.table({'wav': tally}).splitlines()[2] == '| wav | 8 | 2 | 1 | 5 |'


def test_damage_follows_from_seed_and_number():
    kind = drill.KINDS['wav']()
    same, other = drill.damaged(kind, 3, 5), drill.damaged(kind, 3, 6)
    assert drill.damaged(kind, 3, 5) == same != other
