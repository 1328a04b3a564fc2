"""The browser of the tests of pages, and a faster way to make pages."""

import pytest

pytest.register_assert_rewrite('tests.evaluation.browser')


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """A WebDriver of headless Chromium; skips the test if there is none."""
    from tests.evaluation import browser  # not at the top: the other tests here need no Selenium

    driver = browser.start(tmp_path_factory.mktemp('profile'))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, report):
    """The browser with the page of the module's fixture `report`; checks after the test that it stayed quiet."""
    from tests.evaluation.browser import check_quiet

    browser.get((report / 'index.html').as_uri())
    yield browser
    check_quiet(browser)
