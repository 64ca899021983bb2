"""Who is asking: from a session token or an API key to a principal."""

from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from services.gateway.domain.accounts import KeptKey, Session
from services.gateway.domain.ports import Keys, Sessions
from services.gateway.domain.use_cases.key_uses import KeyUses
from shared.clock import Clock
from shared.errors import Unauthorized
from shared.registry import Registry
from shared.security.keys import ApiKey, hashed, matches
from shared.security.principal import Kind, Principal

# What was found is believed for so long: what another process switches off works on for less than a second.
_BELIEVED_MS = 900
_REMEMBERED = 10_000

T = TypeVar("T")


class _Found(NamedTuple, Generic[T]):
    value: T
    at: int


class _Recent(Generic[T]):
    """What a store said a moment ago. That it has nothing is never believed: the next moment may bring it."""

    def __init__(self, load: Callable[[str], Awaitable[T | None]], clock: Clock) -> None:
        self._load = load
        self._clock = clock
        self._found: dict[str, _Found[T]] = {}
        self._changes = 0

    async def get(self, name: str) -> T | None:
        now = self._clock.ms()
        found = self._found.get(name)
        if found is not None and 0 <= now - found.at < _BELIEVED_MS:
            return found.value
        changes = self._changes
        value = await self._load(name)
        # What was read before a change must not be believed after it.
        if value is not None and changes == self._changes:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[name] = _Found(value, now)
        return value

    def forget(self, name: str) -> None:
        self._changes += 1
        self._found.pop(name, None)


class Authenticate:
    """Sessions and API keys."""

    def __init__(self, sessions: Sessions, keys: Keys, uses: KeyUses, registry: Registry, clock: Clock) -> None:
        self._sessions: _Recent[Session] = _Recent(sessions.get, clock)
        self._keys: _Recent[KeptKey] = _Recent(keys.by_prefix, clock)
        self._uses = uses
        self._registry = registry
        self._clock = clock

    async def session(self, token: str) -> Principal:
        """Raise `Unauthorized` when there is no such session, or no longer."""
        session = await self._sessions.get(hashed(token))
        if session is None or session.expires_at <= self._clock.ms():
            raise Unauthorized("The session is unknown or has expired; log in again")
        return Principal(Kind.SESSION, session.account_id, None, session.id)

    async def api_key(self, text: str) -> Principal:
        """Raise `Unauthorized` for a key that is unknown, wrong, switched off, or whose workspace is gone."""
        parsed = ApiKey.parse(text)
        key = await self._keys.get(parsed.prefix) if parsed is not None else None
        if parsed is None or key is None or not matches(parsed.secret, key.secret_hash) or not key.enabled:
            raise Unauthorized("The API key is unknown or switched off")
        if not await self._has_workspace(key):
            raise Unauthorized("The API key's workspace is gone")
        self._uses.note(key.id)
        return Principal(Kind.API_KEY, key.account_id, key.workspace_id, key.id)

    async def _has_workspace(self, key: KeptKey) -> bool:
        if self._registry.workspace(key.workspace_id) is None:
            await self._registry.settled()
        return self._registry.workspace(key.workspace_id) is not None

    def forget_key(self, prefix: str) -> None:
        """This key has changed."""
        self._keys.forget(prefix)

    def forget_session(self, identifier: str) -> None:
        """This session has ended."""
        self._sessions.forget(identifier)
