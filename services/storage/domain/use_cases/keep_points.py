"""Data points into the store, as long as there is somebody whom they belong to."""

from collections.abc import Sequence
from typing import NamedTuple

from services.storage.domain.ports import Points
from shared.messages.devices import DataReceived
from shared.registry import Registry


class Kept(NamedTuple):
    """What became of points: `new` were not there before, `forgotten` were of devices that are gone."""

    new: int
    forgotten: int


class KeepPoints:
    """Takes batches of the data topic. Safe to repeat."""

    def __init__(self, points: Points, registry: Registry) -> None:
        self._points = points
        self._registry = registry

    async def __call__(self, received: Sequence[DataReceived]) -> Kept:
        """Durable when this returns."""
        new = await self._points.add(received)
        # Looked at after they are there: who deletes a device meanwhile finds its points, or is seen here.
        await self._registry.settled()
        gone = {point.device_id for point in received if self._registry.device(point.device_id) is None}
        return Kept(new, sum([await self._points.forget(device) for device in gone]))
