"""Provisioning as it runs, over real stores and HTTP, with or without a broker."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from services.provisioning.adapters.store import Store, open_store
from services.provisioning.domain.use_cases.tell import Tell
from services.provisioning.settings import ProvisioningSettings
from services.provisioning.wiring import wire
from shared.http.dispatch import Dispatcher
from shared.http.server import application
from shared.security.principal import Kind, Principal
from shared.security.tenancy import Tenancy
from shared.service import Platform, Service
from tests.support.http import Answer, Server, running_platform, serving
from tests.support.ports import free_ports
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


class Caller:
    """REST as a session of an account or, with a workspace, as an API key."""

    def __init__(self, server: Server, account: str, workspace: str = "") -> None:
        self._server = server
        self._headers = {"X-Account": account, "X-Workspace": workspace}

    async def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Whatever comes back."""
        return await self._server.ask(method, f"/v3{path}", json=body, headers=self._headers)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a 200."""
        answer = await self.ask(method, path, body)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.body!r}"
        return answer.json

    async def workspace(self, name: str = "plant") -> str:
        """A new one's id."""
        return str((await self.call("POST", "/workspaces", {"name": name}))["workspace"]["id"])

    async def device(self, workspace: str, name: str = "filler", **more: Any) -> str:
        """A new one's id."""
        made = await self.call("POST", f"/workspaces/{workspace}/devices", {"name": name, **more})
        return str(made["device"]["id"])

    async def fleet(self, workspace: str, name: str = "fillers") -> str:
        """A new one's id."""
        return str((await self.call("POST", f"/workspaces/{workspace}/fleets", {"name": name}))["fleet"]["id"])


class Provisioning:
    """The service, what it stands on, and its stores."""

    def __init__(self, platform: Platform, service: Service, store: Store, server: Server) -> None:
        self.platform = platform
        self.service = service
        self.store = store
        self._server = server

    def session(self, account: str = "acc-1") -> Caller:
        """A person of this account."""
        return Caller(self._server, account)

    def api_key(self, workspace: str, account: str = "acc-1") -> Caller:
        """A key of this workspace."""
        return Caller(self._server, account, workspace)

    def tell(self) -> Tell:
        """Tells as another process would."""
        return Tell(*self.store[:6], self.platform.log)

    async def worker(self, name: str) -> None:
        """Run one worker, for ever."""
        await next(worker.run for worker in self.service.workers if worker.name == name)()


async def _principal(request: web.Request) -> Principal:
    account, workspace = request.headers["X-Account"], request.headers["X-Workspace"]
    return Principal(Kind.API_KEY if workspace else Kind.SESSION, account, workspace or None)


@asynccontextmanager
async def provisioning(home: Path, *workers: str, **environment: str) -> AsyncIterator[Provisioning]:
    """Provisioning with these of its workers running."""
    settings = ProvisioningSettings.load(environment)
    async with running_platform(home) as platform:
        service = await wire(settings, platform)
        dispatch = Dispatcher(service.routes, _principal, Tenancy(platform.registry))
        async with serving(application(dispatch)) as server:
            one = Provisioning(platform, service, await open_store(platform.documents, platform.clock), server)
            running = [asyncio.create_task(one.worker(name), name=name) for name in workers]
            try:
                yield one
            finally:
                for task in running:
                    task.cancel()
                outcomes = await asyncio.gather(*running, return_exceptions=True)
                assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition."""
    await eventually(look, every_s=0.01)


class Broker:
    """Mosquitto with our plugin, as `make run` starts it, on ports of its own."""

    def __init__(self, home: Path, name: str = "broker") -> None:
        self.home = home
        self.name = name
        self.mtls_port, self.token_port, self.plain_port = free_ports(3)
        self.environment = {
            "ZDM_HOME": str(home),
            "ZDM_BROKER": name,
            "ZDM_MQTT_MTLS_PORT": str(self.mtls_port),
            "ZDM_MQTT_TOKEN_PORT": str(self.token_port),
            "ZDM_MQTT_PLAIN_PORT": str(self.plain_port),
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; it waits itself for its certificates."""
        log = (self.home.parent / f"{self.name}.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            ROOT / "deploy/mosquitto/start", env={**os.environ, **self.environment}, stdout=log, stderr=log
        )
        log.close()

    def signal(self, number: int) -> None:
        """Such as SIGSTOP: it is there and does nothing."""
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def broker(home: Path, name: str = "broker") -> AsyncIterator[Broker]:
    """A broker that is starting."""
    one = Broker(home, name)
    await one.start()
    try:
        yield one
    finally:
        await one.kill()
