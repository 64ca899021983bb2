"""Making, listing, switching and deleting API keys."""

from collections.abc import Sequence
from typing import Any

from services.gateway.domain.accounts import KeptKey
from services.gateway.domain.ports import Keys
from services.gateway.domain.use_cases.authenticate import Authenticate
from shared.clock import Clock, rfc3339_us
from shared.errors import NotFound, Refused
from shared.ids import Ids
from shared.security.keys import ApiKey, hashed


class ApiKeys:
    """The keys of a workspace."""

    def __init__(self, keys: Keys, authenticate: Authenticate, clock: Clock, ids: Ids) -> None:
        self._keys = keys
        self._authenticate = authenticate
        self._clock = clock
        self._ids = ids

    async def create(self, account_id: str, workspace_id: str, name: str) -> tuple[KeptKey, ApiKey]:
        """What is kept and, this once, the key itself."""
        key = ApiKey.new()
        kept = KeptKey(
            id=self._ids.new("key-"),
            workspace_id=workspace_id,
            account_id=account_id,
            name=name,
            prefix=key.prefix,
            secret_hash=hashed(key.secret),
            enabled=True,
            created_at=rfc3339_us(self._clock.now()),
        )
        await self._keys.add(kept)
        return kept, key

    async def of_workspace(self, workspace_id: str) -> Sequence[KeptKey]:
        """Oldest first."""
        return await self._keys.of_workspace(workspace_id)

    async def change(self, workspace_id: str, identifier: str, name: str | None, enabled: bool | None) -> KeptKey:
        """Rename it, switch it; raise `NotFound`."""
        changes: dict[str, Any] = {"name": name, "enabled": enabled}
        changes = {field: value for field, value in changes.items() if value is not None}
        if not changes:
            raise Refused("name or enabled: at least one is needed", field="name")
        changed = await self._keys.change(workspace_id, identifier, changes)
        if changed is None:
            raise NotFound.of("apikey", identifier)
        self._authenticate.forget_key(changed.prefix)
        return changed

    async def delete(self, workspace_id: str, identifier: str) -> None:
        """Raise `NotFound`."""
        # Whatever happens in between, a key that is switched off stays so until it is gone.
        switched_off = await self._keys.change(workspace_id, identifier, {"enabled": False})
        if switched_off is None:
            raise NotFound.of("apikey", identifier)
        self._authenticate.forget_key(switched_off.prefix)
        await self._keys.remove(workspace_id, identifier)
