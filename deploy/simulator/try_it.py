"""A first device, by hand: make one, send as it, see what was stored.

try device NAME [FILE]          makes a device, writes its credentials (default zdevice.json)
try send TAG JSON [FILE]        sends a data point as that device
try data                        shows the newest data points
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from deploy.simulator.api import Api, base_url, first_login
from deploy.simulator.device import Device

_FILE = "zdevice.json"


async def device(name: str, file: str = _FILE) -> None:
    """Make a device in the first workspace."""
    async with aiohttp.ClientSession(base_url(os.environ)) as http:
        api = await _logged_in(http)
        root = await _root(api)
        made = (await api.call("POST", f"{root}/devices", {"name": name}))["device"]
        answer = await api.call("POST", f"{root}/devices/{made['id']}/credentials", {})
    path = Path(file)
    path.touch(mode=0o600)
    path.write_bytes(orjson.dumps(answer["credential"], option=orjson.OPT_INDENT_2))
    print(f"{made['id']} is '{name}'; its credentials are in {file}")


async def send(tag: str, payload: str, file: str = _FILE) -> None:
    """Connect over TLS, publish, wait for the acknowledgement."""
    connection = await Device.connect(orjson.loads(Path(file).read_bytes()))
    await connection.publish(f"j/data/{connection.id}/{tag}", payload.encode())
    connection.close()
    print("acknowledged")


async def data() -> None:
    """The newest ten data points of the first workspace."""
    async with aiohttp.ClientSession(base_url(os.environ)) as http:
        api = await _logged_in(http)
        workspace = (await _root(api)).rsplit("/", 1)[1]
        for point in (await api.call("GET", f"/v3/timeseries/{workspace}/data?size=10"))["result"]:
            print(point["timestamp_device"], point["device_id"], point["tag"], orjson.dumps(point["payload"]).decode())


async def _logged_in(http: aiohttp.ClientSession) -> Api:
    api = Api(http)
    await api.ready()
    await api.login(*first_login(os.environ))
    return api


async def _root(api: Api) -> str:
    return f"/v3/workspaces/{(await api.call('GET', '/v3/workspaces'))['workspaces'][0]['id']}"


_COMMANDS: dict[str, tuple[Callable[..., Coroutine[Any, Any, None]], int, int]] = {
    "device": (device, 1, 2),
    "send": (send, 2, 3),
    "data": (data, 0, 0),
}


def main() -> None:
    """Run one command."""
    name, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if name not in _COMMANDS:
        sys.exit(__doc__)
    command, least, most = _COMMANDS[name]
    if not least <= len(arguments) <= most:
        sys.exit(__doc__)
    asyncio.run(command(*arguments))


if __name__ == "__main__":
    main()
