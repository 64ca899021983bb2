"""The one door to the outside: authenticates, serves all operations, the OpenAPI document and its page."""

from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path

import orjson
from aiohttp import web

from services.gateway.domain.use_cases.authenticate import Authenticate
from shared.errors import Refused
from shared.http import openapi
from shared.http.dispatch import Dispatcher, peer
from shared.http.errors import JSON
from shared.http.routes import Route
from shared.http.server import application
from shared.http.upstreams import Remote
from shared.security.principal import Principal
from shared.security.tenancy import Tenancy
from shared.settings import IPNetwork

_ASSETS = Path(__file__).parents[1] / "assets"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Server": "zDeviceManager",
}
_ASSET_TYPES = {"docs.html": "text/html", "docs.js": "text/javascript", "docs.css": "text/css"}


class Door:
    """`routes`: of this process; `remotes`: services in others, added as they tell what they serve.

    `trusted_proxies`: whose word on where a request came from is believed.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        remotes: Sequence[Remote],
        authenticate: Authenticate,
        tenancy: Tenancy,
        trusted_proxies: Sequence[IPNetwork] = (),
    ) -> None:
        self._routes = routes
        self._remotes = remotes
        self._authenticate = authenticate
        self._trusted_proxies = trusted_proxies
        self._document: bytes | None = None
        self._dispatch = Dispatcher(
            routes, self._principal, tenancy, address=self._address, missing=self._missing_services
        )

    def app(self) -> web.Application:
        """The public application."""
        app = application(self._dispatch)
        app.router.add_get("/", self._home)
        app.router.add_get("/openapi.json", self._openapi)
        for path in ("/docs", "/docs/"):
            app.router.add_get(path, self._asset("docs.html"))
        for name in ("docs.js", "docs.css"):
            app.router.add_get(f"/docs/{name}", self._asset(name))
        return app

    def learn(self, routes: Sequence[Route]) -> None:
        """Serve these too."""
        self._dispatch.table.add(routes)
        self._document = None

    def _missing_services(self) -> str:
        return ", ".join(remote.name for remote in self._remotes if remote.waiting_for())

    async def _principal(self, request: web.Request) -> Principal:
        key, token = request.headers.get("X-API-KEY"), _bearer(request)
        if key is not None and token is not None:
            raise Refused("Send X-API-KEY or a bearer token, not both")
        if key is not None:
            return await self._authenticate.api_key(key)
        if token is not None:
            return await self._authenticate.session(token)
        return Principal.nobody()

    def _address(self, request: web.Request) -> str:
        """The last address that no trusted proxy has: whoever is before it may have made up the rest."""
        address = peer(request)
        if not self._trusted_proxies:
            return address
        told = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        for one in reversed([part.strip() for part in told if part.strip()]):
            if not self._is_trusted(address):
                break
            address = one
        return address

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted_proxies)

    async def _home(self, _request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/docs"})

    async def _openapi(self, _request: web.Request) -> web.Response:
        if self._document is None:
            documents = [openapi.document(self._routes, version("zdevicemanager"))]
            documents += [remote.document for remote in self._remotes if remote.document is not None]
            self._document = orjson.dumps(openapi.merged(documents))
        return web.Response(body=self._document, headers={**_PAGE_HEADERS, "Content-Type": JSON})

    def _asset(self, name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        content = (_ASSETS / name).read_bytes()

        async def asset(_request: web.Request) -> web.Response:
            return web.Response(body=content, content_type=_ASSET_TYPES[name], charset="utf-8", headers=_PAGE_HEADERS)

        return asset


def _bearer(request: web.Request) -> str | None:
    """Of other schemes, which a proxy may have asked for, nothing is known here."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
