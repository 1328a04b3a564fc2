"""The notebooks run from a clone, do what their text says, and keep small outputs."""

import json
import pathlib
import re

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))


def outputs(notebook) -> list:
    return [output for cell in notebook.cells for output in cell.get('outputs', ())]


def executed(name: str, folder: pathlib.Path, monkeypatch, result: str):
    """A notebook, run in a folder of its own, and the value of an expression after its last cell."""
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.delenv('MPLBACKEND', raising=False)  # the kernel's own puts figures into the notebook
    notebook = nbformat.read(ROOT / 'notebooks' / f'{name}.ipynb', as_version=4)
    notebook.cells.append(new_code_cell(f'import json\nprint(json.dumps({result}))'))
    resources = {'metadata': {'path': str(folder)}}
    NotebookClient(notebook, timeout=900, kernel_name='python3', resources=resources).execute()
    return notebook, json.loads(notebook.cells[-1].outputs[0].text)


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ['enhance_and_look', 'study_of_steps']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_complete_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), 'not run from top to bottom'
    assert path.stat().st_size < 300_000
    found = outputs(notebook)
    assert not [output for output in found if output.output_type == 'error']
    assert [output for output in found if 'image/png' in output.get('data', {})]
    text = ''.join(output.get('text', '') for output in found)
    assert not re.search(r'(^|[\s\'"(])(/\w|[A-Z]:\\)', text), 'a path of the machine that ran it'


@pytest.mark.slow
def test_enhance_and_look(tmp_path, monkeypatch):
    """The recording gets better; SI-SDR by its definition (Le Roux et al., 2019), not by this project's metrics."""
    notebook, (clean, noisy, enhanced) = executed(
        'enhance_and_look', tmp_path, monkeypatch, '[list(map(float, x)) for x in (clean, noisy, enhanced)]')

    def si_sdr(estimate):
        target = np.dot(estimate, clean) / np.dot(clean, clean) * np.asarray(clean)
        return 10 * np.log10(np.sum(target ** 2) / np.sum((np.asarray(estimate) - target) ** 2))

    printed = [float(value) for output in outputs(notebook)
               for value in re.findall(r'SI-SDR +(\S+) dB', output.get('text', ''))]
    np.testing.assert_allclose(printed, [si_sdr(noisy), si_sdr(enhanced)], atol=0.06)
    assert printed[1] > printed[0] + 2
    kinds = [kind for output in outputs(notebook) for kind in output.get('data', {})]
    assert kinds.count('image/png') == 1 and kinds.count('text/html') == 3  # the players


@pytest.mark.slow
def test_study_of_steps(tmp_path, monkeypatch):
    """The study has the three numbers of steps, in the table and in the report that it names."""
    notebook, steps = executed(
        'study_of_steps', tmp_path, monkeypatch, '[point["sampling_steps"] for point in study["points"]]')
    assert steps == [1, 2, 4]
    table, = (output.data['text/markdown'] for output in outputs(notebook) if 'text/markdown' in output.get('data', {}))
    rows = re.findall(r'^\| (\d) \| (\S+) \| (\S+) to (\S+) \|$', table, re.MULTILINE)
    stored = json.loads((tmp_path / 'runs/study_of_steps/report/sweep.json').read_text())['points']
    for (count, *values), point in zip(rows, stored, strict=True):
        found = point['stages']['enhanced']['si_sdr']
        assert int(count) == point['sampling_steps']
        np.testing.assert_allclose([float(value) for value in values],
                                   [found['mean'], found['low'], found['high']], atol=0.006)
        assert found['low'] <= found['mean'] <= found['high'] and found['files'] == 4
    assert (tmp_path / 'runs/study_of_steps/report/index.html').exists()
