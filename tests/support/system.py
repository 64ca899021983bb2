"""What tests want of a running installation, and one as `make run` starts it, in a folder and on ports of its own."""

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest

from deploy.simulator.device import ConnectionRefused, Device
from tests.support.ports import free_ports
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
# As from a terminal: whoever started the tests in the background had Ctrl-C ignored, and a shell cannot undo that.
RUN = ("env", "--default-signal=INT", str(ROOT / "deploy/local/run"))
EMAIL = "admin@example.org"
PASSWORD = "correct horse battery staple"
_READY_S = 30.0


class RestError(AssertionError):
    """The service answered with an error that the caller did not expect."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


class Rest:
    """REST as one caller: with a session token or an API key."""

    def __init__(self, http: aiohttp.ClientSession, headers: Mapping[str, str]) -> None:
        self._http = http
        self.headers = dict(headers)

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON of a 200; raise `RestError` for anything else."""
        status, answer = await self.ask(method, path, body, **query)
        if status != 200:
            raise RestError(status, answer)
        return answer

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        """Status and JSON."""
        async with self._http.request(method, path, json=body, params=query, headers=self.headers) as answer:
            return answer.status, await answer.json(content_type=None)


class Installation(ABC):
    """One that runs. `url`: of its REST; `receiver_host`: this machine, as its webhooks may reach it."""

    url: str
    receiver_host = "127.0.0.1"
    email, password = EMAIL, PASSWORD

    @abstractmethod
    def last_words(self) -> str:
        """The end of what it logged."""

    async def ready(self, within_s: float = _READY_S) -> None:
        """Wait for `/readyz`."""
        try:
            await eventually(self.is_ready, within_s=within_s)
        except AssertionError as error:
            raise AssertionError(f"not ready: {error}\n{self.last_words()}") from error

    async def is_ready(self) -> bool:
        """Whether it says so."""
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{self.url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Rest]:
        """REST as the first account."""
        async with aiohttp.ClientSession(self.url) as http:
            login = {"email": self.email, "password": self.password}
            token = (await Rest(http, {}).call("POST", "/v3/auth/login", login))["token"]
            yield Rest(http, {"Authorization": f"Bearer {token}"})

    @asynccontextmanager
    async def as_key(self, key: str) -> AsyncIterator[Rest]:
        """REST with an API key."""
        async with aiohttp.ClientSession(self.url) as http:
            yield Rest(http, {"X-API-KEY": key})


def samples(page: str) -> dict[str, float]:
    """Of a page of metrics, by their full name with labels."""
    pairs = (line.rsplit(" ", 1) for line in page.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


class System(Installation):
    """Mosquitto and one Python process, under the run script."""

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.http_port, self.mtls_port, self.token_port, self.plain_port, self.internal_port = free_ports(5)
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("ZDM_")} | {
            "ZDM_HOME": str(home),
            "ZDM_HTTP_PORT": str(self.http_port),
            "ZDM_MQTT_MTLS_PORT": str(self.mtls_port),
            "ZDM_MQTT_TOKEN_PORT": str(self.token_port),
            "ZDM_MQTT_PLAIN_PORT": str(self.plain_port),
            "ZDM_INTERNAL_PORT": str(self.internal_port),
            "ZDM_ADMIN_EMAIL": EMAIL,
            "ZDM_ADMIN_PASSWORD": PASSWORD,
            "ZDM_SPOOL_FREE_BYTES": "16777216",
            # The receivers of tests are on this machine.
            "ZDM_OUTBOUND_ALLOW": "127.0.0.0/8",
            **(settings or {}),
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def log_file(self) -> Path:
        """What the run script and its children wrote."""
        return self.home / "run.log"

    async def launch(self) -> None:
        """Start, without waiting."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *RUN, cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )

    async def start(self) -> Self:
        """Start, and wait until it can take work."""
        await self.launch()
        await self.ready()
        return self

    def last_words(self) -> str:
        """See `Installation`."""
        return self.log_file.read_text()[-4000:]

    async def ended(self, within_s: float = 30.0) -> int:
        """The exit status, once it has ended by itself."""
        assert self._process is not None
        async with asyncio.timeout(within_s):
            return await self._process.wait()

    async def stop(self) -> int:
        """Ctrl-C; the exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        return await self.ended()

    def pid(self, child: str) -> int:
        """Process id of `broker` or `services` as it is now."""
        return int((self.home / f"{child}.pid").read_text())

    def kill(self, *children: str) -> None:
        """kill -9."""
        for child in children:
            os.kill(self.pid(child), signal.SIGKILL)

    async def metrics(self) -> dict[str, float]:
        """Samples of `/metrics` by their full name with labels."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{self.internal_port}/metrics") as answer,
        ):
            return samples(await answer.text())


@asynccontextmanager
async def running_system(home: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[System]:
    """A system that is ready; stopped at the end."""
    system = System(home, settings)
    try:
        yield await system.start()
    finally:
        await system.stop()


async def default_workspace(rest: Rest) -> str:
    """Id of the account's workspace, which appears just after the account."""

    async def look() -> list[dict[str, Any]]:
        return list((await rest.call("GET", "/v3/workspaces"))["workspaces"])

    return str((await eventually(look))[0]["id"])


async def new_device(rest: Rest, workspace: str, name: str, **credential: Any) -> dict[str, Any]:
    """A device's `zdevice.json`."""
    device = (await rest.call("POST", f"/v3/workspaces/{workspace}/devices", {"name": name}))["device"]
    path = f"/v3/workspaces/{workspace}/devices/{device['id']}/credentials"
    return dict((await rest.call("POST", path, credential))["credential"])


async def stored(rest: Rest, workspace: str, device: str, count: int = 1, within_s: float = 10.0) -> list[Any]:
    """Its points in their order, once there are so many."""

    async def look() -> list[Any]:
        path = f"/v3/timeseries/{workspace}/data"
        found = (await rest.call("GET", path, device=device, sort="timestamp_device"))["result"]
        return found if len(found) >= count else []

    return await eventually(look, within_s=within_s)


async def is_refused(credential: Mapping[str, Any]) -> None:
    """The broker lets no device in with it."""
    with pytest.raises((ConnectionRefused, ConnectionError)):
        await Device.connect(dict(credential))
