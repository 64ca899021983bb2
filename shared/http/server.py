"""HTTP servers: an application over routes, and the sockets in front of it.

app = application(Dispatcher(routes, authenticate, tenancy))
async with serve(app, "127.0.0.1", 8080): ...
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from shared.http.dispatch import Dispatcher
from shared.http.routes import Route
from shared.security.principal import Principal, PrincipalSigner
from shared.security.tenancy import Tenancy

PRINCIPAL_HEADER = "X-ZDM-Principal"

_KEEP_ALIVE_S = 75.0
_SHUTDOWN_S = 5.0
_BACKLOG = 1024
# Bodies have limits of their own, per route; this one is the outermost.
_LARGEST_BODY = 64 * 1024 * 1024


def application(dispatch: Dispatcher) -> web.Application:
    """Everything that no handler added before takes goes to `dispatch`."""
    app = web.Application(client_max_size=_LARGEST_BODY)
    app[DISPATCHER] = dispatch
    return app


DISPATCHER: web.AppKey[Dispatcher] = web.AppKey("dispatcher", Dispatcher)


def internal_app(routes: Sequence[Route], principals: PrincipalSigner, tenancy: Tenancy) -> web.Application:
    """The routes of a service started alone, for the gateway: it says who is asking with a signed token."""

    async def authenticate(request: web.Request) -> Principal:
        token = request.headers.get(PRINCIPAL_HEADER)
        if token is None:
            return Principal.nobody()
        return principals.verify(token)

    return application(Dispatcher(routes, authenticate, tenancy))


@asynccontextmanager
async def serve(app: web.Application, host: str, port: int) -> AsyncIterator[None]:
    """Listen as long as the block lasts, then let what is under way finish for a few seconds."""
    if (dispatch := app.get(DISPATCHER)) is not None:
        app.router.add_route("*", "/{anything:.*}", dispatch)
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=_KEEP_ALIVE_S,
        shutdown_timeout=_SHUTDOWN_S,
        max_line_size=8190,
        max_field_size=8190,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=_BACKLOG, reuse_address=True).start()
        yield
    finally:
        await runner.cleanup()
