"""Images built once, and what the containers said last when a test has failed."""

from collections.abc import Generator, Iterator

import pytest

from tests.support.compose import ComposeSystem, built_images


@pytest.fixture(scope="session")
def version() -> Iterator[str]:
    """Tag of the images of this tree."""
    with built_images() as version:
        yield version


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs with the failure."""
    report = yield
    if report.failed and report.when == "call":
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, ComposeSystem):
                report.sections.append((f"logs of {value.project}", value.last_words()))
    return report
