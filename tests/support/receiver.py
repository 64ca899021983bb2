"""Servers that webhooks meet: a well-behaved one that does as it is told, and ones that speak byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from tests.support.ports import free_ports
from tests.support.waiting import eventually

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def batch(self) -> Any:
        """The body's JSON."""
        return orjson.loads(self.body)

    @property
    def ids(self) -> list[str]:
        """The ids of its points."""
        return [point["id"] for point in self.batch["result"]]

    @property
    def payloads(self) -> list[Any]:
        """The payloads of its points."""
        return [point["payload"] for point in self.batch["result"]]


Answers = Callable[[Received], web.Response | Awaitable[web.Response]]


def status(number: int, text: str = "", **headers: str) -> web.Response:
    """An answer."""
    return web.Response(
        status=number, text=text, headers={name.replace("_", "-"): one for name, one in headers.items()}
    )


class Receiver:
    """Notes all that comes and answers as `answers` says; may be off for a while."""

    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self.url = f"http://{HOST}:{self.port}/hook"
        self.came: list[Received] = []
        self.accepted: list[Received] = []
        self.answers: Answers = lambda _received: status(200, "{}")
        self._runner: web.AppRunner | None = None

    async def on(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=5 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self.port, reuse_address=True).start()

    async def off(self) -> None:
        """Close the door, open connections included."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(request.path, headers, await request.read())
        self.came.append(received)
        answer = self.answers(received)
        if not isinstance(answer, web.Response):
            answer = await answer
        if 200 <= answer.status < 300:
            self.accepted.append(received)
        return answer

    @property
    def payloads(self) -> list[Any]:
        """Of all points that were accepted, in order."""
        return [payload for received in self.accepted for payload in received.payloads]

    async def requests(self, count: int) -> list[Received]:
        """The first ones, once there are so many."""

        async def look() -> bool:
            return len(self.came) >= count

        await eventually(look, every_s=0.01)
        return self.came[:count]

    async def has(self, payloads: list[Any]) -> None:
        """Wait until just these were accepted, in this order."""

        async def look() -> bool:
            return len(self.payloads) >= len(payloads)

        await eventually(look, every_s=0.01)
        assert self.payloads == payloads


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """One that listens."""
    one = Receiver()
    await one.on()
    try:
        yield one
    finally:
        await one.off()


Speaks = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(speaks: Speaks, **options: Any) -> AsyncIterator[int]:
    """A port on which, once a request's head has come, `speaks` says whatever it likes; then it hangs up."""
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await speaks(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, HOST, 0, **options)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def saying(*pieces: bytes, pause_s: float = 0.0, endlessly: bool = False) -> Speaks:
    """Says these pieces, the last one again and again if asked to, with a pause after each."""

    async def speaks(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        while endlessly:
            writer.write(pieces[-1])
            await writer.drain()
            await asyncio.sleep(pause_s)

    return speaks
