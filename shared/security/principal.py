"""Who is asking: established once by the gateway, carried to the other services as a short-lived signed token."""

from dataclasses import dataclass
from enum import StrEnum

import jwt
from jwt.types import Options

from shared.clock import Clock
from shared.errors import Unauthorized

_ALGORITHM = "HS256"
_ISSUER = "zdm-gateway"
LIFETIME_S = 60


class Kind(StrEnum):
    """How the caller proved who it is."""

    NOBODY = "nobody"
    SESSION = "session"
    API_KEY = "api_key"


@dataclass(frozen=True, slots=True)
class Principal:
    """An account, with everything it owns (session) or with one workspace of it (API key)."""

    kind: Kind
    account_id: str
    workspace_id: str | None = None  # API keys: the only workspace they may touch
    credential_id: str = ""  # session or API key id, for the audit

    @classmethod
    def nobody(cls) -> "Principal":
        """Who calls a public route without credentials."""
        return cls(Kind.NOBODY, "")

    def owns(self, account_id: str, workspace_id: str) -> bool:
        """The tenant rule: the account is theirs and, for an API key, the workspace is the key's."""
        if self.kind is Kind.NOBODY or account_id != self.account_id:
            return False
        return self.workspace_id is None or self.workspace_id == workspace_id


class PrincipalSigner:
    """Signs and verifies principals with a secret that only our services know."""

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock

    def sign(self, principal: Principal) -> str:
        """A token that `verify` accepts for `LIFETIME_S` seconds."""
        now = self._clock.ms() // 1000
        claims = {
            "iss": _ISSUER,
            "exp": now + LIFETIME_S,
            "kind": principal.kind.value,
            "account": principal.account_id,
            "workspace": principal.workspace_id,
            "credential": principal.credential_id,
        }
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def verify(self, token: str) -> Principal:
        """Raise `Unauthorized` when it was not signed by us or is too old."""
        # The time of expiry is held against our own clock below.
        options: Options = {"require": ["exp", "iss"], "verify_exp": False}
        try:
            claims = jwt.decode(token, self._secret, algorithms=[_ALGORITHM], issuer=_ISSUER, options=options)
            principal = Principal(Kind(claims["kind"]), claims["account"], claims["workspace"], claims["credential"])
            expired = claims["exp"] * 1000 <= self._clock.ms()
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError) as error:
            raise Unauthorized("The principal's token is not valid") from error
        if expired:
            raise Unauthorized("The principal's token has expired")
        return principal
