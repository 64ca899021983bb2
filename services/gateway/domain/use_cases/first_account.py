"""The account that an installation begins with."""

import secrets
from contextlib import suppress
from pathlib import Path

from services.gateway.domain.accounts import Account
from services.gateway.domain.ports import Accounts
from shared.clock import Clock, rfc3339_us
from shared.errors import Conflict
from shared.ids import Ids
from shared.log import Log
from shared.messages.registry import AccountOpened
from shared.messages.topics import ACCOUNTS
from shared.security.passwords import Passwords
from shared.security.secrets import load_or_create

FIRST_LOGIN = "first-login.txt"
_PASSWORD = "password: "  # noqa: S105 (what stands before it)


class FirstAccount:
    """Makes it when there is none, and tells everyone of the accounts there are. Safe to repeat."""

    def __init__(self, accounts: Accounts, passwords: Passwords, log: Log, clock: Clock, ids: Ids, home: Path) -> None:
        self._accounts = accounts
        self._passwords = passwords
        self._log = log
        self._clock = clock
        self._ids = ids
        self._note = home / FIRST_LOGIN

    async def __call__(self, email: str, password: str | None) -> Path | None:
        """Without a password one is made up and written, with the e-mail, into `first-login.txt` (mode 0600).

        Where that file is, if it was for the account made now.
        """
        note = None
        if not await self._accounts.all():
            note = await self._open(email.lower(), password)
        accounts = await self._accounts.all()
        await self._log.append(
            ACCOUNTS, [AccountOpened(id=account.id, email=account.email).record(account.id) for account in accounts]
        )
        return note

    async def _open(self, email: str, password: str | None) -> Path | None:
        note = None
        if password is None:
            note, password = self._note, self._made_up(email)
        account = Account(
            id=self._ids.new("acc-"),
            email=email,
            display_name=email.split("@")[0],
            password_hash=await self._passwords.hash(password),
            created_at=rfc3339_us(self._clock.now()),
        )
        # Another gateway that starts at the same time may have been first; it took the password from the same file.
        with suppress(Conflict):
            await self._accounts.add(account)
        return note

    def _made_up(self, email: str) -> str:
        """The same one after a crash, and in a process that starts at the same time."""
        made = load_or_create(self._note, lambda: f"email: {email}\n{_PASSWORD}{secrets.token_urlsafe(18)}\n".encode())
        lines = made.decode().splitlines()
        return next(line.removeprefix(_PASSWORD) for line in lines if line.startswith(_PASSWORD))
