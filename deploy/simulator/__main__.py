"""`make demo`: a workspace, a fleet of virtual devices in it, and a webhook receiver that prints what arrives."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import aiohttp
import orjson

from deploy.simulator.api import Api, base_url, first_login
from deploy.simulator.device import tls_context
from deploy.simulator.fleet import Filler
from deploy.simulator.receiver import receiving

WORKSPACE = "Bottling plant (demo)"
FLEET = "Fillers"


async def named(api: Api, path: str, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """The object of this name, made if it is missing."""
    for found in (await api.call("GET", path))[f"{kind}s"]:
        if found["name"] == body["name"]:
            return dict(found)
    return dict((await api.call("POST", path, body))[kind])


def show(batch: dict[str, Any]) -> None:
    """Print what arrived."""
    for point in batch["result"]:
        time, payload = point["timestamp_device"][11:23], orjson.dumps(point["payload"]).decode()
        print(f"{time}  {point['device_name']:<10}  {point['tag']:<10}  {payload}", flush=True)


async def demo(environment: Mapping[str, str]) -> None:
    """Set up and run until stopped."""
    count, port = int(environment.get("DEVICES") or 20), int(environment.get("RECEIVER_PORT") or 8090)
    async with aiohttp.ClientSession(base_url(environment)) as http:
        api = Api(http)
        await api.ready()
        await api.login(*first_login(environment))
        workspace = await named(api, "/v3/workspaces", "workspace", {"name": WORKSPACE})
        root = f"/v3/workspaces/{workspace['id']}"
        fleet = await named(api, f"{root}/fleets", "fleet", {"name": FLEET})
        url = f"http://127.0.0.1:{port}/"
        integration = {"type": "data_stream", "subtype": "webhook", "subtype_configuration": {"url": url}}
        await named(api, f"{root}/integrations", "integration", {"name": "demo receiver", **integration})
        fillers = [await filler(api, root, fleet["id"], number) for number in range(1, count + 1)]
    print(f"demo: {count} devices in workspace '{WORKSPACE}' ({workspace['id']}) send to {url}", flush=True)
    async with receiving(show, port), asyncio.TaskGroup() as tasks:
        for one in fillers:
            tasks.create_task(one.run())


async def filler(api: Api, root: str, fleet: str, number: int) -> Filler:
    """A device with fresh credentials."""
    body = {"name": f"filler-{number:02d}", "fleet_id": fleet}
    device = await named(api, f"{root}/devices", "device", body)
    path = f"{root}/devices/{device['id']}/credentials"
    credential = (await api.call("POST", path, {"revoke_previous": True}))["credential"]
    return Filler(credential, tls_context(credential["cacert"]), phase=number)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(demo(os.environ))
