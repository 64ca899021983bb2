"""Making, changing and deleting fleets."""

from collections.abc import Sequence

from services.provisioning.domain.ports import Devices, Fleets, Workspaces
from services.provisioning.domain.things import Fleet
from services.provisioning.domain.use_cases.again import again
from services.provisioning.domain.use_cases.tell import Tell
from shared.clock import Clock, rfc3339_us
from shared.errors import Conflict, NotFound
from shared.ids import Ids

# A deletion that died half-way keeps devices out for so long.
_CLOSING_MS = 60_000


class ManageFleets:
    """Fleets of a workspace."""

    def __init__(
        self, workspaces: Workspaces, fleets: Fleets, devices: Devices, tell: Tell, clock: Clock, ids: Ids
    ) -> None:
        self._workspaces = workspaces
        self._fleets = fleets
        self._devices = devices
        self._tell = tell
        self._clock = clock
        self._ids = ids

    async def of_workspace(self, workspace_id: str) -> Sequence[Fleet]:
        """Oldest first."""
        return await self._fleets.of_workspace(workspace_id)

    async def get(self, workspace_id: str, identifier: str) -> Fleet:
        """Raise `NotFound`, also for a fleet of another workspace."""
        fleet = await self._fleets.get(identifier)
        if fleet is None or fleet.deleted or fleet.workspace_id != workspace_id:
            raise NotFound.of("fleet", identifier, " in this workspace")
        return fleet

    async def create(self, workspace_id: str, name: str, description: str) -> Fleet:
        """Raise `NotFound` when the workspace is gone."""
        workspace = await self._workspaces.get(workspace_id)
        if workspace is None:
            raise NotFound.of("workspace", workspace_id)
        fleet = Fleet(
            id=self._ids.new("flt-"),
            account_id=workspace.account_id,
            workspace_id=workspace_id,
            name=name,
            description=description,
            created_at=rfc3339_us(self._clock.now()),
        )
        await self._fleets.add(fleet)
        # Looked at after the fleet is there: a deletion of the workspace either finds the fleet or is seen here.
        workspace = await self._workspaces.get(workspace_id)
        if workspace is None or workspace.deleted:
            await self._fleets.remove([fleet.id])
            raise NotFound.of("workspace", workspace_id)
        await self._tell(fleets=[fleet.id])
        return fleet

    async def change(self, workspace_id: str, identifier: str, name: str | None, description: str | None) -> Fleet:
        """None: as it was. Raise `NotFound`."""

        async def attempt() -> Fleet:
            fleet = await self.get(workspace_id, identifier)
            changed = fleet.changed(
                name=fleet.name if name is None else name,
                description=fleet.description if description is None else description,
            )
            await self._fleets.save(changed)
            return changed

        changed = await again(attempt)
        await self._tell(fleets=[identifier])
        return changed

    async def delete(self, workspace_id: str, identifier: str) -> None:
        """Raise `NotFound`, or `Conflict` for the last fleet of a workspace and for one that has devices."""

        async def close() -> Fleet:
            fleet = await self.get(workspace_id, identifier)
            closing = fleet.changed(closing_until=self._clock.ms() + _CLOSING_MS)
            await self._fleets.save(closing)
            return closing

        # Closed first, then looked into: a device that comes in meanwhile is seen here, or sees that it is closed.
        fleet = await again(close)
        if refusal := await self._why_not(fleet):
            await self._fleets.save(fleet.changed(closing_until=0))
            await self._tell(fleets=[identifier])
            raise Conflict(refusal)
        await self._fleets.save(fleet.changed(deleted=True))
        await self._tell(fleets=[identifier])

    async def _why_not(self, fleet: Fleet) -> str:
        now = self._clock.ms()
        others = await self._fleets.of_workspace(fleet.workspace_id)
        if not any(other.takes_devices(now) for other in others if other.id != fleet.id):
            return "The last fleet of a workspace cannot be deleted"
        if await self._devices.in_fleet(fleet.id):
            return "The fleet still has devices; move or delete them first"
        return ""
