"""Requests one after the other on a few kept connections, as fast as they are answered."""

import asyncio
import sys
from time import process_time
from typing import cast

import orjson
import uvloop


class Caller(asyncio.Protocol):
    """Sends the next request when the answer to the last is whole."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._buffer = b""
        self.done = asyncio.get_running_loop().create_future()
        self.answered = 0
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def _next(self) -> None:
        if asyncio.get_running_loop().time() >= self._until:
            self._transport.close()
            return
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) < length:
            return
        self._buffer = b""
        if head.startswith(b"HTTP/1.1 200"):
            self.answered += 1
        else:
            self.failed += 1
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def main() -> None:
    """Reads `host`, `port`, `path`, `headers`, `connections` and `seconds` as JSON; prints counts and CPU."""
    order = orjson.loads(sys.stdin.buffer.read())
    lines = [f"GET {order['path']} HTTP/1.1", f"Host: {order['host']}:{order['port']}"]
    lines += [f"{name}: {value}" for name, value in order["headers"].items()]
    request = "\r\n".join([*lines, "", ""]).encode()
    loop = asyncio.get_running_loop()
    cpu, began = process_time(), loop.time()
    callers = [Caller(request, began + order["seconds"]) for _ in range(order["connections"])]
    for caller in callers:
        await loop.create_connection(lambda caller=caller: caller, order["host"], order["port"])  # type: ignore[misc]
    await asyncio.gather(*(caller.done for caller in callers))
    report = {
        "answered": sum(caller.answered for caller in callers),
        "failed": sum(caller.failed for caller in callers),
        "seconds": loop.time() - began,
        "cpu_s": process_time() - cpu,
    }
    sys.stdout.buffer.write(orjson.dumps(report))


if __name__ == "__main__":
    uvloop.run(main())
