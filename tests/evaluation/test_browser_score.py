"""The report on files of several systems in headless Chromium, against scores.csv."""

import csv
import math

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from jax_diffse.evaluation.score import ScoreOptions, score_folders
from tests.evaluation.browser import check_fits, check_players, check_sorts, click_header, rows
from tests.evaluation.systems import folders, noise, speech, write

FILES, SUMMARY = '#file-table', '#summary table.sortable'
STAGES = ('noisy', 'half', 'late', 'a system with a long name & <b>')


@pytest.fixture(scope='module')
def report(browser, tmp_path_factory):
    """The folder of a report, which is only made if there is a browser."""
    root = tmp_path_factory.mktemp('systems')
    found = folders(root, ('a', 'b', 'c'), noisy=1.0, half=0.5, late=0.25)
    for i, name in enumerate('abc'):
        write(root / 'late' / f'{name}.wav', np.roll(speech(i) + 0.25 * noise(i), 40))
    folders(root, ('a',), odd=0.1)
    systems = {'half': found['half'], 'late': found['late'], STAGES[-1]: str(root / 'odd')}
    score_folders(root / 'clean', systems, root / 'report', found['noisy'],
                  ScoreOptions(metrics=('si_sdr', 'llr'), sort='llr', workers=0))
    return root / 'report'


@pytest.fixture(scope='module')
def scores(report):
    """scores.csv: (file, stage) -> row."""
    with (report / 'scores.csv').open(newline='') as file:
        return {(row['id'], row['stage']): row for row in csv.DictReader(file)}


def test_the_leaderboard_sorts_by_every_metric(page, scores):
    check_sorts(page, SUMMARY)
    for column, metric in enumerate(('si_sdr', 'llr'), 1):
        click_header(page, SUMMARY, column)
        means = {stage: np.nanmean([float(scores[name, stage][metric]) for name in 'abc']) for stage in STAGES}
        assert [row[0] for row in rows(page, SUMMARY)] == sorted(means, key=means.get)


def test_it_opens_in_the_order_of_the_chosen_metric(page, scores):
    means = {stage: np.nanmean([float(scores[name, stage]['llr']) for name in 'abc']) for stage in STAGES}
    assert [row[0] for row in rows(page, SUMMARY)] == sorted(means, key=means.get)
    sorted_by = page.find_elements(By.CSS_SELECTOR, f'{SUMMARY} th[aria-sort]')
    assert [head.text.split()[0] for head in sorted_by] == ['llr']


def test_the_files_have_a_column_per_system(page, scores):
    shown = rows(page, FILES)  # as the page opens, without columns of SNR and noise
    assert [head.text for head in page.find_elements(By.CSS_SELECTOR, f'{FILES} thead th')] == ['file', *STAGES]
    for name, *cells in shown:
        for stage, cell in zip(STAGES, cells, strict=True):
            value = float(scores[name, stage]['si_sdr'])
            assert (cell == 'n/a') == math.isnan(value)
            assert cell == 'n/a' or float(cell.replace('−', '-')) == pytest.approx(value, abs=0.01)
    check_sorts(page, FILES)
    Select(page.find_element(By.ID, 'view')).select_by_visible_text('half − noisy')
    assert [row[0] for row in rows(page, FILES)] == ['a', 'b', 'c'] and len(rows(page, FILES)[0]) == 3


def test_players_play_and_nothing_is_wider_than_the_screen(page):
    labels = [label.rsplit(', ', 1) for label in check_players(page)]
    assert {name: [stage for file, stage in labels if file == name] for name, _ in labels} == {
        'a': ['clean', *STAGES], 'b': ['clean', *STAGES[:-1]], 'c': ['clean', *STAGES[:-1]]}
    for details in page.find_elements(By.TAG_NAME, 'details'):
        page.execute_script('arguments[0].open = true', details)
    check_fits(page, 400)
    check_fits(page, 1280)
