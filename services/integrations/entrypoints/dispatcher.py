"""Runs the lanes: each in a task of its own, so that a slow receiver delays nobody else."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

import structlog

from services.integrations.domain.integrations import Integration
from services.integrations.domain.ports import Integrations, Queues
from services.integrations.domain.queue import BATCH_POINTS, Lane, integration_of, next_batch
from services.integrations.domain.use_cases.deliver import Deliver
from services.integrations.domain.use_cases.directory import Directory
from services.integrations.domain.use_cases.sweep import Sweep
from shared.errors import Unavailable
from shared.registry import Registry
from shared.tasks import keep_running

_REFRESH_S = 1.0
_SWEEP_S = 10.0
_EXPIRE_S = 600.0


@dataclass
class _News:
    """What a lane may be waiting for."""

    grown: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Dispatcher:
    """`wake` a lane when its queue has grown; what was left by an earlier process is found at the start."""

    def __init__(
        self,
        directory: Directory,
        integrations: Integrations,
        queues: Queues,
        deliver: Deliver,
        sweep: Sweep,
        registry: Registry,
        at_once: int,
    ) -> None:
        self._directory = directory
        self._integrations = integrations
        self._queues = queues
        self._deliver = deliver
        self._sweep = sweep
        self._registry = registry
        self._room = asyncio.Semaphore(at_once)
        # Those that failed last may take as long again: they wait for each other, not for them those that work.
        self._room_of_failing = asyncio.Semaphore(at_once)
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._news: dict[str, _News] = {}
        self.loaded = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        directory.on_changed(self._changed)
        directory.on_gone(self._stop)

    async def run(self) -> None:
        """For ever."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(keep_running("integrations-refresh", self._keep_refreshed), name="refresh")
                tasks.create_task(keep_running("integrations-sweep", self._keep_swept), name="sweep")
        finally:
            self._tasks = None
            self._lanes.clear()

    def wake(self, lane: str) -> None:
        """Its queue has grown."""
        if self._directory.get(integration_of(lane)) is not None:
            self._ensure(lane)
            self._news[lane].grown.set()

    def waiting_for(self) -> str:
        """Empty once the integrations are known."""
        return "" if self.loaded.is_set() else "the integrations are being read"

    async def _keep_refreshed(self) -> None:
        while True:
            await self._refresh()
            self.loaded.set()
            await asyncio.sleep(_REFRESH_S)

    async def _keep_swept(self) -> None:
        await self.loaded.wait()
        while True:
            for lane in await self._queues.lanes():
                if self._directory.get(lane.integration_id) is not None:
                    self._ensure(lane.id)
            await self._sweep()
            await asyncio.sleep(_SWEEP_S)

    async def _refresh(self) -> None:
        """Hear of what other processes have changed."""
        while True:
            version = self._directory.version
            if self._directory.replace(await self._with_workspace(await self._integrations.all()), version):
                return

    async def _with_workspace(self, integrations: Sequence[Integration]) -> Sequence[Integration]:
        """Those that may send: with its workspace an integration ends."""
        if not self._registry.ready.is_set() or all(self._has_workspace(one) for one in integrations):
            return integrations
        try:
            await self._registry.settled()
        except Unavailable:
            return integrations
        return [one for one in integrations if self._has_workspace(one)]

    def _has_workspace(self, integration: Integration) -> bool:
        return self._registry.workspace(integration.workspace_id) is not None

    def _ensure(self, lane: str) -> None:
        news = self._news.setdefault(lane, _News())
        if self._tasks is not None and lane not in self._lanes:
            # One name for all: it labels a metric.
            run = keep_running("integrations-lane", lambda: self._run_lane(lane, news))
            self._lanes[lane] = self._tasks.create_task(run, name=f"lane {lane}")

    def _changed(self, integration_id: str) -> None:
        for lane in self._lanes_of(integration_id):
            self._news[lane].changed.set()
            self._news[lane].grown.set()

    def _stop(self, integration_id: str) -> None:
        for lane in self._lanes_of(integration_id):
            del self._news[lane]
            if lane in self._lanes:
                self._lanes.pop(lane).cancel()

    def _lanes_of(self, integration_id: str) -> Sequence[str]:
        return [lane for lane in self._news if integration_of(lane) == integration_id]

    async def _run_lane(self, identifier: str, news: _News) -> None:
        """Until it is stopped, which comes with its integration's end."""
        structlog.contextvars.bind_contextvars(lane=identifier)
        lane: Lane | None = None
        while (integration := self._directory.get(integration_of(identifier))) is not None:
            news.changed.clear()
            news.grown.clear()
            if lane is None:
                lane = await self._queues.lane(integration, identifier.removeprefix(f"{integration.id}."))
                if await _heard(news.changed, self._deliver.pause_of(lane)):
                    continue
            if not integration.active:
                lane = await self._deliver.expire(lane)
                await _heard(news.changed, _EXPIRE_S)
                continue
            await self._gather(integration, lane, news)
            lane = await self._step(integration, lane, news)

    async def _step(self, integration: Integration, lane: Lane, news: _News) -> Lane:
        fails = lane.batch is not None and lane.batch.tries > 0
        async with self._room_of_failing if fails else self._room:
            if news.changed.is_set():
                return lane
            step = await self._deliver(integration, lane)
        if step.pause_s is None:
            await news.grown.wait()
        elif step.pause_s > 0:
            # Whoever mends an integration does not want to wait for the next try.
            await _heard(news.changed, step.pause_s)
        return step.lane

    async def _gather(self, integration: Integration, lane: Lane, news: _News) -> None:
        """With a period, wait until it is over or a batch is full; then send all there is."""
        deadline = monotonic() + integration.period_s
        while lane.batch is None and (left := deadline - monotonic()) > 0:
            chunks = await self._queues.waiting(lane.id, lane.done, BATCH_POINTS)
            if not chunks or len(next_batch(chunks)) < len(chunks) or len(chunks) == BATCH_POINTS:
                return
            if await _heard(news.changed, min(1.0, left)):
                return


async def _heard(event: asyncio.Event, within_s: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()
    return event.is_set()
