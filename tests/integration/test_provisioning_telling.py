"""Everyone hears of every change, whatever dies on the way and whoever else is telling."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.provisioning.domain.things import Device, Workspace
from services.provisioning.domain.use_cases.tell import Tell
from services.provisioning.domain.use_cases.tell_anew import TellAnew
from shared.documents import Schema
from shared.errors import OutOfSpace
from shared.log import Log, Record, Topic
from shared.log.sqlite import sqlite_log
from shared.messages.registry import AccessGranted, AccountOpened, RegistryEntry
from shared.messages.topics import ACCESS, ACCOUNTS, REGISTRY
from shared.registry import Registry
from shared.service import Platform
from tests.support.provisioning import Provisioning, provisioning
from tests.support.waiting import eventually
from tests.support.workers import records_in

TELL, ACCOUNTS_WORKER = "provisioning-tell", "provisioning-accounts"


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Provisioning]:
    async with provisioning(tmp_path / "home") as running:
        yield running


async def told(platform: Platform, identifier: str) -> RegistryEntry | None:
    """What the registry topic says of it now; `LookupError` when it never said anything."""
    values = [record.value for record in await records_in(platform, REGISTRY) if record.key == identifier]
    if not values:
        raise LookupError(identifier)
    return None if values[-1] is None else RegistryEntry.decode(values[-1])


async def granted(platform: Platform, device_id: str) -> AccessGranted | None:
    """What brokers are told of a device now."""
    values = [record.value for record in await records_in(platform, ACCESS) if record.key == device_id]
    return None if values[-1] is None else AccessGranted.decode(values[-1])


@asynccontextmanager
async def at_work(one: Provisioning, name: str) -> AsyncIterator[None]:
    worker = asyncio.create_task(one.worker(name))
    try:
        yield
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


async def nothing_untold(one: Provisioning) -> None:
    async def look() -> bool:
        counts = [await things.untold_count() for things in one.store[:3]]
        return sum(counts) == 0

    await eventually(look)


def device(workspace: str, fleet: str, **more: object) -> Device:
    return Device(
        id="dev-crashed",
        account_id="acc-1",
        workspace_id=workspace,
        fleet_id=fleet,
        name="crashed",
        created_at="2026-11-24T06:00:00.000000Z",
        **more,  # type: ignore[arg-type]
    )


async def fleet_of(one: Provisioning, workspace: str) -> str:
    return (await one.store.fleets.of_workspace(workspace))[0].id


class TestToALogMadeAnew:
    async def test_all_there_is_is_told(self, one: Provisioning, tmp_path: Path) -> None:
        person = one.session()
        workspace = await person.workspace()
        devices = {await person.device(workspace) for _ in range(3)}
        await one.store.devices.add(device(workspace, await fleet_of(one, workspace), deleted=True))
        async with sqlite_log(tmp_path / "anew") as log, following(log) as registry:
            assert await anew(one, registry, log)()
            await registry.settled()
            assert set(registry.devices) == devices
            assert registry.workspace(workspace) is not None
            assert registry.fleet(await fleet_of(one, workspace)) is not None
            assert set((await log.end(ACCESS)).values()) == {3}  # the fourth is gone, and that is told too
            assert not await anew(one, registry, log)()

    async def test_what_died_while_telling_is_told_from_the_beginning(self, one: Provisioning, tmp_path: Path) -> None:
        person = one.session()
        identifier = await person.device(await person.workspace())
        async with sqlite_log(tmp_path / "anew") as log, following(log) as registry:
            with pytest.raises(OutOfSpace):
                await anew(one, registry, FullLog(log, ACCESS))()  # type: ignore[arg-type]
            assert not registry.ready.is_set()
            assert await anew(one, registry, log)()
            await registry.settled()
            assert registry.device(identifier) is not None


@asynccontextmanager
async def following(log: Log) -> AsyncIterator[Registry]:
    registry = Registry(log)
    worker = asyncio.create_task(registry.run())
    try:
        yield registry
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


def anew(one: Provisioning, registry: Registry, log: Log) -> TellAnew:
    workspaces, fleets, devices = one.store[:3]
    return TellAnew(registry, workspaces, fleets, devices, Tell(*one.store[:6], log), log)


class TestAfterACrash:
    async def test_what_was_saved_and_not_told_is_told_at_the_next_start(self, one: Provisioning) -> None:
        workspace = await one.session().workspace()
        await one.store.devices.add(device(workspace, await fleet_of(one, workspace)))
        async with at_work(one, TELL):
            await nothing_untold(one)
        entry = await told(one.platform, "dev-crashed")
        assert entry is not None
        assert entry.name == "crashed"
        assert (await granted(one.platform, "dev-crashed")) is not None

    async def test_a_change_that_was_saved_and_not_told_is_told(self, one: Provisioning) -> None:
        person = one.session()
        identifier = await person.device(await person.workspace())
        known = await one.store.devices.get(identifier)
        assert known is not None
        await one.store.devices.save(known.changed(enabled=False))
        async with at_work(one, TELL):
            await nothing_untold(one)
        access = await granted(one.platform, identifier)
        assert access is not None
        assert not access.enabled

    async def test_a_deletion_that_was_marked_is_told_and_finished(self, one: Provisioning) -> None:
        person = one.session()
        identifier = await person.device(await person.workspace())
        await person.call("POST", f"/devices/{identifier}/credentials")
        known = await one.store.devices.get(identifier)
        assert known is not None
        await one.store.devices.save(known.changed(deleted=True))
        async with at_work(one, TELL):
            await nothing_untold(one)
        assert await told(one.platform, identifier) is None
        assert await granted(one.platform, identifier) is None
        assert await one.store.devices.get(identifier) is None
        assert await (await one.platform.documents.collection(Schema("provisioning_keys"))).count() == 0

    async def test_a_workspace_half_deleted_is_deleted_whole(self, one: Provisioning) -> None:
        person = one.session()
        workspace = await person.workspace()
        devices = [await person.device(workspace, f"d{number}") for number in range(3)]
        known = await one.store.workspaces.get(workspace)
        assert known is not None
        await one.store.workspaces.save(known.changed(deleted=True))
        async with at_work(one, TELL):
            await nothing_untold(one)
        assert [await told(one.platform, identifier) for identifier in (workspace, *devices)] == [None] * 4
        assert await one.store.workspaces.get(workspace) is None
        assert await one.store.fleets.all_of_workspace(workspace) == []

    async def test_a_workspace_that_got_no_fleet_gets_it(self, one: Provisioning) -> None:
        workspace = Workspace(id="wks-crashed", account_id="acc-1", name="default", created_at="")
        await one.store.workspaces.add(workspace)
        async with at_work(one, TELL):
            await nothing_untold(one)
        fleets = await one.store.fleets.of_workspace("wks-crashed")
        assert [fleet.name for fleet in fleets] == ["default"]
        entry = await told(one.platform, fleets[0].id)
        assert entry is not None
        assert entry.workspace_id == "wks-crashed"


class FullLog:
    """A log without room for `topic` until told otherwise; else the log it stands before."""

    def __init__(self, log: Log, topic: Topic) -> None:
        self._log = log
        self._topic = topic
        self.full = True

    async def append(self, topic: Topic, records: Sequence[Record]) -> None:
        if self.full and topic is self._topic:
            raise OutOfSpace("no room")
        await self._log.append(topic, records)

    async def identity(self, topic: Topic) -> str:
        return await self._log.identity(topic)


@pytest.mark.parametrize("topic", [REGISTRY, ACCESS])
async def test_what_the_log_had_no_room_for_is_told_later(one: Provisioning, topic: Topic) -> None:
    workspace = await one.session().workspace()
    await one.store.devices.add(device(workspace, await fleet_of(one, workspace)))
    log = FullLog(one.platform.log, topic)
    tell = Tell(*one.store[:6], log)  # type: ignore[arg-type]
    with pytest.raises(OutOfSpace):
        await tell(devices=["dev-crashed"])
    assert [untold.id for untold in await one.store.devices.untold(10)] == ["dev-crashed"]
    log.full = False
    await tell(devices=["dev-crashed"])
    assert await one.store.devices.untold_count() == 0
    assert await granted(one.platform, "dev-crashed") is not None


class SlowLog:
    """A log that lets the first access record through only when told to."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def append(self, topic: Topic, records: Sequence[Record]) -> None:
        if topic is ACCESS:
            self.reached.set()
            await self.go_on.wait()
        await self._log.append(topic, records)


