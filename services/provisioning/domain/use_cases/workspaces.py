"""Workspaces and fleets: making, renaming, deleting, and the first ones of an account."""

from collections.abc import Sequence
from typing import TypeVar

from services.provisioning.domain.ports import Things
from services.provisioning.domain.things import Fleet, Workspace
from services.provisioning.domain.use_cases.devices import Devices
from services.provisioning.domain.use_cases.telling import Telling
from shared.clock import Clock, rfc3339_us
from shared.errors import Conflict, Forbidden, NotFound, Refused
from shared.ids import Ids
from shared.security.principal import Kind, Principal

T = TypeVar("T")

DEFAULT = "default"


class Workspaces:
    """The workspaces of accounts."""

    def __init__(
        self,
        workspaces: Things[Workspace],
        fleets: "Fleets",
        telling: Telling,
        clock: Clock,
        ids: Ids,
        *,
        keys_may_make: bool,
    ) -> None:
        self._workspaces = workspaces
        self._fleets = fleets
        self._telling = telling
        self._clock = clock
        self._ids = ids
        self._keys_may_make = keys_may_make

    async def of(self, principal: Principal) -> Sequence[Workspace]:
        """All of the account; with an API key, the key's alone (spec: rest-v3 10, C1)."""
        found = await self._workspaces.of(account_id=principal.account_id)
        return [one for one in found if principal.owns(one.account_id, one.id)]

    async def get(self, identifier: str) -> Workspace:
        """Raise `NotFound`."""
        return _there(await self._workspaces.get(identifier), "workspace", identifier)

    async def create(self, principal: Principal, name: str, description: str) -> Workspace:
        """With its default fleet. Raise `Forbidden` for API keys, unless the installation lets them."""
        if principal.kind is Kind.API_KEY and not self._keys_may_make:
            raise Forbidden("An API key belongs to one workspace and may not make others")
        return await self._make(principal.account_id, name, description)

    async def make_first(self, account_id: str) -> None:
        """An account's workspace `default` with a fleet `default`, if it has none. Safe to repeat."""
        workspaces = await self._workspaces.of(account_id=account_id)
        if not workspaces:
            await self._make(account_id, DEFAULT, "")
        for workspace in workspaces:
            if not await self._fleets.of(workspace.id):
                await self._fleets.create(workspace.account_id, workspace.id, DEFAULT, "")

    async def _make(self, account_id: str, name: str, description: str) -> Workspace:
        workspace = Workspace(self._ids.new("wks-"), account_id, name, description, rfc3339_us(self._clock.now()))
        await self._workspaces.add(workspace)
        # The fleet first: who sees the workspace finds it complete.
        await self._fleets.create(account_id, workspace.id, DEFAULT, "")
        await self._telling.workspace(workspace)
        return workspace

    async def change(self, identifier: str, name: str | None, description: str | None) -> Workspace:
        """Raise `NotFound`."""
        changes = _changes(name=name, description=description)
        workspace = _there(await self._workspaces.change(identifier, changes), "workspace", identifier)
        await self._telling.workspace(workspace)
        return workspace

    async def delete(self, identifier: str) -> Workspace:
        """With its devices and fleets; the workspace last, so that who repeats this finishes it."""
        workspace = await self.get(identifier)
        await self._fleets.empty(identifier)
        gone = await self._workspaces.change(identifier, {"deleted": True})
        if gone is not None:
            await self._telling.workspace(gone)
        return workspace


class Fleets:
    """The fleets of workspaces."""

    def __init__(self, fleets: Things[Fleet], devices: Devices, telling: Telling, clock: Clock, ids: Ids) -> None:
        self._fleets = fleets
        self._devices = devices
        self._telling = telling
        self._clock = clock
        self._ids = ids

    async def of(self, workspace_id: str) -> Sequence[Fleet]:
        """Oldest first."""
        return await self._fleets.of(workspace_id=workspace_id)

    async def get(self, identifier: str) -> Fleet:
        """Raise `NotFound`."""
        return _there(await self._fleets.get(identifier), "fleet", identifier)

    async def create(self, account_id: str, workspace_id: str, name: str, description: str) -> Fleet:
        """A new one."""
        created_at = rfc3339_us(self._clock.now())
        fleet = Fleet(self._ids.new("flt-"), account_id, workspace_id, name, description, created_at)
        await self._fleets.add(fleet)
        await self._telling.fleet(fleet)
        return fleet

    async def change(self, identifier: str, name: str | None, description: str | None) -> Fleet:
        """Raise `NotFound`."""
        changes = _changes(name=name, description=description)
        fleet = _there(await self._fleets.change(identifier, changes), "fleet", identifier)
        await self._telling.fleet(fleet)
        return fleet

    async def delete(self, identifier: str) -> Fleet:
        """Raise `Conflict` for the last one of a workspace and for one that has devices."""
        fleet = await self.get(identifier)
        if len(await self.of(fleet.workspace_id)) < 2:
            raise Conflict("This is the last fleet of its workspace")
        if await self._devices.of_fleet(identifier):
            raise Conflict("The fleet still has devices")
        await self._remove(identifier)
        return fleet

    async def empty(self, workspace_id: str) -> None:
        """Delete all fleets of a workspace and their devices."""
        for device in await self._devices.of_workspace(workspace_id):
            await self._devices.delete(device.id)
        for fleet in await self.of(workspace_id):
            await self._remove(fleet.id)

    async def _remove(self, identifier: str) -> None:
        gone = await self._fleets.change(identifier, {"deleted": True})
        if gone is not None:
            await self._telling.fleet(gone)


def _there(thing: T | None, kind: str, identifier: str) -> T:
    if thing is None:
        raise NotFound.of(kind, identifier)
    return thing


def _changes(**given: str | None) -> dict[str, str]:
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise Refused(f"{' or '.join(given)}: at least one is needed", field=next(iter(given)))
    return changes
