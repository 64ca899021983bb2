"""Identifiers (spec: glossary 2): sixteen characters that sort by age."""

import re
from datetime import UTC, datetime

from shared.clock import EPOCH
from shared.ids import Ids, system_ids


class Hand:
    """A clock that shows what it is set to."""

    def __init__(self, ms: int) -> None:
        self.at = ms

    def ms(self) -> int:
        return self.at

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at / 1000, UTC)


NOW = 1_714_636_800_000
YEAR = 365 * 24 * 3600 * 1000


def test_an_id_is_its_prefix_and_twelve_characters() -> None:
    for prefix in ("wks-", "flt-", "dev-", "acc-", "int-", "key-"):
        identifier = system_ids().new(prefix)
        assert re.fullmatch(prefix + "[0-9a-z]{12}", identifier)
        assert len(identifier) == 16


def test_later_ids_sort_after_earlier_ones_and_none_comes_twice() -> None:
    ids = system_ids()
    made = [ids.new("dev-") for _ in range(50_000)]
    assert made == sorted(set(made))


def test_within_one_millisecond_and_when_the_clock_goes_back_they_still_rise() -> None:
    clock = Hand(NOW)
    ids = Ids(clock)
    made = [ids.new("dev-") for _ in range(1000)]
    clock.at -= YEAR
    made += [ids.new("dev-") for _ in range(1000)]
    clock.at += YEAR + 1
    made += [ids.new("dev-") for _ in range(1000)]
    assert made == sorted(set(made))


def test_ids_of_processes_sort_by_their_time_and_differ_within_it() -> None:
    earlier, later = ([Ids(Hand(at)).new("") for _ in range(200)] for at in (NOW, NOW + 1))
    assert max(earlier) < min(later)
    assert len(set(earlier)) > 190


def test_they_sort_by_age_until_the_middle_of_the_century() -> None:
    made = [Ids(Hand(at)).new("") for at in range(1_435_017_600_000, NOW + 25 * YEAR, YEAR // 2)]
    assert made == sorted(made)
    assert len(made) > 60


def test_an_id_tells_when_it_was_made() -> None:
    """As those of the original do: milliseconds since 2015 above 22 bits."""
    number = int(Ids(Hand(NOW)).new(""), 36)
    origin = datetime(2015, 6, 23, tzinfo=UTC) - EPOCH
    assert (number >> 22) == NOW - origin.total_seconds() * 1000
