"""What provisioning's rules need of its stores."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from services.provisioning.domain.things import (
    Device,
    DeviceCertificate,
    DeviceKey,
    Fleet,
    Presence,
    Workspace,
)

T = TypeVar("T", Workspace, Fleet, Device)


class Things(Protocol[T]):
    """Workspaces, fleets or devices. What is marked as deleted is not found."""

    async def add(self, thing: T) -> None:
        """Raise `Conflict` when the id is taken."""
        ...

    async def get(self, identifier: str) -> T | None:
        """By id."""
        ...

    async def of(self, **where: str) -> Sequence[T]:
        """Those whose members are as given, oldest first."""
        ...

    async def change(self, identifier: str, changes: Mapping[str, Any]) -> T | None:
        """Change members, raise the revision, and mark as not told; None when there is no such thing."""
        ...

    async def claim(self, identifier: str, field: str) -> int | None:
        """The value of a counter, which is then one higher; None when there is no such thing."""
        ...

    async def untold(self, limit: int) -> Sequence[T]:
        """Those of which not everyone has heard, deleted ones included."""
        ...

    async def told(self, thing: T) -> None:
        """Everyone has heard of this revision; a deleted thing is then removed."""
        ...


class Credentials(Protocol):
    """Keys and certificates of devices."""

    async def add_key(self, key: DeviceKey) -> None:
        """Raise `Conflict` when the number is taken."""
        ...

    async def keys(self, device_id: str) -> Sequence[DeviceKey]:
        """By number."""
        ...

    async def remove_keys(self, device_id: str, but: int | None = None) -> None:
        """All, or all but one."""
        ...

    async def add_certificate(self, certificate: DeviceCertificate) -> None:
        """Raise `Conflict` when the serial number is taken."""
        ...

    async def certificates(self, device_id: str) -> Sequence[DeviceCertificate]:
        """Oldest first, revoked ones included."""
        ...

    async def revoke(self, device_id: str, serial: str) -> bool:
        """Whether there was such a certificate of this device."""
        ...

    async def remove_certificates(self, device_id: str) -> None:
        """All."""
        ...


class Presences(Protocol):
    """Presence by device, and the newest boot of each spool."""

    async def get(self, device_id: str) -> Presence:
        """A blank one for a device that was never seen."""
        ...

    async def get_many(self, device_ids: Sequence[str]) -> Mapping[str, Presence]:
        """Blank ones included."""
        ...

    async def put_many(self, presences: Sequence[Presence]) -> None:
        """Keep them."""
        ...

    async def connected_at(self, spool: str) -> Sequence[Presence]:
        """Those that count as connected to the broker of this spool."""
        ...

    async def boot(self, spool: str) -> int:
        """The newest boot that was heard of, 0 for none."""
        ...

    async def booted(self, spool: str, boot: int) -> None:
        """Remember the newest boot."""
        ...

    async def remove(self, device_id: str) -> None:
        """Forget a device."""
        ...
