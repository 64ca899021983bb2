"""What is to be done now and then: forget integrations that are gone, and count what waits."""

from services.integrations.domain.ports import Integrations, Queues
from services.integrations.domain.queue import Lane
from services.integrations.metrics import DROPPED, WAITING
from shared.clock import Clock
from shared.registry import Registry

# By then every process has heard of a removal, and nothing is added to the queue any more.
_PURGE_AFTER_MS = 10_000
# In a log made anew, workspaces are missing until provisioning has told of them again: no reason to lose integrations.
_ORPHANED_AFTER_MS = 3600 * 1000


class Sweep:
    """Safe to run at any time, in several processes."""

    def __init__(self, integrations: Integrations, queues: Queues, registry: Registry, clock: Clock) -> None:
        self._integrations = integrations
        self._queues = queues
        self._registry = registry
        self._clock = clock
        self._missing_since: dict[str, int] = {}

    async def __call__(self) -> None:
        """Once."""
        if self._registry.ready.is_set():
            await self._remove_orphans()
        for identifier in await self._integrations.removed(self._clock.ms() - _PURGE_AFTER_MS):
            lanes = await self._queues.lanes_of(identifier)
            DROPPED.labels("deleted").inc(sum([await waiting_in(lane, self._queues) for lane in lanes]))
            await self._integrations.purge(identifier)
        WAITING.set(sum([await waiting_in(lane, self._queues) for lane in await self._queues.lanes()]))

    async def _remove_orphans(self) -> None:
        now = self._clock.ms()
        orphans = [
            one.id for one in await self._integrations.all() if self._registry.workspace(one.workspace_id) is None
        ]
        self._missing_since = {one: self._missing_since.get(one, now) for one in orphans}
        for one, since in self._missing_since.items():
            if now - since >= _ORPHANED_AFTER_MS:
                await self._integrations.remove(one, now)


async def waiting_in(lane: Lane, queues: Queues) -> int:
    """How many points wait in a lane; known without reading them."""
    newest = await queues.newest(lane.id)
    return 0 if newest is None else max(0, newest.total - lane.total)
