"""A webhook receiver: takes batches at `POST /` and hands them on; started alone, it prints what arrives."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web

OnBatch = Callable[[dict[str, Any]], None]


@asynccontextmanager
async def receiving(on_batch: OnBatch, port: int, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Receive on `port` as long as the block lasts; its address."""

    async def take(request: web.Request) -> web.Response:
        on_batch(await request.json())
        return web.json_response({})

    app = web.Application(client_max_size=5 * 1024 * 1024)
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_address=True).start()
        yield f"http://{host}:{port}/"
    finally:
        await runner.cleanup()


def show(batch: dict[str, Any]) -> None:
    """Print what arrived."""
    for point in batch["result"]:
        time, payload = point["timestamp_device"][11:23], orjson.dumps(point["payload"]).decode()
        print(f"{time}  {point['device_name']:<10}  {point['tag']:<10}  {payload}", flush=True)


async def _print_until_stopped(port: int) -> None:
    async with receiving(show, port, "0.0.0.0"):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_print_until_stopped(int(sys.argv[1])))
