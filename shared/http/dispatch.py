"""From a request to an operation and its answer, in one pass: path, caller, tenant, models, handler, rendering."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeVar
from urllib.parse import unquote

import structlog
from aiohttp import web
from prometheus_client import Counter, Histogram

from shared.errors import Forbidden, NotFound, Refused, TooLarge, Unauthorized, Unavailable, ZdmError
from shared.http.binding import body_of, query_of
from shared.http.errors import JSON, HalfSent, MethodNotAllowed, answer_to
from shared.http.raw_json import rendered
from shared.http.routes import Audience, Nothing, Request, Route, Stream
from shared.security.principal import Kind, Principal
from shared.security.tenancy import Tenancy

logger = structlog.get_logger()

# Who is asking; raise `Unauthorized` for credentials that are not valid; nobody when there are none.
Authenticate = Callable[[web.Request], Awaitable[Principal]]

T = TypeVar("T")

_STREAM_CHUNK = 64 * 1024
_UNKNOWN = "unknown"
_GONE = 499  # counted only, never sent

_REQUESTS = Counter("zdm_http_requests_total", "Requests by operation", ["method", "path", "status"])
_SECONDS = Histogram("zdm_http_seconds", "From the request's head to the answer's last byte written, all operations")
_BROKEN = Counter("zdm_http_streams_broken_total", "Answers that ended before they were whole", ["path"])

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Server": "zDeviceManager",
}
_JSON_HEADERS = {"Content-Type": JSON}


def peer(request: web.Request) -> str:
    """The address at the other end of the connection."""
    return request.remote or ""


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
                segments = path[1:].split("/")
                self._by_length.setdefault(len(segments), []).append((segments, route))
        for rows in self._by_length.values():
            rows.sort(key=lambda row: [segment.startswith("{") for segment in row[0]])

    def find(self, method: str, raw_path: str) -> Match:
        """With or without a slash at the end. Raise `NotFound` for an unknown path, `MethodNotAllowed` for a known one.

        HEAD is answered by what answers GET.
        """
        given = raw_path[1:].removesuffix("/").split("/")
        allowed: set[str] = set()
        wanted = "GET" if method == "HEAD" else method
        for segments, route in self._by_length.get(len(given), ()):
            if (variables := _fit(segments, given)) is not None:
                if route.method == wanted:
                    return Match(route, variables)
                allowed.add(route.method)
        if allowed:
            raise MethodNotAllowed(f"{method} is not possible here", _with_implied(allowed))
        raise NotFound("There is nothing at this path")


def _with_implied(methods: set[str]) -> list[str]:
    return sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set()))


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
    """How long things may take: a body to arrive, a handler to answer, a client to take the next piece of a stream."""

    body_s: float = 30.0
    handler_s: float = 30.0
    stall_s: float = 60.0


class Dispatcher:
    """Answers requests with the operations of `routes`.

    `missing` names what does not serve its operations yet: until it is empty an unknown path may only be unknown yet.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        authenticate: Authenticate,
        tenancy: Tenancy,
        limits: Limits | None = None,
        address: Callable[[web.Request], str] = peer,
        missing: Callable[[], str] = str,
    ) -> None:
        self.table = Table(routes)
        self._authenticate = authenticate
        self._tenancy = tenancy
        self._limits = limits or Limits()
        self._address = address
        self._missing = missing

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        began = asyncio.get_running_loop().time()
        method, path = "other", _UNKNOWN
        try:
            match = self._match(request)
            method, path = match.route.method, match.route.path
            response = await self._respond(match, request)
        except MethodNotAllowed as error:
            response = _options(error) if request.method == "OPTIONS" else answer_to(error)
        except ZdmError as error:
            response = answer_to(error)
            if response.status >= 500:
                logger.warning("request_unavailable", method=method, path=path, reason=error.message)
        except Exception:
            if request.transport is None:
                # The client has gone away; nobody reads what is said now.
                response = web.Response(status=_GONE)
            else:
                logger.exception("request_failed", method=method, path=path)
                response = answer_to(ZdmError("Something went wrong here; it has been logged"))
        if not response.prepared:
            response.headers.update(_HEADERS)
        _count(method, path, response.status).inc()
        _SECONDS.observe(asyncio.get_running_loop().time() - began)
        logger.debug("request", method=method, path=path, status=response.status)
        return response

    def _match(self, request: web.Request) -> Match:
        try:
            return self.table.find(request.method, request.rel_url.raw_path)
        except UnicodeDecodeError:
            raise NotFound("There is nothing at this path") from None
        except NotFound as error:
            if missing := self._missing():
                raise Unavailable(f"Not everything is there yet: {missing}") from error
            raise

    async def _respond(self, match: Match, request: web.Request) -> web.StreamResponse:
        route, variables = match
        principal = await self._admitted(match, request)
        if route.forward is not None:
            return await route.forward(request, principal, self._address(request))
        body = body_of(route.body, await self._content(route, request)) if route.body is not Nothing else Nothing()
        query = query_of(route.query, request.rel_url.raw_query_string) if route.query is not Nothing else Nothing()
        asked = Request(principal, variables, body, query, self._address(request))
        answer = await self._in_time(route.handler(asked))
        if isinstance(answer, Stream):
            return await self._streamed(route, request, answer)
        return web.Response(body=rendered(answer), headers=_JSON_HEADERS)

    async def _admitted(self, match: Match, request: web.Request) -> Principal:
        route, variables = match
        # A stale credential must not keep anybody from logging in again.
        if route.audience is Audience.PUBLIC:
            principal = Principal.nobody()
        else:
            principal = await self._in_time(self._authenticate(request))
        admit(route, principal)
        if any("\0" in value for value in variables.values()):
            raise NotFound("There is nothing at this path")
        if variables and route.forward is None:
            await self._in_time(self._tenancy.admit(principal, variables))
        return principal

    async def _in_time(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._limits.handler_s):
                return await work
        except TimeoutError as error:
            raise Unavailable("This took too long") from error

    async def _content(self, route: Route, request: web.Request) -> bytes:
        if not request.body_exists:
            return b""
        content = bytearray()
        async for piece in body_pieces(request, route.body_limit, self._limits.body_s):
            content += piece
        return bytes(content)

    async def _streamed(self, route: Route, request: web.Request, answer: Stream) -> web.StreamResponse:
        async with _let_go(answer.pieces) as pieces:
            # What fails before the first piece is still answered as an error.
            first = await self._in_time(anext(pieces, b""))
            response = web.StreamResponse(headers={"Content-Type": answer.content_type, **_HEADERS})
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            if not await self._written(route, response, first, pieces):
                # The status is sent: only a connection that ends before its last chunk can say that this is not all.
                _BROKEN.labels(route.path).inc()
                abort(request)
        return response

    async def _written(
        self, route: Route, response: web.StreamResponse, first: bytes, pieces: AsyncIterator[bytes]
    ) -> bool:
        try:
            await self._write_all(response, first, pieces)
        except (ConnectionError, TimeoutError) as error:
            logger.info("stream_not_taken", path=route.path, reason=repr(error))
        except ZdmError as error:
            logger.warning("stream_broken", path=route.path, reason=error.message)
        except Exception:
            logger.exception("stream_broken", path=route.path)
        else:
            return True
        return False

    async def _write_all(self, response: web.StreamResponse, first: bytes, pieces: AsyncIterator[bytes]) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._limits.stall_s) as stall:
            await response.write(first)
            async for piece in pieces:
                await response.write(piece)
                stall.reschedule(loop.time() + self._limits.stall_s)
            await response.write_eof()


