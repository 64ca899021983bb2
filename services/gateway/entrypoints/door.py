"""The one door to the outside: authenticates, serves all operations, the OpenAPI document and its page."""

from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from aiohttp import web

from services.gateway.domain.use_cases.authenticate import Authenticate
from shared.errors import Refused
from shared.http import openapi
from shared.http.dispatch import Dispatcher
from shared.http.routes import Route
from shared.http.server import application
from shared.http.upstreams import Remote
from shared.security.principal import Principal
from shared.security.tenancy import Tenancy

_ASSETS = Path(__file__).parents[1] / "assets"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_ASSET_TYPES = {"docs.html": "text/html", "docs.js": "text/javascript", "docs.css": "text/css"}


class Door:
    """`routes`: of this process; `remotes`: services in others, added as they tell what they serve."""

    def __init__(
        self, routes: Sequence[Route], remotes: Sequence[Remote], authenticate: Authenticate, tenancy: Tenancy
    ) -> None:
        self._routes = routes
        self._remotes = remotes
        self._authenticate = authenticate
        self._dispatch = Dispatcher(routes, self._principal, tenancy)

    def app(self) -> web.Application:
        """The public application."""
        app = application(self._dispatch)
        app.router.add_get("/openapi.json", self._openapi)
        app.router.add_get("/docs", self._asset("docs.html"))
        for name in ("docs.js", "docs.css"):
            app.router.add_get(f"/docs/{name}", self._asset(name))
        return app

    def learn(self, routes: Sequence[Route]) -> None:
        """Serve these too."""
        self._dispatch.table.add(routes)

    async def _principal(self, request: web.Request) -> Principal:
        key, bearer = request.headers.get("X-API-KEY"), request.headers.get("Authorization")
        if key is not None and bearer is not None:
            raise Refused("Send X-API-KEY or Authorization, not both")
        if key is not None:
            return await self._authenticate.api_key(key)
        if bearer is not None:
            scheme, _, token = bearer.partition(" ")
            if scheme.lower() != "bearer":
                raise Refused("Authorization: only Bearer is known here")
            return await self._authenticate.session(token.strip())
        return Principal.nobody()

    async def _openapi(self, _request: web.Request) -> web.Response:
        documents = [openapi.document(self._routes, version("zdevicemanager"))]
        documents += [remote.document for remote in self._remotes if remote.document is not None]
        return web.json_response(openapi.merged(documents))

    def _asset(self, name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        content = (_ASSETS / name).read_bytes()

        async def asset(_request: web.Request) -> web.Response:
            return web.Response(body=content, content_type=_ASSET_TYPES[name], charset="utf-8", headers=_PAGE_HEADERS)

        return asset
