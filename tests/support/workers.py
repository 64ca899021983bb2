"""Services at work on a real platform (SQLite log and documents), without the HTTP around them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from shared.log import Record, StoredRecord, Topic
from shared.messages.registry import RegistryEntry
from shared.messages.topics import REGISTRY
from shared.runtime import open_platform
from shared.service import Platform, Service
from shared.settings import Installation
from shared.tasks import keep_running
from tests.support.http import everything_told
from tests.support.waiting import eventually

DEVICE = "dev-000000000001"


@asynccontextmanager
async def working_platform(home: Path) -> AsyncIterator[Platform]:
    """A platform whose registry is being read."""
    async with open_platform(Installation.load({"ZDM_HOME": str(home)})) as platform:
        await everything_told(platform.log)
        reading = asyncio.create_task(platform.registry.run())
        try:
            yield platform
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


@asynccontextmanager
async def at_work(service: Service) -> AsyncIterator[Service]:
    """The service's workers, supervised as the runtime does."""
    workers = [asyncio.create_task(keep_running(worker.name, worker.run)) for worker in service.workers]
    try:
        yield service
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        if service.close is not None:
            await service.close()


async def register(platform: Platform, *device_ids: str, revision: int = 1, name: str = "A device") -> None:
    """Devices of workspace `wks-1`, fleet `flt-1`, account `acc-1`; known when this returns."""
    entries = [
        RegistryEntry(
            kind="device",
            id=device_id,
            account_id="acc-1",
            workspace_id="wks-1",
            fleet_id="flt-1",
            name=name,
            revision=revision,
        )
        for device_id in device_ids
    ]
    await platform.log.append(REGISTRY, [entry.record(entry.id) for entry in entries])
    await platform.registry.settled()


async def unregister(platform: Platform, *device_ids: str) -> None:
    """As a deletion does."""
    await platform.log.append(REGISTRY, [Record(device_id, None) for device_id in device_ids])
    await platform.registry.settled()


async def records_in(platform: Platform, topic: Topic) -> Sequence[StoredRecord]:
    """All that is in `topic` now."""
    found: list[StoredRecord] = []
    async with platform.log.replay(topic) as replay:
        while records := await replay.fetch(10_000, wait_s=0):
            found += records
    return found


async def values_in(platform: Platform, topic: Topic, count: int) -> list[bytes]:
    """The values in `topic`, once there are at least `count`."""

    async def look() -> list[bytes]:
        values = [record.value or b"" for record in await records_in(platform, topic)]
        return values if len(values) >= count else []

    return await eventually(look)
