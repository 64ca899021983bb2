"""Workspaces, fleets, devices and credentials as REST shows and takes them (spec: rest-v3 2 to 5, 8.3, 8.4)."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from services.provisioning.domain.things import Device, DeviceCertificate, Fleet, Presence, Workspace
from shared.clock import NEVER, rfc3339_ms
from shared.registry import Registry

_NAME = 64
_DEVICE_NAME = 32
_DESCRIPTION = 1024


class NameBody(BaseModel):
    """A new workspace or fleet."""

    name: str = Field(min_length=1, max_length=_NAME)
    description: str | None = Field(None, max_length=_DESCRIPTION)


class NameChange(BaseModel):
    """What to change of a workspace or fleet."""

    name: str | None = Field(None, min_length=1, max_length=_NAME)
    description: str | None = Field(None, max_length=_DESCRIPTION)


class DeviceBody(BaseModel):
    """A new device."""

    name: str = Field(min_length=1, max_length=_DEVICE_NAME)
    fleet_id: str | None = Field(None, description="The default fleet of the workspace when absent")


class DeviceChange(BaseModel):
    """What to change of a device; what is absent or null stays."""

    name: str | None = Field(None, min_length=1, max_length=_DEVICE_NAME)
    fleet_id: str | None = None
    enabled: bool | None = Field(None, description="false: cut off at once and refused until true again")


class CredentialBody(BaseModel):
    """Which credentials."""

    provision_mode: Literal["device_token", "cloud_token"] = "device_token"
    endpoint_mode: Literal["secure", "insecure"] = "secure"
    key_type: Literal["sym", "asym"] = "sym"
    revoke_previous: bool = Field(False, description="End all older keys of the device")


class CertificateBody(BaseModel):
    """A request to sign."""

    csr: str = Field(max_length=16384, description="Certificate signing request, PEM")


class WorkspaceView(BaseModel):
    """A workspace."""

    id: str
    name: str
    account_id: str
    description: str
    created_at: str

    @classmethod
    def of(cls, one: Workspace) -> "WorkspaceView":
        """As REST shows it."""
        return cls(
            id=one.id,
            name=one.name,
            account_id=one.account_id,
            description=one.description,
            created_at=one.created_at,
        )


class FleetView(BaseModel):
    """A fleet."""

    id: str
    name: str
    description: str
    account_id: str
    workspace_id: str
    created_at: str

    @classmethod
    def of(cls, one: Fleet) -> "FleetView":
        """As REST shows it."""
        return cls(
            id=one.id,
            name=one.name,
            description=one.description,
            account_id=one.account_id,
            workspace_id=one.workspace_id,
            created_at=one.created_at,
        )


class DeviceView(BaseModel):
    """A device."""

    id: str
    name: str
    account_id: str
    fleet_id: str
    fleet_name: str
    workspace_id: str
    workspace_name: str
    created_at: str
    phys_id: str
    identities: list[dict[str, Any]] | None
    enabled: bool
    is_connected: bool
    last_connected_at: str
    last_seen_at: str
    remote_address: str

    @classmethod
    def of(cls, one: Device, presence: Presence, registry: Registry) -> "DeviceView":
        """As REST shows it."""
        fleet, workspace = registry.fleet(one.fleet_id), registry.workspace(one.workspace_id)
        return cls(
            id=one.id,
            name=one.name,
            account_id=one.account_id,
            fleet_id=one.fleet_id,
            fleet_name=fleet.name if fleet else "",
            workspace_id=one.workspace_id,
            workspace_name=workspace.name if workspace else "",
            created_at=one.created_at,
            phys_id=one.phys_id,
            identities=None,
            enabled=one.enabled,
            is_connected=presence.connected,
            last_connected_at=_date(presence.last_connected_at),
            last_seen_at=_date(presence.last_seen_at),
            remote_address=presence.remote_address,
        )


class CertificateView(BaseModel):
    """A device's certificate."""

    serial: str
    fingerprint: str
    certificate: str
    created_at: str
    expire_at: str
    revoked: bool

    @classmethod
    def of(cls, one: DeviceCertificate) -> "CertificateView":
        """As REST shows it."""
        return cls(
            serial=one.id,
            fingerprint=one.fingerprint,
            certificate=one.certificate,
            created_at=one.created_at,
            expire_at=one.expire_at,
            revoked=one.revoked,
        )


class WorkspaceAnswer(BaseModel):
    """One workspace."""

    workspace: WorkspaceView


class WorkspacesAnswer(BaseModel):
    """Workspaces."""

    workspaces: list[WorkspaceView]


class FleetAnswer(BaseModel):
    """One fleet."""

    fleet: FleetView


class FleetsAnswer(BaseModel):
    """Fleets."""

    fleets: list[FleetView]


class DeviceAnswer(BaseModel):
    """One device."""

    device: DeviceView


class DevicesAnswer(BaseModel):
    """Devices."""

    devices: list[DeviceView]


class CredentialAnswer(BaseModel):
    """The content of `zdevice.json`."""

    credential: dict[str, Any]


class NewCertificateAnswer(BaseModel):
    """A certificate that was just signed."""

    certificate: str
    chain: str
    serial: str
    expire_at: str


class CertificatesAnswer(BaseModel):
    """Certificates of a device, revoked ones included."""

    certificates: list[CertificateView]


def _date(ms: int | None) -> str:
    # Always with a fraction and never null: a public consumer cuts the text at the first point (spec: rest-v3 2.3).
    return NEVER if ms is None else rfc3339_ms(ms)
