"""The browser that drives our pages."""

import pytest

pytest.register_assert_rewrite('tests.evaluation.browser')


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """A WebDriver of headless Chromium; where there is none, the test is skipped."""
    from tests.evaluation import browser  # not at the top: the other tests here need no Selenium

    driver = browser.start(tmp_path_factory.mktemp('profile'))
    yield driver
    driver.quit()
