"""The page of a sweep in headless Chromium, against sweep.csv."""

import csv

import pytest
from selenium.webdriver.common.by import By

from jax_diffse.evaluation.sweep import grid
from tests import toys
from tests.evaluation.browser import (
    check_fits,
    check_images,
    check_players,
    check_sorts,
    click_header,
    rows,
)
from tests.evaluation.spread import sweep
from tests.evaluation.test_evaluate import ToySource, toy_run

POINTS = '#points'
SDR = 4  # its column: run, NFE, stage, RTF, metrics


@pytest.fixture(scope='module')
def report(browser, tmp_path_factory):
    """The folder of a sweep over three numbers of steps, which is only made if there is a browser."""
    folder = tmp_path_factory.mktemp('sweep')
    sweep(grid([toy_run(toys.Stepped())], (1, 2, 9)), ToySource(list('abc')), folder, metrics=('sdr', 'llr'), workers=0)
    return folder


def test_pictures_load_and_every_setting_plays(page):
    check_images(page)
    labels = [f'{name}, {row}' for name in 'abc' for row in ('clean', 'noisy', 'toy, 1 step', 'toy, 2 steps',
                                                             'toy, 9 steps')]
    assert sorted(check_players(page)) == sorted(labels)
    assert len(page.find_elements(By.CSS_SELECTOR, '#curves img')) == 2  # against NFE and the real-time factor


def test_settings_sort_by_every_column_and_by_their_scores(page, report):
    check_sorts(page, POINTS)
    with (report / 'sweep.csv').open(newline='') as file:
        means = {line['nfe']: float(line['mean']) for line in csv.DictReader(file) if line['metric'] == 'sdr'}
    for reverse in (False, True):
        click_header(page, POINTS, SDR)
        shown = [row for row in rows(page, POINTS) if row[0] == 'toy']
        assert [row[1] for row in shown] == sorted(means, key=means.get, reverse=reverse)
        assert [row[SDR].replace('−', '-') for row in shown] == [f'{means[row[1]]:.2f}' for row in shown]


def test_it_is_not_wider_than_the_screen(page):
    check_fits(page, 400)
    check_fits(page, 1280)
