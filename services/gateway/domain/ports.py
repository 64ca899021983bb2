"""What the gateway's rules need of its store."""

from collections.abc import Sequence
from typing import Any, Protocol

from services.gateway.domain.accounts import Account, KeptKey, Session


class Accounts(Protocol):
    """Accounts."""

    async def add(self, account: Account) -> None:
        """Raise `Conflict` when the e-mail is taken."""
        ...

    async def get(self, identifier: str) -> Account | None:
        """By id."""
        ...

    async def by_email(self, email: str) -> Account | None:
        """By e-mail in any case."""
        ...

    async def all(self) -> Sequence[Account]:
        """Every one."""
        ...


class Sessions(Protocol):
    """Sessions by the hash of their token."""

    async def add(self, session: Session) -> None:
        """Keep it until it expires."""
        ...

    async def get(self, identifier: str) -> Session | None:
        """It may have expired."""
        ...

    async def remove(self, identifier: str) -> None:
        """Forget it."""
        ...


class Keys(Protocol):
    """API keys."""

    async def add(self, key: KeptKey) -> None:
        """Raise `Conflict` when the prefix is taken."""
        ...

    async def by_prefix(self, prefix: str) -> KeptKey | None:
        """The key of this prefix."""
        ...

    async def of_workspace(self, workspace_id: str) -> Sequence[KeptKey]:
        """Oldest first."""
        ...

    async def change(self, workspace_id: str, identifier: str, changes: dict[str, Any]) -> KeptKey | None:
        """The changed key of this workspace, if there is one."""
        ...

    async def remove(self, workspace_id: str, identifier: str) -> bool:
        """Whether it was there."""
        ...

    async def used(self, identifier: str, at: int) -> None:
        """Note its last use."""
        ...
