"""The account that an installation begins with."""

import secrets
from pathlib import Path

from services.gateway.domain.accounts import Account
from services.gateway.domain.ports import Accounts
from shared.clock import Clock, rfc3339_us
from shared.ids import Ids
from shared.log import Log
from shared.messages.registry import AccountOpened
from shared.messages.topics import ACCOUNTS
from shared.security.passwords import Passwords
from shared.security.secrets import replace_file

FIRST_LOGIN = "first-login.txt"


class FirstAccount:
    """Makes it when there is none, and tells everyone of the accounts there are. Safe to repeat."""

    def __init__(self, accounts: Accounts, passwords: Passwords, log: Log, clock: Clock, ids: Ids, home: Path) -> None:
        self._accounts = accounts
        self._passwords = passwords
        self._log = log
        self._clock = clock
        self._ids = ids
        self._note = home / FIRST_LOGIN

    async def __call__(self, email: str, password: str | None) -> None:
        """Without a password one is made up and written, with the e-mail, into `first-login.txt` (mode 0600)."""
        accounts = list(await self._accounts.all())
        if not accounts:
            accounts = [await self._open(email.lower(), password)]
        opened = [AccountOpened(id=account.id, email=account.email).record(account.id) for account in accounts]
        await self._log.append(ACCOUNTS, opened)

    async def _open(self, email: str, password: str | None) -> Account:
        if password is None:
            password = secrets.token_urlsafe(18)
            replace_file(self._note, f"email: {email}\npassword: {password}\n".encode())
        account = Account(
            self._ids.new("acc-"), email, email.split("@")[0], await self._passwords.hash(password),
            rfc3339_us(self._clock.now()),
        )  # fmt: skip
        await self._accounts.add(account)
        return account
