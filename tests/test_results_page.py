"""docs/results.md is what its script makes of the stored summaries, and the script keeps what it should."""

import json
import math
import pathlib

import pytest

from docs import results
from jax_diffse.errors import UserError


def _report(folder: pathlib.Path, **changes) -> pathlib.Path:
    entry = {'mean': 2.0, 'files': 3, 'against': {}}
    summary = {
        'command': 'python evaluate.py --workdir runs/x --output out', 'data': 'clean pairs/clean', 'files': 3,
        'audio_seconds': 90.0, 'date': '2026-01-02T03:04:05+00:00', 'metrics': ['pesq_wb', 'sdr'], 'preceding': None,
        'seconds': {'total': 61.2}, 'versions': {'jax': '0.1'}, 'sampling_steps': 6, 'seed': 4,
        'checkpoint': {'workdir': 'runs/x', 'step': 10, 'hash': 'abcdef0123456789'}, 'stages': ['noisy', 'refined'],
        'statistics': {'noisy': {'pesq_wb': entry, 'sdr': entry},
                       'refined': {'pesq_wb': entry | {'mean': 2.125}, 'sdr': entry | {'mean': None}}},
        'real_time_factor': 0.25, 'device': 'a machine',
        'config': {'system': 'dr_diffuse', 'model': {}, 'train': {}, 'optimizer': {}, 'data': {'train': '/home/me'}},
        **changes}
    folder.mkdir()
    (folder / 'summary.json').write_text(json.dumps(summary))
    return folder


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(results, 'STORE', tmp_path / 'store')
    (tmp_path / 'store').mkdir()
    published = [{'system': 'dr_diffuse', 'what': 'theirs', 'data': 'all of it', 'source': 'a paper',
                  'metrics': {'pesq_wb': 3.09}}]
    (tmp_path / 'store' / 'published.json').write_text(json.dumps(published))
    return tmp_path


def test_the_page_is_what_the_script_writes():
    assert (results.HERE / 'results.md').read_text(encoding='utf-8') == results.page()


def test_published_and_measured_figures_stand_in_tables_of_their_own(store):
    results.add(_report(store / 'report'), 'short', 'two minutes')
    tables = [block for block in results.page().split('\n\n') if block.startswith('|')]
    headers = [table.split('|')[1].strip() for table in tables]
    assert headers == ['published', 'measured']
    assert '3.09' in tables[0] and '2.125' not in tables[0] and '3.09' not in tables[1]
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in tables[1].splitlines()]
    assert cells[2:] == [['noisy', '2.000', '2.00'], ['refined', '2.125', 'n/a']]
    page = results.page()
    for fact in ('two minutes', 'python evaluate.py --workdir runs/x', '6 sampling steps, seed 4', 'step 10',
                 'real-time factor 0.250 on a machine', 'evaluation 61 s', 'jax 0.1', '3 files, 1.5 min'):
        assert fact in page, fact


def test_folders_of_a_machine_are_not_kept(store):
    results.add(_report(store / 'report'), 'short', '')
    assert '/home' not in (store / 'store' / 'short.json').read_text()
    with pytest.raises(UserError, match='holds an absolute path'):
        results.add(_report(store / 'other', data='clean /data/clean'), 'other', '')
    assert not (store / 'store' / 'other.json').exists()


def test_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match='holds neither'):
        results.add(tmp_path, 'name', '')


def test_a_study_has_intervals_and_its_figures(store):
    report, estimate = store / 'sweep', {'mean': 1.5, 'low': 1.25, 'high': math.pi, 'files': 2, 'seed_deviation': None}
    (report / 'figures').mkdir(parents=True)
    (report / 'figures' / 'nfe.png').write_bytes(b'picture')
    point = {'run': 'x', 'changes': {'eta_b': 0.2}, 'sampling_steps': 6, 'real_time_factor': 0.5, 'devices': ['cpu'],
             'stages': {'condition': {'pesq_wb': estimate}, 'refined': {'pesq_wb': estimate}},
             'baselines': ['condition'], 'checkpoint': {'workdir': 'runs/x', 'step': 1, 'hash': 'abc'}}
    found = {'command': 'python evaluate.py', 'data': 'pairs', 'files': 2, 'audio_seconds': 60.0, 'date': '2026-01-02',
             'metrics': ['pesq_wb'], 'preceding': None, 'seconds': 3.0, 'versions': {}, 'seeds': [0],
             'configs': {}, 'confidence': 0.95, 'inputs': {'noisy': {'pesq_wb': estimate}},
             'points': [point, point | {'sampling_steps': 12}]}
    (report / 'sweep.json').write_text(json.dumps(found))
    results.add(report, 'steps', 'briefly')
    page = results.page()
    assert '![steps_nfe](results/steps_nfe.png)' in page and '1.500 [1.250, 3.142]' in page and 'x, eta_b=0.2' in page
    rows = [[cell.strip() for cell in line.split('|')[2:5]] for line in page.splitlines() if line.startswith('| x, ')]
    assert rows == [['', 'condition', ''], ['6', 'refined', '0.500'], ['12', 'refined', '0.500']]
    assert (store / 'store' / 'steps_nfe.png').read_bytes() == b'picture'
