"""Two brokers, each with its spool and its ingestion, share one fleet; every service is a process of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deploy.simulator.device import ConnectionRefused, Device
from services.ingestion.domain.use_cases.hand_down import TOLERANCE_MS
from tests.support.apart import Apart, running_apart
from tests.support.system import Rest, default_workspace, new_device
from tests.support.waiting import eventually

ONE, TWO = "broker", "broker-2"
CUT_S = 1.0
SETTLED_S = 20.0

pytestmark = pytest.mark.timeout(180)


class Session:
    """A connection of a device, and what came down on it."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[bytes] = asyncio.Queue()
        self.device: Device

    @classmethod
    async def open(cls, credential: dict[str, Any]) -> "Session":
        session = cls()
        session.device = await Device.connect(
            credential, on_message=lambda _topic, payload: session.came.put_nowait(payload)
        )
        return session

    async def asks_and_hears(self) -> None:
        """What it asks is answered on this connection."""
        await self.device.up("#now", {})
        async with asyncio.timeout(SETTLED_S):
            assert b'"rfc3339"' in await self.came.get()

    async def is_cut(self) -> None:
        async with asyncio.timeout(CUT_S):
            await self.device.lost.wait()


class Fleet(NamedTuple):
    """The system, its REST, and a workspace."""

    apart: Apart
    rest: Rest
    workspace: str

    async def device(self, name: str) -> dict[str, Any]:
        """Its `zdevice.json`."""
        return await new_device(self.rest, self.workspace, name)

    async def connect(self, broker: str, credential: dict[str, Any]) -> Session:
        return await Session.open(self.apart.at(broker, credential))

    async def disable(self, credential: dict[str, Any]) -> None:
        device = credential["devinfo"]["device_id"]
        await self.rest.call("PUT", f"/v3/workspaces/{self.workspace}/devices/{device}", {"enabled": False})

    async def is_refused(self, broker: str, credential: dict[str, Any]) -> None:
        with pytest.raises((ConnectionRefused, ConnectionError)):
            await self.connect(broker, credential)

    async def stored(self, device: Device, count: int) -> list[int]:
        """The numbers that the device sent, oldest first, once there are so many."""

        async def look() -> list[int]:
            path = f"/v3/timeseries/{self.workspace}/data"
            points = (await self.rest.call("GET", path, device=device.id, sort="timestamp_device", size=1000))["result"]
            return [point["payload"]["n"] for point in points] if len(points) >= count else []

        return await eventually(look, within_s=SETTLED_S)

    async def becomes(self, device: Device, *, connected: bool) -> None:
        path = f"/v3/workspaces/{self.workspace}/devices/{device.id}"

        async def look() -> bool:
            return (await self.rest.call("GET", path))["device"]["is_connected"] is connected

        await eventually(look, within_s=SETTLED_S)

    async def waits_for(self, *names: str) -> None:
        """Provisioning says that these are away, and no others."""

        async def look() -> bool:
            return set(await self.apart.waiting_for("provisioning")) == {f"provisioning.{name}" for name in names}

        await eventually(look, within_s=SETTLED_S)


@pytest.fixture(scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with opened(tmp_path_factory.mktemp("shards") / "home") as fleet:
        yield fleet


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[Fleet]:
    async with running_apart(home, ONE, TWO) as apart, apart.admin() as rest:
        fleet = Fleet(apart, rest, await default_workspace(rest))
        await fleet.waits_for()
        yield fleet


async def test_devices_at_both_are_stored_in_order_and_spoken_to(fleet: Fleet) -> None:
    sessions = [await fleet.connect(broker, await fleet.device(f"at {broker}")) for broker in (ONE, TWO)]
    for number in range(50):
        await asyncio.gather(*(session.device.data("env", {"n": number}) for session in sessions))
    for session in sessions:
        await session.asks_and_hears()
        assert await fleet.stored(session.device, 50) == list(range(50))
        assert session.came.empty()
        session.device.close()


async def test_a_device_is_cut_off_at_both(fleet: Fleet) -> None:
    for broker in (ONE, TWO):
        credential = await fleet.device(f"cut at {broker}")
        session = await fleet.connect(broker, credential)
        await fleet.disable(credential)
        await session.is_cut()
        await fleet.is_refused(ONE, credential)
        await fleet.is_refused(TWO, credential)


async def test_a_device_that_moves_is_at_the_broker_that_it_connected_to_last(fleet: Fleet) -> None:
    credential = await fleet.device("moving")
    here: Session | None = None
    for number, broker in enumerate([ONE, TWO, ONE, TWO]):
        there = await fleet.connect(broker, credential)
        if here is not None:
            await asyncio.wait_for(here.device.lost.wait(), SETTLED_S)
        await there.device.data("env", {"n": number})
        await there.asks_and_hears()
        await fleet.becomes(there.device, connected=True)
        here = there
    assert here is not None
    assert await fleet.stored(here.device, 4) == [0, 1, 2, 3]
    assert not here.device.lost.is_set()
    here.device.close()
    await fleet.becomes(here.device, connected=False)


async def test_when_a_broker_is_killed_the_other_goes_on_and_takes_its_devices(fleet: Fleet) -> None:
    one, two = await fleet.device("stays"), await fleet.device("goes")
    staying, going = await fleet.connect(ONE, one), await fleet.connect(TWO, two)
    await going.device.data("env", {"n": 0})
    await fleet.apart.kill_one(TWO)
    await fleet.waits_for(TWO)
    await asyncio.wait_for(going.device.lost.wait(), SETTLED_S)

    moved = await fleet.connect(ONE, two)
    await moved.device.data("env", {"n": 1})
    await asyncio.gather(staying.asks_and_hears(), moved.asks_and_hears())
    assert await fleet.stored(moved.device, 2) == [0, 1]
    await fleet.disable(one)
    await staying.is_cut()

    await fleet.apart.begin(TWO)
    await fleet.waits_for()
    # What happened meanwhile is known there.
    await fleet.is_refused(TWO, one)
    back = await fleet.connect(TWO, two)
    await back.asks_and_hears()
    back.device.close()


async def test_while_an_ingestion_is_away_its_broker_takes_messages_and_the_other_goes_on(fleet: Fleet) -> None:
    one, two = [await fleet.device(f"with {broker}") for broker in (ONE, TWO)]
    here, there = await fleet.connect(ONE, one), await fleet.connect(TWO, two)
    await fleet.apart.kill_one("ingestion-2")
    for number in range(3):
        await asyncio.gather(*(session.device.data("env", {"n": number}) for session in (here, there)))
    await here.asks_and_hears()
    assert await fleet.stored(here.device, 3) == [0, 1, 2]

    await asyncio.sleep(2 * TOLERANCE_MS / 1000)  # until the answer is too old for a session that begins now
    moved = await fleet.connect(TWO, one)
    await fleet.apart.begin("ingestion-2")
    for session in (there, moved, moved):
        await session.asks_and_hears()
    # What the one broker handed over while this one was away is not handed over again.
    assert moved.came.empty()
    assert await fleet.stored(there.device, 3) == [0, 1, 2]
    for session in (there, moved):
        session.device.close()
