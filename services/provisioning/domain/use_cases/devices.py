"""Devices: making, moving, switching off, deleting."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.provisioning.domain.ports import Credentials, Presences, Things
from services.provisioning.domain.things import Device, Fleet, Presence
from services.provisioning.domain.use_cases.telling import Telling
from shared.clock import Clock, rfc3339_us
from shared.errors import NotFound, Refused
from shared.ids import Ids


class Devices:
    """The devices of workspaces."""

    def __init__(
        self,
        devices: Things[Device],
        fleets: Things[Fleet],
        credentials: Credentials,
        presence: Presences,
        telling: Telling,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._devices = devices
        self._fleets = fleets
        self._credentials = credentials
        self._presence = presence
        self._telling = telling
        self._clock = clock
        self._ids = ids

    async def of_workspace(self, workspace_id: str) -> Sequence[Device]:
        """Oldest first."""
        return await self._devices.of(workspace_id=workspace_id)

    async def of_fleet(self, fleet_id: str) -> Sequence[Device]:
        """Oldest first."""
        return await self._devices.of(fleet_id=fleet_id)

    async def get(self, identifier: str) -> Device:
        """Raise `NotFound`."""
        device = await self._devices.get(identifier)
        if device is None:
            raise NotFound.of("device", identifier)
        return device

    async def presence(self, devices: Sequence[Device]) -> Mapping[str, Presence]:
        """Of each, by id."""
        if len(devices) == 1:
            return {devices[0].id: await self._presence.get(devices[0].id)}
        return await self._presence.get_many([device.id for device in devices])

    async def create(self, account_id: str, workspace_id: str, name: str, fleet_id: str | None) -> Device:
        """Without a fleet, in the workspace's default one: the oldest (spec: rest-v3 5)."""
        fleet_id = fleet_id or (await self._fleets.of(workspace_id=workspace_id))[0].id
        created_at = rfc3339_us(self._clock.now())
        device = Device(self._ids.new("dev-"), account_id, workspace_id, fleet_id, name, created_at)
        await self._devices.add(device)
        await self._telling.device(device)
        return device

    async def change(self, identifier: str, **given: Any) -> Device:
        """Members that are None stay; raise `Refused` when all do, `NotFound`."""
        changes = {name: value for name, value in given.items() if value is not None}
        if not changes:
            raise Refused(f"{', '.join(given)}: at least one is needed", field=next(iter(given)))
        return await self._changed(identifier, changes)

    async def touch(self, identifier: str) -> Device:
        """Its credentials have changed: tell brokers."""
        return await self._changed(identifier, {})

    async def delete(self, identifier: str) -> Device:
        """Its session ends, its credentials are worth nothing any more."""
        device = await self.get(identifier)
        await self._changed(identifier, {"deleted": True})
        await self._credentials.remove_keys(identifier)
        await self._credentials.remove_certificates(identifier)
        await self._presence.remove(identifier)
        return device

    async def _changed(self, identifier: str, changes: Mapping[str, Any]) -> Device:
        device = await self._devices.change(identifier, changes)
        if device is None:
            raise NotFound.of("device", identifier)
        await self._telling.device(device)
        return device
