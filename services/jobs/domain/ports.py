"""What the jobs service needs of the outside."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from services.jobs.domain.status import Status


class Statuses(Protocol):
    """Where the devices' statuses are kept. Every method may raise `Unavailable`."""

    async def load(self, device_ids: Sequence[str]) -> dict[str, Status]:
        """Of each of these devices; empty ones of those that have none yet."""
        ...

    async def save(self, statuses: Iterable[Status]) -> set[str]:
        """Keep each, unless somebody else has changed it since it was loaded: the ids of those that were not kept."""
        ...

    async def forget(self, device_ids: Sequence[str]) -> None:
        """Delete those that there are."""
        ...