@pytest.mark.parametrize("deleted", [False, True])
async def test_who_tells_an_old_state_late_tells_the_new_one_after_it(one: Provisioning, deleted: bool) -> None:
    person = one.session()
    workspace = await person.workspace()
    identifier = await person.device(workspace)
    log = SlowLog(one.platform.log)
    elsewhere = asyncio.create_task(Tell(*one.store[:6], log)(devices=[identifier]))  # type: ignore[arg-type]
    await log.reached.wait()
    path = f"/workspaces/{workspace}/devices/{identifier}"
    await (person.call("DELETE", path) if deleted else person.call("PUT", path, {"enabled": False}))
    log.go_on.set()
    await elsewhere
    access = await granted(one.platform, identifier)
    assert access is None if deleted else access is not None and not access.enabled
    assert (await told(one.platform, identifier) is None) is deleted


async def test_the_last_of_many_changes_at_once_is_what_brokers_hear_last(one: Provisioning) -> None:
    person = one.session()
    workspace = await person.workspace()
    identifier = await person.device(workspace)
    path = f"/workspaces/{workspace}/devices/{identifier}"
    answers = await asyncio.gather(*(person.ask("PUT", path, {"enabled": number % 2 == 0}) for number in range(8)))
    assert {answer.status for answer in answers} == {200}
    kept, access = await one.store.devices.get(identifier), await granted(one.platform, identifier)
    entry = await told(one.platform, identifier)
    assert kept is not None
    assert access is not None
    assert entry is not None
    assert kept.told
    assert (access.enabled, entry.enabled, entry.revision) == (kept.enabled, kept.enabled, kept.revision)


