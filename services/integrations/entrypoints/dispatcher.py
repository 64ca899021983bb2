"""Runs the lanes that have something to send: each in a task of its own, so that a slow receiver delays nobody else."""

import asyncio
from time import monotonic

import structlog

from services.integrations.domain.integrations import Integration
from services.integrations.domain.ports import Integrations, Queues
from services.integrations.domain.queue import BATCH_POINTS, Lane, lane_id
from services.integrations.domain.use_cases.deliver import Deliver
from services.integrations.domain.use_cases.directory import Directory
from shared.registry import Registry
from shared.tasks import keep_running

logger = structlog.get_logger()

_REFRESH_S = 1.0
_GATHER_LIMIT = 20


class Dispatcher:
    """`wake` a lane when its queue has grown; what was left by an earlier process is found at the start."""

    def __init__(
        self,
        directory: Directory,
        integrations: Integrations,
        queues: Queues,
        deliver: Deliver,
        registry: Registry,
        at_once: int,
    ) -> None:
        self._directory = directory
        self._integrations = integrations
        self._queues = queues
        self._deliver = deliver
        self._registry = registry
        self._room = asyncio.Semaphore(at_once)
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._grown: dict[str, asyncio.Event] = {}
        self.loaded = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        directory.on_gone(self._stop)

    async def run(self) -> None:
        """For ever."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                while True:
                    await self._refresh()
                    self.loaded.set()
                    await asyncio.sleep(_REFRESH_S)
        finally:
            self._tasks = None
            self._lanes.clear()

    def wake(self, lane: str) -> None:
        """Its queue has grown."""
        self._event(lane).set()
        integration = self._directory.get(lane.rpartition(".")[0])
        if integration is not None:
            self._ensure(integration, int(lane.rpartition(".")[2]))

    def waiting_for(self) -> str:
        """Empty once the integrations are known."""
        return "" if self.loaded.is_set() else "the integrations are being read"

    async def _refresh(self) -> None:
        """Hear of what other processes have changed; start what is to run, stop what is not."""
        integrations = await self._integrations.all()
        if self._registry.ready.is_set():
            integrations = [one for one in integrations if not await self._orphaned(one)]
        self._directory.replace(integrations)
        for integration in integrations:
            if not integration.active:
                self._stop(integration.id)
        for lane in {lane_id(one.id, 0) for one in integrations} | {lane.id for lane in await self._queues.lanes()}:
            known = self._directory.get(lane.rpartition(".")[0])
            if known is not None:
                self._ensure(known, int(lane.rpartition(".")[2]))

    async def _orphaned(self, integration: Integration) -> bool:
        if self._registry.workspace(integration.workspace_id) is not None:
            return False
        await self._registry.settled()
        if self._registry.workspace(integration.workspace_id) is not None:
            return False
        logger.info("integration_removed", integration=integration.id, reason="its workspace is gone")
        await self._integrations.remove(integration.id)
        return True

    def _ensure(self, integration: Integration, partition: int) -> None:
        lane = lane_id(integration.id, partition)
        if self._tasks is None or not integration.active or lane in self._lanes:
            return
        self._lanes[lane] = self._tasks.create_task(
            keep_running(f"lane {lane}", lambda: self._run_lane(lane, partition)), name=f"lane {lane}"
        )

    def _stop(self, integration_id: str) -> None:
        for lane in [lane for lane in self._lanes if lane.startswith(f"{integration_id}.")]:
            self._lanes.pop(lane).cancel()

    def _event(self, lane: str) -> asyncio.Event:
        return self._grown.setdefault(lane, asyncio.Event())

    async def _run_lane(self, identifier: str, partition: int) -> None:
        grown = self._event(identifier)
        integration = self._directory.get(identifier.rpartition(".")[0])
        lane: Lane | None = None
        while integration is not None:
            lane = lane or await self._queues.lane(integration, partition)
            grown.clear()
            await self._gather(integration, lane)
            async with self._room:
                step = await self._deliver(integration, lane)
            lane = step.lane
            if step.pause_s is None:
                await grown.wait()
            elif step.pause_s > 0:
                await asyncio.sleep(step.pause_s)
            integration = self._directory.get(integration.id)
        await asyncio.Event().wait()

    async def _gather(self, integration: Integration, lane: Lane) -> None:
        """With a period, wait until it is over or a batch is full; then send all there is."""
        deadline = monotonic() + integration.period_s
        while lane.batch is None and monotonic() < deadline:
            chunks = await self._queues.waiting(lane.id, lane.done, _GATHER_LIMIT)
            if not chunks or sum(chunk.count for chunk in chunks) >= BATCH_POINTS or len(chunks) == _GATHER_LIMIT:
                return
            await asyncio.sleep(min(1.0, max(0.01, deadline - monotonic())))
