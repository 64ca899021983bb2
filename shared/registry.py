"""What every service may know of workspaces, fleets and devices: a projection of the registry topic.

Held in memory, so that hot paths ask nobody. It lags behind provisioning by the way of a record through the log; one
who misses something asks `settled` before saying that it does not exist.
"""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import structlog

from shared.errors import Refused, Unavailable
from shared.log import Log, StoredRecord, follow
from shared.messages.registry import RegistryEntry
from shared.messages.topics import REGISTRY

logger = structlog.get_logger()


class Entry(NamedTuple):
    """As RegistryEntry, lean: there may be a million."""

    id: str
    account_id: str
    workspace_id: str
    fleet_id: str
    name: str
    enabled: bool
    revision: int


class Registry:
    """Workspaces, fleets and devices by id."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._kinds: dict[str, dict[str, Entry]] = {"workspace": {}, "fleet": {}, "device": {}}
        self._place = -1
        self._moved = asyncio.Condition()
        self.ready = asyncio.Event()

    @property
    def devices(self) -> Mapping[str, Entry]:
        """All devices known now."""
        return self._kinds["device"]

    def workspace(self, identifier: str) -> Entry | None:
        """As known now."""
        return self._kinds["workspace"].get(identifier)

    def fleet(self, identifier: str) -> Entry | None:
        """As known now."""
        return self._kinds["fleet"].get(identifier)

    def device(self, identifier: str) -> Entry | None:
        """As known now."""
        return self._kinds["device"].get(identifier)

    async def run(self) -> None:
        """Follow the topic for ever; `ready` is set once all that was there at the start is read."""
        target = max((await self._log.end(REGISTRY)).values(), default=-1)
        async with self._log.replay(REGISTRY) as replay:
            await self._reached(target)
            async for records in follow(replay, limit=5000):
                for record in records:
                    self._apply(record)
                await self._reached(target)

    async def _reached(self, target: int) -> None:
        if self._place >= target:
            self.ready.set()
        async with self._moved:
            self._moved.notify_all()

    async def settled(self, timeout_s: float = 2.0) -> None:
        """Wait until all that is in the topic now is known. Raise `Unavailable` when that takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                target = max((await self._log.end(REGISTRY)).values(), default=-1)
                async with self._moved:
                    await self._moved.wait_for(lambda: self._place >= target)
        except TimeoutError:
            raise Unavailable("The registry is being read; try again in a moment") from None

    def _apply(self, record: StoredRecord) -> None:
        self._place = record.offset
        if record.value is None:
            for kind in self._kinds.values():
                kind.pop(record.key, None)
            return
        try:
            entry = RegistryEntry.decode(record.value)
        except Refused as refusal:
            logger.error("registry_entry_refused", key=record.key, reason=str(refusal))
            return
        known = self._kinds[entry.kind]
        if (old := known.get(entry.id)) is None or entry.revision >= old.revision:
            known[entry.id] = Entry(
                entry.id,
                entry.account_id,
                entry.workspace_id,
                entry.fleet_id,
                entry.name,
                entry.enabled,
                entry.revision,
            )
