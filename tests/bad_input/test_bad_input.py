"""Tests that every command in docs/bad_input.md does what the page says."""

import fnmatch
import io
import re
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile

from jax_diffse import runs
from jax_diffse.inference import enhance
from jax_diffse.inference.enhancer import Enhancer
from tests import toys
from tests.bad_input import page
from tests.bad_input.cases import CASES
from tests.bad_input.world import Case, Unreachable, World, open_world, sound

PAGE = page.PATH.read_text(encoding='utf-8').splitlines()


@pytest.fixture(scope='module')
def world():
    with open_world() as opened:
        yield opened


@pytest.mark.parametrize('case', CASES, ids=lambda case: f'{case.entry}: {case.given}')
def test_a_case_ends_as_the_page_says(world: World, case: Case):
    try:
        outcome = world.outcome(case)
    except Unreachable as reason:
        pytest.skip(str(reason))
    assert outcome.status == case.status, outcome.lines
    changed = {path for path, content in outcome.before.items() if outcome.after.get(path) != content}
    assert all(any(fnmatch.fnmatch(path, pattern) for pattern in case.replaces) for path in changed)
    if case.status:
        assert len(outcome.lines) == case.lines and any(re.search(case.line, line) for line in outcome.lines)
        assert outcome.after.keys() - outcome.before.keys() == set(case.leaves)
    else:
        assert not outcome.lines
    assert page.row(case, outcome) in PAGE


def test_the_page_has_a_row_for_each_case_and_no_other():
    rows = [line for line in PAGE if line.startswith('| ') and line not in page.HEAD.splitlines()]
    assert [line for line, case in zip(rows, CASES, strict=True) if not line.startswith(page.head(case))] == []
    assert '\n'.join(line for line in PAGE if line not in rows) + '\n' == page.fixed()


def test_names_that_look_like_markup_are_shown_on_a_terminal(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    (tmp_path / 'in' / '[').mkdir(parents=True)
    soundfile.write(tmp_path / 'in' / '[' / 'b].wav', sound(), 16_000)  # '[/b]' would close what was never opened
    monkeypatch.setattr(runs, 'load', lambda workdir, step='best', model=None: toys.run(toys.Toy()))
    monkeypatch.setattr(sys, 'stdout', Terminal())
    assert enhance.enhance('run', [tmp_path / 'in'], tmp_path / 'out') == 0


def test_nothing_was_written_outside_of_the_folders(world):
    """Runs last: archives have members that lead there."""
    assert not list(world.folder.glob('*.txt')) and not list(world.folder.parent.glob('outside.txt'))


@pytest.mark.parametrize('rate', [1000, 2000])
def test_three_hours_take_the_memory_of_minutes(tmp_path, rate):
    """At 1 kHz, for speed, and at 2 kHz, for resampling; the file in memory would take 43 MB or more."""
    count, block = 3 * 3600 * rate, np.full(600 * rate, 0.25, np.float32)
    with soundfile.SoundFile(tmp_path / 'a.wav', 'w', rate, 1, 'PCM_16') as file:
        for _ in range(count // len(block)):
            file.write(block)
    enhancer = Enhancer(toys.run(toys.Toy(sample_rate=1000)))
    enhancer(block[:20 * rate], rate)  # compiles, which takes memory of its own
    tracemalloc.start()
    try:
        assert enhancer.enhance_file(tmp_path / 'a.wav', tmp_path / 'b.wav') == 3 * 3600
        assert tracemalloc.get_traced_memory()[1] < 12e6
    finally:
        tracemalloc.stop()
    enhanced, found = soundfile.read(tmp_path / 'b.wav')
    assert (len(enhanced), found) == (count, rate)
    np.testing.assert_allclose(enhanced[rate:-rate], 0.125, atol=1e-3)
