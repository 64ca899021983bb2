"""What the document store does: writes and reads by the port, and time series as storage keeps and asks them.

    python -m tests.bench.bench_documents sqlite:/tmp/bench.sqlite 'mongodb://…/bench?authSource=admin' --points 500000

CPU is that of this process; a store that is a server has its own besides. A store that has points already, of an
earlier run with as many, is asked and not filled again.
"""

import argparse
import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count
from time import perf_counter, process_time

import uvloop

from services.storage.adapters.store import PointsStore, open_store
from services.storage.domain.points import PointsQuery
from shared.documents import Between, Collection, Document, Documents, Index, Schema, Where
from shared.documents.open import open_documents
from shared.messages.devices import DataReceived

_BULK = 1000
_BULKS = 20
_AT_ONCE = 16
_OPERATIONS = 2000

_WORKSPACES = 5
_DEVICES = 200  # a workspace
_TAGS = ("env", "power", "gps", "state")
_EVERY_MS = 30_000  # a device sends
_T0 = 1_714_636_800_000  # 2024-05-02T08:00:00Z
_DAY_MS = 24 * 3600 * 1000
_FOR_EVER_DAYS = 36_500
_PAYLOAD = '{"temperature": 21.53, "humidity": 40.2, "pressure": 1013, "ok": true, "name": "north", "n": %d}'


@dataclass
class Run:
    """What some operations, or documents, took."""

    done: int
    seconds: float
    cpu_s: float

    def __str__(self) -> str:
        rate, each_ms = self.done / self.seconds, self.seconds / self.done * 1e3
        return f"{rate:>9.0f} /s  {each_ms:>9.3f} ms  {self.cpu_s / self.done * 1e6:>7.1f} us CPU each"


async def timed(work: Awaitable[int]) -> Run:
    """`work` returns how many it did."""
    began, cpu = perf_counter(), process_time()
    done = await work
    return Run(done, perf_counter() - began, process_time() - cpu)


# By the port


def _document(number: int) -> Document:
    return {
        "id": f"00112233445566ff-{number:016x}",
        "workspace_id": f"wks-{number % _WORKSPACES}",
        "device_id": f"dev-{number % 1000:012d}",
        "timestamp": _T0 + number,
        "payload": _PAYLOAD % number,
        "count": 0,
        "tree": {"list": [number, None, 1.5], "a.b": {"$c": "text"}},
    }


async def insert(collection: Collection) -> int:
    """Bulks, one after the other."""
    for start in range(0, _BULK * _BULKS, _BULK):
        await collection.insert_many([_document(number) for number in range(start, start + _BULK)])
    return _BULK * _BULKS


async def put(collection: Collection) -> int:
    """A bulk that replaces what is there."""
    await collection.put_many([_document(number) for number in range(_BULK)])
    return _BULK


async def at_once(operation: Callable[[int], Awaitable[object]]) -> int:
    """`_AT_ONCE` at a time."""
    numbers = count()

    async def work() -> None:
        while (number := next(numbers)) < _OPERATIONS:
            await operation(number)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return _OPERATIONS


async def stream(collection: Collection) -> int:
    """All of them."""
    return sum([1 async for _ in collection.find()])


async def by_the_port(documents: Documents) -> AsyncIterator[tuple[str, Run]]:
    """Each of the operations that are asked for most."""
    name = f"bench_{secrets.token_hex(4)}"
    collection = await documents.collection(Schema(name, (Index(("workspace_id", "timestamp")),)))
    ids = [_document(number)["id"] for number in range(_OPERATIONS)]
    yield f"insert, bulks of {_BULK}: a document", await timed(insert(collection))
    yield f"insert again, known, bulks of {_BULK}: a document", await timed(insert(collection))
    yield f"put over, a bulk of {_BULK}: a document", await timed(put(collection))
    yield f"insert one, {_AT_ONCE} at once", await timed(at_once(lambda n: collection.insert({"id": f"one-{n}"})))
    yield (
        f"find and change, {_AT_ONCE} at once",
        await timed(at_once(lambda n: collection.change(ids[n], {"seen": n}, add={"count": 1}, where={"count": 0}))),
    )
    yield f"get, {_AT_ONCE} at once", await timed(at_once(lambda n: collection.get(ids[n])))
    yield "stream all: a document", await timed(stream(collection))
    yield "delete all: a document", await timed(collection.delete_many({}))


