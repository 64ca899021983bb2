"""Services in other processes, as the gateway sees them: what they serve, and how a request reaches them.

Each serves `GET /internal/operations`: its routes and its OpenAPI document. The gateway asks until it has them, so it
knows no service by name and a new route needs no change in it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp
import structlog
from aiohttp import web
from pydantic import BaseModel

from shared.errors import TooLarge, Unavailable
from shared.http import openapi
from shared.http.routes import Answer, Audience, Request, Route
from shared.http.server import PRINCIPAL_HEADER
from shared.security.principal import Principal, PrincipalSigner

logger = structlog.get_logger()

OPERATIONS = "/internal/operations"

_CONNECT_S = 2.0
_ANSWER_S = 60.0
_ASK_AGAIN_S = 0.5
_REFRESH_S = 30.0
# Headers that speak of one connection, not of the message (RFC 9110, 7.6.1), and what the gateway says itself.
_NOT_PASSED = {
    "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "x-api-key", "authorization",
    "date", "server", "content-length", PRINCIPAL_HEADER.lower(),
}  # fmt: skip


class Operations(BaseModel):
    """What a service serves."""

    routes: list["Operation"]
    document: dict[str, Any]


class Operation(BaseModel):
    """One route, without its models."""

    method: str
    path: str
    aliases: tuple[str, ...]
    audience: Audience
    body_limit: int


def operations_route(routes: Sequence[Route], version: str) -> Route:
    """The route by which a service tells the gateway of `routes`."""
    told = Operations(
        routes=[
            Operation(
                method=route.method,
                path=route.path,
                aliases=route.aliases,
                audience=route.audience,
                body_limit=route.body_limit,
            )
            for route in routes
        ],
        document=openapi.document(routes, version),
    )

    async def operations(_request: Request[Any, Any]) -> Answer:
        return told

    return Route("GET", OPERATIONS, operations, "What this service serves", Operations, audience=Audience.PUBLIC)


class Remote:
    """A service at `url`. `learned` is called with its routes each time they were asked for."""

    def __init__(self, name: str, url: str, principals: PrincipalSigner) -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._principals = principals
        self._http: aiohttp.ClientSession | None = None
        self.document: dict[str, Any] | None = None
        self._learned: set[tuple[str, str]] = set()

    def waiting_for(self) -> str:
        """Empty once its operations are known."""
        return "" if self.document is not None else f"{self._url} does not answer yet"

    async def discover(self, learned: Callable[[Sequence[Route]], None]) -> None:
        """Ask for its operations until they are there, and now and then again. For ever."""
        while True:
            try:
                async with self._session().get(self._url + OPERATIONS) as answer:
                    answer.raise_for_status()
                    told = Operations.model_validate_json(await answer.read())
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(_ASK_AGAIN_S)
                continue
            new = [one for one in told.routes if (one.method, one.path) not in self._learned]
            self._learned |= {(one.method, one.path) for one in new}
            learned([self._route(one) for one in new])
            self.document = told.document
            await asyncio.sleep(_REFRESH_S)

    async def close(self) -> None:
        """Close its connections."""
        if self._http is not None:
            await self._http.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_ANSWER_S)
            self._http = aiohttp.ClientSession(timeout=timeout, auto_decompress=False, trust_env=False)
        return self._http

    def _route(self, operation: Operation) -> Route:
        async def never(_request: Request[Any, Any]) -> Answer:
            raise NotImplementedError

        async def forward(request: web.Request, principal: Principal) -> web.StreamResponse:
            if (request.content_length or 0) > operation.body_limit:
                raise TooLarge(f"The body may have {operation.body_limit} bytes at most")
            return await self._forward(request, principal)

        return Route(
            operation.method,
            operation.path,
            never,
            "",
            aliases=operation.aliases,
            audience=operation.audience,
            body_limit=operation.body_limit,
            forward=forward,
        )

    async def _forward(self, request: web.Request, principal: Principal) -> web.StreamResponse:
        headers = _passed(request.headers) | {PRINCIPAL_HEADER: self._principals.sign(principal)}
        body = request.content if request.body_exists else None
        try:
            answer = await self._session().request(
                request.method,
                self._url + request.rel_url.raw_path_qs,
                data=body,
                headers=headers,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"The service {self.name} does not answer") from error
        async with answer:
            return await _passed_on(request, answer)


async def _passed_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_passed(answer.headers))
    await response.prepare(request)
    try:
        async for piece in answer.content.iter_any():
            await response.write(piece)
    except (aiohttp.ClientError, TimeoutError) as error:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the answer broke off") from error
    await response.write_eof()
    return response


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_PASSED}
