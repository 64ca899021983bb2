"""Runs the lanes: each in a task of its own, so that a slow receiver delays nobody else.

A lane is delivered by one process: the one that fills it, which is the one that has its partition of the log, as soon
as whoever had it before has released it or is dead.
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

import structlog

from services.integrations.domain.integrations import Integration
from services.integrations.domain.ports import Integrations, Members, Queues
from services.integrations.domain.queue import BATCH_POINTS, Lane, LaneLost, integration_of, next_batch
from services.integrations.domain.use_cases.deliver import Deliver
from services.integrations.domain.use_cases.directory import Directory
from services.integrations.domain.use_cases.sweep import Sweep
from shared.errors import Unavailable
from shared.registry import Registry
from shared.tasks import keep_running

logger = structlog.get_logger()

_REFRESH_S = 1.0
_SWEEP_S = 10.0
_EXPIRE_S = 600.0


@dataclass
class _News:
    """What a lane may be waiting for."""

    grown: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    is_filled: bool = False  # by this process, which should deliver it then
    is_wanted: bool = False  # by another


class Stores(Protocol):
    """What lanes are made of."""

    @property
    def integrations(self) -> Integrations: ...

    @property
    def queues(self) -> Queues: ...

    @property
    def members(self) -> Members: ...


class Dispatcher:
    """`wake` a lane when its queue has grown; what was left by an earlier process is found at the start.

    `me`: the name of this process among those that deliver.
    """

    def __init__(
        self,
        directory: Directory,
        stores: Stores,
        deliver: Deliver,
        sweep: Sweep,
        registry: Registry,
        at_once: int,
        me: str,
    ) -> None:
        self._directory = directory
        self._integrations = stores.integrations
        self._queues = stores.queues
        self._members = stores.members
        self._me = me
        self._alive: Collection[str] = ()
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
            self._news[lane].is_filled = True
            self._news[lane].grown.set()

    def waiting_for(self) -> str:
        """Empty once the integrations are known."""
        return "" if self.loaded.is_set() else "the integrations are being read"

    async def _keep_refreshed(self) -> None:
        while True:
            self._alive = await self._members.alive(self._me)
            await self._hear_who_is_wanted()
            await self._refresh()
            self.loaded.set()
            await asyncio.sleep(_REFRESH_S)

    async def _hear_who_is_wanted(self) -> None:
        for lane in await self._queues.wanted(self._me):
            if (news := self._news.get(lane)) is not None:
                news.is_wanted = True
                news.changed.set()
                news.grown.set()

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
            try:
                lane = await self._turn(integration, identifier, lane, news)
            except LaneLost as lost:
                logger.info("lane_lost", reason=lost.message)
                lane = None

    async def _turn(self, integration: Integration, identifier: str, lane: Lane | None, news: _News) -> Lane | None:
        """One round of a lane; the lane as it is then, None while it is not ours."""
        if lane is None:
            return await self._claimed(integration, identifier, news)
        if news.is_wanted:
            await self._release(lane, news)
            return None
        if not integration.active:
            lane = await self._deliver.expire(lane)
            await _heard(news.changed, _EXPIRE_S)
            return lane
        await self._gather(integration, lane, news)
        return await self._step(integration, lane, news)

    async def _claimed(self, integration: Integration, identifier: str, news: _News) -> Lane | None:
        kept = await self._queues.lane(integration, identifier.removeprefix(f"{integration.id}."))
        lane = await self._queues.claim(kept, self._me, self._alive)
        if lane is None:
            if news.is_filled and not kept.wanted:
                await self._queues.want(kept)
            await (_heard(news.changed, _REFRESH_S) if news.is_filled else _heard(news.grown, _SWEEP_S))
            return None
        news.is_wanted = False
        await _heard(news.changed, self._deliver.pause_of(lane))
        return lane

    async def _release(self, lane: Lane, news: _News) -> None:
        await self._queues.release(lane)
        news.is_wanted = news.is_filled = False
        # Whoever wants it looks every second, and is to be first.
        await _heard(news.changed, 2 * _REFRESH_S)

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
