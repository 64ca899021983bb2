"""What provisioning's rules need of the outside."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from services.provisioning.domain.credentials import Certificate, DeviceKey, Issued, NewKey
from services.provisioning.domain.presence import Presence
from services.provisioning.domain.things import Device, Fleet, Thing, Workspace
from shared.errors import Conflict

T = TypeVar("T", bound=Thing)


class Moved(Conflict):
    """Somebody else has changed it since it was read."""


class Things(Protocol[T]):
    """Things by id, deleted ones included until they are removed."""

    async def add(self, thing: T) -> None:
        """Raise `Conflict` when the id is taken."""
        ...

    async def get(self, identifier: str) -> T | None:
        """As it is now."""
        ...

    async def get_many(self, identifiers: Sequence[str]) -> dict[str, T]:
        """Those of these that there are."""
        ...

    async def save(self, thing: T) -> None:
        """Keep the next revision; raise `Moved` when it is not the next."""
        ...

    async def mark_told(self, thing: T) -> bool:
        """Note that this revision has been told; false when it is not the present one."""
        ...

    async def untold(self, limit: int) -> Sequence[T]:
        """Some that have not been told of yet."""
        ...

    async def untold_count(self) -> int:
        """How many."""
        ...

    def identifiers(self) -> AsyncIterator[str]:
        """All there are, deleted ones too."""
        ...

    async def remove(self, identifiers: Iterable[str]) -> None:
        """Forget them."""
        ...


class Workspaces(Things[Workspace], Protocol):
    """Workspaces."""

    async def of_account(self, account_id: str) -> Sequence[Workspace]:
        """Live ones, oldest first."""
        ...


class Fleets(Things[Fleet], Protocol):
    """Fleets."""

    async def of_workspace(self, workspace_id: str) -> list[Fleet]:
        """Live ones, oldest first."""
        ...

    async def all_of_workspace(self, workspace_id: str) -> Sequence[Fleet]:
        """Deleted ones too."""
        ...


class Devices(Things[Device], Protocol):
    """Devices."""

    def of_workspace(self, workspace_id: str) -> AsyncIterator[Device]:
        """Live ones, oldest first."""
        ...

    async def some_of_workspace(self, workspace_id: str, limit: int) -> Sequence[Device]:
        """Deleted ones too."""
        ...

    async def in_fleet(self, fleet_id: str) -> bool:
        """Whether a live one is in it."""
        ...

    async def next_key(self, identifier: str) -> int | None:
        """A number that no key of this device ever had; None when there is no such device."""
        ...


class Keys(Protocol):
    """Key material, kept apart from everything else."""

    async def add(self, key: DeviceKey) -> None:
        """Keep it."""
        ...

    async def of_devices(self, devices: Iterable[Device]) -> Mapping[str, Sequence[DeviceKey]]:
        """The keys that count, by device."""
        ...

    async def remove(self, device_id: str, numbers: Iterable[int]) -> None:
        """Forget these."""
        ...

    async def remove_of(self, device_ids: Sequence[str]) -> None:
        """Forget all of these devices."""
        ...


class Certificates(Protocol):
    """Certificates that we issued."""

    async def add(self, certificate: Certificate) -> None:
        """Keep it."""
        ...

    async def get(self, serial: str) -> Certificate | None:
        """By serial number."""
        ...

    async def of_device(self, device_id: str) -> Sequence[Certificate]:
        """Oldest first, revoked ones too."""
        ...

    async def remove_of(self, device_ids: Sequence[str]) -> None:
        """Forget all of these devices."""
        ...


class Presences(Protocol):
    """Presence by device, and the newest boot of each spool."""

    async def get(self, device_id: str) -> Presence | None:
        """None: it was never connected."""
        ...

    async def get_many(self, device_ids: Sequence[str]) -> dict[str, Presence]:
        """Those of these that there are."""
        ...

    async def put(self, presences: Sequence[Presence]) -> None:
        """Keep them."""
        ...

    async def boots(self) -> Mapping[str, int]:
        """The newest boot by spool; at most a second old."""
        ...

    async def put_boots(self, boots: Mapping[str, int]) -> None:
        """Keep them."""
        ...

    async def remove_of(self, device_ids: Sequence[str]) -> None:
        """Forget these devices."""
        ...


class Keymaker(Protocol):
    """Makes key material and tokens."""

    def symmetric(self) -> NewKey:
        """32 random bytes."""
        ...

    def asymmetric(self) -> NewKey:
        """A P-256 pair."""
        ...

    def cloud_token(self, key: DeviceKey) -> str:
        """A token signed with the symmetric `key`."""
        ...


class Authority(Protocol):
    """Signs device certificates."""

    def issue(self, csr: str, device_id: str) -> Issued:
        """For `device_id`, whatever else the request asks for. Raise `Refused` for a request that is no good."""
        ...


class Brokers(Protocol):
    """Those who let devices in."""

    async def caught_up(self) -> None:
        """Return once they act on all that was told before, or soon when they are away or slow."""
        ...
