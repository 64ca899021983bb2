"""Time, asked of someone so that tests can answer."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from time import time_ns
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

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
    return (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339_ms(ms: int) -> str:
    """`2024-05-02T08:00:05.250Z`: data timestamps and `scheduled_at` (spec: glossary 3)."""
    seconds, rest = divmod(ms, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


def rfc3339_us(moment: datetime) -> str:
    """`2024-05-02T07:31:12.004518Z`: `created_at` in REST v3 (spec: glossary 3)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(text: str) -> datetime:
    """An aware moment; raise `ValueError` when there is no valid date, time and zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"no time zone in {text!r}")
    return moment.astimezone(UTC)


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970, rounded down."""
    return (moment - EPOCH) // timedelta(milliseconds=1)
