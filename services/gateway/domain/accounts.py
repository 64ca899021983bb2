"""Accounts, sessions and API keys."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Account:
    """A registered user, who owns workspaces."""

    id: str
    email: str
    display_name: str
    password_hash: str
    created_at: str


@dataclass(frozen=True)
class Session:
    """A login. `id` is the hash of its token."""

    id: str
    account_id: str
    expires_at: int  # ms since 1970


@dataclass(frozen=True)
class KeptKey:
    """An API key as it is kept: everything but the secret."""

    id: str
    workspace_id: str
    account_id: str
    name: str
    prefix: str
    secret_hash: str
    enabled: bool
    created_at: str
    last_used_at: int | None = None  # ms since 1970
