"""Services in other processes, as the gateway sees them: what they serve, and how a request reaches them.

Each serves `GET /internal/operations`: its routes and its OpenAPI document. The gateway asks until it has them, so it
knows no service by name and a new route needs no change in it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import aiohttp
import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError
from yarl import URL

from shared.errors import Unavailable, ZdmError
from shared.http import openapi
from shared.http.dispatch import Limits, abort, body_pieces
from shared.http.routes import Answer, Audience, Request, Route
from shared.http.server import ADDRESS_HEADER, PRINCIPAL_HEADER
from shared.security.principal import Principal, PrincipalSigner

logger = structlog.get_logger()

OPERATIONS = "/internal/operations"

_CONNECT_S = 2.0
_ANSWER_S = 60.0
_ASK_AGAIN_S = 0.5
_REFRESH_S = 30.0
_CONNECTIONS = 256
# Headers that speak of one connection, not of the message (RFC 9110, 7.6.1), and what the gateway says itself.
_NOT_PASSED = {
    "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "x-api-key", "authorization",
    "date", "content-length", PRINCIPAL_HEADER.lower(), ADDRESS_HEADER.lower(),
    # Bodies are decoded on the way in and not coded again.
    "content-encoding", "accept-encoding", "expect",
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
    """A service at `url`, whose operations become routes here by and by."""

    def __init__(self, name: str, url: str, principals: PrincipalSigner, limits: Limits | None = None) -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._principals = principals
        self._limits = limits or Limits()
        self._http: aiohttp.ClientSession | None = None
        self.document: dict[str, Any] | None = None
        self._learned: set[tuple[str, str]] = set()

    def waiting_for(self) -> str:
        """Empty once its operations are known."""
        return "" if self.document is not None else f"{self._url} does not answer yet"

    async def discover(self, learned: Callable[[Sequence[Route]], None]) -> None:
        """Ask for its operations until they are there, and now and then again; `learned` gets those that are new."""
        while True:
            told = await self._ask()
            if told is not None:
                new = [one for one in told.routes if (one.method, one.path) not in self._learned]
                self._learned |= {(one.method, one.path) for one in new}
                self.document = told.document
                learned([self._route(one) for one in new])
            await asyncio.sleep(_ASK_AGAIN_S if told is None else _REFRESH_S)

    async def _ask(self) -> Operations | None:
        try:
            async with self._session().get(self._url + OPERATIONS) as answer:
                answer.raise_for_status()
                return Operations.model_validate_json(await answer.read())
        except (aiohttp.ClientError, TimeoutError, ValidationError) as error:
            logger.debug("operations_not_told", service=self.name, reason=repr(error))
            return None

    async def close(self) -> None:
        """Close its connections."""
        if self._http is not None:
            await self._http.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_ANSWER_S)
            connections = aiohttp.TCPConnector(limit=_CONNECTIONS)
            self._http = aiohttp.ClientSession(
                timeout=timeout, connector=connections, auto_decompress=False, trust_env=False
            )
        return self._http

    def _route(self, operation: Operation) -> Route:
        async def never(_request: Request[Any, Any]) -> Answer:
            raise NotImplementedError

        async def forward(request: web.Request, principal: Principal, address: str) -> web.StreamResponse:
            return await self._forward(operation, request, principal, address)

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

    async def _forward(
        self, operation: Operation, request: web.Request, principal: Principal, address: str
    ) -> web.StreamResponse:
        headers = _passed(request.headers) | {
            PRINCIPAL_HEADER: self._principals.sign(principal),
            ADDRESS_HEADER: address,
        }
        body = _Body(request, operation.body_limit, self._limits.body_s)
        try:
            answer = await self._session().request(
                request.method,
                URL(self._url + request.rel_url.raw_path_qs, encoded=True),
                data=body.pieces() if request.body_exists else None,
                headers=headers,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise body.refusal or Unavailable(f"The service {self.name} does not answer") from error
        async with answer:
            return await self._passed_on(operation, request, answer)

    async def _passed_on(
        self, operation: Operation, request: web.Request, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=_passed(answer.headers))
        if answer.content_length is not None:
            response.content_length = answer.content_length
        await response.prepare(request)
        try:
            async for piece in answer.content.iter_any():
                async with asyncio.timeout(self._limits.stall_s):
                    await response.write(piece)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            logger.warning("answer_broken", service=self.name, path=operation.path, reason=repr(error))
            abort(request)
        return response


class _Body:
    """A body on its way. `refusal` says what was wrong with it, which its reader hears of as a broken connection."""

    def __init__(self, request: web.Request, limit: int, within_s: float) -> None:
        self._pieces = body_pieces(request, limit, within_s)
        self.refusal: ZdmError | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """As they arrive."""
        try:
            async for piece in self._pieces:
                yield piece
        except ZdmError as error:
            self.refusal = error
            raise


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_PASSED}
