"""The public Python client of the original, unmodified, against the whole system."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import client, heard, say
from tests.support.system import Rest, System, default_workspace, new_device, running_system
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with running_system(tmp_path_factory.mktemp("client") / "home") as system:
        yield system


async def payloads(rest: Rest, workspace: str, device: str) -> list[Any]:
    data = await rest.call("GET", f"/v3/timeseries/{workspace}/data", device=device, sort="timestamp_device")
    return [point["payload"] for point in data["result"]]


@pytest.mark.parametrize("mode", ["device_token", "cloud_token"])
@pytest.mark.parametrize("endpoint", ["secure", "insecure"])
async def test_the_public_client_connects_publishes_and_asks_the_time(
    system: System, tmp_path: Path, mode: str, endpoint: str
) -> None:
    async with system.admin() as rest:
        workspace = await default_workspace(rest)
        credential = await new_device(
            rest, workspace, f"{mode}-{endpoint}", provision_mode=mode, endpoint_mode=endpoint
        )
        device = credential["devinfo"]["device_id"]
        async with client(tmp_path, credential) as process:
            await heard(process, "started")
            await say(process, do="publish", tag="env", payload={"temp": 21.4})

            async def stored() -> list[Any]:
                return await payloads(rest, workspace, device)

            assert await eventually(stored) == [{"temp": 21.4}]
            await say(process, do="now")
            assert set(await heard(process, "now")) == {"s", "ms", "rfc3339"}
            status = await rest.call("GET", f"/v3/devices/{device}/status")
            assert status["current"]["__manifest"]["v"] == {"jobs": ["reset_counter"], "conditions": []}
            assert (await rest.call("GET", f"/v3/workspaces/{workspace}/devices/{device}"))["device"]["is_connected"]


async def test_the_public_client_goes_on_after_the_broker_was_killed(system: System, tmp_path: Path) -> None:
    async with system.admin() as rest:
        workspace = await default_workspace(rest)
        credential = await new_device(rest, workspace, "reconnecting")
        device = credential["devinfo"]["device_id"]
        async with client(tmp_path, credential) as process:
            await heard(process, "started")

            async def reported() -> bool:
                return bool((await rest.call("GET", f"/v3/devices/{device}/status"))["current"])

            # Cut in the middle of a write, the client's MQTT library of old ends its thread for good.
            await eventually(reported)
            system.kill("broker")
            await heard(process, "disconnected")
            await heard(process, "connected")
            await say(process, do="publish", tag="env", payload={"after": True})

            async def stored() -> list[Any]:
                return await payloads(rest, workspace, device)

            assert await eventually(stored) == [{"after": True}]
            # It reconnects without subscribing again; what comes down must reach it all the same.
            await say(process, do="now")
            assert await heard(process, "now")
