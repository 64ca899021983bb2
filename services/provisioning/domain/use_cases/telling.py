"""Telling everyone what there is: the registry, and to brokers alone, what lets devices in.

A change is saved with `told` false, told, and marked as told. Who dies in between leaves a mark that is found at the
next start; telling twice does no harm.
"""

import asyncio
from collections.abc import Sequence
from typing import NoReturn

from services.provisioning.domain.ports import Credentials, Things
from services.provisioning.domain.things import Device, DeviceKey, Fleet, Thing, Workspace
from shared.log import Log, Record
from shared.messages.registry import AccessGranted, AccessKey
from shared.messages.topics import ACCESS, REGISTRY

_BATCH = 500
_LOOK_EVERY_S = 5.0


class Telling:
    """Tells of things, one by one when they change and in bulk of those that were left."""

    def __init__(
        self,
        workspaces: Things[Workspace],
        fleets: Things[Fleet],
        devices: Things[Device],
        credentials: Credentials,
        log: Log,
    ) -> None:
        self._workspaces = workspaces
        self._fleets = fleets
        self._devices = devices
        self._credentials = credentials
        self._log = log

    async def device(self, device: Device) -> None:
        """To brokers first: what one may not do any more counts from there."""
        await self._log.append(ACCESS, [await self._access(device)])
        await self._log.append(REGISTRY, [_registry(device)])
        await self._devices.told(device)

    async def workspace(self, workspace: Workspace) -> None:
        """Of a workspace."""
        await self._log.append(REGISTRY, [_registry(workspace)])
        await self._workspaces.told(workspace)

    async def fleet(self, fleet: Fleet) -> None:
        """Of a fleet."""
        await self._log.append(REGISTRY, [_registry(fleet)])
        await self._fleets.told(fleet)

    async def keep_telling(self) -> NoReturn:
        """What a crash left untold. For ever."""
        while True:
            while await self.untold():
                pass
            await asyncio.sleep(_LOOK_EVERY_S)

    async def untold(self) -> int:
        """Tell a batch of what is not told; how many things that were."""
        workspaces = await self._workspaces.untold(_BATCH)
        fleets, devices = await self._fleets.untold(_BATCH), await self._devices.untold(_BATCH)
        for workspace in workspaces:
            await self.workspace(workspace)
        for fleet in fleets:
            await self.fleet(fleet)
        await self._bulk(devices)
        return len(workspaces) + len(fleets) + len(devices)

    async def _bulk(self, devices: Sequence[Device]) -> None:
        await self._log.append(ACCESS, [await self._access(device) for device in devices])
        await self._log.append(REGISTRY, [_registry(device) for device in devices])
        for device in devices:
            await self._devices.told(device)

    async def _access(self, device: Device) -> Record:
        if device.deleted:
            return Record(device.id, None)
        certificates = await self._credentials.certificates(device.id)
        granted = AccessGranted(
            device_id=device.id,
            enabled=device.enabled,
            keys=tuple(_key(key) for key in await self._credentials.keys(device.id)),
            certificates=tuple(one.fingerprint for one in certificates if not one.revoked),
        )
        return granted.record(device.id)


def _key(key: DeviceKey) -> AccessKey:
    return AccessKey(id=key.number, type=key.type, key_base64=key.key_base64)


def _registry(thing: Thing) -> Record:
    return Record(thing.id, None) if thing.deleted else thing.entry().record(thing.id)
