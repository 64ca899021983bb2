"""`make demo`: a workspace, a fleet of virtual devices in it, and a webhook receiver that prints what arrives."""

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from deploy.simulator.device import tls_context
from deploy.simulator.fleet import Filler
from deploy.simulator.receiver import receiving

WORKSPACE = "Bottling plant (demo)"
FLEET = "Fillers"
_READY_S = 60


class Api:
    """REST as the first account."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._headers: dict[str, str] = {}

    async def login(self, email: str, password: str) -> None:
        """Open a session."""
        answer = await self.call("POST", "/v3/auth/login", {"email": email, "password": password})
        self._headers = {"Authorization": f"Bearer {answer['token']}"}

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a success; end the program with what went wrong otherwise."""
        async with self._http.request(method, path, json=body, headers=self._headers) as answer:
            content = await answer.json()
            if answer.status != 200:
                sys.exit(f"demo: {method} {path}: {content['message']}")
            return content

    async def ready(self) -> None:
        """Wait until the system can take work."""
        for _ in range(_READY_S * 5):
            with suppress(aiohttp.ClientError):
                async with self._http.get("/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.2)
        sys.exit(f"demo: the system was not ready within {_READY_S} s")


def first_login(environment: Mapping[str, str]) -> tuple[str, str]:
    """E-mail and password of the first account."""
    email = environment.get("ZDM_ADMIN_EMAIL") or "admin@localhost"
    if password := environment.get("ZDM_ADMIN_PASSWORD"):
        return email, password
    text = (Path(environment.get("ZDM_HOME") or "var") / "first-login.txt").read_text()
    words = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return words["email"], words["password"]


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
    async with aiohttp.ClientSession(f"http://127.0.0.1:{environment.get('ZDM_HTTP_PORT') or 8080}") as http:
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