async def body_pieces(request: web.Request, limit: int, within_s: float) -> AsyncIterator[bytes]:
    """The body as it arrives. Raise `TooLarge` beyond `limit` bytes, `HalfSent` when it is not whole in time."""
    too_large = TooLarge(f"The body may have {limit} bytes at most")
    if (request.content_length or 0) > limit:
        raise too_large
    deadline, size = asyncio.get_running_loop().time() + within_s, 0
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                piece = await request.content.readany()
        except TimeoutError:
            raise HalfSent(f"The body did not arrive within {within_s:g} s") from None
        except web.RequestPayloadError as error:
            raise Refused("The body is not encoded as its headers say") from error
        if not piece:
            return
        size += len(piece)
        if size > limit:
            raise too_large
        yield piece


def abort(request: web.Request) -> None:
    """End the connection so that the other side cannot take what it got for the whole."""
    if request.transport is not None:
        request.transport.abort()


def admit(route: Route, principal: Principal) -> None:
    """The audience of a route: raise `Unauthorized` or `Forbidden`."""
    if route.audience is Audience.PUBLIC:
        return
    if principal.kind is Kind.NOBODY:
        raise Unauthorized("Log in, or send an API key in X-API-KEY")
    if route.audience is Audience.USER and principal.kind is not Kind.SESSION:
        raise Forbidden("This needs a person who has logged in; an API key may not do it")


def _options(error: MethodNotAllowed) -> web.Response:
    return web.Response(status=204, headers={"Allow": error.allowed})


# Methods, paths and statuses are ours, never the client's words: their number is bounded.
@cache
def _count(method: str, path: str, status: int) -> Counter:
    return _REQUESTS.labels(method, path, status)


@asynccontextmanager
async def _let_go(pieces: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Whatever becomes of the connection, a generator gives back what it holds at once, not when it is collected."""
    try:
        yield pieces
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


async def json_list(head: bytes, items: AsyncIterator[bytes], tail: bytes) -> AsyncIterator[bytes]:
    """Pieces of some 64 KiB: `head`, the encoded `items` with commas between them, `tail`."""
    buffer, separator = bytearray(head), b""
    async with _let_go(items):
        async for item in items:
            buffer += separator + item
            separator = b","
            if len(buffer) >= _STREAM_CHUNK:
                yield bytes(buffer)
                buffer.clear()
    yield bytes(buffer + tail)
