"""The SQLite log keeps the promises of its port, and some of its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from shared.errors import OutOfSpace, Unavailable
from shared.log import Record, Topic
from shared.log.open import open_log
from shared.log.sqlite import SqliteLog, sqlite_log
from shared.settings import WrongSetting
from tests.contracts.log_promises import LogPromises, by_key, kept, numbered, take
from tests.support.disk import MIB, small_disk

_DAY_S = 24 * 3600
_TOPIC = Topic("topic.v1", retention_s=7 * _DAY_S)
_COMPACTED = Topic("compacted.v1", compacted=True)


class TestSqliteLog(LogPromises):
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return f"sqlite:{tmp_path / 'log'}"


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    async with sqlite_log(tmp_path / "log") as log:
        yield log


def later(days: float) -> int:
    return int(time.time() + days * _DAY_S)


async def test_a_topic_forgets_what_is_older_than_it_keeps_but_never_its_newest(log: SqliteLog) -> None:
    await log.append(_TOPIC, numbered("a", range(10)))
    await log.trim_now(later(days=6.9))
    assert by_key(await kept(log, _TOPIC)) == {"a": list(range(10))}
    end = await log.end(_TOPIC)
    await log.trim_now(later(days=7.1))
    assert by_key(await kept(log, _TOPIC)) == {"a": [9]}
    assert await log.end(_TOPIC) == end


async def test_trimming_leaves_what_is_young_enough(log: SqliteLog) -> None:
    short = Topic("short.v1", retention_s=60)
    for topic in (short, _TOPIC):
        await log.append(topic, numbered("a", range(3)))
    await log.trim_now(later(days=1))
    assert by_key(await kept(log, short)) == {"a": [2]}
    assert by_key(await kept(log, _TOPIC)) == {"a": [0, 1, 2]}


async def test_trimming_keeps_up_with_any_number_of_old_records(log: SqliteLog) -> None:
    await log.append(_TOPIC, numbered("a", range(25_000)))
    await log.trim_now(later(days=8))
    assert by_key(await kept(log, _TOPIC)) == {"a": [24_999]}


async def test_a_group_goes_on_behind_what_was_trimmed(log: SqliteLog) -> None:
    await log.append(_TOPIC, numbered("a", range(10)))
    async with log.subscribe(_TOPIC, "group") as member, log.replay(_TOPIC) as replay:
        await take(member, 2, limit=2)
        await log.trim_now(later(days=8))
        await log.append(_TOPIC, numbered("a", range(10, 12)))
        assert by_key(await take(member, 3)) == by_key(await take(replay, 3)) == {"a": [9, 10, 11]}


async def test_no_offset_is_used_again_after_all_old_records_were_trimmed(tmp_path: Path) -> None:
    used: set[int] = set()
    for start in range(0, 15, 5):
        async with sqlite_log(tmp_path / "log") as log:
            await log.append(_TOPIC, numbered("a", range(start, start + 5)))
            new = {record.offset for record in await kept(log, _TOPIC) if int(record.value or b"") >= start}
            assert len(new) == 5
            assert not new & used
            used |= new
            await log.trim_now(later(days=8))


async def test_a_compacted_topic_has_one_record_of_a_key_and_never_grows_old(log: SqliteLog) -> None:
    for number in range(5):
        await log.append(_COMPACTED, numbered("a", range(number, number + 1)) + numbered("b", range(3)))
    await log.trim_now(later(days=1000))
    assert by_key(await kept(log, _COMPACTED)) == {"a": [4], "b": [2]}


async def test_a_forgotten_key_is_told_for_a_day_and_then_leaves_nothing(log: SqliteLog) -> None:
    await log.append(_COMPACTED, numbered("a", range(1)) + numbered("b", range(1)))
    await log.append(_COMPACTED, [Record("a", None)])
    await log.append(_COMPACTED, numbered("c", range(1)))
    await log.trim_now(later(days=0.9))
    assert [record.key for record in await kept(log, _COMPACTED)] == ["b", "a", "c"]
    await log.trim_now(later(days=1.1))
    assert [record.key for record in await kept(log, _COMPACTED)] == ["b", "c"]


async def test_the_newest_record_stays_also_when_it_says_that_a_key_is_forgotten(log: SqliteLog) -> None:
    await log.append(_COMPACTED, [Record("a", b"1")])
    await log.append(_COMPACTED, [Record("a", None)])
    end = await log.end(_COMPACTED)
    await log.trim_now(later(days=2))
    assert await log.end(_COMPACTED) == end


async def test_a_new_file_is_another_log(tmp_path: Path) -> None:
    async with sqlite_log(tmp_path / "log") as one, sqlite_log(tmp_path / "another") as two:
        assert await one.identity(_TOPIC) != await two.identity(_TOPIC)


async def test_many_open_a_new_log_at_once(tmp_path: Path) -> None:
    async def use(number: int) -> str:
        async with sqlite_log(tmp_path / "log") as log:
            await log.append(_TOPIC, numbered(str(number), range(3)))
            return await log.identity(_TOPIC)

    assert len(set(await asyncio.gather(*map(use, range(8))))) == 1
    async with sqlite_log(tmp_path / "log") as log:
        assert by_key(await kept(log, _TOPIC)) == {str(number): [0, 1, 2] for number in range(8)}


@pytest.mark.parametrize("name", ["", "places", "Upper", "a b", 'a"; DROP TABLE topics; --', "a/b", "a@b"])
async def test_a_topic_has_a_plain_name(log: SqliteLog, name: str) -> None:
    with pytest.raises(ValueError, match="not a topic name"):
        await log.append(Topic(name), numbered("a", range(1)))


async def test_a_file_that_is_no_log_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"no database " * 1000)
    with pytest.raises(Unavailable):
        async with sqlite_log(tmp_path / "log"):
            pass


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(WrongSetting, match="ZDM_LOG"):
        open_log("carrier-pigeon://roof")


class Scarce(NamedTuple):
    """A log that is soon full."""

    log: SqliteLog
    free: Callable[[], Awaitable[None]]


@pytest.fixture(params=["bounded file", "small disk"])
async def scarce(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scarce]:
    async with AsyncExitStack() as stack:
        if request.param == "bounded file":
            log = await stack.enter_async_context(sqlite_log(tmp_path / "log", max_pages=100))
            yield Scarce(log, lambda: log.trim_now(later(days=8)))
        else:
            disk = stack.enter_context(small_disk(tmp_path, 2 * MIB))
            disk.fill(leave=MIB)
            log = await stack.enter_async_context(sqlite_log(disk.folder / "log"))

            async def free() -> None:
                disk.free()

            yield Scarce(log, free)


async def fill(log: SqliteLog) -> list[int]:
    """Append ever smaller batches of numbers until not even one record finds room; the numbers that were taken."""
    taken: list[int] = []
    for size, width in ((40, 4000), (1, 500)):
        while await has_room(log, [Record("a", b"%0*d" % (width, len(taken) + place)) for place in range(size)]):
            taken += range(len(taken), len(taken) + size)
    return taken


async def has_room(log: SqliteLog, records: list[Record]) -> bool:
    try:
        await log.append(_TOPIC, records)
    except OutOfSpace:
        return False
    return True


async def test_a_full_log_refuses_keeps_nothing_half_and_works_again_once_there_is_room(scarce: Scarce) -> None:
    log = scarce.log
    taken = await fill(log)
    assert taken
    with pytest.raises(OutOfSpace):
        await log.ping()
    assert by_key(await kept(log, _TOPIC)) == {"a": taken}
    await scarce.free()
    await log.ping()
    end = await log.end(_TOPIC)
    await log.append(_TOPIC, numbered("a", range(1000, 1010)))
    assert by_key(await kept(log, _TOPIC, end)) == {"a": list(range(1000, 1010))}


async def test_readers_of_a_full_log_go_on(scarce: Scarce) -> None:
    log = scarce.log
    async with log.subscribe(_TOPIC, "group") as member, log.replay(_TOPIC) as replay:
        taken = await fill(log)
        assert by_key(await take(member, len(taken))) == by_key(await take(replay, len(taken))) == {"a": taken}
        assert await log.identity(_TOPIC)


async def test_of_many_at_once_those_that_a_full_log_refuses_leave_nothing(scarce: Scarce) -> None:
    log = scarce.log
    batches = {f"{number}": [Record(f"{number}", b"%04000d" % place) for place in range(20)] for number in range(40)}
    outcomes = await asyncio.gather(*(log.append(_TOPIC, batch) for batch in batches.values()), return_exceptions=True)
    taken = [key for key, outcome in zip(batches, outcomes, strict=True) if outcome is None]
    assert 0 < len(taken) < len(batches)
    assert all(outcome is None or isinstance(outcome, OutOfSpace) for outcome in outcomes)
    assert by_key(await kept(log, _TOPIC)) == {key: list(range(20)) for key in taken}


async def test_what_a_full_log_had_taken_is_there_after_opening_it_again(tmp_path: Path) -> None:
    with small_disk(tmp_path, 2 * MIB) as disk:
        disk.fill(leave=MIB)
        async with sqlite_log(disk.folder / "log") as log:
            taken = await fill(log)
        disk.free()
        async with sqlite_log(disk.folder / "log") as log:
            assert by_key(await kept(log, _TOPIC)) == {"a": taken}
