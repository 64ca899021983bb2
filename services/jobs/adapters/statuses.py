"""Statuses in the document store. Keys are arbitrary text, so entries are lists: `[key, t, value as JSON text]`."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from services.jobs.domain.status import Entries, Entry, Status
from shared.documents import Collection, Document, Documents, In, Schema
from shared.errors import Conflict

_SCHEMA = Schema("jobs_statuses")


class KeptStatuses:
    """See `Statuses`. A status is changed only at the revision at which it was loaded."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    @classmethod
    async def open(cls, documents: Documents) -> "KeptStatuses":
        """Make the collection when missing."""
        return cls(await documents.collection(_SCHEMA))

    async def load(self, device_ids: Sequence[str]) -> dict[str, Status]:
        """See the port."""
        found = await self._collection.get_many(device_ids)
        return {
            device_id: _status(found[device_id]) if device_id in found else Status.empty(device_id)
            for device_id in device_ids
        }

    async def save(self, statuses: Iterable[Status]) -> set[str]:
        """See the port."""
        changed = list(statuses)
        kept = await asyncio.gather(*map(self._save, changed))
        return {status.device_id for status, is_kept in zip(changed, kept, strict=True) if not is_kept}

    async def forget(self, device_ids: Sequence[str]) -> None:
        """See the port."""
        await self._collection.delete_many({"id": In(device_ids)})

    async def _save(self, status: Status) -> bool:
        members = _members(status)
        if status.revision:
            where = {"revision": status.revision}
            return await self._collection.change(status.device_id, members, where=where) is not None
        try:
            await self._collection.insert({"id": status.device_id, **members})
        except Conflict:
            return False
        return True


def _members(status: Status) -> dict[str, Any]:
    return {
        "revision": status.revision + 1,
        "applied": status.applied,
        "current": _listed(status.current),
        "expected": _listed(status.expected),
    }


def _listed(entries: Entries) -> list[list[Any]]:
    return [[key, entry.t, entry.v] for key, entry in entries.items()]


def _status(document: Document) -> Status:
    return Status(
        document["id"],
        _entries(document["current"]),
        _entries(document["expected"]),
        document["applied"],
        document["revision"],
    )


def _entries(listed: list[list[Any]]) -> Entries:
    return {key: Entry(t, v) for key, t, v in listed}
