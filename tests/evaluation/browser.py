"""Checks of our pages in headless Chromium. The fixture `browser` gives the driver."""

import json
import re
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

SWITCHES = ('headless', 'no-sandbox', 'disable-gpu', 'disable-dev-shm-usage', 'disable-quic', 'no-first-run',
            'disable-background-networking', 'disable-component-update', 'disable-sync', 'mute-audio',
            'autoplay-policy=no-user-gesture-required',
            'force-prefers-reduced-motion')  # no smooth scrolling, which moves click targets
MISSING = ('', '–', 'n/a')  # cells without a value
NUMBER = re.compile(r'[+-]?\d+(\.\d+)?')


def start(profile):
    """A WebDriver of Debian's Chromium, with logs of the console and of all requests, or a skipped test.

    Args:
      profile: an empty folder for what Chromium writes.
    """
    paths = {name: shutil.which(name) for name in ('chromium', 'chromedriver')}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        pytest.skip(f'no {" and no ".join(missing)} on the PATH: Debian\'s packages are chromium and chromium-driver')
    options = webdriver.ChromeOptions()
    options.binary_location = paths['chromium']
    for switch in (*SWITCHES, f'user-data-dir={profile}'):
        options.add_argument(f'--{switch}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    # With the path of a driver, Selenium does not search the network.
    driver = webdriver.Chrome(options, webdriver.ChromeService(paths['chromedriver']))
    driver.get('about:blank')
    _drain(driver)  # the browser's own first page
    return driver


def _drain(driver):
    """Returns the warnings and errors in the console, and the requested addresses, since the last call."""
    console = [entry for entry in driver.get_log('browser') if entry['level'] in ('WARNING', 'SEVERE')]
    events = [json.loads(entry['message'])['message'] for entry in driver.get_log('performance')]
    return console, [event['params']['request']['url'] for event in events
                     if event['method'] == 'Network.requestWillBeSent']


def check_quiet(driver):
    """Checks that there was no warning or error in the console and that only files and data were requested."""
    console, asked = _drain(driver)
    assert not console
    assert asked, 'no page was opened'
    assert not [url for url in asked if not url.startswith(('file:', 'data:'))]


def check_images(driver):
    """Checks that every image is decoded."""
    images = driver.find_elements(By.TAG_NAME, 'img')
    assert images
    for image in images:
        driver.execute_script('return arguments[0].decode()', image)  # rejected if there is no image
        assert int(image.get_property('naturalWidth')) > 0, image.get_attribute('alt')


def check_players(driver) -> dict[str, float]:
    """Checks that every player plays and stops when the next one starts; label -> duration, s."""
    players = driver.find_elements(By.TAG_NAME, 'audio')
    assert players
    for player, earlier in zip(players, [None, *players]):
        # A looped player does not stop by itself. The promise is rejected if there is no sound.
        driver.execute_script('arguments[0].loop = true; return arguments[0].play()', player)
        start = player.get_property('currentTime')
        WebDriverWait(driver, 120).until(lambda _: player.get_property('currentTime') != start)  # noqa: B023
        assert int(player.get_property('readyState')) >= 2, player.get_attribute('aria-label')  # HAVE_CURRENT_DATA
        assert not player.get_property('paused')
        assert earlier is None or earlier.get_property('paused')
    driver.execute_script('arguments[0].pause()', players[-1])
    return {player.get_attribute('aria-label'): player.get_property('duration') for player in players}


def check_sorts(driver, table: str):
    """Checks that a table (a CSS selector) sorts by each column, up and then down, and keeps its rows."""
    before = rows(driver, table)
    assert len(before) > 1
    for column in range(len(before[0])):
        for direction in ('ascending', 'descending'):
            assert click_header(driver, table, column) == direction
            after = rows(driver, table)
            assert sorted(after) == sorted(before)
            values = [row[column] for row in after]
            missing = [value for value in values if value in MISSING]
            found = [_order(value) for value in values if value not in MISSING]
            assert found == sorted(found, reverse=direction == 'descending')
            assert values[len(found):] == missing, 'what is missing comes last'


def check_fits(driver, width: int):
    """Checks that the page is not wider than a screen of `width` pixels."""
    size = {'width': width, 'height': 800, 'deviceScaleFactor': 1, 'mobile': False}
    driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)  # a window has a minimum, this has none
    inner, client, scroll = driver.execute_script(
        'const root = document.documentElement; return [innerWidth, root.clientWidth, root.scrollWidth]')
    driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    assert inner == width
    assert scroll <= client, f'{scroll} px wide, where {client} are free'  # those beside the scroll bar


def click_header(driver, table: str, column: int) -> str:
    """Clicks the header of a column and returns the direction that it then shows."""
    header = driver.find_elements(By.CSS_SELECTOR, f'{table} thead th')[column]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", header)  # not below the sticky bar
    header.find_element(By.TAG_NAME, 'button').click()
    return header.get_attribute('aria-sort')


def rows(driver, table: str) -> list[list[str]]:
    """The visible text of a table's body: the first line of each cell of the rows that are not hidden."""
    text = driver.execute_script("""
        return [...document.querySelector(arguments[0]).tBodies[0].rows].filter(row => row.checkVisibility())
          .map(row => [...row.cells].map(cell => cell.innerText))""", table)
    return [[cell.split('\n')[0].strip() for cell in row] for row in text]


def _order(text: str):
    """The sort key of a text: numbers by value and before words; digits in words by value."""
    text = text.replace('−', '-')
    if NUMBER.fullmatch(text):
        return 0, float(text)
    parts = [part for part in re.split(r'(\d+)', text.casefold()) if part]
    return 1, [(0, int(part), '') if part.isdigit() else (1, 0, part) for part in parts]
