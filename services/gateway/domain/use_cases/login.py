"""Logging in and out."""

from typing import NamedTuple

from services.gateway.domain.accounts import Account, Session
from services.gateway.domain.ports import Accounts, Sessions
from services.gateway.domain.throttle import Throttle
from services.gateway.domain.use_cases.authenticate import Authenticate
from shared.clock import Clock
from shared.errors import Unauthorized
from shared.security.keys import hashed, new_token
from shared.security.passwords import Passwords

_DAY_MS = 24 * 3600 * 1000


class LoggedIn(NamedTuple):
    """A fresh session; from here on only its bearer knows the token."""

    token: str
    session: Session
    account: Account


class Login:
    """E-mail and password for a session. Unknown e-mails and wrong passwords look and take the same."""

    def __init__(
        self, accounts: Accounts, sessions: Sessions, passwords: Passwords, clock: Clock, session_days: int
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._passwords = passwords
        self._clock = clock
        self._lifetime_ms = session_days * _DAY_MS
        self._throttle = Throttle(clock)

    async def __call__(self, email: str, password: str, remote_address: str) -> LoggedIn:
        """Raise `Unauthorized`, or `TooMany` after too many failures from this address."""
        email = email.lower()
        self._throttle.attempt(email, remote_address)
        account = await self._accounts.by_email(email)
        right = await self._passwords.verify(password, account.password_hash if account else None)
        if account is None or not right:
            raise Unauthorized("E-mail or password is wrong")
        self._throttle.succeeded(email, remote_address)
        token = new_token()
        session = Session(hashed(token), account.id, self._clock.ms() + self._lifetime_ms)
        await self._sessions.add(session)
        return LoggedIn(token, session, account)


class Logout:
    """The end of a session."""

    def __init__(self, sessions: Sessions, authenticate: Authenticate) -> None:
        self._sessions = sessions
        self._authenticate = authenticate

    async def __call__(self, session_id: str) -> None:
        """Its token is worth nothing afterwards."""
        await self._sessions.remove(session_id)
        self._authenticate.forget_session(session_id)
