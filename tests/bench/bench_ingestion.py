"""What taking in a message costs: ingestion as it is wired, a SQLite log.

At full speed from a spool written beforehand; and at a rate, one record at a time, as a broker writes them.

Prints CPU a message of the whole process (parsing, rules, records, the log's own thread) and the rate.
"""

import argparse
import asyncio
import cProfile
import pstats
import tempfile
from multiprocessing import Process
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import NamedTuple

import uvloop

from services.ingestion.domain.payloads import fault_of
from services.ingestion.settings import IngestionSettings
from services.ingestion.wiring import wire
from shared.messages.topics import DATA
from tests.support.spool import SpoolWriter, Written
from tests.support.workers import at_work, register, working_platform

PAYLOAD = b'{"temperature": 21.53, "humidity": 40.2, "pressure": 1013, "ok": true, "name": "north", "n": %d}'
_DEVICES = 50
_CHUNK = 1000


class Run(NamedTuple):
    """What a run took."""

    messages: int
    seconds: float
    cpu_us: float


def fill(folder: Path, messages: int) -> None:
    """A spool with that many data points of `_DEVICES` devices."""
    writer = SpoolWriter(folder)
    for start in range(0, messages, _CHUNK):
        writer.write(*(_point(number) for number in range(start, min(start + _CHUNK, messages))))


def _point(number: int) -> Written:
    device = _device(number % _DEVICES)
    return Written(
        device=device, detail=f"j/data/{device}/env", payload=PAYLOAD % number, time=1_700_000_000_000 + number
    )


def _device(number: int) -> str:
    return f"dev-{number:012d}"


def trickle(folder: Path, messages: int, rate: float) -> None:
    """Write them one by one at `rate` a second, in a process of its own."""
    writer, began = SpoolWriter(folder), perf_counter()
    for number in range(messages):
        sleep(max(0.0, began + number / rate - perf_counter()))
        writer.write(_point(number))


async def measure(home: Path, messages: int, rate: float = 0, profile: cProfile.Profile | None = None) -> Run:
    """Take in `messages`: of a spool that is there already, or one that is written to at `rate` a second."""
    writing = Process(target=trickle, args=(home / "spool", messages, rate))
    if rate:
        writing.start()
    else:
        fill(home / "spool", messages)
    async with working_platform(home) as platform:
        await register(platform, *map(_device, range(_DEVICES)))
        service = await wire(IngestionSettings.load({}), platform)
        # The way down has no broker here, and would try to find one.
        up = service.workers[0]
        began, cpu = perf_counter(), process_time()
        if profile is not None:
            profile.enable()
        async with at_work(service.__class__("ingestion", workers=[up], close=service.close)):
            while (await platform.log.end(DATA)).get(0, -1) < messages - 1:
                await asyncio.sleep(0.02)
        if profile is not None:
            profile.disable()
        if rate:
            writing.join()
        seconds, used = perf_counter() - began, process_time() - cpu
    return Run(messages, seconds, used / messages * 1e6)


def check_us(payload: bytes, turns: int = 100_000) -> float:
    """CPU of the payload rules alone."""
    began = process_time()
    for _ in range(turns):
        fault_of(payload)
    return (process_time() - began) / turns * 1e6


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=2000, help="messages a second of the second run, 10 s long")
    parser.add_argument("--profile", action="store_true", help="show where the time goes (slower)")
    arguments = parser.parse_args()
    profile = cProfile.Profile() if arguments.profile else None
    show("as fast as it goes", run(arguments.messages, profile=profile))
    show(f"at {arguments.rate:.0f}/s", run(int(arguments.rate * 10), arguments.rate))
    print(f"the payload rules alone: {check_us(PAYLOAD % 7):.2f} us")
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def run(messages: int, rate: float = 0, profile: cProfile.Profile | None = None) -> Run:
    """One run in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="zdm-bench-") as folder:
        return uvloop.run(measure(Path(folder), messages, rate, profile))


def show(title: str, found: Run) -> None:
    """A line."""
    rate = found.messages / found.seconds
    print(f"{title:<20} {found.messages} messages, {rate:.0f} /s, {found.cpu_us:.1f} us CPU a message", flush=True)


if __name__ == "__main__":
    main()
