"""The one place where it is decided whether a caller may know of a workspace, fleet or device.

The server runs it on the path variables of every route before its handler; whoever takes ids from a body or a query
calls the same methods. An id of another tenant and an id that never was get the same answer.
"""

from collections.abc import Callable, Mapping

from shared.errors import NotFound
from shared.registry import Entry, Registry
from shared.security.principal import Principal

Lookup = Callable[[str], Entry | None]


class Tenancy:
    """Checks of ids against what the principal owns. All raise `NotFound` (`<kind>_not_found`), never forbidden."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def admit(self, principal: Principal, path: Mapping[str, str]) -> None:
        """The `workspace_id`, `fleet_id` and `device_id` of a path: the caller's, and of each other."""
        workspace_id = path.get("workspace_id")
        if workspace_id is not None:
            await self.workspace(principal, workspace_id)
        if "fleet_id" in path:
            await self.fleet(principal, path["fleet_id"], workspace_id)
        if "device_id" in path:
            await self.device(principal, path["device_id"], workspace_id)

    async def workspace(self, principal: Principal, identifier: str) -> Entry:
        """The workspace, if it is the caller's."""
        return await self._find("workspace", self._registry.workspace, principal, identifier, None)

    async def fleet(self, principal: Principal, identifier: str, workspace_id: str | None = None) -> Entry:
        """The fleet, if it is the caller's and, where given, in `workspace_id`."""
        return await self._find("fleet", self._registry.fleet, principal, identifier, workspace_id)

    async def device(self, principal: Principal, identifier: str, workspace_id: str | None = None) -> Entry:
        """The device, if it is the caller's and, where given, in `workspace_id`."""
        return await self._find("device", self._registry.device, principal, identifier, workspace_id)

    async def _find(
        self, kind: str, lookup: Lookup, principal: Principal, identifier: str, workspace_id: str | None
    ) -> Entry:
        entry = lookup(identifier)
        if entry is None:
            await self._registry.settled()
            entry = lookup(identifier)
        if entry is None or not principal.owns(entry.account_id, entry.workspace_id):
            raise NotFound.of(kind, identifier)
        if workspace_id is not None and entry.workspace_id != workspace_id:
            raise NotFound.of(kind, identifier, " in this workspace")
        return entry
