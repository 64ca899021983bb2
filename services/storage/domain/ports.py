"""What storage needs of its store."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from services.storage.domain.points import PointsQuery
from shared.messages.devices import DataReceived


class Points(Protocol):
    """Data points and the tags under which they came."""

    async def add(self, points: Sequence[DataReceived]) -> int:
        """Keep those that are not there yet; how many were new."""
        ...

    def find(self, query: PointsQuery) -> AsyncIterator[bytes]:
        """Matching points, each as the JSON object that REST shows, read as they are asked for."""
        ...

    async def tags(self, workspace_id: str, device_id: str | None) -> Sequence[str]:
        """All tags of a workspace, or of one device, in order."""
        ...

    async def forget(self, owner_id: str) -> int:
        """Drop all of a device or workspace; how many points there were. Safe to repeat."""
        ...
