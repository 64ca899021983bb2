"""Data points in the document store.

A point is one document under the id that the broker gave it, so a repeat is skipped. Its payload is text and comes
back byte for byte.

Three indexes, each giving its points in the order in which they are asked for: of a workspace, of a tag in it, of a
device. Several devices or tags are several readings, merged; fleets, and the tags of a device, are filtered on the way.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from operator import itemgetter
from typing import Any

import orjson

from services.storage.domain.points import PointsQuery
from shared.clock import rfc3339_ms
from shared.documents import Between, Collection, Document, Documents, In, Index, Schema, Where, every
from shared.messages.devices import DataReceived

_IN_ORDER = ("timestamp_device", "id")
_POINTS = Schema(
    "storage_points",
    (
        Index(("workspace_id", *_IN_ORDER)),
        Index(("workspace_id", "tag", *_IN_ORDER)),
        Index(("device_id", *_IN_ORDER)),
    ),
    expires_at="expire_at",
)
_TAGS = Schema("storage_tags", (Index(("workspace_id", "tag")), Index(("device_id", "tag"))), expires_at="expire_at")

_DAY_MS = 24 * 3600 * 1000
_TAGS_REMEMBERED = 200_000
# Both bounds are always given: then the index alone answers which points they are.
_EVER = (-(2**62), 2**62)
# A step takes so many points; fewer when the last ones were big. The first one has to guess.
_FIRST_STEP = 4
_STEP = 250
_STEP_BYTES = 256 * 1024
_STEPS_AT_ONCE = 2

_place = itemgetter(*_IN_ORDER)


class PointsStore:
    """See `Points`."""

    def __init__(self, points: Collection, tags: Collection, retention_days: int) -> None:
        self._points = points
        self._tags = tags
        self._retention_ms = retention_days * _DAY_MS
        # A store may open a connection, with a cache, for each reading that is under way; the others wait their turn.
        self._turn = asyncio.Semaphore(_STEPS_AT_ONCE)
        # Tags that are known to be kept, and until when, so that a point of a known tag costs no write.
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def add(self, points: Sequence[DataReceived]) -> int:
        """See the port."""
        await self._remember_tags(points)
        return await self._points.insert_many([self._document(point) for point in points])

    def _document(self, point: DataReceived) -> Document:
        return {
            "id": point.id,
            "workspace_id": point.workspace_id,
            "fleet_id": point.fleet_id,
            "device_id": point.device_id,
            "tag": point.tag,
            "timestamp_device": point.timestamp_device,
            "timestamp_in": point.timestamp_in,
            "payload": point.payload,
            "expire_at": point.timestamp_in + self._retention_ms,
        }

    async def _remember_tags(self, points: Sequence[DataReceived]) -> None:
        new: dict[tuple[str, str], Document] = {}
        for point in points:
            key, expires_at = (point.device_id, point.tag), point.timestamp_in + self._retention_ms
            if self._known.get(key, 0) < expires_at:
                new[key] = {
                    "id": f"{point.device_id}/{point.tag}",
                    "workspace_id": point.workspace_id,
                    "device_id": point.device_id,
                    "tag": point.tag,
                    # Longer than its last point, so that it need not be written again for a day.
                    "expire_at": expires_at + _DAY_MS,
                }
        if not new:
            return
        await self._tags.put_many(list(new.values()))
        self._known |= {key: document["expire_at"] for key, document in new.items()}
        while len(self._known) > _TAGS_REMEMBERED:
            self._known.popitem(last=False)

    async def find(self, query: PointsQuery) -> AsyncIterator[bytes]:
        """See the port."""
        if query.size == 0:
            return
        first, conditions = query.page * query.size, _conditions(query)
        if len(conditions) == 1:
            found, first = self._reading(conditions[0], query, skip=first), 0
        else:
            found = _merged([self._reading(where, query) for where in conditions], oldest_first=query.oldest_first)
        number = 0
        async for document in found:
            if number >= first:
                yield _rendered(document)
            number += 1
            if number == first + query.size:
                return

    async def _reading(self, where: Where, query: PointsQuery, skip: int = 0) -> AsyncIterator[Document]:
        """What meets `where`, in order and in short steps: a client that is slow to take it holds nothing open."""
        order = _IN_ORDER if query.oldest_first else tuple(f"-{field}" for field in _IN_ORDER)
        start, end = (_EVER[0] if query.start is None else query.start), (_EVER[1] if query.end is None else query.end)
        # A step begins with the time at which the last one ended: `again` points of that time are read once more.
        last: tuple[int, str] | None = None
        step, again = _FIRST_STEP, 0
        while True:
            limit = min(step, query.size) + again
            bounded = {**where, "timestamp_device": Between(start, end)}
            async with self._turn:
                found = [one async for one in self._points.find(bounded, order=order, limit=limit, skip=skip)]
            for document in found:
                if last is None or _follows(document, last, oldest_first=query.oldest_first):
                    yield document
            if len(found) < limit:
                return
            skip, last = 0, _place(found[-1])
            again = sum(document["timestamp_device"] == last[0] for document in found)
            step = _next_step(found)
            start, end = (last[0], end) if query.oldest_first else (start, last[0] + 1)

    async def tags(self, workspace_id: str, device_id: str | None) -> Sequence[str]:
        """See the port."""
        where: dict[str, Any] = {"workspace_id": workspace_id} if device_id is None else {"device_id": device_id}
        tags: list[str] = []
        # Each step leaps to the next tag: most of a workspace's devices send the same ones.
        while found := await every(self._tags, where, ["tag"], _STEP):
            tags += dict.fromkeys(document["tag"] for document in found)
            where["tag"] = Between(at_least=tags[-1] + "\0")
        return tags

    async def forget(self, owner_id: str) -> int:
        """See the port."""
        points = 0
        for field in ("device_id", "workspace_id"):
            points += await self._points.delete_many({field: owner_id})
            await self._tags.delete_many({field: owner_id})
        return points


def _conditions(query: PointsQuery) -> list[Where]:
    """One for each reading; none of them matches what another does."""
    where: dict[str, Any] = {"workspace_id": query.workspace_id}
    if query.fleets:
        where["fleet_id"] = In(query.fleets)
    if query.devices:
        if query.tags:
            where["tag"] = In(query.tags)
        return [{**where, "device_id": device} for device in dict.fromkeys(query.devices)]
    if query.tags:
        return [{**where, "tag": tag} for tag in dict.fromkeys(query.tags)]
    return [where]


def _next_step(found: Sequence[Document]) -> int:
    size = sum(len(document["payload"]) for document in found)
    return max(1, min(_STEP, _STEP_BYTES * len(found) // max(size, 1)))


def _follows(document: Document, last: tuple[int, str], *, oldest_first: bool) -> bool:
    return bool(_place(document) > last) if oldest_first else bool(_place(document) < last)


async def _merged(readings: Sequence[AsyncIterator[Document]], *, oldest_first: bool) -> AsyncIterator[Document]:
    heads = [(head, reading) for reading in readings if (head := await anext(reading, None)) is not None]
    choose = min if oldest_first else max
    while heads:
        chosen = choose(heads, key=lambda head: _place(head[0]))
        document, reading = chosen
        yield document
        heads.remove(chosen)
        if (head := await anext(reading, None)) is not None:
            heads.append((head, reading))


def _rendered(document: Document) -> bytes:
    return orjson.dumps(
        {
            "timestamp_device": rfc3339_ms(document["timestamp_device"]),
            "timestamp_in": rfc3339_ms(document["timestamp_in"]),
            "fleet_id": document["fleet_id"],
            "device_id": document["device_id"],
            "tag": document["tag"],
            "payload": orjson.Fragment(document["payload"]),
        }
    )


async def open_store(documents: Documents, retention_days: int) -> PointsStore:
    """Open the collections, making them when missing."""
    return PointsStore(await documents.collection(_POINTS), await documents.collection(_TAGS), retention_days)
