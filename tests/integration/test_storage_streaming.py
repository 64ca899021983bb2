"""Big answers and slow clients: storage as a process of its own, whose memory and files are looked at from outside."""

import asyncio
import json
import os
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import aiohttp
import pytest

from services.storage.adapters.store import PointsStore, open_store
from shared.clock import SystemClock
from shared.http.server import PRINCIPAL_HEADER
from shared.security.principal import PrincipalSigner
from shared.service import Platform
from tests.support.http import Server, running_platform
from tests.support.ports import free_ports
from tests.support.storage import KNOWN, PERSON, point
from tests.support.system import ROOT
from tests.support.waiting import eventually

COUNT = 175_000
PAYLOAD = '{"text":"' + "x" * 200 + '","n":%d}'
ALL = f"/v3/timeseries/wks-1/data?size={COUNT}"
MIB = 1024 * 1024
BIG_COUNT = 100
BIG = json.dumps("x" * MIB)
ALL_BIG = "/v3/timeseries/wks-2/data?size=1000"


class Process:
    """The running service, and the store that it shares with this process."""

    def __init__(self, pid: int, platform: Platform, store: PointsStore, server: Server) -> None:
        self.pid = pid
        self.platform = platform
        self.store = store
        self.server = server
        self._used = -1

    @property
    def headers(self) -> dict[str, str]:
        """As the gateway sends them."""
        secret = (self.platform.home / "secrets/principal.key").read_bytes()
        return {PRINCIPAL_HEADER: PrincipalSigner(secret, SystemClock()).sign(PERSON)}

    def memory(self, which: str = "VmRSS") -> int:
        """Bytes; `VmHWM`: the most there ever were since `forget_peak`."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(which)).split()[1]) * 1024

    def forget_peak(self) -> None:
        """The peak is what is used now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def open_files(self) -> int:
        """Sockets, too."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    async def is_idle(self) -> bool:
        """Whether it used no processor time since the last look."""
        ticks = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        used, self._used = self._used, sum(map(int, ticks))
        return used == self._used

    async def newest(self) -> int:
        """A small request: how many points came."""
        answer = await self.server.ask("GET", "/v3/timeseries/wks-1/data?size=50", headers=self.headers)
        assert answer.status == 200, answer.body
        return len(answer.json["result"])

    @asynccontextmanager
    async def client(self, path: str = ALL) -> AsyncIterator[asyncio.StreamReader]:
        """Asks for everything at `path`, and reads no more than whoever has the reader does."""
        one = socket.socket()
        # What the system itself takes in is no more than a moment's work for the server.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        one.connect(("127.0.0.1", self.server.port))
        reader, writer = await asyncio.open_connection(sock=one, limit=1024)
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        writer.write(f"GET {path} HTTP/1.1\r\nHost: storage\r\n{head}\r\n".encode())
        try:
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            yield reader
        finally:
            writer.transport.abort()


@pytest.fixture(scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    home, port = tmp_path_factory.mktemp("streaming"), free_ports(1)[0]
    async with running_platform(home, *KNOWN) as platform:
        store = await open_store(platform.documents, 36500)
        for start in range(0, COUNT, 5000):
            await store.add([point(number, PAYLOAD % number) for number in range(start, start + 5000)])
        for first in range(10**9, 10**9 + BIG_COUNT, 10):
            numbers = range(first, first + 10)
            await store.add([point(number, BIG, workspace_id="wks-2", device_id="dev-3") for number in numbers])
        environment = {**os.environ, "ZDM_HOME": str(home), "ZDM_INTERNAL_PORT": str(port), "ZDM_LOG_LEVEL": "error"}
        python = ROOT / ".venv/bin/python"
        child = await asyncio.create_subprocess_exec(python, "-m", "services.storage", cwd=ROOT, env=environment)
        try:
            async with serving_at(port) as server:
                one = Process(child.pid, platform, store, server)
                await eventually(lambda: is_ready(server), within_s=30)
                for _ in range(20):
                    assert await one.newest() == 50
                yield one
        finally:
            child.terminate()
            await child.wait()


@asynccontextmanager
async def serving_at(port: int) -> AsyncIterator[Server]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        yield Server(port, http)


async def is_ready(server: Server) -> bool:
    try:
        return (await server.ask("GET", "/readyz")).status == 200
    except OSError:
        return False


async def test_the_largest_answer_is_never_whole_in_memory_and_others_are_answered_meanwhile(there: Process) -> None:
    before, others, seconds = there.memory(), 0, 0.0
    there.forget_peak()
    loop = asyncio.get_running_loop()

    async def ask_on() -> None:
        nonlocal others, seconds
        while True:
            began = loop.time()
            await there.newest()
            others, seconds = others + 1, max(seconds, loop.time() - began)

    asking = asyncio.create_task(ask_on())
    body = bytearray()
    async with there.server.http.get(ALL, headers=there.headers) as answer:
        async for piece in answer.content.iter_any():
            body += piece
    asking.cancel()
    await asyncio.wait([asking])
    grown = there.memory("VmHWM") - before
    assert len(body) > 50 * MIB
    assert grown < 25 * MIB, f"{grown / MIB:.0f} MiB for an answer of {len(body) / MIB:.0f} MiB"
    assert others > 10
    assert seconds < 10
    assert [found["payload"]["n"] for found in json.loads(body)["result"]] == list(range(COUNT - 1, -1, -1))


async def test_points_as_large_as_they_may_be_are_never_many_in_memory(there: Process) -> None:
    before = there.memory()
    there.forget_peak()
    size = 0
    async with there.server.http.get(ALL_BIG, headers=there.headers) as answer:
        async for piece in answer.content.iter_any():
            size += len(piece)
    assert size > BIG_COUNT * MIB
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(there.client(ALL_BIG))
        await eventually(there.is_idle, every_s=0.2, within_s=60)
        grown = there.memory("VmHWM") - before
    assert grown < 100 * MIB, f"{grown / MIB:.0f} MiB"


async def test_clients_that_stop_reading_hold_up_neither_writers_nor_other_readers(there: Process) -> None:
    before, ahead = there.memory(), there.platform.home / "documents.sqlite-wal"
    with closing(sqlite3.connect(there.platform.home / "documents.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    there.forget_peak()
    async with AsyncExitStack() as stack:
        for _ in range(12):
            await stack.enter_async_context(there.client())
        await eventually(there.is_idle, every_s=0.2, within_s=60)
        for start in range(COUNT, COUNT + 25_000, 1000):
            await there.store.add([point(number, PAYLOAD % number) for number in range(start, start + 1000)])
        # As long as somebody reads an old state, the file in front of the database only grows.
        assert ahead.stat().st_size < 16 * MIB
        assert await there.newest() == 50
        assert there.memory("VmHWM") - before < 25 * MIB


async def test_a_client_that_goes_away_in_the_middle_leaves_nothing_behind(there: Process) -> None:
    await there.newest()
    files = there.open_files()
    for _ in range(10):
        async with there.client() as reader:
            await reader.readexactly(300_000)

    async def let_go() -> bool:
        return there.open_files() <= files

    await eventually(let_go)
    assert await there.newest() == 50
