"""Records on what there is: accounts, workspaces, fleets, devices, and what brokers must know of devices.

All in compacted topics: the last record of a key tells all, a record without value says that it is gone.
"""

from typing import Literal

from pydantic import Field

from shared.messages.base import Message


class AccountOpened(Message):
    """An account exists; provisioning gives it a workspace `default` with a fleet `default` if it has none."""

    id: str
    email: str


class RegistryEntry(Message):
    """A workspace, fleet or device. A higher `revision` of the same id replaces a lower one."""

    kind: Literal["workspace", "fleet", "device"]
    id: str
    account_id: str
    workspace_id: str  # of a workspace: its own id
    fleet_id: str = ""  # of a device; of a fleet: its own id
    name: str
    enabled: bool = True
    revision: int


# The key of `RegistryWhole`: no id looks like it.
WHOLE = "whole"


class RegistryWhole(Message):
    """Since the registry topic was made, all that there is has been told: in it, and in the access topic.

    A topic without this record says nothing of what it does not name.
    """

    access: str  # identity of the access topic


class AccessKey(Message):
    """A key that a device's tokens are signed with."""

    id: int
    type: Literal["HS256", "ES256"]
    # HS256: the raw key; ES256: DER SubjectPublicKeyInfo. Base64.
    key_base64: str = Field(repr=False)


class AccessGranted(Message):
    """All that a broker must know to let a device in: never read by any service but the one that tells the broker."""

    device_id: str
    address: str = ""  # name in topics when it is not the device id
    enabled: bool
    keys: tuple[AccessKey, ...] = ()
    certificates: tuple[str, ...] = ()  # SHA-256 fingerprints of the DER form, hex
