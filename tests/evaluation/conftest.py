"""The browser that drives our pages, and pages that are made in less time."""

import pytest

pytest.register_assert_rewrite('tests.evaluation.browser')


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """A WebDriver of headless Chromium; where there is none, the test is skipped."""
    from tests.evaluation import browser  # not at the top: the other tests here need no Selenium

    driver = browser.start(tmp_path_factory.mktemp('profile'))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, report):
    """The browser with the page of `report`, a module's folder, just opened; whatever a test does, it stays quiet."""
    from tests.evaluation.browser import check_quiet

    browser.get((report / 'index.html').as_uri())
    yield browser
    check_quiet(browser)
