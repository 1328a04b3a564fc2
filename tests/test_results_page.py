"""docs/results.md equals the output of its script, and the script stores the right facts."""

import json
import math
import pathlib

import pytest

from docs import results
from jax_diffse.errors import UserError

BEFORE = {'commands': ['python train.py --config before.py'], 'commits': ['0123abc'], 'date': '2026-01-01',
          'data': 'speech speech; 9 utterances', 'seconds': 60.0, 'from': {}}
HISTORY = {'commands': ['python train.py --config c.py --config.train.steps=7'], 'commits': ['0123abc'],
           'date': '2026-01-02', 'data': 'speech speech, noise noise; 8 utterances', 'seconds': 120.0,
           'processor_seconds': 180.0, 'from': BEFORE}


def _report(folder: pathlib.Path, **changes) -> pathlib.Path:
    entry = {'mean': 2.0, 'files': 3, 'against': {}}
    summary = {
        'command': 'python evaluate.py --workdir runs/x --output out', 'data': 'clean pairs/clean', 'files': 3,
        'audio_seconds': 90.0, 'date': '2026-01-02T03:04:05+00:00', 'metrics': ['pesq_wb', 'sdr'], 'preceding': None,
        'seconds': {'total': 61.2}, 'versions': {'jax': '0.1'}, 'sampling_steps': 6, 'seed': 4,
        'checkpoint': {'workdir': 'runs/x', 'step': 10, 'hash': 'abcdef0123456789', 'history': HISTORY},
        'stages': ['noisy', 'refined'],
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
    for fact in ('(two minutes)', 'python evaluate.py --workdir runs/x', '6 sampling steps, seed 4', 'step 10',
                 'real-time factor 0.250 on a machine', 'evaluation 61 s', 'jax 0.1', '3 files, 1.5 min'):
        assert fact in page, fact


def test_a_published_loss_is_listed_with_what_it_is(store):
    entries = json.loads((store / 'store' / 'published.json').read_text())
    entries.append(entries[0] | {'what': 'a loss', 'metrics': {'test_l_g': 0.0535}, 'note': 'It is no metric.'})
    (store / 'store' / 'published.json').write_text(json.dumps(entries))
    table, note = results.page().split('Published:\n\n')[1].split('\n\n')[:2]
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in table.splitlines()]
    assert cells[0][3:] == ['pesq_wb ↑', 'test loss L_G ↓'] and cells[3][3:] == ['', '0.0535']
    assert note == 'It is no metric.'


def test_every_stored_entry_says_how_each_of_its_runs_was_trained():
    stored = [json.loads(path.read_text(encoding='utf-8')) for path in results.STORE.glob('*.json')
              if path.stem != 'published']
    described = {}
    for checkpoint in [checkpoint for found in stored for checkpoint in results.checkpoints_of(found).values()]:
        text = results.training(checkpoint)
        assert described.setdefault(text, checkpoint['hash']) == checkpoint['hash']
        history = checkpoint['history']
        while history:
            assert all(command.startswith('python train.py --config ') for command in history['commands'])
            assert history['commits'] and not any('dirty' in commit for commit in history['commits'])
            assert history['seconds'] > 0 and history['data']
            history = history['from']
    assert len(set(described.values())) == len(described) > 0  # two checkpoints never share a description


def test_the_training_of_a_run_and_of_those_before_it_is_printed(store):
    results.add(_report(store / 'report'), 'short', '')
    assert ('Training of runs/x, step 10, checkpoint abcdef012345, at commit 0123abc, 1 + 2 (3 of processor time) '
            'minutes, on speech speech; 9 utterances; speech speech, noise noise; 8 utterances:\n\n```\n'
            'python train.py --config before.py\n'
            'python train.py --config c.py --config.train.steps=7\n```') in results.page()


@pytest.mark.parametrize('key', ['commands', 'commits', 'data', 'seconds'])
def test_a_run_that_does_not_say_how_it_was_trained_is_refused(store, key):
    checkpoint = {'workdir': 'runs/x', 'step': 10, 'hash': 'abc', 'history': {**HISTORY, key: None}}
    with pytest.raises(UserError, match='runs/x does not say how it was trained'):
        results.add(_report(store / 'report', checkpoint=checkpoint), 'short', '')


def test_folders_of_a_machine_are_not_kept(store):
    results.add(_report(store / 'report'), 'short', '')
    assert '/home' not in (store / 'store' / 'short.json').read_text()
    with pytest.raises(UserError, match='has an absolute path'):
        results.add(_report(store / 'other', data='clean /data/clean'), 'other', '')
    assert not (store / 'store' / 'other.json').exists()


def test_a_folder_without_a_report_is_refused(tmp_path):
    with pytest.raises(UserError, match='has neither'):
        results.add(tmp_path, 'name', '')


def test_a_study_has_intervals_and_its_figures(store):
    report, estimate = store / 'sweep', {'mean': 1.5, 'low': 1.25, 'high': math.pi, 'files': 2, 'seed_std': None}
    (report / 'figures').mkdir(parents=True)
    (report / 'figures' / 'nfe.png').write_bytes(b'picture')
    point = {'run': 'x', 'changes': {'eta_b': 0.2}, 'sampling_steps': 6, 'real_time_factor': 0.5, 'devices': ['cpu'],
             'stages': {'condition': {'pesq_wb': estimate}, 'refined': {'pesq_wb': estimate}},
             'baselines': ['condition'],
             'checkpoint': {'workdir': 'runs/x', 'step': 1, 'hash': 'abc', 'history': HISTORY}}
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
