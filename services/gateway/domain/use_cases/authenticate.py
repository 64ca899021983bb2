"""Who is asking: from a session token or an API key to a principal."""

from typing import NamedTuple

from services.gateway.domain.accounts import KeptKey
from services.gateway.domain.ports import Keys, Sessions
from shared.clock import Clock
from shared.errors import Unauthorized
from shared.registry import Registry
from shared.security.keys import ApiKey, hashed, matches
from shared.security.principal import Kind, Principal

# What was found is believed for so long: a key that is switched off in another process works a second longer at most.
_BELIEVED_MS = 1000
_NOTED_EVERY_MS = 60_000
_CACHE_LIMIT = 10_000


class _Seen(NamedTuple):
    key: KeptKey | None
    at: int


class Authenticate:
    """Sessions and API keys."""

    def __init__(self, sessions: Sessions, keys: Keys, registry: Registry, clock: Clock) -> None:
        self._sessions = sessions
        self._keys = keys
        self._registry = registry
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    async def session(self, token: str) -> Principal:
        """Raise `Unauthorized` when there is no such session, or no longer."""
        session = await self._sessions.get(hashed(token))
        if session is None or session.expires_at <= self._clock.ms():
            raise Unauthorized("The session is unknown or has expired; log in again")
        return Principal(Kind.SESSION, session.account_id, None, session.id)

    async def api_key(self, text: str) -> Principal:
        """Raise `Unauthorized` for a key that is unknown, wrong, switched off, or whose workspace is gone."""
        parsed = ApiKey.parse(text)
        key = await self._find(parsed.prefix) if parsed is not None else None
        if parsed is None or key is None or not matches(parsed.secret, key.secret_hash) or not key.enabled:
            raise Unauthorized("The API key is unknown or switched off")
        if self._registry.workspace(key.workspace_id) is None:
            await self._registry.settled()
            if self._registry.workspace(key.workspace_id) is None:
                raise Unauthorized("The API key's workspace is gone")
        await self._note_use(key)
        return Principal(Kind.API_KEY, key.account_id, key.workspace_id, key.id)

    def forget(self, prefix: str) -> None:
        """This key has changed."""
        self._seen.pop(prefix, None)

    async def _find(self, prefix: str) -> KeptKey | None:
        now = self._clock.ms()
        seen = self._seen.get(prefix)
        if seen is None or now - seen.at > _BELIEVED_MS:
            if len(self._seen) >= _CACHE_LIMIT:
                self._seen.clear()
            seen = self._seen[prefix] = _Seen(await self._keys.by_prefix(prefix), now)
        return seen.key

    async def _note_use(self, key: KeptKey) -> None:
        now = self._clock.ms()
        if key.last_used_at is None or now - key.last_used_at > _NOTED_EVERY_MS:
            self.forget(key.prefix)
            await self._keys.used(key.id, now)