class TestAccounts:
    async def open_(self, one: Provisioning, *accounts: str) -> None:
        opened = [AccountOpened(id=account, email=f"{account}@example.org").record(account) for account in accounts]
        await one.platform.log.append(ACCOUNTS, opened)

    async def workspaces(self, one: Provisioning, account: str) -> list[str]:
        return [workspace.name for workspace in await one.store.workspaces.of_account(account)]

    async def test_each_gets_one_workspace_and_one_fleet_however_often_it_is_heard_of(self, one: Provisioning) -> None:
        async with at_work(one, ACCOUNTS_WORKER):
            for _ in range(3):
                await self.open_(one, "acc-1", "acc-2")
            await self.open_(one, "acc-3")
            await eventually(lambda: self.workspaces(one, "acc-3"))
        for account in ("acc-1", "acc-2", "acc-3"):
            assert await self.workspaces(one, account) == ["default"]
            workspace = (await one.store.workspaces.of_account(account))[0].id
            assert [fleet.name for fleet in await one.store.fleets.of_workspace(workspace)] == ["default"]
            assert await told(one.platform, workspace) is not None

    async def test_what_is_heard_again_after_a_restart_makes_no_second_one(self, tmp_path: Path) -> None:
        for _ in range(2):
            async with provisioning(tmp_path / "home", ACCOUNTS_WORKER) as one:
                await self.open_(one, "acc-1")
                await self.open_(one, "acc-last")

                async def heard(one: Provisioning = one) -> bool:
                    return await self.workspaces(one, "acc-last") == ["default"]

                await eventually(heard)
                assert await self.workspaces(one, "acc-1") == ["default"]

    async def test_one_that_has_a_workspace_gets_no_other(self, one: Provisioning) -> None:
        await one.session("acc-1").workspace("my own")
        async with at_work(one, ACCOUNTS_WORKER):
            await self.open_(one, "acc-1", "acc-last")
            await eventually(lambda: self.workspaces(one, "acc-last"))
        assert await self.workspaces(one, "acc-1") == ["my own"]
