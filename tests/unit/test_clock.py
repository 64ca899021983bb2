"""Times as the specification writes them, and as people write them."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clock import EPOCH, NEVER, SystemClock, parse_rfc3339, rfc3339_ms, rfc3339_us, to_ms, to_ms_up

MOMENTS = st.datetimes(timezones=st.just(UTC))
MS = timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_714_636_805_250, "2024-05-02T08:00:05.250Z"),
        (1_714_636_805_007, "2024-05-02T08:00:05.007Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (-62_135_596_800_000, NEVER),
    ],
)
def test_milliseconds_are_written_with_three_digits(ms: int, text: str) -> None:
    assert rfc3339_ms(ms) == text
    assert to_ms(parse_rfc3339(text)) == ms


def test_microseconds_are_written_with_six_digits_in_utc() -> None:
    moment = datetime(2024, 5, 2, 9, 31, 12, 4518, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339_us(moment) == "2024-05-02T07:31:12.004518Z"
    assert rfc3339_us(moment.replace(microsecond=0)) == "2024-05-02T07:31:12.000000Z"
    assert rfc3339_us(datetime(1, 1, 1, tzinfo=UTC)) == "0001-01-01T00:00:00.000000Z"


@given(MOMENTS)
def test_what_is_written_is_read_again(moment: datetime) -> None:
    assert parse_rfc3339(rfc3339_us(moment)) == moment
    assert rfc3339_ms(to_ms(moment)) == rfc3339_us(moment)[:-4] + "Z"


@given(MOMENTS)
def test_rounding_down_and_up_enclose_the_moment(moment: datetime) -> None:
    assert to_ms(moment) * MS <= moment - EPOCH <= to_ms_up(moment) * MS
    assert to_ms_up(moment) - to_ms(moment) == (moment.microsecond % 1000 > 0)


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-02T08:00:05.25Z",
        "2024-05-02t08:00:05.250z",
        "2024-05-02 08:00:05.250+00:00",
        "2024-05-02T10:00:05.250000+02:00",
        "2024-05-02T04:30:05.2500009-03:30",
        "2024-05-03T07:59:05.250+23:59",
    ],
)
def test_every_form_that_rfc_3339_has_is_read(text: str) -> None:
    assert parse_rfc3339(text) == datetime(2024, 5, 2, 8, 0, 5, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2024",
        "2024-05-02",
        "08:00:05Z",
        "2024-05-02T08:00Z",
        "2024-05-02T08:00:05",
        "2024-05-02T08:00:05.Z",
        "2024-05-02T08:00:05,5Z",
        "20240502T080005Z",
        "2024-W18-4T08:00:05Z",
        "2024-13-02T08:00:05Z",
        "2023-02-29T08:00:05Z",
        "2024-05-02T24:00:00Z",
        "2024-05-02T08:60:00Z",
        "2024-05-02T08:00:61Z",
        "2024-05-02T08:00:05+0200",
        "2024-05-02T08:00:05+24:00",
        "2024-05-02T08:00:05+02:60",
        "2024-05-02T08:00:05 UTC",
        " 2024-05-02T08:00:05Z",
        "2024-05-02T08:00:05Z\n",
        "12024-05-02T08:00:05Z",
        "-024-05-02T08:00:05Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "\u0662024-05-02T08:00:05Z",
    ],
)
def test_what_is_no_date_with_time_and_zone_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_rfc3339(text)


@given(st.text())
def test_any_text_is_read_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert parse_rfc3339(text).tzinfo is UTC


def test_the_machine_tells_utc_whatever_its_zone() -> None:
    script = "from shared.clock import *; c = SystemClock(); print(c.ms(), to_ms(c.now()), rfc3339_us(c.now()))"
    environment = {**os.environ, "TZ": "Asia/Kathmandu"}
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    ms, now, text = told.stdout.split()
    for found in (int(ms), int(now), to_ms(parse_rfc3339(text))):
        assert abs(found - time.time() * 1000) < 60_000
    assert SystemClock().now().tzinfo is UTC
