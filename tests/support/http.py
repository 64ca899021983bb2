"""Real servers over routes, and what a socket says to them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from shared.http.dispatch import Dispatcher, Limits
from shared.http.routes import Route
from shared.http.server import application, serve
from shared.log import Log
from shared.messages.registry import WHOLE, RegistryEntry, RegistryWhole
from shared.messages.topics import ACCESS, REGISTRY
from shared.runtime import open_platform
from shared.security.principal import Principal
from shared.security.tenancy import Tenancy
from shared.service import Platform
from shared.settings import Installation
from tests.support.ports import free_ports


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Any
    body: bytes
    json: Any


@dataclass
class Server:
    """A server that listens on this machine."""

    port: int
    http: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        """The whole answer; redirects are not followed."""
        async with self.http.request(method, path, allow_redirects=False, **more) as answer:
            body = await answer.read()
            is_json = answer.content_type == "application/json" and body
            return Answer(answer.status, answer.headers, body, await answer.json() if is_json else None)

    async def say(self, *pieces: bytes, within_s: float = 10.0) -> bytes:
        """All that comes back on one connection until the server closes it; the pieces go as packets of their own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.05)
            async with asyncio.timeout(within_s):
                return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def serving(app: web.Application, **limits: float) -> AsyncIterator[Server]:
    """`app` on a free port."""
    port = free_ports(1)[0]
    async with (
        serve(app, "127.0.0.1", port, **limits),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        yield Server(port, http)


@asynccontextmanager
async def running_platform(home: Path, *entries: RegistryEntry) -> AsyncIterator[Platform]:
    """Log and documents in `home`, and a registry that follows the log and knows `entries`."""
    async with open_platform(Installation.load({"ZDM_HOME": str(home)})) as platform:
        await know(platform, *entries)
        await everything_told(platform.log)
        following = asyncio.create_task(platform.registry.run())
        try:
            await platform.registry.ready.wait()
            yield platform
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def know(platform: Platform, *entries: RegistryEntry) -> None:
    """Tell the registry of `entries`."""
    await platform.log.append(REGISTRY, [entry.record(entry.id) for entry in entries])


async def everything_told(log: Log) -> None:
    """Say that the registry names all there is."""
    whole = RegistryWhole(access=await log.identity(ACCESS))
    await log.append(REGISTRY, [whole.record(WHOLE)])


def workspace(identifier: str, account_id: str, revision: int = 1) -> RegistryEntry:
    """A workspace as provisioning would tell of it."""
    return RegistryEntry(
        kind="workspace",
        id=identifier,
        account_id=account_id,
        workspace_id=identifier,
        name=identifier,
        revision=revision,
    )


def device(identifier: str, workspace_id: str, account_id: str) -> RegistryEntry:
    """A device as provisioning would tell of it."""
    return RegistryEntry(
        kind="device",
        id=identifier,
        account_id=account_id,
        workspace_id=workspace_id,
        fleet_id="flt-1",
        name=identifier,
        revision=1,
    )


@asynccontextmanager
async def serving_routes(
    platform: Platform, routes: Sequence[Route], principal: Principal, limits: Limits | None = None, **server: float
) -> AsyncIterator[Server]:
    """`routes`, always asked by `principal`."""

    async def authenticate(_request: web.Request) -> Principal:
        return principal

    dispatch = Dispatcher(routes, authenticate, Tenancy(platform.registry), limits)
    async with serving(application(dispatch), **server) as one:
        yield one
