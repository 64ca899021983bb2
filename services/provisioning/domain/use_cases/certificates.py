"""Client certificates: issuing, listing, revoking."""

import asyncio
from typing import NamedTuple

from services.provisioning.domain.credentials import Certificate, Issued
from services.provisioning.domain.ports import Authority, Brokers, Certificates, Devices
from services.provisioning.domain.things import Device
from services.provisioning.domain.use_cases.again import again
from services.provisioning.domain.use_cases.tell import Tell
from shared.clock import Clock, rfc3339_us
from shared.errors import NotFound


class Listed(NamedTuple):
    """A certificate and whether it still counts."""

    certificate: Certificate
    revoked: bool


class ManageCertificates:
    """The certificates of a device."""

    def __init__(
        self,
        devices: Devices,
        certificates: Certificates,
        authority: Authority,
        tell: Tell,
        brokers: Brokers,
        clock: Clock,
    ) -> None:
        self._devices = devices
        self._certificates = certificates
        self._authority = authority
        self._tell = tell
        self._brokers = brokers
        self._clock = clock

    async def issue(self, device_id: str, csr: str) -> Issued:
        """Raise `NotFound`; `Refused` for a request that is no good; `Conflict` for too many."""
        await self._device(device_id)
        issued = await asyncio.to_thread(self._authority.issue, csr, device_id)
        await self._certificates.add(self._certificate(device_id, issued))
        await again(lambda: self._let_count(device_id, issued.fingerprint))
        await self._tell(devices=[device_id])
        await self._brokers.caught_up()
        return issued

    async def of_device(self, device_id: str) -> list[Listed]:
        """Oldest first. Raise `NotFound`."""
        counting = set((await self._device(device_id)).certificates)
        found = await self._certificates.of_device(device_id)
        return [Listed(certificate, certificate.fingerprint not in counting) for certificate in found]

    async def revoke(self, device_id: str, serial: str) -> None:
        """A session that it opened is cut. Safe to repeat. Raise `NotFound`."""
        certificate = await self._certificates.get(serial)
        if certificate is None or certificate.device_id != device_id:
            raise NotFound.of("certificate", serial)

        async def attempt() -> None:
            device = await self._device(device_id)
            if certificate.fingerprint in device.certificates:
                await self._devices.save(device.without_certificate(certificate.fingerprint))

        await again(attempt)
        await self._tell(devices=[device_id])
        await self._brokers.caught_up()

    async def _let_count(self, device_id: str, fingerprint: str) -> None:
        now = self._clock.ms()
        device = await self._device(device_id)
        known = await self._certificates.of_device(device_id)
        expired = frozenset(one.fingerprint for one in known if one.expires_at < now)
        await self._devices.save(device.with_certificate(fingerprint, expired))

    async def _device(self, identifier: str) -> Device:
        device = await self._devices.get(identifier)
        if device is None or device.deleted:
            raise NotFound.of("device", identifier)
        return device

    def _certificate(self, device_id: str, issued: Issued) -> Certificate:
        return Certificate(
            serial=issued.serial,
            device_id=device_id,
            fingerprint=issued.fingerprint,
            pem=issued.pem,
            created_at=rfc3339_us(self._clock.now()),
            expires_at=issued.expires_at,
        )
