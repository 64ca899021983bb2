"""Integrations, their queues and their error logs in the document store.

A chunk is two documents of one id: what is known of it, read often and small, and its points, read once.
"""

from collections.abc import Collection as Several
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from services.integrations.domain.integrations import Integration
from services.integrations.domain.ports import Failure
from services.integrations.domain.queue import Batch, Chunk, Lane, LaneLost, lane_id
from shared.clock import Clock
from shared.documents import Between, Collection, Document, Documents, Index, Schema, Where, every

_INTEGRATIONS = Schema("integrations_integrations", (Index(("workspace_id",)),))
_LANES = Schema("integrations_lanes", (Index(("integration_id",)), Index(("owner", "wanted"))))
_MEMBERS = Schema("integrations_members", expires_at="alive_until")
_CHUNKS = Schema("integrations_chunks", (Index(("lane", "last")), Index(("integration_id",))))
_POINTS = Schema("integrations_points", (Index(("lane", "last")), Index(("integration_id",))))
_FAILURES = Schema("integrations_failures", (Index(("integration_id", "id")),))

_FAILURES_KEPT = 1000
# So long after it was last heard of, a process is taken for dead.
_ALIVE_MS = 10_000
# Member of an integration's document once it is removed: when, in ms since 1970.
_REMOVED = "removed_at"
_THERE: Where = {_REMOVED: None}


class IntegrationsStore:
    """See `Integrations`."""

    def __init__(self, integrations: Collection, parts: Sequence[Collection]) -> None:
        self._integrations = integrations
        self._parts = parts

    async def add(self, integration: Integration) -> None:
        """See the port."""
        await self._integrations.insert(_document(integration))

    async def get(self, workspace_id: str, identifier: str) -> Integration | None:
        """See the port."""
        found = await every(self._integrations, {**_THERE, "id": identifier, "workspace_id": workspace_id})
        return _integration(found[0]) if found else None

    async def of_workspace(self, workspace_id: str) -> Sequence[Integration]:
        """See the port."""
        where: Where = {**_THERE, "workspace_id": workspace_id}
        return [_integration(found) for found in await every(self._integrations, where, ["id"])]

    async def all(self) -> Sequence[Integration]:
        """See the port."""
        return [_integration(found) for found in await every(self._integrations, _THERE, ["id"])]

    async def change(self, workspace_id: str, identifier: str, changes: dict[str, Any]) -> Integration | None:
        """See the port."""
        document = await self._integrations.change(identifier, changes, where={**_THERE, "workspace_id": workspace_id})
        return None if document is None else _integration(document)

    async def remove(self, identifier: str, at: int) -> bool:
        """See the port."""
        return await self._integrations.change(identifier, {_REMOVED: at}, where=_THERE) is not None

    async def removed(self, before: int) -> Sequence[str]:
        """See the port."""
        where: Where = {_REMOVED: Between(None, before)}
        return [found["id"] for found in await every(self._integrations, where)]

    async def purge(self, identifier: str) -> None:
        """See the port."""
        for part in self._parts:
            await part.delete_many({"integration_id": identifier})
        await self._integrations.delete(identifier)


def _document(integration: Integration) -> Document:
    return asdict(integration)


def _integration(document: Document) -> Integration:
    return Integration(**{**document, "tags": tuple(document["tags"]), "fleets": tuple(document["fleets"])})


