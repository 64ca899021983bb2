"""Making, changing and deleting workspaces."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeVar

from services.provisioning.domain.ports import Devices, Fleets, Moved, Things, Workspaces
from services.provisioning.domain.things import DEFAULT, Thing, Workspace
from services.provisioning.domain.use_cases.again import again
from services.provisioning.domain.use_cases.tell import Tell
from shared.clock import Clock, rfc3339_us
from shared.errors import NotFound
from shared.ids import Ids

T = TypeVar("T", bound=Thing)

_STEP = 200
# What is not deleted by then is, soon after the answer, by `TellTheRest`.
_PATIENCE_S = 10.0


class ManageWorkspaces:
    """Workspaces of an account."""

    def __init__(
        self, workspaces: Workspaces, fleets: Fleets, devices: Devices, tell: Tell, clock: Clock, ids: Ids
    ) -> None:
        self._workspaces = workspaces
        self._fleets = fleets
        self._devices = devices
        self._tell = tell
        self._clock = clock
        self._ids = ids

    async def of_account(self, account_id: str) -> Sequence[Workspace]:
        """Oldest first."""
        return await self._workspaces.of_account(account_id)

    async def get(self, identifier: str) -> Workspace:
        """Raise `NotFound`."""
        workspace = await self._workspaces.get(identifier)
        if workspace is None or workspace.deleted:
            raise NotFound.of("workspace", identifier)
        return workspace

    async def create(self, account_id: str, name: str, description: str = "") -> Workspace:
        """With a fleet `default`."""
        workspace = Workspace(
            id=self._ids.new("wks-"),
            account_id=account_id,
            name=name,
            description=description,
            created_at=rfc3339_us(self._clock.now()),
        )
        await self._workspaces.add(workspace)
        await self._tell(workspaces=[workspace.id])
        return workspace

    async def ensure_default(self, account_id: str) -> None:
        """An account has a workspace: make one called `default` if it has none. Safe to repeat."""
        if not await self._workspaces.of_account(account_id):
            await self.create(account_id, DEFAULT)

    async def change(self, identifier: str, name: str | None, description: str | None) -> Workspace:
        """None: as it was. Raise `NotFound`."""

        async def attempt() -> Workspace:
            workspace = await self.get(identifier)
            changed = workspace.changed(
                name=workspace.name if name is None else name,
                description=workspace.description if description is None else description,
            )
            await self._workspaces.save(changed)
            return changed

        changed = await again(attempt)
        await self._tell(workspaces=[identifier])
        return changed

    async def delete(self, identifier: str) -> None:
        """With its fleets, its devices and all that they have. Raise `NotFound`."""

        async def attempt() -> None:
            await self._workspaces.save((await self.get(identifier)).changed(deleted=True))

        await again(attempt)
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await self.finish_deletion(identifier)

    async def finish_deletion(self, identifier: str) -> None:
        """In bounded steps, each safe to repeat."""
        await self._tell(workspaces=[identifier])
        while devices := await self._devices.some_of_workspace(identifier, _STEP):
            await _mark_deleted(self._devices, devices)
            await self._tell(devices=[device.id for device in devices])
        while fleets := await self._fleets.all_of_workspace(identifier):
            await _mark_deleted(self._fleets, fleets)
            await self._tell(fleets=[fleet.id for fleet in fleets])
        await self._workspaces.remove([identifier])


async def _mark_deleted(things: Things[T], found: Sequence[T]) -> None:
    async def mark(thing: T) -> None:
        # Changed by somebody else: it is found, and marked, in the next step.
        with suppress(Moved):
            await things.save(thing.changed(deleted=True))

    await asyncio.gather(*(mark(thing) for thing in found if not thing.deleted))
