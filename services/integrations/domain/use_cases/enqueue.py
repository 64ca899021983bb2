"""Data points into the queues of the integrations that want them, once each."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.integrations.domain.integrations import Integration
from services.integrations.domain.ports import Queues
from services.integrations.domain.queue import (
    BATCH_BYTES,
    BATCH_POINTS,
    Chunk,
    lane_id,
    newer,
    rendered_point,
)
from services.integrations.domain.use_cases.directory import Directory
from services.integrations.metrics import ENQUEUED, REPEATED
from shared.messages.devices import DataReceived


@dataclass(frozen=True)
class Placed:
    """A data point and where in the log it was."""

    partition: int
    offset: int
    point: DataReceived


@dataclass
class _Head:
    """How far a lane's queue reaches: what comes again up to here is a repeat."""

    offset: int
    seen: dict[str, int]


@dataclass
class _Draft:
    """A chunk being filled."""

    first: int
    last: int
    oldest: int
    size: int = 0
    points: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)

    def full(self, size: int) -> bool:
        return len(self.points) >= BATCH_POINTS or self.size + size > BATCH_BYTES


class Enqueue:
    """Takes batches of the data topic. Safe to repeat: the queue itself says what it holds."""

    def __init__(self, directory: Directory, queues: Queues) -> None:
        self._directory = directory
        self._queues = queues
        self._heads: dict[str, _Head] = {}

    async def __call__(self, points: Sequence[Placed]) -> set[str]:
        """Durable when this returns; the lanes that have something new."""
        wanted: dict[tuple[str, int], list[Placed]] = {}
        for placed in points:
            for integration in self._directory.of_workspace(placed.point.workspace_id):
                if integration.wants(placed.point):
                    wanted.setdefault((integration.id, placed.partition), []).append(placed)
        chunks: list[Chunk] = []
        for (identifier, partition), of_lane in wanted.items():
            known = self._directory.get(identifier)
            if known is not None:
                chunks += await self._chunks(known, partition, of_lane)
        if chunks:
            await self._queues.enqueue(chunks)
            self._reached(chunks)
        return {chunk.lane for chunk in chunks}

    def forget(self, integration_id: str) -> None:
        """The integration is gone."""
        for lane in [lane for lane in self._heads if lane.startswith(f"{integration_id}.")]:
            del self._heads[lane]

    async def _chunks(self, integration: Integration, partition: int, points: Sequence[Placed]) -> list[Chunk]:
        lane = lane_id(integration.id, partition)
        head = await self._head(integration, partition)
        seen, drafts = dict(head.seen), list[_Draft]()
        for placed in points:
            fresh = newer(seen, placed.point.id) if placed.offset > head.offset else None
            if fresh is None:
                REPEATED.inc()
                continue
            seen[fresh[0]] = fresh[1]
            _add(drafts, placed, seen)
        return [_chunk(lane, integration, draft) for draft in drafts]

    async def _head(self, integration: Integration, partition: int) -> _Head:
        lane = lane_id(integration.id, partition)
        if (head := self._heads.get(lane)) is None:
            kept = await self._queues.lane(integration, partition)
            newest = await self._queues.newest(lane)
            offset = kept.done if newest is None else max(kept.done, newest.last)
            seen = dict(kept.seen) | ({} if newest is None else newest.seen)
            head = self._heads[lane] = _Head(offset, seen)
        return head

    def _reached(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            ENQUEUED.inc(chunk.count)
            head = self._heads[chunk.lane]
            head.offset = chunk.last
            head.seen.update(chunk.seen)


def _add(drafts: list[_Draft], placed: Placed, seen: dict[str, int]) -> None:
    text = rendered_point(placed.point)
    if not drafts or drafts[-1].full(len(text)):
        drafts.append(_Draft(placed.offset, placed.offset, placed.point.timestamp_in))
    draft = drafts[-1]
    draft.points.append(text)
    draft.size += len(text)
    draft.last = placed.offset
    draft.seen = seen


def _chunk(lane: str, integration: Integration, draft: _Draft) -> Chunk:
    return Chunk(
        id=f"{lane}:{draft.first:016d}",
        lane=lane,
        integration_id=integration.id,
        workspace_id=integration.workspace_id,
        first=draft.first,
        last=draft.last,
        count=len(draft.points),
        size=draft.size,
        oldest=draft.oldest,
        seen=draft.seen,
        points=tuple(draft.points),
    )
