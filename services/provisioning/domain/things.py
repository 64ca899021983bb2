"""Workspaces, fleets, devices and what devices prove themselves with."""

from dataclasses import dataclass, field, replace
from typing import Literal, Self

from shared.messages.registry import RegistryEntry


@dataclass(frozen=True)
class Workspace:
    """A container for one project. `revision` rises with each change; `told`: everyone has heard of this revision."""

    id: str
    account_id: str
    name: str
    description: str
    created_at: str
    revision: int = 1
    told: bool = False
    deleted: bool = False

    def entry(self) -> RegistryEntry:
        """What everyone may know."""
        return RegistryEntry(
            kind="workspace",
            id=self.id,
            account_id=self.account_id,
            workspace_id=self.id,
            name=self.name,
            revision=self.revision,
        )


@dataclass(frozen=True)
class Fleet:
    """A group of devices inside one workspace."""

    id: str
    account_id: str
    workspace_id: str
    name: str
    description: str
    created_at: str
    revision: int = 1
    told: bool = False
    deleted: bool = False

    def entry(self) -> RegistryEntry:
        """What everyone may know."""
        return RegistryEntry(
            kind="fleet",
            id=self.id,
            account_id=self.account_id,
            workspace_id=self.workspace_id,
            fleet_id=self.id,
            name=self.name,
            revision=self.revision,
        )


@dataclass(frozen=True)
class Device:
    """The record of one physical or emulated device. `next_key`: number of its next key, never given twice."""

    id: str
    account_id: str
    workspace_id: str
    fleet_id: str
    name: str
    created_at: str
    phys_id: str = ""
    enabled: bool = True
    next_key: int = 1
    revision: int = 1
    told: bool = False
    deleted: bool = False

    def entry(self) -> RegistryEntry:
        """What everyone may know."""
        return RegistryEntry(
            kind="device",
            id=self.id,
            account_id=self.account_id,
            workspace_id=self.workspace_id,
            fleet_id=self.fleet_id,
            name=self.name,
            enabled=self.enabled,
            revision=self.revision,
        )


Thing = Workspace | Fleet | Device


@dataclass(frozen=True)
class DeviceKey:
    """A key that signs a device's tokens. `key_base64`: HS256 the raw key, ES256 the public key (DER)."""

    id: str  # <device id>.<number>
    device_id: str
    workspace_id: str
    number: int
    type: Literal["HS256", "ES256"]
    key_base64: str = field(repr=False)
    created_at: str = ""


@dataclass(frozen=True)
class DeviceCertificate:
    """A certificate that our authority gave a device."""

    id: str  # serial number, hex
    device_id: str
    workspace_id: str
    fingerprint: str  # SHA-256 of its DER form, hex
    certificate: str  # PEM
    created_at: str
    expire_at: str
    revoked: bool = False


@dataclass(frozen=True)
class Presence:
    """Whether a device is connected, as far as the records so far tell. Times are ms since 1970."""

    id: str  # device id
    spool: str = ""
    boot: int = 0
    session: int = 0
    connected: bool = False
    last_connected_at: int | None = None
    last_seen_at: int | None = None
    remote_address: str = ""

    def began(self, spool: str, boot: int, session: int, at: int, remote_address: str) -> Self:
        """A session began; hearing of an older one of the same spool changes nothing."""
        if spool == self.spool and session <= self.session:
            return self
        return replace(
            self,
            spool=spool,
            boot=boot,
            session=session,
            connected=True,
            last_connected_at=at,
            last_seen_at=at,
            remote_address=remote_address,
        )

    def ended(self, spool: str, session: int, at: int) -> Self:
        """A session ended; only the present one's end counts, but one that was never heard of is not to begin later."""
        if spool == self.spool and session < self.session:
            return self
        if spool == self.spool and session == self.session and not self.connected:
            return self
        if (spool, session) != (self.spool, self.session) and self.spool not in ("", spool):
            return self
        return replace(self, spool=spool, session=session, connected=False, last_seen_at=at)

    def gone_with(self, spool: str, boot: int, at: int) -> Self:
        """A broker started: sessions of its older boots are over."""
        if not self.connected or spool != self.spool or self.boot >= boot:
            return self
        return replace(self, connected=False, last_seen_at=at)
