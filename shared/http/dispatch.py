"""From a request to an operation and its answer, in one pass: path, caller, tenant, models, handler, rendering."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote

import structlog
from aiohttp import web
from prometheus_client import Counter

from shared.errors import Forbidden, NotFound, TooLarge, Unauthorized, Unavailable, ZdmError
from shared.http.binding import body_of, query_of
from shared.http.errors import JSON, MethodNotAllowed, answer_to
from shared.http.raw_json import rendered
from shared.http.routes import Answer, Audience, Nothing, Request, Route, Stream
from shared.security.principal import Kind, Principal
from shared.security.tenancy import Tenancy

logger = structlog.get_logger()

# Who is asking; raise `Unauthorized` for credentials that are not valid; nobody when there are none.
Authenticate = Callable[[web.Request], Awaitable[Principal]]

HANDLER_DEADLINE_S = 30.0
BODY_DEADLINE_S = 30.0
_STREAM_STALL_S = 60.0
_STREAM_CHUNK = 64 * 1024

_REQUESTS = Counter("zdm_http_requests_total", "Requests by operation", ["method", "path", "status"])
_SECURITY_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class Match(NamedTuple):
    """A route and the variables of its path, decoded."""

    route: Route
    variables: dict[str, str]


class Table:
    """Finds the route of a method and a path: by number of segments, then segment by segment, fixed ones first."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._by_length: dict[int, list[tuple[list[str], Route]]] = {}
        self.add(routes)

    def add(self, routes: Sequence[Route]) -> None:
        """Know these too."""
        for route in routes:
            for path in (route.path, *route.aliases):
                segments = path.strip("/").split("/")
                self._by_length.setdefault(len(segments), []).append((segments, route))
        for rows in self._by_length.values():
            rows.sort(key=lambda row: [segment.startswith("{") for segment in row[0]])

    def find(self, method: str, raw_path: str) -> Match:
        """Raise `NotFound` for an unknown path, `MethodNotAllowed` for a known one."""
        given = raw_path.strip("/").split("/")
        other_method = False
        for segments, route in self._by_length.get(len(given), ()):
            if (variables := _fit(segments, given)) is not None:
                if route.method == method:
                    return Match(route, variables)
                other_method = True
        if other_method:
            raise MethodNotAllowed(f"{method} is not possible here")
        raise NotFound("There is nothing at this path")


def _fit(segments: list[str], given: list[str]) -> dict[str, str] | None:
    variables: dict[str, str] = {}
    for segment, value in zip(segments, given, strict=True):
        if segment[0:1] == "{":
            if not value:
                return None
            variables[segment[1:-1]] = unquote(value, errors="strict") if "%" in value else value
        elif segment != value:
            return None
    return variables


@dataclass(frozen=True)
class Limits:
    """How long things may take."""

    body_s: float = BODY_DEADLINE_S
    handler_s: float = HANDLER_DEADLINE_S


class Dispatcher:
    """Answers requests with the operations of `routes`."""

    def __init__(
        self, routes: Sequence[Route], authenticate: Authenticate, tenancy: Tenancy, limits: Limits | None = None
    ) -> None:
        self.table = Table(routes)
        self._authenticate = authenticate
        self._tenancy = tenancy
        self._limits = limits or Limits()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        path = "unknown"
        try:
            match = self._match(request)
            path = match.route.path
            response = await self._respond(match, request)
        except ZdmError as error:
            response = answer_to(error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            logger.exception("request_failed", method=request.method, path=path)
            response = answer_to(ZdmError("Something went wrong here; it has been logged"))
        if not response.prepared:
            response.headers.update(_SECURITY_HEADERS)
        _REQUESTS.labels(request.method, path, response.status).inc()
        return response

    def _match(self, request: web.Request) -> Match:
        try:
            return self.table.find(request.method, request.rel_url.raw_path)
        except UnicodeDecodeError:
            raise NotFound("There is nothing at this path") from None

    async def _respond(self, match: Match, request: web.Request) -> web.StreamResponse:
        route, variables = match
        principal = await self._authenticate(request)
        admit(route, principal)
        if any("\0" in value for value in variables.values()):
            raise NotFound("There is nothing at this path")
        if route.forward is not None:
            return await route.forward(request, principal)
        await self._tenancy.admit(principal, variables)
        answer = await self._handled(route, await self._asked(match, request, principal))
        if isinstance(answer, Stream):
            return await _streamed(request, answer)
        return web.Response(body=rendered(answer), headers={"Content-Type": JSON})

    async def _asked(self, match: Match, request: web.Request, principal: Principal) -> Request[Any, Any]:
        route, variables = match
        body = body_of(route.body, await self._content(route, request)) if route.body is not Nothing else Nothing()
        query = query_of(route.query, request.query) if route.query is not Nothing else Nothing()
        return Request(principal, variables, body, query, request.remote or "")

    async def _handled(self, route: Route, asked: Request[Any, Any]) -> Answer:
        try:
            async with asyncio.timeout(self._limits.handler_s):
                return await route.handler(asked)
        except TimeoutError as error:
            raise Unavailable("This took too long") from error

    async def _content(self, route: Route, request: web.Request) -> bytes:
        if (request.content_length or 0) > route.body_limit:
            raise TooLarge(f"The body may have {route.body_limit} bytes at most")
        content = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_s):
                async for piece in request.content.iter_any():
                    content += piece
                    if len(content) > route.body_limit:
                        raise TooLarge(f"The body may have {route.body_limit} bytes at most")
        except TimeoutError:
            # Half a body: there is no telling where the next request would begin.
            if request.transport is not None:
                request.transport.close()
            raise ConnectionResetError("the body did not arrive in time") from None
        return bytes(content)


def admit(route: Route, principal: Principal) -> None:
    """The audience of a route: raise `Unauthorized` or `Forbidden`."""
    if route.audience is Audience.PUBLIC:
        return
    if principal.kind is Kind.NOBODY:
        raise Unauthorized("Log in, or send an API key in X-API-KEY")
    if route.audience is Audience.USER and principal.kind is not Kind.SESSION:
        raise Forbidden("This needs a person who has logged in; an API key may not do it")


async def _streamed(request: web.Request, answer: Stream) -> web.StreamResponse:
    pieces = answer.pieces
    # What fails before the first piece is still answered as an error.
    first = await anext(pieces, b"")
    response = web.StreamResponse(headers={"Content-Type": answer.content_type, **_SECURITY_HEADERS})
    await response.prepare(request)
    try:
        async with asyncio.timeout(_STREAM_STALL_S) as stall:
            await response.write(first)
            async for piece in pieces:
                await response.write(piece)
                stall.reschedule(asyncio.get_running_loop().time() + _STREAM_STALL_S)
        await response.write_eof()
    except Exception as error:
        # The status is sent: only a connection that ends before its last chunk can say that this is not all.
        logger.warning("stream_broken", path=request.path, reason=repr(error))
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the stream broke off") from error
    return response


async def json_list(head: bytes, items: Any, tail: bytes) -> Any:
    """Pieces of some 64 KiB: `head`, the encoded `items` with commas between them, `tail`."""
    buffer, separator = bytearray(head), b""
    async for item in items:
        buffer += separator + item
        separator = b","
        if len(buffer) >= _STREAM_CHUNK:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer + tail)
