"""Accounts, sessions and API keys in the document store."""

from dataclasses import asdict
from typing import Any

from services.gateway.domain.accounts import Account, KeptKey, Session
from shared.documents import Collection, Document, Documents, Index, Schema, every, first

_ACCOUNTS = Schema("gateway_accounts", (Index(("email",), unique=True),))
_SESSIONS = Schema("gateway_sessions", (), expires_at="expires_at")
_KEYS = Schema("gateway_apikeys", (Index(("prefix",), unique=True), Index(("workspace_id",))))


class Accounts:
    """Accounts by id and by e-mail."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def add(self, account: Account) -> None:
        """Raise `Conflict` when the e-mail is taken."""
        await self._collection.insert(asdict(account))

    async def get(self, identifier: str) -> Account | None:
        """By id."""
        return _account(await self._collection.get(identifier))

    async def by_email(self, email: str) -> Account | None:
        """By e-mail, lower case."""
        return _account(await first(self._collection, {"email": email.lower()}))

    async def all(self) -> list[Account]:
        """Every one."""
        return [Account(**document) for document in await every(self._collection)]


def _account(document: Document | None) -> Account | None:
    return None if document is None else Account(**document)


class Sessions:
    """Sessions by the hash of their token."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def add(self, session: Session) -> None:
        """Keep it until it expires."""
        await self._collection.insert(asdict(session))

    async def get(self, identifier: str) -> Session | None:
        """By the hash of its token; it may have expired."""
        document = await self._collection.get(identifier)
        return None if document is None else Session(**document)

    async def remove(self, identifier: str) -> None:
        """Forget it."""
        await self._collection.delete(identifier)


class Keys:
    """API keys."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def add(self, key: KeptKey) -> None:
        """Raise `Conflict` when the prefix is taken."""
        await self._collection.insert(asdict(key))

    async def by_prefix(self, prefix: str) -> KeptKey | None:
        """The key of this prefix."""
        document = await first(self._collection, {"prefix": prefix})
        return None if document is None else KeptKey(**document)

    async def of_workspace(self, workspace_id: str) -> list[KeptKey]:
        """Oldest first."""
        found = await every(self._collection, {"workspace_id": workspace_id}, ["id"])
        return [KeptKey(**document) for document in found]

    async def change(self, workspace_id: str, identifier: str, changes: dict[str, Any]) -> KeptKey | None:
        """The changed key of this workspace, if there is one."""
        document = await self._collection.change(identifier, changes, where={"workspace_id": workspace_id})
        return None if document is None else KeptKey(**document)

    async def remove(self, workspace_id: str, identifier: str) -> bool:
        """Whether it was there."""
        return await self._collection.delete(identifier, where={"workspace_id": workspace_id})

    async def used(self, identifier: str, at: int) -> None:
        """Note its last use."""
        await self._collection.change(identifier, {"last_used_at": at})


class Store:
    """All that the gateway keeps."""

    def __init__(self, accounts: Accounts, sessions: Sessions, keys: Keys) -> None:
        self.accounts = accounts
        self.sessions = sessions
        self.keys = keys


async def open_store(documents: Documents) -> Store:
    """Open the collections, making them when missing."""
    return Store(
        Accounts(await documents.collection(_ACCOUNTS)),
        Sessions(await documents.collection(_SESSIONS)),
        Keys(await documents.collection(_KEYS)),
    )
