"""REST reads: `GET device` by API key."""

import asyncio
import sys
from dataclasses import dataclass

import orjson

from tests.bench.processes import Meter
from tests.support.system import Rest, System, default_workspace

_CONNECTIONS = 8


@dataclass
class Reads:
    """Answers a second, and CPU of the services for each."""

    rate: float
    cpu_us: float


async def device_by_key(system: System, rest: Rest, seconds: float) -> Reads:
    """Read one device over and over, as a client with an API key does."""
    workspace = await default_workspace(rest)
    key = (await rest.call("POST", f"/v3/workspaces/{workspace}/apikeys", {"name": "bench"}))["key"]
    device = (await rest.call("GET", f"/v3/workspaces/{workspace}/devices"))["devices"][0]
    order = {
        "host": "127.0.0.1",
        "port": system.http_port,
        "path": f"/v3/workspaces/{workspace}/devices/{device['id']}",
        "headers": {"X-API-KEY": key},
        "connections": _CONNECTIONS,
        "seconds": seconds,
    }
    meter = Meter(system.pid("services"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.http_load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(orjson.dumps(order))
    report = orjson.loads(output)
    if report["failed"] or not report["answered"]:
        raise RuntimeError(f"the readings failed: {report}")
    return Reads(report["answered"] / report["seconds"], meter.used_s() / report["answered"] * 1e6)
