"""Making, changing and deleting devices."""

from collections.abc import AsyncIterator

from services.provisioning.domain.ports import Brokers, Devices, Fleets, Workspaces
from services.provisioning.domain.things import Device, Fleet, default_among
from services.provisioning.domain.use_cases.again import again
from services.provisioning.domain.use_cases.tell import Tell
from shared.clock import Clock, rfc3339_us
from shared.errors import NotFound
from shared.ids import Ids


class ManageDevices:
    """Devices of a workspace."""

    def __init__(
        self,
        workspaces: Workspaces,
        fleets: Fleets,
        devices: Devices,
        tell: Tell,
        brokers: Brokers,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._workspaces = workspaces
        self._fleets = fleets
        self._devices = devices
        self._tell = tell
        self._brokers = brokers
        self._clock = clock
        self._ids = ids

    def of_workspace(self, workspace_id: str) -> AsyncIterator[Device]:
        """Oldest first."""
        return self._devices.of_workspace(workspace_id)

    async def get(self, identifier: str) -> Device:
        """Raise `NotFound`."""
        device = await self._devices.get(identifier)
        if device is None or device.deleted:
            raise NotFound.of("device", identifier)
        return device

    async def create(self, workspace_id: str, name: str, fleet_id: str | None, phys_id: str) -> Device:
        """In the default fleet when none is named. Raise `NotFound` for a fleet that is not of the workspace."""
        fleet = await self._fleet(workspace_id, fleet_id)
        device = Device(
            id=self._ids.new("dev-"),
            account_id=fleet.account_id,
            workspace_id=workspace_id,
            fleet_id=fleet.id,
            name=name,
            phys_id=phys_id,
            created_at=rfc3339_us(self._clock.now()),
        )
        await self._devices.add(device)
        # Looked at after the device is there: a deletion of either one finds the device or is seen here.
        if not await self._still_there(fleet):
            await self._devices.remove([device.id])
            raise NotFound.of("fleet", fleet.id, " in this workspace")
        await self._tell(devices=[device.id])
        return device

    async def change(
        self,
        identifier: str,
        *,
        name: str | None = None,
        fleet_id: str | None = None,
        enabled: bool | None = None,
        phys_id: str | None = None,
    ) -> Device:
        """None: as it was. A device that is no longer enabled is cut off. Raise `NotFound`."""

        async def attempt() -> Device:
            device = await self.get(identifier)
            fleet = None if fleet_id is None else await self._fleet(device.workspace_id, fleet_id)
            changed = device.changed(
                name=device.name if name is None else name,
                fleet_id=device.fleet_id if fleet is None else fleet.id,
                enabled=device.enabled if enabled is None else enabled,
                phys_id=device.phys_id if phys_id is None else phys_id,
            )
            await self._devices.save(changed)
            if fleet is not None and not await self._still_there(fleet):
                await self._devices.save(changed.changed(fleet_id=device.fleet_id))
                raise NotFound.of("fleet", fleet.id, " in this workspace")
            return changed

        changed = await again(attempt)
        await self._tell(devices=[identifier])
        await self._brokers.caught_up()
        return changed

    async def delete(self, identifier: str) -> None:
        """With its credentials; its session is cut. Raise `NotFound`."""

        async def attempt() -> None:
            await self._devices.save((await self.get(identifier)).changed(deleted=True))

        await again(attempt)
        await self._tell(devices=[identifier])
        await self._brokers.caught_up()

    async def _fleet(self, workspace_id: str, fleet_id: str | None) -> Fleet:
        if fleet_id is None:
            fleets = await self._fleets.of_workspace(workspace_id)
            if not fleets:
                raise NotFound.of("workspace", workspace_id)
            return default_among(fleets)
        fleet = await self._fleets.get(fleet_id)
        if fleet is None or fleet.workspace_id != workspace_id or not fleet.takes_devices(self._clock.ms()):
            raise NotFound.of("fleet", fleet_id, " in this workspace")
        return fleet

    async def _still_there(self, fleet: Fleet) -> bool:
        workspace = await self._workspaces.get(fleet.workspace_id)
        now = await self._fleets.get(fleet.id)
        if workspace is None or workspace.deleted or now is None:
            return False
        return now.takes_devices(self._clock.ms())
