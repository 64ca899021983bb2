"""Data points in the document store.

A point is one document under the id that the broker gave it, so a repeat is skipped. Its payload is text and comes
back byte for byte. Two indexes serve the range reads: by workspace and time, by device and time; tags and fleets are
filtered on the way, since they are asked for within one workspace or device.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from services.storage.domain.points import PointsQuery
from shared.clock import rfc3339_ms
from shared.documents import Between, Collection, Document, Documents, In, Index, Schema, Where, every
from shared.messages.devices import DataReceived

_POINTS = Schema(
    "storage_points",
    (Index(("workspace_id", "timestamp_device")), Index(("device_id", "timestamp_device"))),
    expires_at="expire_at",
)
_TAGS = Schema("storage_tags", (Index(("workspace_id", "tag")), Index(("device_id",))))

_DAY_MS = 24 * 3600 * 1000
_TAGS_REMEMBERED = 200_000


class PointsStore:
    """See `Points`."""

    def __init__(self, points: Collection, tags: Collection, retention_days: int) -> None:
        self._points = points
        self._tags = tags
        self._retention_ms = retention_days * _DAY_MS
        # Tags that are known to be kept, so that a point of a known tag costs no write.
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

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
        new = {
            (point.device_id, point.tag): point.workspace_id
            for point in points
            if (point.device_id, point.tag) not in self._known
        }
        if not new:
            return
        await self._tags.put_many(
            [
                {"id": f"{device}/{tag}", "workspace_id": workspace, "device_id": device, "tag": tag}
                for (device, tag), workspace in new.items()
            ]
        )
        self._known |= dict.fromkeys(new)
        while len(self._known) > _TAGS_REMEMBERED:
            self._known.popitem(last=False)

    async def find(self, query: PointsQuery) -> AsyncIterator[bytes]:
        """See the port."""
        order = "timestamp_device" if query.oldest_first else "-timestamp_device"
        found = self._points.find(_where(query), order=[order], limit=query.size, skip=query.page * query.size)
        async for document in found:
            yield _rendered(document)

    async def tags(self, workspace_id: str, device_id: str | None) -> Sequence[str]:
        """See the port."""
        where: Where = {"workspace_id": workspace_id} if device_id is None else {"device_id": device_id}
        return sorted({document["tag"] for document in await every(self._tags, where)})


def _where(query: PointsQuery) -> Where:
    where: dict[str, Any] = {"workspace_id": query.workspace_id}
    if query.devices:
        where["device_id"] = query.devices[0] if len(query.devices) == 1 else In(query.devices)
    if query.tags:
        where["tag"] = In(query.tags)
    if query.fleets:
        where["fleet_id"] = In(query.fleets)
    if query.start is not None or query.end is not None:
        where["timestamp_device"] = Between(query.start, query.end)
    return where


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
