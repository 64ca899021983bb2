"""What REST takes and answers (spec: rest-v3 2 to 5, 8.3, 8.4)."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from services.provisioning.domain.credentials import KeyType, Mode

DeviceName = Annotated[str, StringConstraints(min_length=1, max_length=32)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Description = Annotated[str, StringConstraints(max_length=1024)]
PhysId = Annotated[str, StringConstraints(max_length=64)]


class _AtLeastOne(BaseModel):
    """A change: members that are absent or null stay as they are."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if all(value is None for value in self.__dict__.values()):
            raise ValueError(f"at least one is needed of {', '.join(type(self).model_fields)}")
        return self


class NamedBody(BaseModel):
    """A new workspace or fleet."""

    name: Name
    description: Description | None = None


class NamedChange(_AtLeastOne):
    """What to change of a workspace or fleet."""

    name: Name | None = None
    description: Description | None = None


class DeviceBody(BaseModel):
    """A new device."""

    name: DeviceName
    fleet_id: str | None = Field(None, description="Default: the default fleet of the workspace")
    phys_id: PhysId | None = None


class DeviceChange(_AtLeastOne):
    """What to change of a device. Without `enabled` it is cut off and refused until it is enabled again."""

    name: DeviceName | None = None
    fleet_id: str | None = None
    enabled: bool | None = None
    phys_id: PhysId | None = None


class CredentialBody(BaseModel):
    """Which credentials to make."""

    provision_mode: Literal["device_token", "cloud_token"] | None = None
    endpoint_mode: Literal["secure", "insecure"] | None = None
    key_type: Literal["sym", "asym", "ES256", "HS256"] | None = Field(
        None, description="`sym` (default) or `asym`: the device's tokens are signed with HS256 or ES256"
    )
    revoke_previous: bool | None = Field(None, description="Earlier keys of the device count no longer")

    @property
    def mode(self) -> Mode:
        """Default: the device makes its tokens."""
        return Mode(self.provision_mode or Mode.DEVICE_TOKEN)

    @property
    def kind(self) -> KeyType:
        """Default: symmetric."""
        return KeyType.ASYM if self.key_type in ("asym", "ES256") else KeyType.SYM


class CertificateBody(BaseModel):
    """A request for a client certificate."""

    csr: str = Field(max_length=16 * 1024, description="PEM of a PKCS #10 request; P-256, P-384 or RSA from 2048 bits")


class WorkspaceView(BaseModel):
    """A workspace."""

    id: str
    name: str
    account_id: str
    description: str
    created_at: str


class WorkspaceAnswer(BaseModel):
    """One workspace."""

    workspace: WorkspaceView


class WorkspacesAnswer(BaseModel):
    """Workspaces, oldest first."""

    workspaces: list[WorkspaceView]


class FleetView(BaseModel):
    """A fleet."""

    id: str
    name: str
    description: str
    account_id: str
    workspace_id: str
    created_at: str


class FleetAnswer(BaseModel):
    """One fleet."""

    fleet: FleetView


class FleetsAnswer(BaseModel):
    """Fleets, oldest first."""

    fleets: list[FleetView]


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
    identities: list[dict[str, Any]] | None = Field(description="null when none was ever attached")
    enabled: bool
    is_connected: bool
    last_connected_at: str = Field(description="0001-01-01T00:00:00.000Z for never")
    last_seen_at: str = Field(description="When it last connected or disconnected; 0001-01-01T00:00:00.000Z for never")
    remote_address: str = Field(description="Where it last connected from")


class DeviceAnswer(BaseModel):
    """One device."""

    device: DeviceView


class DevicesAnswer(BaseModel):
    """Devices, oldest first."""

    devices: list[DeviceView]


class DevInfo(BaseModel):
    """Who the device is."""

    device_id: str
    mode: Literal["device_token", "cloud_token"]
    key_id: int
    key_type: Literal["sym", "asym"]


class EndpointView(BaseModel):
    """Where it connects."""

    host: str
    port: int
    mode: Literal["secure", "insecure"]


class CredentialView(BaseModel):
    """`zdevice.json` (spec: mqtt-device-protocol 3)."""

    id: str
    devinfo: DevInfo
    endpoint: EndpointView
    prvkey: str
    cacert: str
    created_at: str


class CredentialAnswer(BaseModel):
    """A credential, this once with its secret."""

    credential: CredentialView


class IssuedAnswer(BaseModel):
    """A certificate just signed."""

    certificate: str = Field(description="PEM")
    chain: str = Field(description="PEM of the authority that signed it")
    serial: str
    expire_at: str


class CertificateView(BaseModel):
    """A certificate that was issued."""

    serial: str
    fingerprint: str = Field(description="SHA-256 of the DER form, hex")
    certificate: str = Field(description="PEM")
    revoked: bool
    created_at: str
    expire_at: str


class CertificatesAnswer(BaseModel):
    """Certificates of a device, oldest first."""

    certificates: list[CertificateView]