# Time series


def points(total: int) -> Iterator[DataReceived]:
    """As devices of all workspaces send them, in turn."""
    devices = _WORKSPACES * _DEVICES
    for number in range(total):
        device, turn = number % devices, number // devices
        at = _T0 + turn * _EVERY_MS + device
        yield DataReceived(
            id=f"00112233445566ff-{number:016x}",
            workspace_id=f"wks-{device % _WORKSPACES}",
            fleet_id=f"flt-{device % _WORKSPACES}",
            device_id=f"dev-{device:012d}",
            device_name="filler",
            tag=_TAGS[turn % len(_TAGS)],
            timestamp_device=at,
            timestamp_in=at,
            payload=_PAYLOAD % number,
        )


async def load(store: PointsStore, total: int) -> int:
    """Keep `total` points, in batches as storage's consumer does; shows how far it is."""
    batch: list[DataReceived] = []
    new = 0
    for number, point in enumerate(points(total), 1):
        batch.append(point)
        if len(batch) == _BULK or number == total:
            new += await store.add(batch)
            batch = []
        if number % 100_000 == 0:
            print(f"  {number} points", flush=True)
    return new


async def asked(store: PointsStore, query: PointsQuery) -> int:
    """How many points it answers; 1 for none, as time was taken all the same."""
    return max(1, sum([1 async for _ in store.find(query)]))


async def of_series(documents: Documents, total: int) -> AsyncIterator[tuple[str, Run]]:
    """Storage's own questions, at the default sizes of pages unless said otherwise."""
    store, kept = await open_store(documents, _FOR_EVER_DAYS), await documents.collection(Schema("storage_points"))
    if await kept.get(f"00112233445566ff-{total - 1:016x}") is None:
        yield f"keep {total} points: a point", await timed(load(store, total))
    last = _T0 + total // (_WORKSPACES * _DEVICES) * _EVERY_MS
    questions = {
        "newest 100 of a workspace": PointsQuery("wks-3"),
        "newest 100 of a tag": PointsQuery("wks-3", tags=("gps",)),
        "newest 100 of a device": PointsQuery("wks-3", devices=("dev-000000000003",)),
        "a day of a device, 5,000 at most": PointsQuery(
            "wks-3", devices=("dev-000000000003",), start=last - _DAY_MS, end=last, size=5000
        ),
        "100 from the middle of a workspace": PointsQuery("wks-3", start=(_T0 + last) // 2, oldest_first=True),
        "page 100 of a workspace": PointsQuery("wks-3", page=100),
    }
    for title, query in questions.items():
        yield f"{title}: a point", await timed(asked(store, query))
    counts: dict[str, Where] = {
        "a workspace": {"workspace_id": "wks-3"},
        "an hour of a workspace": {"workspace_id": "wks-3", "timestamp_device": Between(last - 3_600_000, last)},
    }
    for title, where in counts.items():
        run = await timed(kept.count(where))
        yield f"count {title}: {run.done}, all at once", Run(1, run.seconds, run.cpu_s)


async def measure(address: str, total: int, *, only_series: bool) -> None:
    """Print a line for each figure."""
    print(f"\n{address.partition(':')[0]}")
    async with open_documents(address) as documents:
        if not only_series:
            await show(by_the_port(documents))
        if total:
            await show(of_series(documents, total))


async def show(runs: AsyncIterator[tuple[str, Run]]) -> None:
    """A line each."""
    async for title, run in runs:
        print(f"  {title:<48} {run}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS", help="as in ZDM_DOCUMENTS")
    parser.add_argument("--points", type=int, default=0, help="how many points of time series; 0: none")
    parser.add_argument("--only-series", action="store_true", help="nothing but the points")
    arguments = parser.parse_args()
    for one in arguments.addresses:
        uvloop.run(measure(one, arguments.points, only_series=arguments.only_series))
