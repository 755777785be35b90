"""A browser for the tests of the page."""

from collections.abc import Iterator

import pytest
from headless_chromium import Browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Headless Chromium; asked for by tests that are skipped where there is none."""
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()
