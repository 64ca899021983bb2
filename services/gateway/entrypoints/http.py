"""The gateway's own operations (spec: rest-v3 8.1 and 8.2)."""

from typing import Any

from pydantic import BaseModel, Field

from services.gateway.domain.accounts import Account, KeptKey
from services.gateway.domain.ports import Accounts
from services.gateway.domain.use_cases.api_keys import ApiKeys
from services.gateway.domain.use_cases.login import Login, Logout
from shared.clock import rfc3339_ms
from shared.errors import Unauthorized
from shared.http.routes import Answer, Audience, Nothing, Request, Route


class LoginBody(BaseModel):
    """Credentials of a person."""

    email: str = Field(max_length=320)
    password: str = Field(max_length=1024)


class AccountView(BaseModel):
    """An account as its owner sees it."""

    id: str
    email: str
    display_name: str
    created_at: str


class LoginAnswer(BaseModel):
    """A session."""

    token: str
    expires_at: str
    account: AccountView


class ProfileAnswer(BaseModel):
    """Who is asking."""

    account: AccountView


class KeyBody(BaseModel):
    """A new API key."""

    name: str = Field(min_length=1, max_length=64)


class KeyChange(BaseModel):
    """What to change of an API key."""

    name: str | None = Field(None, min_length=1, max_length=64)
    enabled: bool | None = None


class KeyView(BaseModel):
    """An API key without its secret."""

    id: str
    name: str
    prefix: str
    enabled: bool
    created_at: str
    last_used_at: str | None


class NewKeyView(KeyView):
    """An API key, this once with its secret."""

    key: str


class KeysAnswer(BaseModel):
    """The keys of a workspace."""

    apikeys: list[KeyView]


class Handlers:
    """Parse, call, render."""

    def __init__(self, accounts: Accounts, login: Login, logout: Logout, keys: ApiKeys) -> None:
        self._accounts = accounts
        self._login = login
        self._logout = logout
        self._keys = keys

    async def login(self, request: Request[LoginBody, Nothing]) -> Answer:
        """A session for e-mail and password."""
        done = await self._login(request.body.email, request.body.password, request.remote_address)
        return LoginAnswer(
            token=done.token, expires_at=rfc3339_ms(done.session.expires_at), account=_account(done.account)
        )

    async def logout(self, request: Request[Nothing, Nothing]) -> Answer:
        """The token is worth nothing afterwards."""
        await self._logout(request.principal.credential_id)
        return Nothing()

    async def profile(self, request: Request[Nothing, Nothing]) -> Answer:
        """The account of the session or key."""
        account = await self._accounts.get(request.principal.account_id)
        if account is None:
            raise Unauthorized("The account is gone")
        return ProfileAnswer(account=_account(account))

    async def list_keys(self, request: Request[Nothing, Nothing]) -> Answer:
        """Oldest first."""
        found = await self._keys.of_workspace(request.path["workspace_id"])
        return KeysAnswer(apikeys=[KeyView(**_key(key)) for key in found])

    async def create_key(self, request: Request[KeyBody, Nothing]) -> Answer:
        """Shown whole this once."""
        kept, key = await self._keys.create(
            request.principal.account_id, request.path["workspace_id"], request.body.name
        )
        return NewKeyView(**_key(kept), key=str(key))

    async def change_key(self, request: Request[KeyChange, Nothing]) -> Answer:
        """Rename or switch."""
        return KeyView(
            **_key(
                await self._keys.change(
                    request.path["workspace_id"], request.path["apikey_id"], request.body.name, request.body.enabled
                )
            )
        )

    async def delete_key(self, request: Request[Nothing, Nothing]) -> Answer:
        """Works no longer."""
        await self._keys.delete(request.path["workspace_id"], request.path["apikey_id"])
        return Nothing()


def routes(handlers: Handlers) -> list[Route]:
    """All of them, by audience."""
    public, user = Audience.PUBLIC, Audience.USER
    keys, key = "/v3/workspaces/{workspace_id}/apikeys", "/v3/workspaces/{workspace_id}/apikeys/{apikey_id}"
    profile, old = "/v3/auth/profile", ("/v1/auth/profile",)
    return [
        Route("POST", "/v3/auth/login", handlers.login, "Log in", LoginAnswer, LoginBody, audience=public),
        Route("POST", "/v3/auth/logout", handlers.logout, "Log out", audience=user),
        Route("GET", profile, handlers.profile, "Who is asking", ProfileAnswer, aliases=old),
        Route("GET", keys, handlers.list_keys, "List the API keys", KeysAnswer, audience=user),
        Route("POST", keys, handlers.create_key, "Make an API key", NewKeyView, KeyBody, audience=user),
        Route("PUT", key, handlers.change_key, "Rename or switch an API key", KeyView, KeyChange, audience=user),
        Route("DELETE", key, handlers.delete_key, "Delete an API key", audience=user),
    ]


def _account(account: Account) -> AccountView:
    return AccountView(
        id=account.id, email=account.email, display_name=account.display_name, created_at=account.created_at
    )


def _key(key: KeptKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "enabled": key.enabled,
        "created_at": key.created_at,
        "last_used_at": None if key.last_used_at is None else rfc3339_ms(key.last_used_at),
    }
