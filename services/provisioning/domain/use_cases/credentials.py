"""Issuing `zdevice.json` documents."""

import asyncio
from typing import Any

from services.provisioning.domain.credentials import DeviceKey, Endpoint, KeyType, Mode, NewKey, document
from services.provisioning.domain.ports import Brokers, Devices, Keymaker, Keys
from services.provisioning.domain.use_cases.again import again
from services.provisioning.domain.use_cases.tell import Tell
from shared.clock import Clock, rfc3339_us
from shared.errors import NotFound, Refused
from shared.ids import Ids


class Endpoints:
    """Where devices connect; without a plain port there is no insecure endpoint."""

    def __init__(self, host: str, secure_port: int, plain_port: int | None) -> None:
        self._host = host
        self._secure_port = secure_port
        self._plain_port = plain_port

    def secure(self) -> Endpoint:
        """TLS."""
        return Endpoint(self._host, self._secure_port, "secure")

    def insecure(self) -> Endpoint:
        """Raise `Refused` when the installation has none."""
        if self._plain_port is None:
            raise Refused(
                "insecure: this installation takes no connections without TLS (ZDM_MQTT_PLAIN_PORT is off)",
                field="endpoint_mode",
            )
        return Endpoint(self._host, self._plain_port, "insecure")


class IssueCredential:
    """A new key for a device, and the document that the device needs to use it."""

    def __init__(
        self,
        devices: Devices,
        keys: Keys,
        keymaker: Keymaker,
        tell: Tell,
        brokers: Brokers,
        authority: str,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._devices = devices
        self._keys = keys
        self._keymaker = keymaker
        self._tell = tell
        self._brokers = brokers
        self._authority = authority
        self._clock = clock
        self._ids = ids

    async def __call__(
        self, device_id: str, mode: Mode, key_type: KeyType, endpoint: Endpoint, *, revoke_previous: bool
    ) -> dict[str, Any]:
        """`zdevice.json`, whose secret is kept nowhere else in this form. Raise `NotFound`, `Refused`, `Conflict`."""
        if mode is Mode.CLOUD_TOKEN and key_type is not KeyType.SYM:
            raise Refused("asym: a cloud token is made with a symmetric key", field="key_type")
        number = await self._devices.next_key(device_id)
        if number is None:
            raise NotFound.of("device", device_id)
        made = await self._made(key_type)
        key = self._key(device_id, number, mode, made)
        await self._keys.add(key)
        revoked = await again(lambda: self._let_count(device_id, number, alone=revoke_previous))
        await self._tell(devices=[device_id])
        await self._keys.remove(device_id, revoked)
        await self._brokers.caught_up()
        secret = self._keymaker.cloud_token(key) if mode is Mode.CLOUD_TOKEN else made.given
        return document(key, secret, endpoint, self._authority)

    async def _made(self, key_type: KeyType) -> NewKey:
        if key_type is KeyType.SYM:
            return self._keymaker.symmetric()
        return await asyncio.to_thread(self._keymaker.asymmetric)

    def _key(self, device_id: str, number: int, mode: Mode, made: NewKey) -> DeviceKey:
        return DeviceKey(
            device_id=device_id,
            number=number,
            algorithm=made.algorithm,
            key_base64=made.kept_base64,
            credential_id=self._ids.new("crd-"),
            mode=mode,
            # Nine digits, as the original's documents have them.
            created_at=rfc3339_us(self._clock.now()).replace("Z", "000Z"),
        )

    async def _let_count(self, device_id: str, number: int, *, alone: bool) -> set[int]:
        """The numbers that count no longer."""
        device = await self._devices.get(device_id)
        if device is None or device.deleted:
            raise NotFound.of("device", device_id)
        changed = device.with_key(number, alone=alone)
        await self._devices.save(changed)
        return set(device.keys) - set(changed.keys)
