"""What a record costs on its way into a log and out of it: one process that appends, then reads as a group.

CPU is this process's; a Kafka uses its own besides. Logs side by side:
`python -m tests.bench.bench_log sqlite:/tmp/log kafka://127.0.0.1:9092`.
"""

import argparse
import secrets
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

import uvloop

from shared.log import Log, Record, Topic
from shared.log.open import open_log

_DEVICES = 1000
_VALUE = (
    b'{"id":"01J9Z3N4-%08d","device_id":"dev-%012d","workspace_id":"wks-000000000001","fleet_id":"flt-000000000001",'
    b'"tag":"env","timestamp_device":1700000000000,"received_at":1700000000000,"payload":{"temperature":21.53,'
    b'"humidity":40.2,"pressure":1013,"ok":true,"name":"north","n":%d}}'
)


class Cost(NamedTuple):
    """Of a record."""

    cpu_us: float
    rate: float


class Costs(NamedTuple):
    """Of a record, each way; and how long a small append takes."""

    append: Cost
    fetch: Cost
    single_ms: float


def records(start: int, count: int) -> list[Record]:
    """As ingestion writes them: 300 bytes, many devices."""
    return [
        Record(f"dev-{number % _DEVICES:012d}", _VALUE % (number, number % _DEVICES, number))
        for number in range(start, start + count)
    ]


async def measure(address: str, total: int, batch: int) -> Costs:
    """Append `total` records, each batch once the one before is durable; then read and commit them."""
    topic = Topic(f"bench.{secrets.token_hex(6)}.v1", retention_s=3600)
    async with open_log(address) as log:
        await log.append(topic, records(0, batch))
        batches = [records(start, batch) for start in range(batch, batch + total, batch)]
        append = await _appended(log, topic, batches)
        fetch = await _fetched(log, topic, total + batch)
        began = perf_counter()
        for number in range(100):
            await log.append(topic, records(number, 1))
        single_ms = (perf_counter() - began) * 10
    return Costs(append, fetch, single_ms)


async def _appended(log: Log, topic: Topic, batches: list[list[Record]]) -> Cost:
    began, cpu = perf_counter(), process_time()
    for each in batches:
        await log.append(topic, each)
    return _cost(sum(map(len, batches)), began, cpu)


async def _fetched(log: Log, topic: Topic, total: int) -> Cost:
    async with log.subscribe(topic, "bench") as member:
        # Joining is no cost of a record.
        while not (batch := await member.fetch(2000)):
            pass
        first = left = total - len(batch)
        began, cpu = perf_counter(), process_time()
        while left > 0:
            await member.commit(batch)
            batch = await member.fetch(2000)
            left -= len(batch)
        await member.commit(batch)
        return _cost(first, began, cpu)


def _cost(count: int, began: float, cpu: float) -> Cost:
    return Cost((process_time() - cpu) / count * 1e6, count / (perf_counter() - began))


def rows(address: str, total: int = 100_000, batch: int = 1000) -> list[tuple[str, str]]:
    """The figures of the log at `address`."""
    costs = uvloop.run(measure(address, total, batch))
    return [
        (f"append, {batch} at a time: CPU a record", f"{costs.append.cpu_us:.1f} us"),
        ("append: rate", f"{costs.append.rate:.0f} /s"),
        ("fetch and commit: CPU a record", f"{costs.fetch.cpu_us:.1f} us"),
        ("fetch and commit: rate", f"{costs.fetch.rate:.0f} /s"),
        ("append of one record takes", f"{costs.single_ms:.1f} ms"),
    ]


def main() -> None:
    """Print the figures of each log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("addresses", nargs="*", help="of logs; without any, a SQLite log of its own")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zdm-bench-") as folder:
        for address in arguments.addresses or [f"sqlite:{Path(folder) / 'log'}"]:
            print(f"\n{address.partition('@')[2] or address}")
            for name, value in rows(address, arguments.records, arguments.batch):
                print(f"  {name:<44} {value:>16}", flush=True)


if __name__ == "__main__":
    main()
