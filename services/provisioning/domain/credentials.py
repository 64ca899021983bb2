"""What devices prove themselves with, and the document `zdevice.json` (spec: mqtt-device-protocol 3 and 4)."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple

# 2049: what the original's cloud tokens carry.
CLOUD_TOKEN_EXPIRY = 2516239022


class Mode(StrEnum):
    """Who makes the token: the device from its key, or we, once."""

    DEVICE_TOKEN = "device_token"  # noqa: S105 (a name, no secret)
    CLOUD_TOKEN = "cloud_token"  # noqa: S105


class KeyType(StrEnum):
    """Symmetric (HS256) or asymmetric (ES256); the value is what `devinfo.key_type` says."""

    SYM = "sym"
    ASYM = "asym"


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """A key as it is kept. Symmetric ones are kept in clear: an HMAC cannot be checked otherwise."""

    device_id: str
    number: int
    algorithm: Literal["HS256", "ES256"]
    key_base64: str = field(repr=False)  # HS256: the raw key; ES256: DER SubjectPublicKeyInfo
    credential_id: str
    mode: Mode
    created_at: str


class NewKey(NamedTuple):
    """Key material just made: what is kept, and what only the device gets."""

    algorithm: Literal["HS256", "ES256"]
    kept_base64: str
    given: str  # base64: of the raw key, or of the PEM private key


class Endpoint(NamedTuple):
    """Where a device connects."""

    host: str
    port: int
    mode: Literal["secure", "insecure"]


def document(key: DeviceKey, secret: str, endpoint: Endpoint, authority: str) -> dict[str, Any]:
    """`zdevice.json`; `secret`: its `prvkey`; `authority`: PEM of the certificate that the device must trust."""
    key_type = KeyType.SYM if key.algorithm == "HS256" else KeyType.ASYM
    return {
        "id": key.credential_id,
        "devinfo": {
            "device_id": key.device_id,
            "mode": key.mode.value,
            "key_id": key.number,
            "key_type": key_type.value,
        },
        "endpoint": endpoint._asdict(),
        "prvkey": secret,
        "cacert": authority,
        "created_at": key.created_at,
    }


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate that we issued. Whether it still counts is for its device to say."""

    serial: str  # hex, lower case
    device_id: str
    fingerprint: str  # SHA-256 of the DER form, hex
    pem: str
    created_at: str
    expires_at: int  # ms since 1970


class Issued(NamedTuple):
    """A certificate just signed."""

    serial: str
    fingerprint: str
    pem: str
    chain: str  # PEM of the authority that signed it
    expires_at: int  # ms since 1970
