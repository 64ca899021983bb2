"""Time, asked of someone so that tests can answer."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from time import time_ns
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# RFC 3339 5.6; the standard library reads week dates and other forms of ISO 8601 besides.
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)

# What the original writes where a date was never set.
NEVER = "0001-01-01T00:00:00.000Z"


class Clock(Protocol):
    """Wall-clock time."""

    def ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...

    def now(self) -> datetime:
        """Aware, UTC, microseconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time_ns() // 1_000_000

    def now(self) -> datetime:
        """Aware, UTC, microseconds."""
        return datetime.now(UTC)


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    # Not `strftime`: it leaves out the zeros before a year of less than four digits.
    return (EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()


def rfc3339_ms(ms: int) -> str:
    """`2024-05-02T08:00:05.250Z`: data timestamps and `scheduled_at` (spec: glossary 3)."""
    seconds, rest = divmod(ms, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


def rfc3339_us(moment: datetime) -> str:
    """`2024-05-02T07:31:12.004518Z`: `created_at` in REST v3 (spec: glossary 3)."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_rfc3339(text: str) -> datetime:
    """An aware moment, beyond microseconds cut off; raise `ValueError` when there is no valid date, time and zone."""
    if not _RFC3339.fullmatch(text):
        raise ValueError("must be a date and time with its zone, as RFC 3339 has it: 2024-05-02T08:00:05.250Z")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError:
        raise ValueError("must be within the years 1 to 9999, UTC") from None


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970, rounded down."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def to_ms_up(moment: datetime) -> int:
    """Milliseconds since 1970, rounded up: what is not before `moment` is not before this either."""
    return -((EPOCH - moment) // timedelta(milliseconds=1))
