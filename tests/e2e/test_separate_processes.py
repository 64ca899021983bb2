"""Each service as a process of its own, over the same log and documents: the gateway reaches the others over HTTP."""

import asyncio
from pathlib import Path

import pytest

from deploy.simulator.device import Device
from tests.support.apart import running_apart
from tests.support.system import Rest, default_workspace, new_device
from tests.support.waiting import eventually


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
