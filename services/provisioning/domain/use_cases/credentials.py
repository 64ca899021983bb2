"""What devices prove themselves with: keys in `zdevice.json`, certificates (spec: mqtt-device-protocol 3 and 4)."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.provisioning.domain.ports import Credentials, Things
from services.provisioning.domain.things import Device, DeviceCertificate, DeviceKey
from services.provisioning.domain.use_cases.devices import Devices
from shared.clock import Clock, rfc3339_us
from shared.errors import Conflict, NotFound
from shared.ids import Ids

KeyType = Literal["HS256", "ES256"]

# When the original's cloud tokens end: in 2049 (spec: mqtt-device-protocol 4).
_CLOUD_TOKEN_EXPIRY = 2516239022
_KEY_BYTES = 32
# An access record counts them in one byte.
_LIVE_LIMIT = 200


@dataclass(frozen=True)
class Endpoints:
    """Where devices find the broker, and what they trust there."""

    host: str
    token_port: int
    plain_port: int | None
    authority: str  # PEM

    def of(self, mode: str) -> dict[str, Any]:
        """`endpoint` of `zdevice.json`; raise `Conflict` for a plain one when there is none."""
        if mode == "secure":
            return {"host": self.host, "port": self.token_port, "mode": mode}
        if self.plain_port is None:
            raise Conflict("The port without TLS is switched off on this installation (ZDM_MQTT_PLAIN_PORT)")
        return {"host": self.host, "port": self.plain_port, "mode": mode}


class CertificateAuthority(Protocol):
    """Signs for devices."""

    def sign(self, device_id: str, request: str) -> Any:
        """An `Issued`; raise `Refused` for a bad request."""
        ...


class DeviceKeys:
    """Keys, each given away once in a `zdevice.json`."""

    def __init__(
        self,
        devices: Devices,
        things: Things[Device],
        credentials: Credentials,
        endpoints: Endpoints,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._devices = devices
        self._things = things
        self._credentials = credentials
        self._endpoints = endpoints
        self._clock = clock
        self._ids = ids

    async def issue(
        self, device_id: str, provision: str, endpoint: str, key_type: KeyType, *, revoke_previous: bool
    ) -> dict[str, Any]:
        """The document. `provision`: device_token or cloud_token; `endpoint`: secure or insecure."""
        where = self._endpoints.of(endpoint)
        device = await self._devices.get(device_id)
        if not revoke_previous and len(await self._credentials.keys(device_id)) >= _LIVE_LIMIT:
            raise Conflict(f"The device has {_LIVE_LIMIT} credentials; send revoke_previous to end them")
        number = await self._things.claim(device_id, "next_key")
        if number is None:
            raise NotFound.of("device", device_id)
        kept, given = _new_key(key_type)
        created_at = rfc3339_us(self._clock.now())
        await self._credentials.add_key(
            DeviceKey(
                f"{device_id}.{number}",
                device_id,
                device.workspace_id,
                number,
                key_type,
                base64.b64encode(kept).decode(),
                created_at,
            )
        )
        if revoke_previous:
            await self._credentials.remove_keys(device_id, but=number)
        await self._devices.touch(device_id)
        return {
            "id": self._ids.new("crd-"),
            "devinfo": {
                "device_id": device_id,
                "mode": provision,
                "key_id": number,
                "key_type": "sym" if key_type == "HS256" else "asym",
            },
            "endpoint": where,
            "prvkey": _cloud_token(device_id, number, kept) if provision == "cloud_token" else given,
            "cacert": self._endpoints.authority,
            "created_at": created_at,
        }


def _new_key(key_type: KeyType) -> tuple[bytes, str]:
    """What is kept of a new key, and what its owner gets (`prvkey`)."""
    if key_type == "HS256":
        secret = os.urandom(_KEY_BYTES)
        return secret, base64.b64encode(secret).decode()
    key = ec.generate_private_key(ec.SECP256R1())
    kept = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    # The Python client wants base64 of the PEM text (spec: mqtt-device-protocol 12, M1).
    return kept, base64.b64encode(pem).decode()


def _cloud_token(device_id: str, number: int, secret: bytes) -> str:
    claims = {"sub": device_id, "user": device_id, "key": number, "exp": _CLOUD_TOKEN_EXPIRY}
    return jwt.encode(claims, secret, algorithm="HS256")


class DeviceCertificates:
    """Certificates for mutual TLS."""

    def __init__(
        self, devices: Devices, credentials: Credentials, authority: CertificateAuthority, clock: Clock
    ) -> None:
        self._devices = devices
        self._credentials = credentials
        self._authority = authority
        self._clock = clock

    async def issue(self, device_id: str, request: str) -> Any:
        """An `Issued`, in force at the brokers when this returns; raise `Refused`."""
        device = await self._devices.get(device_id)
        live = [one for one in await self._credentials.certificates(device_id) if not one.revoked]
        if len(live) >= _LIVE_LIMIT:
            raise Conflict(f"The device has {_LIVE_LIMIT} certificates; revoke some")
        issued = self._authority.sign(device_id, request)
        await self._credentials.add_certificate(
            DeviceCertificate(
                issued.serial,
                device_id,
                device.workspace_id,
                issued.fingerprint,
                issued.certificate,
                rfc3339_us(self._clock.now()),
                issued.expire_at,
            )
        )
        await self._devices.touch(device_id)
        return issued

    async def of(self, device_id: str) -> Sequence[DeviceCertificate]:
        """Oldest first, revoked ones included."""
        return await self._credentials.certificates(device_id)

    async def revoke(self, device_id: str, serial: str) -> None:
        """The session that uses it ends. Raise `NotFound`."""
        if not await self._credentials.revoke(device_id, serial.lower()):
            raise NotFound.of("certificate", serial)
        await self._devices.touch(device_id)
