"""`make bench`: the figures of docs/performance.md, measured here and now; the load generator shares the cores."""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.bench import bench_ingestion, bench_log, end_to_end, fleet_start, rest_reads
from tests.bench.processes import rss_mb
from tests.support.system import running_system

_DEVICES = 50
_HALF = 2


def show(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """A table of two columns."""
    print(f"\n{title}\n{'-' * len(title)}")
    for name, value in rows:
        print(f"  {name:<44} {value:>24}", flush=True)


def show_run(title: str, run: end_to_end.Run) -> None:
    """What a run of load gave."""
    show(
        title,
        [
            ("messages acknowledged, stored and queryable", f"{run.acknowledged}"),
            ("rate", f"{run.acknowledged / run.seconds:.0f} /s"),
            ("all stored after the last acknowledgement", f"{run.stored_after_s:.2f} s"),
            ("CPU a message: broker with plugin", f"{run.broker_us:.0f} us"),
            ("CPU a message: services", f"{run.services_us:.0f} us"),
            ("CPU a message: load generator", f"{run.load_us:.0f} us"),
            ("services to broker", f"{run.services_us / run.broker_us:.2f}"),
            ("PUBACK, 99th percentile", f"{run.ack_ms_p99:.0f} ms"),
            ("memory: services", f"{run.services_mb:.0f} MB"),
            ("memory: broker", f"{run.broker_mb:.0f} MB"),
        ],
    )


async def whole_system(rate: float, seconds: float) -> None:
    """Throughput, latency and reads on one installation."""
    with tempfile.TemporaryDirectory(prefix="zdm-bench-") as folder:
        async with running_system(Path(folder) / "home") as system, system.admin() as rest:
            show("At rest", [("memory: services", f"{rss_mb(system.pid('services')):.0f} MB")])
            credentials = await end_to_end.devices(rest, _DEVICES)
            show_run(
                f"TLS QoS 1 to stored, {rate:.0f}/s asked for {seconds:.0f} s",
                await end_to_end.throughput(system, credentials, rate, seconds),
            )
            median, p99, count = await end_to_end.webhook_latency(system, rest, credentials, rate / _HALF, seconds / 3)
            show(
                f"Device to webhook at {rate / _HALF:.0f}/s",
                [("points", f"{count}"), ("median", f"{median:.0f} ms"), ("99th percentile", f"{p99:.0f} ms")],
            )
            reads = await rest_reads.device_by_key(system, rest, seconds / 6)
            show(
                "GET device by API key", [("rate", f"{reads.rate:.0f} /s"), ("CPU a request", f"{reads.cpu_us:.0f} us")]
            )


async def start_with_many() -> None:
    """A big fleet at the start."""
    with tempfile.TemporaryDirectory(prefix="zdm-bench-") as folder:
        found = await fleet_start.measure(Path(folder) / "home", 100_000)
        show(
            "100,000 devices",
            [
                ("first full sync to the broker", f"{found.sync_s:.1f} s"),
                ("start until ready", f"{found.start_s:.1f} s"),
                ("memory: services", f"{found.services_mb:.0f} MB"),
                ("memory: broker with plugin", f"{found.broker_mb:.0f} MB"),
                ("memory: broker with an empty plugin", f"{found.empty_broker_mb:.0f} MB"),
            ],
        )


def taking_in(_rate: float, _seconds: float) -> None:
    """What ingestion alone costs."""
    run = bench_ingestion.run(100_000)
    rows = [("CPU a message", f"{run.cpu_us:.1f} us"), ("rate", f"{run.messages / run.seconds:.0f} /s")]
    show("Ingestion from a full spool, SQLite log", rows)


def log(_rate: float, _seconds: float) -> None:
    """What a record costs in the log that needs nothing else."""
    with tempfile.TemporaryDirectory(prefix="zdm-bench-") as folder:
        show("SQLite log", bench_log.rows(f"sqlite:{Path(folder) / 'log'}"))


PARTS: dict[str, Callable[[float, float], None]] = {
    "log": log,
    "ingestion": taking_in,
    "system": lambda rate, seconds: asyncio.run(whole_system(rate, seconds)),
    "fleet": lambda _rate, _seconds: asyncio.run(start_with_many()),
}


def main() -> None:
    """Run all, or what is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(PARTS), help="one part instead of all")
    parser.add_argument("--rate", type=float, default=2000, help="messages a second")
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            part(arguments.rate, arguments.seconds)


if __name__ == "__main__":
    main()
