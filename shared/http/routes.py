"""Routes as data: what a path takes, who may call it, what it answers.

A service lists its routes by audience on one screen; the server, the OpenAPI document, the gateway's forwarding and
the two-tenant test all read that list.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from aiohttp import web
from pydantic import BaseModel

from shared.security.principal import Principal

MIB = 1024 * 1024


class Audience(StrEnum):
    """Who may call a route."""

    PUBLIC = "public"  # anybody
    USER = "user"  # a person with a session; never an API key
    MEMBER = "member"  # a session or an API key


class Nothing(BaseModel):
    """No body, no query, or the answer `{}`."""


Body = TypeVar("Body", bound=BaseModel)
Query = TypeVar("Query", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Request(Generic[Body, Query]):
    """A request that has passed authentication, the tenant check and its models.

    `principal` of a public route may be nobody (`Principal.nobody()`). Path variables named `workspace_id`, `fleet_id`
    and `device_id` exist and belong to whoever asks, and to each other.
    """

    principal: Principal
    path: Mapping[str, str]
    body: Body
    query: Query
    remote_address: str = ""


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that is never whole in memory. What it raises after the first piece ends the connection unclean."""

    pieces: AsyncIterator[bytes]
    content_type: str = "application/json; charset=utf-8"


Answer = BaseModel | Stream
Handler = Callable[[Request[Any, Any]], Awaitable[Answer]]
# Passes the request on, as this principal from this address; the answer is written by then.
Forward = Callable[[web.Request, Principal, str], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Route:
    """One operation. `path` starts at the root and has no trailing slash, both forms answer: `/v3/workspaces`.

    Models: `body` and `query` are validated strictly by type and ignore unknown members; `answer` is what a 200 holds
    (of a stream too: it documents it).
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answer: type[BaseModel] = Nothing
    body: type[BaseModel] = Nothing
    query: type[BaseModel] = Nothing
    audience: Audience = Audience.MEMBER
    aliases: tuple[str, ...] = ()
    body_limit: int = MIB
    # Set on operations of other processes: answers in place of `handler`, which is then never called.
    forward: Forward | None = None
