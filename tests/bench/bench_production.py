"""The production profile's way of a message: a process a service, the log in Kafka, documents in SQLite or MongoDB.

    python -m tests.bench.bench_production --rate 5000 --seconds 60
    python -m tests.bench.bench_production --documents mongo --rate 500

Prints where the CPU of a message goes. Needs a container engine for Kafka and MongoDB; everything shares the cores.
"""

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

from deploy.simulator.receiver import receiving
from tests.bench import end_to_end
from tests.bench.__main__ import show
from tests.bench.processes import Meter, rss_mb
from tests.support.apart import Apart, running_apart
from tests.support.kafka import running_kafka
from tests.support.mongo import running_mongo
from tests.support.ports import free_ports
from tests.support.system import default_workspace
from tests.support.waiting import eventually

_DEVICES = 50
_STORED = "zdm_storage_points_stored_total"
_DELIVERED = "zdm_integrations_points_delivered_total"


@asynccontextmanager
async def documents_in(kind: str) -> AsyncIterator[dict[str, str]]:
    """The setting for it: a file, or a server of its own."""
    if kind == "sqlite":
        yield {}
    else:
        async with running_mongo() as mongo:
            yield {"ZDM_DOCUMENTS": mongo.address()}


async def measure(apart: Apart, kafka_pid: int, rate: float, seconds: float) -> None:
    """One run of load, with a webhook that takes everything."""
    async with apart.admin() as rest, receiving(lambda _batch: None, free_ports(1)[0]) as url:
        credentials = await end_to_end.devices(rest, _DEVICES)
        body = {"name": "bench", "type": "data_stream", "subtype": "webhook", "subtype_configuration": {"url": url}}
        await rest.call("POST", f"/v3/workspaces/{await default_workspace(rest)}/integrations", body)
        pids = {name: process.pid for name, process in apart.processes.items()} | {"kafka": kafka_pid}
        meters = {name: Meter(pid) for name, pid in pids.items()}
        report = await end_to_end.send(apart, credentials, rate, seconds)
        ended, count = monotonic(), int(report["acknowledged"])

        async def all_through() -> bool:
            stored, delivered = await apart.sample("storage", _STORED), await apart.sample("integrations", _DELIVERED)
            return min(stored, delivered) >= count

        await eventually(all_through, within_s=300, every_s=0.2)
        show(
            f"TLS QoS 1 to Kafka, stored and delivered: {rate:.0f}/s asked for {seconds:.0f} s",
            [
                ("messages acknowledged, stored and delivered", f"{count}"),
                ("rate", f"{count / report['seconds']:.0f} /s"),
                ("all stored and delivered after the last one", f"{monotonic() - ended:.1f} s"),
                ("PUBACK, 99th percentile", f"{report['ack_ms_p99']:.0f} ms"),
                *(
                    (f"CPU a message: {name}", f"{meter.used_s() / count * 1e6:.0f} us")
                    for name, meter in meters.items()
                ),
                ("CPU a message: load generator", f"{report['cpu_s'] / count * 1e6:.0f} us"),
                ("memory: services", f"{sum(rss_mb(pid) for name, pid in pids.items() if name in _OURS):.0f} MB"),
                ("memory: Kafka", f"{rss_mb(kafka_pid):.0f} MB"),
            ],
        )


_OURS = ("provisioning", "ingestion", "jobs", "storage", "integrations", "gateway")


async def run(kind: str, rate: float, seconds: float) -> None:
    """Start everything, and measure once."""
    with tempfile.TemporaryDirectory(prefix="zdm-bench-") as folder, running_kafka(Path(folder)) as kafka:
        async with (
            documents_in(kind) as documents,
            running_apart(Path(folder) / "home", settings={"ZDM_LOG": kafka.address, **documents}) as apart,
        ):
            await measure(apart, kafka.pid, rate, seconds)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", choices=["sqlite", "mongo"], default="sqlite")
    parser.add_argument("--rate", type=float, default=5000, help="messages a second")
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.documents, arguments.rate, arguments.seconds))


if __name__ == "__main__":
    main()
