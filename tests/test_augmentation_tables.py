"""docs/augmentation.py: means over trainings, paired differences and the two kinds of noise, worked out by hand."""

import csv

import pytest

from docs import augmentation
from jax_diffse.errors import UserError

KINDS = {'a': 'seen', 'b': 'seen', 'c': 'unseen', 'd': 'unseen'}


@pytest.fixture
def report(tmp_path):
    """Writes scores.csv as `evaluation.results.to_csv` does; `pesq` holds the enhanced files' values."""
    def write(name, pesq, ids='abcd'):
        folder = tmp_path / name
        folder.mkdir()
        with (folder / 'scores.csv').open('w', newline='') as file:
            rows = csv.writer(file)
            rows.writerow(['id', 'stage', 'snr_db', 'noise', 'noise_kind', 'pesq_wb', 'wss', 'reasons'])
            for i, value in zip(ids, pesq, strict=True):
                rows.writerow([i, 'noisy', 0, 'x', KINDS[i], 1.0, 40, ''])
                rows.writerow([i, 'condition', 0, 'x', KINDS[i], value, 30, ''])
        return augmentation.read(str(folder))

    return write


def cells(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_tables_have_means_over_trainings_and_differences_per_file(report):
    text = augmentation.tables({'base': [report('base', [2.0, 2.0, 2.0, 2.0])],
                                'augmented': [report('one', [2.5, 2.5, 2.5, 2.5]), report('two', [2.7, 2.7, 2.7, 3.1])],
                                'control': [report('three', [2.5, 2.7, 2.0, 2.4])]})
    blocks = text.split('\n\n')
    assert blocks[0::3] == ['4 files:', '2 files, seen noise:', '2 files, unseen noise:']
    # Means of the trainings: 2.5 and 2.8; their standard deviation with one degree of freedom: 0.3 / sqrt(2).
    means, changes = cells(blocks[1]), cells(blocks[2])
    assert means['noisy'] == ['1', '1.000'] and means['base'] == ['1', '2.000']
    assert means['augmented'] == ['2', '2.650 ± 0.212'] and means['control'] == ['1', '2.400']
    # Per file, averaged over trainings: 2.6, 2.6, 2.6, 2.8 minus 2.5, 2.7, 2.0, 2.4 = 0.1, -0.1, 0.6, 0.4.
    difference, = changes['augmented - control']
    assert difference.startswith('+0.250 [') and difference.endswith('], 3/1')
    low, high = map(float, difference.partition('[')[2].partition(']')[0].split(','))
    assert -0.1 <= low < 0.25 < high <= 0.6
    assert changes['augmented - base'][0].startswith('+0.650 [')
    assert cells(blocks[5])['augmented - control'][0].startswith('+0.000 [-0.100, +0.100], 1/1')
    assert cells(blocks[8])['augmented - control'][0].startswith('+0.500 [+0.400, +0.600], 2/0')


def test_reports_on_other_files_and_folders_without_a_report_are_refused(report, tmp_path):
    base, other = report('base', [2.0] * 4), report('other', [2.0] * 3, 'abc')
    with pytest.raises(UserError, match='other: expected a report on the files of .*base'):
        augmentation.tables({'base': [base], 'augmented': [base], 'control': [other]})
    with pytest.raises(UserError, match='has no scores.csv'):
        augmentation.read(str(tmp_path))
    (tmp_path / 'sweep').mkdir()
    (tmp_path / 'sweep' / 'scores.csv').write_text('run,nfe,seed,id,stage,pesq_wb,reasons\nx,6,0,a,noisy,1.0,\n')
    with pytest.raises(UserError, match='has several settings'):
        augmentation.read(str(tmp_path / 'sweep'))
