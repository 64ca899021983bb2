"""Each service as a process of its own, over the same log and documents: the gateway reaches the others over HTTP."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from deploy.simulator.device import Device
from tests.support.ports import free_ports
from tests.support.system import ROOT, Rest, System, default_workspace, new_device
from tests.support.waiting import eventually

BACKGROUND = ("provisioning", "ingestion", "jobs", "storage", "integrations")


class Apart(System):
    """As `System`, but a process for each service and one for the broker."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.home.mkdir()
        ports = dict(zip(BACKGROUND, free_ports(len(BACKGROUND)), strict=True))
        self.environment["ZDM_UPSTREAMS"] = ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in ports.items())
        self._ports = ports | {"gateway": self.internal_port}
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def begin(self, name: str) -> None:
        """Start one, without waiting."""
        command = ["deploy/mosquitto/start"] if name == "broker" else [sys.executable, "-m", f"services.{name}"]
        port = {"ZDM_INTERNAL_PORT": str(self._ports[name])} if name in self._ports else {}
        with self.log_file.open("ab") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=self.environment | port, stdout=log, stderr=log
            )

    async def end(self, name: str) -> int:
        """SIGTERM; the exit status."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            return await process.wait()


@asynccontextmanager
async def running_apart(home: Path) -> AsyncIterator[Apart]:
    apart = Apart(home)
    async with AsyncExitStack() as stack:
        for name in ("broker", *BACKGROUND, "gateway"):
            await apart.begin(name)
            stack.push_async_callback(apart_ended, apart, name)
        await apart.ready()
        yield apart


async def apart_ended(apart: Apart, name: str) -> None:
    assert await apart.end(name) == 0 or name == "broker"


@pytest.mark.timeout(180)
async def test_services_apart_do_together_what_they_do_in_one_process(tmp_path: Path) -> None:
    async with running_apart(tmp_path / "home") as apart, apart.admin() as rest:
        workspace = await default_workspace(rest)
        answers: asyncio.Queue[bytes] = asyncio.Queue()
        credential = await new_device(rest, workspace, "apart")
        session = await Device.connect(credential, on_message=lambda _topic, payload: answers.put_nowait(payload))
        await session.up("#now", {})
        async with asyncio.timeout(10):
            assert b'"rfc3339"' in await answers.get()
        await session.data("env", {"n": 1})
        await stored(rest, workspace, 1)

        assert await apart.end("storage") == 0
        await session.data("env", {"n": 2})
        status, answer = await rest.ask("GET", f"/v3/timeseries/{workspace}/data")
        assert (status, answer["code"]) == (503, "unavailable")
        await apart.begin("storage")
        await stored(rest, workspace, 2)

        document = await rest.call("GET", "/openapi.json")
        assert {"/v3/workspaces/{workspace_id}", "/v3/timeseries/{workspace_id}/data"} <= set(document["paths"])
        session.close()


async def stored(rest: Rest, workspace: str, count: int) -> None:
    async def look() -> bool:
        status, answer = await rest.ask("GET", f"/v3/timeseries/{workspace}/data")
        return status == 200 and len(answer["result"]) == count

    await eventually(look, within_s=20)
