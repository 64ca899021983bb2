"""What a crash left untold."""

from services.provisioning.domain.ports import Devices, Fleets, Workspaces
from services.provisioning.domain.use_cases.tell import Tell
from services.provisioning.domain.use_cases.workspaces import ManageWorkspaces

_STEP = 500


class TellTheRest:
    """Tells what was saved and not told, and finishes deletions."""

    def __init__(
        self, workspaces: Workspaces, fleets: Fleets, devices: Devices, tell: Tell, manage: ManageWorkspaces
    ) -> None:
        self._workspaces = workspaces
        self._fleets = fleets
        self._devices = devices
        self._tell = tell
        self._manage = manage

    async def __call__(self) -> None:
        """Until nothing is left that was untold when it began."""
        for workspace in await self._workspaces.untold(_STEP):
            if workspace.deleted:
                await self._manage.finish_deletion(workspace.id)
            else:
                await self._tell(workspaces=[workspace.id])
        while fleets := await self._fleets.untold(_STEP):
            await self._tell(fleets=[fleet.id for fleet in fleets])
        while devices := await self._devices.untold(_STEP):
            await self._tell(devices=[device.id for device in devices])

    async def backlog(self) -> int:
        """How many are untold now."""
        things = (self._workspaces, self._fleets, self._devices)
        return sum([await one.untold_count() for one in things])
