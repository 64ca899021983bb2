"""HTTP servers: an application over routes, and the sockets in front of it.

    app = application(Dispatcher(routes, authenticate, tenancy))
    async with serve(app, "127.0.0.1", 8080): ...

What is slow or endless is bounded here and in `dispatch.Limits`: a request's head must be whole, and a kept connection
asked again, within `_IDLE_S`; lines and headers have the sizes below.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from shared.errors import Refused
from shared.http.dispatch import Dispatcher, Limits, peer
from shared.http.errors import answer_to
from shared.http.routes import Route
from shared.security.principal import Principal, PrincipalSigner
from shared.security.tenancy import Tenancy

logger = structlog.get_logger()

PRINCIPAL_HEADER = "X-ZDM-Principal"
ADDRESS_HEADER = "X-ZDM-Remote-Address"

# Longer than the usual reverse proxy keeps a connection (60 s), so that it is never ours that closes under a request.
_IDLE_S = 75.0
_SHUTDOWN_S = 5.0
_LINGER_S = 5.0
_BACKLOG = 1024
_LONGEST_LINE = 8190
_MOST_HEADERS = 64

_DISPATCHER: web.AppKey[Dispatcher] = web.AppKey("dispatcher", Dispatcher)


def application(dispatch: Dispatcher) -> web.Application:
    """Everything that no handler added to its router takes goes to `dispatch`."""
    app = web.Application()
    app[_DISPATCHER] = dispatch
    return app


def internal_app(
    routes: Sequence[Route], principals: PrincipalSigner, tenancy: Tenancy, limits: Limits | None = None
) -> web.Application:
    """The routes of a service started alone, for the gateway: it says who is asking with a signed token."""

    async def authenticate(request: web.Request) -> Principal:
        token = request.headers.get(PRINCIPAL_HEADER)
        if token is None:
            return Principal.nobody()
        return principals.verify(token)

    return application(Dispatcher(routes, authenticate, tenancy, limits, _told_address))


def _told_address(request: web.Request) -> str:
    return request.headers.get(ADDRESS_HEADER) or peer(request)


class _Connection(web.RequestHandler):
    """Answers what is no HTTP at all in the shape of every other error, without a traceback for each scanner."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Close after it: nobody knows where the next request would begin."""
        if status >= 500:
            logger.error("request_failed", path=request.rel_url.raw_path, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer had begun")
        response = answer_to(Refused("The request is not valid HTTP, or its head is too large"))
        response.force_close()
        return response


@asynccontextmanager
async def serve(
    app: web.Application, host: str, port: int, *, idle_s: float = _IDLE_S, shutdown_s: float = _SHUTDOWN_S
) -> AsyncIterator[None]:
    """Listen as long as the block lasts, then let what is under way finish for `shutdown_s`.

    `host`: an address or several separated by commas. Raise `OSError` when it cannot listen.
    """
    if (dispatch := app.get(_DISPATCHER)) is not None:
        app.router.add_route("*", r"/{anything:[\s\S]*}", dispatch.__call__)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_s)
    await runner.setup()
    hosts = [one.strip() for one in host.split(",")]
    try:
        connect = _connections(runner, idle_s)
        listener = await asyncio.get_running_loop().create_server(
            connect, hosts, port, backlog=_BACKLOG, reuse_address=True
        )
        try:
            yield
        finally:
            listener.close()
    finally:
        await runner.cleanup()


def _connections(runner: web.AppRunner, idle_s: float) -> Callable[[], _Connection]:
    """As the runner's own factory, with `_Connection` in place of its base."""
    manager, loop = runner.server, asyncio.get_running_loop()
    if manager is None:
        raise RuntimeError("the runner is not set up")
    return lambda: _Connection(
        manager,
        loop=loop,
        keepalive_timeout=idle_s,
        access_log=None,  # type: ignore[arg-type]  # None: no access log, as the runner itself passes it on
        max_line_size=_LONGEST_LINE,
        max_field_size=_LONGEST_LINE,
        max_headers=_MOST_HEADERS,
        lingering_time=_LINGER_S,
    )
