"""What every service may know of workspaces, fleets and devices: a projection of the registry topic.

Held in memory, so that hot paths ask nobody. It lags behind provisioning by the way of a record through the log; one
who misses something asks `settled` before saying that it does not exist. In a log made anew everything is missing until
provisioning has told of it again: until then the registry is not ready, and does not settle.
"""

import asyncio
import math
from collections.abc import Mapping
from time import monotonic
from typing import NamedTuple

import structlog

from shared.errors import Refused, Unavailable
from shared.log import Log, Places, StoredRecord
from shared.messages.registry import WHOLE, RegistryEntry, RegistryWhole
from shared.messages.topics import REGISTRY

logger = structlog.get_logger()

# A log tells of a removal for a day at least: whoever was away for less has missed none.
_REMOVALS_KNOWN_S = 12 * 3600
_LOOK_EVERY_S = 10.0


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

    def __init__(self, log: Log, removals_known_s: float = _REMOVALS_KNOWN_S) -> None:
        self._log = log
        self._removals_known_s = removals_known_s
        self._identity = ""
        self._read_at = -math.inf
        self._moved = asyncio.Condition()
        self.read = asyncio.Event()  # all that was in the topic at the start
        self.ready = asyncio.Event()  # that is all there is
        self._forget()

    @property
    def access(self) -> str:
        """Identity of the access topic when everything was last told; empty when it never was in this log."""
        return self._access

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
        """Follow the topic for ever; `ready` is set once all that was there at the start is read, and that is whole.

        Run again, it goes on where it was, or begins anew when removals may have been forgotten since. Raise
        `Unavailable` when the topic was made anew meanwhile.
        """
        identity = await self._log.identity(REGISTRY)
        if identity != self._identity or monotonic() - self._read_at > self._removals_known_s:
            self._forget()
        self._identity = identity
        target = await self._log.end(REGISTRY)
        async with self._log.replay(REGISTRY, self._places) as replay:
            await self._moved_on(target)
            looked_at = monotonic()
            while True:
                records = await replay.fetch(5000)
                self._read_at = monotonic()
                if self._read_at - looked_at > _LOOK_EVERY_S:
                    looked_at = self._read_at
                    if await self._log.identity(REGISTRY) != identity:
                        raise Unavailable("The registry was made anew")
                for record in records:
                    self._apply(record)
                if records:
                    await self._moved_on(target)

    async def settled(self, timeout_s: float = 2.0) -> None:
        """Wait until all that is in the topic now is known, and is all there is.

        Raise `Unavailable` when that takes longer.
        """
        try:
            async with asyncio.timeout(timeout_s):
                target = await self._log.end(REGISTRY)
                async with self._moved:
                    await self._moved.wait_for(lambda: self._reached(target) and self.ready.is_set())
        except TimeoutError:
            raise Unavailable("The registry is being read; try again in a moment") from None

    def _forget(self) -> None:
        self._kinds: dict[str, dict[str, Entry]] = {"workspace": {}, "fleet": {}, "device": {}}
        self._places: dict[int, int] = {}
        self._access = ""
        self.read.clear()
        self.ready.clear()

    async def _moved_on(self, target: Places) -> None:
        if self._reached(target):
            self.read.set()
            if self._access:
                self.ready.set()
        async with self._moved:
            self._moved.notify_all()

    def _reached(self, target: Places) -> bool:
        return all(self._places.get(partition, -1) >= offset for partition, offset in target.items())

    def _apply(self, record: StoredRecord) -> None:
        self._places[record.partition] = record.offset
        if record.value is None:
            for kind in self._kinds.values():
                kind.pop(record.key, None)
            return
        try:
            if record.key == WHOLE:
                self._access = RegistryWhole.decode(record.value).access
                return
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
