"""The projection of the registry topic, read from a real log."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest

from shared.errors import Unavailable
from shared.log import START, Log, Places, Record, Replay, StoredRecord, Subscription, Topic
from shared.log.sqlite import SqliteLog, sqlite_log
from shared.messages.registry import RegistryEntry
from shared.messages.topics import ACCESS, REGISTRY
from shared.registry import Registry
from shared.tasks import keep_running
from tests.support.http import everything_told
from tests.support.waiting import eventually


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    async with sqlite_log(tmp_path / "log") as log:
        await everything_told(log)
        yield log


@asynccontextmanager
async def running(registry: Registry) -> AsyncIterator[Registry]:
    reading = asyncio.create_task(registry.run())
    try:
        yield registry
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


def entry(
    identifier: str, revision: int = 1, kind: Literal["workspace", "fleet", "device"] = "device", name: str = "A thing"
) -> Record:
    return RegistryEntry(
        kind=kind,
        id=identifier,
        account_id="acc-1",
        workspace_id="wks-1",
        fleet_id="flt-1",
        name=name,
        revision=revision,
    ).record(identifier)


async def tell(log: Log, *records: Record) -> None:
    await log.append(REGISTRY, records)


async def test_what_is_in_the_topic_is_known_by_kind(log: SqliteLog) -> None:
    await tell(log, entry("wks-1", kind="workspace"), entry("flt-1", kind="fleet"), entry("dev-1", 7, name="é"))
    async with running(Registry(log)) as registry:
        await registry.settled()
        workspace, fleet, device = registry.workspace("wks-1"), registry.fleet("flt-1"), registry.device("dev-1")
        assert workspace is not None
        assert fleet is not None
        assert device == ("dev-1", "acc-1", "wks-1", "flt-1", "é", True, 7)
        assert registry.devices == {"dev-1": device}
        assert registry.device("wks-1") is registry.workspace("dev-1") is registry.fleet("dev-2") is None


async def test_it_is_ready_when_all_that_was_there_at_the_start_is_known(log: SqliteLog) -> None:
    await tell(log, *(entry(f"dev-{number}") for number in range(12_000)))
    registry = Registry(log)
    assert not registry.ready.is_set()
    async with running(registry):
        await registry.ready.wait()
        assert len(registry.devices) == 12_000


async def test_it_is_ready_and_settled_at_once_when_there_is_nothing(log: SqliteLog) -> None:
    async with running(Registry(log)) as registry:
        await registry.ready.wait()
        await registry.settled()
        assert registry.devices == {}


async def test_while_not_all_has_been_told_what_is_missing_may_be_there(tmp_path: Path) -> None:
    async with sqlite_log(tmp_path / "anew") as log, running(Registry(log)) as registry:
        await tell(log, entry("dev-1"))
        await registry.read.wait()
        with pytest.raises(Unavailable):
            await registry.settled(timeout_s=0.2)
        assert not registry.ready.is_set()
        await everything_told(log)
        await registry.settled()
        assert registry.ready.is_set()
        assert registry.access == await log.identity(ACCESS)


async def test_who_asks_it_to_settle_finds_what_another_process_has_just_told(log: SqliteLog, tmp_path: Path) -> None:
    async with sqlite_log(tmp_path / "log") as another, running(Registry(log)) as registry:
        for number in range(3):
            await tell(another, entry(f"dev-{number}"))
            await registry.settled(timeout_s=30)
            assert registry.device(f"dev-{number}") is not None


async def test_it_does_not_settle_while_nobody_reads(log: SqliteLog) -> None:
    registry = Registry(log)
    await tell(log, entry("dev-1"))
    with pytest.raises(Unavailable):
        await registry.settled(timeout_s=0.05)
    async with running(registry):
        await registry.settled()
    await tell(log, entry("dev-2"))
    with pytest.raises(Unavailable):
        await registry.settled(timeout_s=0.05)


async def test_the_highest_revision_counts(log: SqliteLog) -> None:
    async with running(Registry(log)) as registry:
        for revision, name in ((2, "second"), (1, "first"), (3, "third"), (3, "third again"), (2, "second")):
            await tell(log, entry("dev-1", revision, name=name))
            await registry.settled()
        device = registry.device("dev-1")
        assert device is not None
        assert device[4:] == ("third again", True, 3)


async def test_what_is_removed_is_not_known_and_may_come_again_with_any_revision(log: SqliteLog) -> None:
    everything = [entry("wks-1", 5, "workspace"), entry("flt-1", 5, "fleet"), entry("dev-1", 5)]
    await tell(log, *everything)
    async with running(Registry(log)) as registry:
        await registry.settled()
        await tell(log, *(Record(record.key, None) for record in everything), Record("dev-unknown", None))
        await registry.settled()
        assert registry.workspace("wks-1") is registry.fleet("flt-1") is registry.device("dev-1") is None
        await tell(log, entry("dev-1", 1))
        await registry.settled()
        assert registry.device("dev-1") is not None


@pytest.mark.parametrize("value", [b"", b"{", b"{}", b'{"kind": "planet", "id": "dev-2"}', b"\xff"])
async def test_a_record_that_is_no_entry_does_not_stop_it(log: SqliteLog, value: bytes) -> None:
    await tell(log, entry("dev-1"), Record("dev-2", value), entry("dev-3"))
    async with running(Registry(log)) as registry:
        await registry.settled()
        assert set(registry.devices) == {"dev-1", "dev-3"}
        await tell(log, entry("dev-2"))
        await registry.settled()
        assert set(registry.devices) == {"dev-1", "dev-2", "dev-3"}


async def test_run_again_it_knows_what_came_and_went_meanwhile(log: SqliteLog) -> None:
    registry = Registry(log)
    await tell(log, entry("dev-1", name="old"), entry("dev-2"), entry("dev-3"))
    async with running(registry):
        await registry.settled()
    await tell(log, entry("dev-1", 2, name="new"), Record("dev-2", None), entry("dev-4"))
    assert set(registry.devices) == {"dev-1", "dev-2", "dev-3"}
    async with running(registry):
        assert registry.device("dev-3") is not None  # what was known stays known while it catches up
        await registry.settled()
        assert set(registry.devices) == {"dev-1", "dev-3", "dev-4"}
        assert registry.devices["dev-1"].name == "new"


async def test_away_for_longer_than_removals_are_told_it_begins_anew(log: SqliteLog) -> None:
    registry = Registry(log, removals_known_s=0)
    await tell(log, entry("dev-1"), entry("dev-2"))
    async with running(registry):
        await registry.settled()
    await tell(log, Record("dev-1", None))
    await tell(log, entry("dev-3"))
    await log.trim_now(int(time.time()) + 2 * 24 * 3600)
    async with running(registry):
        await registry.settled()
        assert set(registry.devices) == {"dev-2", "dev-3"}


class Detour:
    """A log that leads to another one, or fails when it is fetched from."""

    def __init__(self, log: Log) -> None:
        self.to = log
        self.failures = 0

    async def append(self, topic: Topic, records: Sequence[Record]) -> None:
        await self.to.append(topic, records)

    def subscribe(self, topic: Topic, group: str) -> AbstractAsyncContextManager[Subscription]:
        return self.to.subscribe(topic, group)

    @asynccontextmanager
    async def replay(self, topic: Topic, after: Places = START) -> AsyncIterator[Replay]:
        async with self.to.replay(topic, after) as replay:
            yield FailingReplay(self, replay)

    async def end(self, topic: Topic) -> Places:
        return await self.to.end(topic)

    async def identity(self, topic: Topic) -> str:
        return await self.to.identity(topic)

    async def ping(self) -> None:
        await self.to.ping()


class FailingReplay:
    def __init__(self, detour: Detour, replay: Replay) -> None:
        self._detour = detour
        self._replay = replay

    async def fetch(self, limit: int = 1000, wait_s: float = 1.0) -> Sequence[StoredRecord]:
        if self._detour.failures:
            self._detour.failures -= 1
            raise Unavailable("The log is away")
        return await self._replay.fetch(limit, wait_s)


async def test_a_log_that_is_away_for_a_while_is_read_on_when_it_is_back(log: SqliteLog) -> None:
    detour = Detour(log)
    registry = Registry(detour)
    await tell(log, entry("dev-1"), entry("dev-2"))
    reading = asyncio.create_task(keep_running("registry", registry.run))
    await registry.settled()
    detour.failures = 1
    await tell(log, Record("dev-1", None), entry("dev-3"))
    await registry.settled(timeout_s=30)
    reading.cancel()
    assert set(registry.devices) == {"dev-2", "dev-3"}


async def test_in_a_log_made_anew_it_begins_anew(log: SqliteLog, tmp_path: Path) -> None:
    detour = Detour(log)
    registry = Registry(detour)
    await tell(log, *(entry(f"dev-{number}") for number in range(10)))
    async with running(registry):
        await registry.settled()
    async with sqlite_log(tmp_path / "anew") as anew:
        detour.to = anew
        await tell(anew, entry("dev-1"), entry("dev-11"))
        await everything_told(anew)
        async with running(registry):

            async def is_right() -> bool:
                return set(registry.devices) == {"dev-1", "dev-11"}

            await eventually(is_right)
            await registry.settled()
