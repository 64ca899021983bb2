"""A webhook receiver: takes batches at `POST /` and hands them on."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

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
