"""Presence as it comes from the log and shows on devices."""

from pathlib import Path
from typing import Any

from shared.documents import Schema
from shared.messages.devices import PresenceChanged
from shared.messages.registry import RegistryEntry
from shared.messages.topics import PRESENCE, REGISTRY
from tests.support.provisioning import Caller, Provisioning, provisioning
from tests.support.waiting import eventually

WORKER = "provisioning-presence"
SPOOL = "00c0ffee00c0ffee"
AT = 1_790_000_000_250


def began(device: str, session: int, boot: int = 1) -> PresenceChanged:
    return PresenceChanged(
        id=f"{SPOOL}-{session:016x}",
        kind="connected",
        device_id=device,
        spool=SPOOL,
        boot=boot,
        session=session,
        at=AT + session,
        remote_address="192.0.2.7",
    )


def ended(device: str, session: int, boot: int = 1) -> PresenceChanged:
    return PresenceChanged(
        id=f"{SPOOL}-{session:016x}-end",
        kind="disconnected",
        device_id=device,
        spool=SPOOL,
        boot=boot,
        session=session,
        at=AT + session + 1,
        reason="closed",
    )


def broker_started(boot: int) -> PresenceChanged:
    return PresenceChanged(
        id=f"{SPOOL}-{boot:016x}", kind="broker_started", device_id="", spool=SPOOL, boot=boot, session=0, at=AT + boot
    )


async def say(one: Provisioning, *said: PresenceChanged) -> None:
    await one.platform.log.append(PRESENCE, [change.record(change.device_id or change.spool) for change in said])


async def shows(person: Caller, workspace: str, device: str, **wanted: Any) -> dict[str, Any]:
    """The device, once it shows what is wanted."""

    async def look() -> dict[str, Any] | None:
        found = (await person.call("GET", f"/workspaces/{workspace}/devices/{device}"))["device"]
        return dict(found) if wanted.items() <= found.items() else None

    found = await eventually(look)
    assert found is not None
    return found


async def test_a_device_shows_its_session_and_its_end(tmp_path: Path) -> None:
    async with provisioning(tmp_path, WORKER) as one:
        person = one.session()
        workspace = await person.workspace()
        device = await person.device(workspace)
        await say(one, broker_started(1), began(device, 2))
        found = await shows(person, workspace, device, is_connected=True)
        assert found["last_connected_at"] == "2026-09-21T14:13:20.252Z"
        assert found["remote_address"] == "192.0.2.7"
        await say(one, ended(device, 2))
        found = await shows(person, workspace, device, is_connected=False)
        assert (found["last_connected_at"], found["last_seen_at"]) == (
            "2026-09-21T14:13:20.252Z",
            "2026-09-21T14:13:20.253Z",
        )


async def test_a_broker_that_starts_again_has_no_sessions(tmp_path: Path) -> None:
    async with provisioning(tmp_path, WORKER) as one:
        person = one.session()
        workspace = await person.workspace()
        first, second = await person.device(workspace, "a"), await person.device(workspace, "b")
        await say(one, broker_started(1), began(first, 2), began(second, 3))
        await shows(person, workspace, second, is_connected=True)
        await say(one, broker_started(10), began(second, 11, boot=10))
        await shows(person, workspace, first, is_connected=False)
        await shows(person, workspace, second, is_connected=True, last_connected_at="2026-09-21T14:13:20.261Z")


async def test_a_session_heard_of_before_its_brokers_start_stands(tmp_path: Path) -> None:
    async with provisioning(tmp_path, WORKER) as one:
        person = one.session()
        workspace = await person.workspace()
        device = await person.device(workspace)
        await say(one, began(device, 11, boot=10), broker_started(10), broker_started(1))
        await shows(person, workspace, device, is_connected=True)
        listed = (await person.call("GET", f"/workspaces/{workspace}/devices"))["devices"]
        assert [found["is_connected"] for found in listed] == [True]


async def test_what_is_said_of_a_deleted_device_is_not_kept(tmp_path: Path) -> None:
    async with provisioning(tmp_path, WORKER) as one:
        person = one.session()
        workspace = await person.workspace()
        gone, stays = await person.device(workspace, "a"), await person.device(workspace, "b")
        await say(one, began(gone, 2))
        await shows(person, workspace, gone, is_connected=True)
        await person.call("DELETE", f"/workspaces/{workspace}/devices/{gone}")
        await one.platform.registry.settled()
        await say(one, ended(gone, 2), began(stays, 3))
        await shows(person, workspace, stays, is_connected=True)
        assert await one.store.presences.get(gone) is None


async def test_ten_thousand_devices_that_reconnect_at_once_are_all_noted(tmp_path: Path) -> None:
    devices = [f"dev-{number:012}" for number in range(10_000)]
    async with provisioning(tmp_path, WORKER) as one:
        await one.platform.log.append(REGISTRY, [entry(device).record(device) for device in devices])
        await one.platform.registry.settled()
        await say(one, *(began(device, number) for number, device in enumerate(devices, 2)))
        await say(one, broker_started(50_000))
        await say(one, *(began(device, number, 50_000) for number, device in enumerate(devices, 50_001)))
        kept = await one.platform.documents.collection(Schema("provisioning_presence"))

        async def all_noted() -> bool:
            return await kept.count({"boot": 50_000}) == len(devices)

        await eventually(all_noted, within_s=30)


def entry(device: str) -> RegistryEntry:
    return RegistryEntry(
        kind="device", id=device, account_id="acc-1", workspace_id="wks-1", fleet_id="flt-1", name=device, revision=1
    )
