"""`make demo`: a workspace, a fleet of virtual devices in it, and a webhook receiver that prints what arrives.

Among containers, `RECEIVER_URL` says where a receiver is, and `BROKER` (host:port) how the broker is reached.
"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any

import aiohttp

from deploy.simulator.api import Api, base_url, first_login
from deploy.simulator.device import tls_context
from deploy.simulator.fleet import Filler
from deploy.simulator.receiver import receiving, show

WORKSPACE = "Bottling plant (demo)"
FLEET = "Fillers"


async def named(api: Api, path: str, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """The object of this name, made if it is missing."""
    for found in (await api.call("GET", path))[f"{kind}s"]:
        if found["name"] == body["name"]:
            return dict(found)
    return dict((await api.call("POST", path, body))[kind])


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
        url = environment.get("RECEIVER_URL") or f"http://127.0.0.1:{port}/"
        integration = {"type": "data_stream", "subtype": "webhook", "subtype_configuration": {"url": url}}
        await named(api, f"{root}/integrations", "integration", {"name": "demo receiver", **integration})
        broker = environment.get("BROKER") or ""
        fillers = [await filler(api, root, fleet["id"], number, broker) for number in range(1, count + 1)]
    print(f"demo: {count} devices in workspace '{WORKSPACE}' ({workspace['id']}) send to {url}", flush=True)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        if not environment.get("RECEIVER_URL"):
            await stack.enter_async_context(receiving(show, port))
        for one in fillers:
            tasks.create_task(one.run())


async def filler(api: Api, root: str, fleet: str, number: int, broker: str) -> Filler:
    """A device with fresh credentials; `broker`: where it connects, when not to where they say."""
    body = {"name": f"filler-{number:02d}", "fleet_id": fleet}
    device = await named(api, f"{root}/devices", "device", body)
    path = f"{root}/devices/{device['id']}/credentials"
    credential = (await api.call("POST", path, {"revoke_previous": True}))["credential"]
    if broker:
        host, _, port = broker.partition(":")
        credential["endpoint"] |= {"host": host, "port": int(port)}
    return Filler(credential, tls_context(credential["cacert"]), phase=number)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(demo(os.environ))