class QueuesStore:
    """See `Queues`."""

    def __init__(self, lanes: Collection, chunks: Collection, points: Collection) -> None:
        self._lanes = lanes
        self._chunks = chunks
        self._points = points

    async def lane(self, integration: Integration, source: str) -> Lane:
        """See the port."""
        identifier = lane_id(integration.id, source)
        document = await self._lanes.get(identifier)
        if document is not None:
            return _lane(document)
        since = integration.since.get(source, -1)
        lane = Lane(identifier, integration.id, integration.workspace_id, source, since)
        await self._lanes.insert_many([asdict(lane)])
        return lane

    async def lanes(self) -> Sequence[Lane]:
        """See the port."""
        return [_lane(found) for found in await every(self._lanes)]

    async def lanes_of(self, integration_id: str) -> Sequence[Lane]:
        """See the port."""
        return [_lane(found) for found in await every(self._lanes, {"integration_id": integration_id}, ["id"])]

    async def newest(self, lane: str) -> Chunk | None:
        """See the port."""
        found = await every(self._chunks, {"lane": lane}, ["-last"], limit=1)
        return _chunk(found[0]) if found else None

    async def enqueue(self, chunks: Sequence[Chunk]) -> None:
        """See the port."""
        points = [
            {
                "id": chunk.id,
                "lane": chunk.lane,
                "integration_id": chunk.integration_id,
                "last": chunk.last,
                "points": chunk.points,
            }
            for chunk in chunks
        ]
        # The points first: a chunk that can be seen can be sent.
        await self._points.insert_many(points)
        await self._chunks.insert_many([asdict(chunk) | {"points": ()} for chunk in chunks])

    async def waiting(self, lane: str, after: int, limit: int) -> Sequence[Chunk]:
        """See the port."""
        where: Where = {"lane": lane, "last": Between(after + 1, None)}
        return [_chunk(found) for found in await every(self._chunks, where, ["last"], limit=limit)]

    async def points(self, batch: Batch) -> Sequence[str]:
        """See the port."""
        held = await self._points.get_many(batch.chunks)
        if len(held) < len(batch.chunks):
            raise LaneLost(f"batch {batch.id} is done with")
        return [point for chunk in batch.chunks for point in held[chunk]["points"]]

    async def claim(self, lane: Lane, owner: str, alive: Several[str]) -> Lane | None:
        """See the port."""
        if lane.owner not in ("", owner) and lane.owner in alive:
            return None
        claimed = {"owner": owner, "wanted": False}
        document = await self._lanes.change(lane.id, claimed, where={"owner": lane.owner})
        if document is None and not lane.owner:
            # Kept before lanes had owners.
            document = await self._lanes.change(lane.id, claimed, where={"owner": None})
        return None if document is None else _lane(document)

    async def want(self, lane: Lane) -> None:
        """See the port."""
        await self._lanes.change(lane.id, {"wanted": True})

    async def wanted(self, owner: str) -> Sequence[str]:
        """See the port."""
        return [found["id"] for found in await every(self._lanes, {"owner": owner, "wanted": True})]

    async def release(self, lane: Lane) -> None:
        """See the port."""
        await self._lanes.change(lane.id, {"owner": "", "wanted": False}, where={"owner": lane.owner})

    async def progress(self, lane: Lane) -> None:
        """See the port."""
        # Whether it is wanted, others say.
        kept = {name: value for name, value in asdict(lane).items() if name not in ("id", "wanted")}
        if await self._lanes.change(lane.id, kept, where={"owner": lane.owner}) is None:
            raise LaneLost(f"{lane.id} is not {lane.owner}'s any more")

    async def clean(self, lane: Lane) -> None:
        """See the port."""
        done: Where = {"lane": lane.id, "last": Between(None, lane.done + 1)}
        await self._chunks.delete_many(done)
        await self._points.delete_many(done)


def _lane(document: Document) -> Lane:
    batch = document["batch"]
    if batch is not None:
        ranges = tuple((start, stop) for start, stop in batch["ranges"])
        batch = Batch(**{**batch, "chunks": tuple(batch["chunks"]), "ranges": ranges})
    return Lane(**{**document, "batch": batch})


def _chunk(document: Document) -> Chunk:
    return Chunk(**{**document, "points": ()})


class MembersStore:
    """See `Members`."""

    def __init__(self, members: Collection, clock: Clock) -> None:
        self._members = members
        self._clock = clock

    async def alive(self, member: str) -> Several[str]:
        """See the port."""
        now = self._clock.ms()
        await self._members.put_many([{"id": member, "alive_until": now + _ALIVE_MS}])
        return {found["id"] for found in await every(self._members, {"alive_until": Between(now, None)})}

    async def leave(self, member: str) -> None:
        """See the port."""
        await self._members.delete(member)


class FailuresStore:
    """See `Failures`."""

    def __init__(self, failures: Collection) -> None:
        self._failures = failures

    async def add(self, failure: Failure) -> None:
        """See the port."""
        await self._failures.put_many([asdict(failure)])
        surplus = await self._failures.count({"integration_id": failure.integration_id}) - _FAILURES_KEPT
        if surplus > 0:
            await self._trim(failure.integration_id, surplus)

    async def _trim(self, integration_id: str, surplus: int) -> None:
        """A parked point is the only copy there is outside storage: it goes only when all else has gone."""
        oldest = await every(self._failures, {"integration_id": integration_id}, ["id"])
        oldest.sort(key=lambda found: found["kind"] == "parked")
        for found in oldest[:surplus]:
            await self._failures.delete(found["id"])

    async def of(self, integration_id: str, limit: int) -> Sequence[Failure]:
        """See the port."""
        found = await every(self._failures, {"integration_id": integration_id}, ["-id"], limit=limit)
        return [Failure(**document) for document in found]


class Store:
    """All that integrations keeps."""

    def __init__(
        self, integrations: IntegrationsStore, queues: QueuesStore, failures: FailuresStore, members: MembersStore
    ) -> None:
        self.integrations = integrations
        self.queues = queues
        self.failures = failures
        self.members = members


async def open_store(documents: Documents, clock: Clock) -> Store:
    """Open the collections, making them when missing."""
    lanes, chunks = await documents.collection(_LANES), await documents.collection(_CHUNKS)
    points, failures = await documents.collection(_POINTS), await documents.collection(_FAILURES)
    integrations, members = await documents.collection(_INTEGRATIONS), await documents.collection(_MEMBERS)
    return Store(
        IntegrationsStore(integrations, [lanes, chunks, points, failures]),
        QueuesStore(lanes, chunks, points),
        FailuresStore(failures),
        MembersStore(members, clock),
    )
