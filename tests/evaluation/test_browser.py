"""The report of an evaluation in headless Chromium, against scores.csv."""

import csv
import dataclasses
import math

import numpy as np
import pytest
from ml_collections import ConfigDict
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests import toys
from tests.evaluation.browser import (
    check_fits,
    check_images,
    check_players,
    check_sorts,
    click_header,
    rows,
)
from tests.evaluation.spread import evaluate
from tests.metrics import rater

METRICS = ('si_sdr', 'llr', 'nisqa_v2_mos')  # higher is better, lower is better, and one that clean speech has
FILES = '#file-table'
STAGES = ('noisy', 'half', 'filtered', 'drawn')
FACTS = [['speech_2', '5', 'café'], ['speech_10', '−2.5', 'white'], ['Ümlaut & <b>', '10', 'café'],
         ['mute', '0', 'white'], ['other', '−10', 'street']]  # of the files: name, SNR in dB, noise
NAMES = [name for name, *_ in FACTS]
LENGTHS = (8000, 10000, 12000, 14000, 16000)  # samples: up to one second, which is compiled for once


class Source:
    """Noise in noise; metrics that compare are undefined for the silent utterance."""

    sample_rate = 16000

    def __len__(self):
        return len(FACTS)

    def info(self, i):
        name, snr, noise = FACTS[i]
        return {'id': name, 'num_samples': LENGTHS[i], 'snr_db': float(snr.replace('−', '-')), 'noise': noise}

    def read(self, i):
        clean, noise = np.random.default_rng(i).standard_normal((2, LENGTHS[i]), np.float32)
        clean = 0.1 * np.convolve(clean, np.ones(8, np.float32) / 8, 'same')
        gain = np.float32(FACTS[i][0] != 'mute')
        return gain * clean, gain * (clean + 0.02 * (1 + i) * noise)


@pytest.fixture(scope='module')
def report(browser, tmp_path_factory):
    """The folder of a report, which is only made if there is a browser."""
    folder = tmp_path_factory.mktemp('report')
    run = dataclasses.replace(toys.run(toys.Staged()), config=ConfigDict({'model': {'levels': (0.0, math.nan)}}))
    with pytest.MonkeyPatch.context() as patch:
        rater.install(patch)
        evaluate(run, Source(), folder, metrics=METRICS, workers=0, data='toy')
    return folder


@pytest.fixture(scope='module')
def scores(report):
    """scores.csv: stage -> file -> metric -> value; NaN if undefined."""
    with (report / 'scores.csv').open(newline='') as file:
        lines = list(csv.DictReader(file))
    return {stage: {line['id']: {metric: float(line[metric] or 'nan') for metric in METRICS}
                    for line in lines if line['stage'] == stage} for stage in ('clean', *STAGES)}


def test_pictures_load_and_players_play(page):
    check_images(page)
    durations = check_players(page)
    assert len(durations) == len(page.find_elements(By.TAG_NAME, 'img')) == 3 * 5  # best, median, worst
    lengths = dict(zip(NAMES, LENGTHS, strict=True))
    for label, seconds in durations.items():
        assert seconds == pytest.approx(lengths[label.rsplit(', ', 1)[0]] / 16000, abs=1e-3)


def test_tables_sort_by_every_column(page):
    check_sorts(page, FILES)
    check_sorts(page, '#summary table.sortable')


def test_files_are_in_the_order_of_their_scores(page, scores):
    Select(page.find_element(By.ID, 'view')).select_by_visible_text('filtered')
    for column, metric in enumerate(METRICS, 3):
        values = {name: entry[metric] for name, entry in scores['filtered'].items() if math.isfinite(entry[metric])}
        for reverse in (False, True):
            click_header(page, FILES, column)
            shown = [row[0] for row in rows(page, FILES)]
            assert shown[:len(values)] == sorted(values, key=values.get, reverse=reverse)
            assert set(shown[len(values):]) == set(NAMES) - set(values)


def test_every_view_shows_the_scores(page, scores):
    view = Select(page.find_element(By.ID, 'view'))
    names = [option.text for option in view.options]
    pairs = [f'{later} − {earlier}' for i, later in enumerate(STAGES) for earlier in STAGES[:i]]
    of_metrics = [f'{metric} of every stage' for metric in METRICS]
    assert sorted(names) == sorted([*pairs, *STAGES, 'clean', *of_metrics])
    for name in set(names) - set(of_metrics):
        view.select_by_visible_text(name)
        stage, *earlier = name.split(' − ')
        shown = rows(page, FILES)
        assert [row[:3] for row in shown] == FACTS
        for file, _, _, *cells in shown:
            for metric, cell in zip(METRICS, cells, strict=True):
                value = scores[stage][file][metric] - (scores[earlier[0]][file][metric] if earlier else 0.0)
                if math.isnan(value):
                    assert cell == ('–' if stage == 'clean' else 'n/a')
                else:
                    _check_number(cell, value, signed=bool(earlier))


def test_a_view_of_a_metric_has_a_column_per_stage(page, scores):
    Select(page.find_element(By.ID, 'view')).select_by_visible_text('llr of every stage')
    heads = [head.text.strip(' \u25b2\u25bc') for head in page.find_elements(By.CSS_SELECTOR, f'{FILES} thead th')]
    assert heads[3:] == [*STAGES, 'clean']
    for file, _, _, *cells in rows(page, FILES):
        assert cells[-1] == '–'  # which clean speech has no llr
        for stage, cell in zip(STAGES, cells):
            value = scores[stage][file]['llr']
            assert cell == 'n/a' if math.isnan(value) else not _check_number(cell, value, signed=False)
    click_header(page, FILES, 4)
    values = {name: entry['llr'] for name, entry in scores['half'].items() if math.isfinite(entry['llr'])}
    assert [row[0] for row in rows(page, FILES)][:len(values)] == sorted(values, key=values.get)


def _check_number(cell, value, signed):
    decimals = len(cell.partition('.')[2])
    assert decimals >= 2
    assert float(cell.replace('−', '-')) == pytest.approx(value, abs=0.5 * 10**-decimals + 2e-6)
    assert not signed or cell[0] in '+−'


def test_a_view_keeps_the_order_and_the_search(page, scores):
    page.find_element(By.ID, 'search').send_keys('CAFÉ')
    click_header(page, FILES, 3)
    for stage in STAGES:
        Select(page.find_element(By.ID, 'view')).select_by_visible_text(stage)
        values = {name: scores[stage][name]['si_sdr'] for name in ('speech_2', 'Ümlaut & <b>')}
        assert [row[0] for row in rows(page, FILES)] == sorted(values, key=values.get)


def test_the_search_finds_files_and_noises(page):
    search = page.find_element(By.ID, 'search')
    for text, found in (('speech', ('speech_2', 'speech_10')), ('  WHITE ', ('speech_10', 'mute')),
                        ('& <b>', ('Ümlaut & <b>',)), ('nothing', ()), (Keys.DELETE, NAMES)):
        search.send_keys(Keys.CONTROL, 'a')
        search.send_keys(text)
        assert [row[0] for row in rows(page, FILES)] == list(found)


def test_it_is_not_wider_than_the_screen(page):
    for details in page.find_elements(By.TAG_NAME, 'details'):
        page.execute_script('arguments[0].open = true', details)
    check_fits(page, 400)
    check_fits(page, 1280)
