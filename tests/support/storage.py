"""Storage as it runs: points go in by the log and come out over REST."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.storage.settings import StorageSettings
from services.storage.wiring import wire
from shared.messages.devices import DataReceived
from shared.messages.registry import RegistryEntry
from shared.messages.topics import DATA
from shared.security.principal import Kind, Principal
from shared.service import Platform
from tests.support.http import Answer, Server, device, running_platform, serving_routes, workspace
from tests.support.waiting import eventually
from tests.support.workers import at_work

PERSON = Principal(Kind.SESSION, "acc-1")
T0 = 1_714_636_800_000  # 2024-05-02T08:00:00Z
# So long that what is of then is still kept now.
RETENTION_DAYS = 10_000


def fleet(identifier: str, workspace_id: str, account_id: str) -> RegistryEntry:
    """A fleet as provisioning would tell of it."""
    return RegistryEntry(
        kind="fleet",
        id=identifier,
        account_id=account_id,
        workspace_id=workspace_id,
        fleet_id=identifier,
        name=identifier,
        revision=1,
    )


# Two workspaces of the account that asks, and one of another.
KNOWN = (
    workspace("wks-1", "acc-1"),
    workspace("wks-2", "acc-1"),
    workspace("wks-9", "acc-9"),
    fleet("flt-1", "wks-1", "acc-1"),
    fleet("flt-2", "wks-1", "acc-1"),
    fleet("flt-9", "wks-9", "acc-9"),
    device("dev-1", "wks-1", "acc-1"),
    device("dev-2", "wks-1", "acc-1"),
    device("dev-3", "wks-2", "acc-1"),
    device("dev-9", "wks-9", "acc-9"),
)


def point(number: int, payload: str = '{"temp":21.4}', **changes: Any) -> DataReceived:
    """Of `dev-1`, a second after the one before, unless `changes` say otherwise."""
    return DataReceived(
        id=f"00112233445566ff-{number:016x}",
        workspace_id="wks-1",
        fleet_id="flt-1",
        device_id="dev-1",
        device_name="filler",
        tag="env",
        timestamp_device=T0 + number * 1000,
        timestamp_in=T0 + number * 1000 + 12,
        payload=payload,
    )._replace(**changes)


class Storage:
    """The service at work."""

    def __init__(self, platform: Platform, server: Server) -> None:
        self.platform = platform
        self.server = server

    async def log(self, *points: DataReceived) -> None:
        """As ingestion appends them."""
        await self.platform.log.append(DATA, [one.record() for one in points])

    async def ask(self, path: str, **query: Any) -> Answer:
        """GET."""
        return await self.server.ask("GET", f"/v3/{path}", params=query)

    async def points(self, workspace_id: str = "wks-1", **query: Any) -> list[Any]:
        """What `/timeseries` answers."""
        answer = await self.ask(f"timeseries/{workspace_id}/data", **query)
        assert answer.status == 200, answer.body
        return list(answer.json["result"])

    async def put(self, *points: DataReceived) -> None:
        """Stored when this returns; their ids are new."""
        before = len(await self._numbers(points))
        await self.log(*points)

        async def look() -> bool:
            return len(await self._numbers(points)) == before + len(points)

        await eventually(look, every_s=0.01)

    async def _numbers(self, points: tuple[DataReceived, ...]) -> list[Any]:
        workspaces = {one.workspace_id for one in points}
        return [found for each in workspaces for found in await self.points(each, size=175_000)]


@asynccontextmanager
async def storage(home: Path, *known: RegistryEntry) -> AsyncIterator[Storage]:
    """Storage in `home`."""
    async with running_platform(home, *(known or KNOWN)) as platform:
        await platform.registry.settled()
        service = await wire(StorageSettings.load({"ZDM_RETENTION_DAYS": str(RETENTION_DAYS)}), platform)
        async with at_work(service), serving_routes(platform, service.routes, PERSON) as server:
            yield Storage(platform, server)
