"""Data points into the queues of the integrations that want them, once each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from services.integrations.domain.integrations import Integration
from services.integrations.domain.ports import Queues
from services.integrations.domain.queue import Chunk, fits, integration_of, lane_id, rendered_point, size_of
from services.integrations.domain.use_cases.directory import Directory
from services.integrations.metrics import ENQUEUED, REPEATED
from shared.messages.devices import DataReceived


@dataclass(frozen=True)
class Placed:
    """A data point, where in the log it was, and which record of which spool it is."""

    source: str
    offset: int
    spool: str
    number: int
    point: DataReceived

    @cached_property
    def text(self) -> str:
        """As it is sent; made once for all integrations."""
        return rendered_point(self.point)


@dataclass
class _Head:
    """How far a lane's queue reaches: what comes again up to here is a repeat."""

    offset: int
    seen: dict[str, int]
    total: int


@dataclass
class _Draft:
    """A chunk being filled."""

    first: int
    oldest: int
    last: int = 0
    size: int = 0
    points: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)


class Enqueue:
    """Takes batches of the data topic. Safe to repeat: the queue itself says what it holds."""

    def __init__(self, directory: Directory, queues: Queues) -> None:
        self._directory = directory
        self._queues = queues
        self._heads: dict[str, _Head] = {}

    async def __call__(self, points: Sequence[Placed]) -> set[str]:
        """Durable when this returns; the lanes that have something new."""
        wanted: dict[tuple[str, str], list[Placed]] = {}
        for placed in points:
            for integration in self._directory.of_workspace(placed.point.workspace_id):
                if integration.wants(placed.point):
                    wanted.setdefault((integration.id, placed.source), []).append(placed)
        chunks: list[Chunk] = []
        for (identifier, source), of_lane in wanted.items():
            known = self._directory.get(identifier)
            if known is not None:
                chunks += await self._chunks(known, source, of_lane)
        if chunks:
            await self._keep(chunks)
        return {chunk.lane for chunk in chunks}

    def forget(self, integration_id: str) -> None:
        """The integration is gone."""
        for lane in [lane for lane in self._heads if integration_of(lane) == integration_id]:
            del self._heads[lane]

    async def _chunks(self, integration: Integration, source: str, points: Sequence[Placed]) -> list[Chunk]:
        head = await self._head(integration, source)
        seen, drafts, repeated = dict(head.seen), list[_Draft](), 0
        for placed in points:
            if placed.offset <= head.offset or placed.number <= seen.get(placed.spool, -1):
                repeated += 1
                continue
            _add(drafts, placed, seen)
            seen[placed.spool] = placed.number
        REPEATED.inc(repeated)
        if drafts:
            drafts[-1].seen = seen
        return _as_chunks(integration, source, drafts, head.total)

    async def _head(self, integration: Integration, source: str) -> _Head:
        lane = lane_id(integration.id, source)
        if (head := self._heads.get(lane)) is None:
            kept = await self._queues.lane(integration, source)
            newest = await self._queues.newest(lane)
            if newest is None:
                head = _Head(kept.done, dict(kept.seen), kept.total)
            else:
                head = _Head(max(kept.done, newest.last), {**kept.seen, **newest.seen}, newest.total)
            self._heads[lane] = head
        return head

    async def _keep(self, chunks: Sequence[Chunk]) -> None:
        try:
            await self._queues.enqueue(chunks)
        except BaseException:
            # Nobody knows which of them were kept: ask the store when they come again.
            for chunk in chunks:
                self._heads.pop(chunk.lane, None)
            raise
        for chunk in chunks:
            ENQUEUED.inc(chunk.count)
            self._heads[chunk.lane] = _Head(chunk.last, chunk.seen, chunk.total)
            if self._directory.get(chunk.integration_id) is None:
                self.forget(chunk.integration_id)


def _add(drafts: list[_Draft], placed: Placed, seen: dict[str, int]) -> None:
    size = size_of(placed.text)
    if drafts and not fits(len(drafts[-1].points) + 1, drafts[-1].size + size):
        # As of its own last point: a crash may keep this chunk and not the next one.
        drafts[-1].seen = dict(seen)
        drafts.append(_Draft(placed.offset, placed.point.timestamp_in))
    if not drafts:
        drafts.append(_Draft(placed.offset, placed.point.timestamp_in))
    draft = drafts[-1]
    draft.points.append(placed.text)
    draft.size += size
    draft.last = placed.offset


def _as_chunks(integration: Integration, source: str, drafts: Sequence[_Draft], total: int) -> list[Chunk]:
    lane, chunks = lane_id(integration.id, source), list[Chunk]()
    for draft in drafts:
        total += len(draft.points)
        chunks.append(
            Chunk(
                # By both ends: what a crash left of a shorter chunk is never taken for a part of this one.
                id=f"{lane}:{draft.first:016d}-{draft.last:016d}",
                lane=lane,
                integration_id=integration.id,
                workspace_id=integration.workspace_id,
                first=draft.first,
                last=draft.last,
                count=len(draft.points),
                size=draft.size,
                oldest=draft.oldest,
                seen=draft.seen,
                total=total,
                points=tuple(draft.points),
            )
        )
    return chunks
