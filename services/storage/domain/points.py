"""Questions about stored data points (spec: rest-v3 9)."""

from dataclasses import dataclass

SIZE_LIMIT = 175_000


@dataclass(frozen=True)
class PointsQuery:
    """Which points: `start` <= timestamp_device < `end` (ms since 1970); empty filters match all; `page` of `size`."""

    workspace_id: str
    start: int | None = None
    end: int | None = None
    tags: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    fleets: tuple[str, ...] = ()
    page: int = 0
    size: int = 100
    oldest_first: bool = False
