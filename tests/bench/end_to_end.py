"""Whole-system figures: messages from TLS devices to storage and webhook, and what they cost."""

import asyncio
import sys
from dataclasses import dataclass
from time import monotonic
from typing import Any

import orjson

from deploy.simulator.receiver import receiving
from shared.clock import SystemClock, parse_rfc3339, to_ms
from tests.bench.processes import Meter, rss_mb
from tests.support.ports import free_ports
from tests.support.system import Rest, System, default_workspace, new_device
from tests.support.waiting import eventually

PAYLOAD = {"temp": 21.4, "hum": 44, "state": "running", "bottles": 120456}


@dataclass
class Run:
    """What one run of load gave."""

    acknowledged: int
    seconds: float
    stored_after_s: float
    broker_us: float
    services_us: float
    load_us: float
    services_mb: float
    broker_mb: float
    ack_ms_p99: float


async def send(system: System, credentials: list[dict[str, Any]], rate: float, seconds: float) -> dict[str, Any]:
    """One run of the load generator."""
    order = {"credentials": credentials, "rate": rate, "seconds": seconds, "payload": PAYLOAD}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(orjson.dumps(order))
    if process.returncode != 0:
        raise RuntimeError("the load generator failed")
    return dict(orjson.loads(output))


async def stored_points(system: System) -> float:
    """How many points storage has taken."""
    return (await system.metrics()).get("zdm_storage_points_stored_total", 0.0)


async def throughput(system: System, credentials: list[dict[str, Any]], rate: float, seconds: float) -> Run:
    """Send at `rate` and wait until all is stored."""
    before = await stored_points(system)
    broker, services = Meter(system.pid("broker")), Meter(system.pid("services"))
    report = await send(system, credentials, rate, seconds)
    ended = monotonic()

    async def all_stored() -> bool:
        return await stored_points(system) - before >= int(report["acknowledged"])

    await eventually(all_stored, within_s=120, every_s=0.1)
    count = report["acknowledged"]
    return Run(
        count,
        report["seconds"],
        monotonic() - ended,
        broker.used_s() / count * 1e6,
        services.used_s() / count * 1e6,
        report["cpu_s"] / count * 1e6,
        rss_mb(services.pid),
        rss_mb(broker.pid),
        report["ack_ms_p99"],
    )


async def webhook_latency(
    system: System, rest: Rest, credentials: list[dict[str, Any]], rate: float, seconds: float
) -> tuple[float, float, int]:
    """Median and 99th percentile in ms from arrival at the broker to arrival at the receiver, and how many points."""
    late: list[float] = []

    def take(batch: dict[str, Any]) -> None:
        now = SystemClock().ms()
        late.extend(now - to_ms(parse_rfc3339(point["timestamp_device"])) for point in batch["result"])

    workspace, port = await default_workspace(rest), free_ports(1)[0]
    async with receiving(take, port) as url:
        body = {"name": "bench", "type": "data_stream", "subtype": "webhook", "subtype_configuration": {"url": url}}
        made = await rest.call("POST", f"/v3/workspaces/{workspace}/integrations", body)
        report = await send(system, credentials, rate, seconds)

        async def all_there() -> bool:
            return len(late) >= int(report["acknowledged"])

        await eventually(all_there, within_s=60)
        await rest.call("DELETE", f"/v3/workspaces/{workspace}/integrations/{made['integration']['id']}")
    late.sort()
    return late[len(late) // 2], late[int(len(late) * 0.99)], len(late)


async def devices(rest: Rest, count: int) -> list[dict[str, Any]]:
    """Credentials of `count` new devices."""
    workspace = await default_workspace(rest)
    return [await new_device(rest, workspace, f"bench-{number}") for number in range(count)]
