"""What the log shows, and what it never shows."""

import json

import pytest
import structlog

from shared import logs


@pytest.fixture(autouse=True)
def as_before() -> object:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_failure_is_told_with_its_place_and_without_the_values_of_variables(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", form)
    fail_with("correct horse battery staple")
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "fail_with" in said
    assert "battery" not in said


def fail_with(password: str) -> None:
    try:
        len(password) / 0
    except ZeroDivisionError:
        structlog.get_logger().exception("request_failed")


def test_an_event_is_one_line_of_json_with_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "json")
    structlog.get_logger().info("too_quiet")
    structlog.get_logger().warning("record_refused", reason="not JSON", bytes=7)
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "record_refused", "level": "warning", "reason": "not JSON", "bytes": 7}
