"""Workspaces, fleets and devices."""

from dataclasses import dataclass, replace
from typing import Any, Self

from shared.errors import Conflict

DEFAULT = "default"

# The broker takes an entry with at most 255 of each (docs/protocols.md 3).
KEYS_LIMIT = 100
CERTIFICATES_LIMIT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """What they have in common. Every change has the next `revision`, and is `told` once everyone can know of it.

    A `deleted` one is kept only until that has been told.
    """

    id: str
    account_id: str
    name: str
    created_at: str
    revision: int = 1
    told: bool = False
    deleted: bool = False

    def changed(self, **changes: Any) -> Self:
        """The next revision."""
        return replace(self, **changes, revision=self.revision + 1, told=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace(Thing):
    """A project: fleets and their devices."""

    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet(Thing):
    """Devices of one workspace that belong together."""

    workspace_id: str
    description: str = ""
    closing_until: int = 0  # ms since 1970: while it is being deleted it takes no device

    def takes_devices(self, now: int) -> bool:
        """Whether a device may be put into it."""
        return not self.deleted and self.closing_until <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Device(Thing):
    """A device, and which of its credentials count: neither keys nor certificates do unless they are named here."""

    workspace_id: str
    fleet_id: str
    phys_id: str = ""
    enabled: bool = True
    last_key: int = 0  # number of the newest key; never used again
    keys: tuple[int, ...] = ()
    certificates: tuple[str, ...] = ()  # SHA-256 fingerprints, hex

    def with_key(self, number: int, *, alone: bool) -> Self:
        """Let key `number` count, `alone` or beside the others. Raise `Conflict` when there are too many."""
        keys = (number,) if alone else (*self.keys, number)
        if len(keys) > KEYS_LIMIT:
            raise Conflict(f"The device has {KEYS_LIMIT} keys already; revoke them with revoke_previous")
        return self.changed(keys=keys)

    def with_certificate(self, fingerprint: str, expired: frozenset[str]) -> Self:
        """Let this one count, and those that have `expired` no longer. Raise `Conflict` when there are too many."""
        kept = tuple(one for one in self.certificates if one not in expired)
        if len(kept) >= CERTIFICATES_LIMIT:
            raise Conflict(f"The device has {CERTIFICATES_LIMIT} certificates already; revoke one first")
        return self.changed(certificates=(*kept, fingerprint))

    def without_certificate(self, fingerprint: str) -> Self:
        """Let it count no longer."""
        return self.changed(certificates=tuple(one for one in self.certificates if one != fingerprint))


def default_fleet_id(workspace_id: str) -> str:
    """The id of the fleet that a workspace begins with: always the same, so that making it can be repeated."""
    return "flt-" + workspace_id.removeprefix("wks-")


def default_among(fleets: list[Fleet]) -> Fleet:
    """The fleet for devices that name none: the one called `default`, else the oldest. `fleets`: oldest first, some."""
    return next((fleet for fleet in fleets if fleet.name == DEFAULT), fleets[0])
