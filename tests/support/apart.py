"""The system with a process for each service, over one log and documents; the gateway reaches the others over HTTP."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.ports import free_ports
from tests.support.system import ROOT, System

# Two cores start a dozen interpreters.
_READY_S = 90.0
BACKGROUND = ("provisioning", "ingestion", "jobs", "storage", "integrations")


class Apart(System):
    """As `System`, but a process for each service, and two for each broker: `broker-2` has its `ingestion-2`."""

    def __init__(
        self, home: Path, brokers: tuple[str, ...] = ("broker",), settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(home, settings)
        self.home.mkdir()
        self.brokers = brokers
        self.names = (*brokers, *BACKGROUND, *(_ingestion(broker) for broker in brokers[1:]), "gateway")
        services = [name for name in self.names if name not in (*brokers, "gateway")]
        self._ports = dict(zip(services, free_ports(len(services)), strict=True)) | {"gateway": self.internal_port}
        upstreams = (f"{name}=http://127.0.0.1:{self._ports[name]}" for name in BACKGROUND)
        self.environment |= {"ZDM_UPSTREAMS": ",".join(upstreams), "ZDM_BROKERS": ",".join(brokers)}
        self._told = {name: {"ZDM_INTERNAL_PORT": str(port)} for name, port in self._ports.items()}
        self.token_ports = {brokers[0]: self.token_port}
        for broker in brokers[1:]:
            self._join(broker)
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    def _join(self, broker: str) -> None:
        mtls, token = free_ports(2)
        self.token_ports[broker] = token
        name = {"ZDM_BROKER": broker}
        self._told[broker] = name | {
            "ZDM_MQTT_MTLS_PORT": str(mtls),
            "ZDM_MQTT_TOKEN_PORT": str(token),
            "ZDM_MQTT_PLAIN_PORT": "off",
        }
        self._told[_ingestion(broker)] |= name

    async def begin(self, name: str) -> None:
        """Start one, without waiting."""
        service = name.partition("-")[0]
        command = ["deploy/mosquitto/start"] if service == "broker" else [sys.executable, "-m", f"services.{service}"]
        with self.log_file.open("ab") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=self.environment | self._told.get(name, {}), stdout=log, stderr=log
            )

    async def end(self, name: str) -> int:
        """SIGTERM; the exit status."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            return await process.wait()

    async def kill_one(self, name: str) -> None:
        """kill -9."""
        process = self.processes.pop(name)
        process.kill()
        await process.wait()

    async def waiting_for(self, name: str) -> Mapping[str, str]:
        """What a service says on `/readyz`."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{self._ports[name]}/readyz") as answer,
        ):
            return dict((await answer.json())["waiting_for"])

    async def sample(self, name: str, metric: str) -> float:
        """Of a service's `/metrics`; 0 while it counts nothing of the kind."""
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{self._ports[name]}/metrics") as answer:
            for line in (await answer.text()).splitlines():
                if line.startswith(f"{metric} "):
                    return float(line.rsplit(" ", 1)[1])
        return 0.0

    def at(self, broker: str, credential: Mapping[str, Any]) -> dict[str, Any]:
        """The same `zdevice.json`, at this broker."""
        return {**credential, "endpoint": {**credential["endpoint"], "port": self.token_ports[broker]}}


def _ingestion(broker: str) -> str:
    return broker.replace("broker", "ingestion")


@asynccontextmanager
async def running_apart(home: Path, *brokers: str, settings: Mapping[str, str] | None = None) -> AsyncIterator[Apart]:
    """All of them, ready; at the end each that was not killed ends cleanly when told to."""
    apart = Apart(home, brokers or ("broker",), settings)
    async with AsyncExitStack() as stack:
        for name in apart.names:
            await apart.begin(name)
            stack.push_async_callback(_ended, apart, name)
        await apart.ready(within_s=_READY_S)
        yield apart


async def _ended(apart: Apart, name: str) -> None:
    if name in apart.processes:
        assert await apart.end(name) == 0 or name in apart.brokers
