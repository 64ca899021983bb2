"""What the rules of integrations need of the world."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from services.integrations.domain.integrations import Integration
from services.integrations.domain.queue import Batch, Chunk, Lane


@dataclass(frozen=True)
class Failure:
    """A line of an integration's error log. `point`: the JSON text of a point that was parked."""

    id: str
    integration_id: str
    workspace_id: str
    at: int  # ms since 1970
    kind: str  # failed, refused, parked, dropped
    message: str
    status: int | None = None
    batch_id: str = ""
    point: str | None = None


class Integrations(Protocol):
    """Integrations."""

    async def add(self, integration: Integration) -> None:
        """Keep it."""
        ...

    async def get(self, workspace_id: str, identifier: str) -> Integration | None:
        """One of this workspace."""
        ...

    async def of_workspace(self, workspace_id: str) -> Sequence[Integration]:
        """Oldest first."""
        ...

    async def all(self) -> Sequence[Integration]:
        """Every one."""
        ...

    async def change(self, workspace_id: str, identifier: str, changes: dict[str, Any]) -> Integration | None:
        """The changed one."""
        ...

    async def remove(self, identifier: str, at: int) -> bool:
        """From now (`at`) on there is none; whether there was one. Its queue and errors stay until `purge`."""
        ...

    async def removed(self, before: int) -> Sequence[str]:
        """Ids of those removed before this time and not purged yet."""
        ...

    async def purge(self, identifier: str) -> None:
        """Forget its queue and errors, then that there was one. Safe to repeat."""
        ...


class Queues(Protocol):
    """Lanes and their chunks."""

    async def lane(self, integration: Integration, source: str) -> Lane:
        """As kept, or a new one, kept from now on, that begins after the integration's creation."""
        ...

    async def lanes(self) -> Sequence[Lane]:
        """Every one."""
        ...

    async def lanes_of(self, integration_id: str) -> Sequence[Lane]:
        """Those of an integration."""
        ...

    async def newest(self, lane: str) -> Chunk | None:
        """The newest chunk without its points."""
        ...

    async def enqueue(self, chunks: Sequence[Chunk]) -> None:
        """Keep them; those that are known are skipped."""
        ...

    async def waiting(self, lane: str, after: int, limit: int) -> Sequence[Chunk]:
        """The oldest chunks beyond offset `after`, without points."""
        ...

    async def points(self, batch: Batch) -> Sequence[str]:
        """All points of a batch; raise `LaneLost` when it is done with already."""
        ...

    async def claim(self, lane: Lane, owner: str, alive: Collection[str]) -> Lane | None:
        """The lane, which `owner` has from now on; None while another has it that is `alive`."""
        ...

    async def want(self, lane: Lane) -> None:
        """Have its owner release it."""
        ...

    async def wanted(self, owner: str) -> Sequence[str]:
        """Lanes of `owner` that another wants."""
        ...

    async def release(self, lane: Lane) -> None:
        """Whoever claims it may have it; nothing if it is lost already."""
        ...

    async def progress(self, lane: Lane) -> None:
        """Keep how far it is; raise `LaneLost` when its owner is another one now."""
        ...

    async def clean(self, lane: Lane) -> None:
        """Forget chunks that are done with."""
        ...


class Members(Protocol):
    """The processes that deliver."""

    async def alive(self, member: str) -> Collection[str]:
        """`member` is alive, for some seconds at least; all that are."""
        ...

    async def leave(self, member: str) -> None:
        """`member` has ended."""
        ...


class Failures(Protocol):
    """Error logs, bounded per integration."""

    async def add(self, failure: Failure) -> None:
        """Keep it; the oldest beyond the bound goes, parked points last."""
        ...

    async def of(self, integration_id: str, limit: int) -> Sequence[Failure]:
        """Newest first."""
        ...


class Sink(Protocol):
    """Where batches go."""

    async def send(self, integration: Integration, message_id: str, content: bytes) -> "Sent":
        """One try, the same `message_id` for each of the same content; raise `AddressRefused` or `CallFailed`."""
        ...


@dataclass(frozen=True)
class Sent:
    """What the receiver answered."""

    status: int
    retry_after_s: float | None
    body: str
