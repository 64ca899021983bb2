"""A MongoDB of one's own, in a container."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from shared.documents.mongo import mongo_documents
from shared.errors import Unavailable
from tests.support.ports import free_ports
from tests.support.waiting import eventually

# Its helper that removes what a killed test run leaves would be one more image to fetch.
testcontainers_config.ryuk_disabled = True

IMAGE = "mongo:8.0"
USER, PASSWORD = "root", "p@ss/w:rd%41"
_START_S = 60


class Mongo:
    """One server; its address stays the same whatever happens to it."""

    def __init__(self, container: DockerContainer, port: int) -> None:
        self._container = container
        self.port = port

    def address(self, database: str = "zdm", password: str = PASSWORD, **options: int) -> str:
        """For `ZDM_DOCUMENTS`."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        credentials = f"{USER}:{quote(password, safe='')}"
        return f"mongodb://{credentials}@127.0.0.1:{self.port}/{database}?authSource=admin{more}"

    async def pause(self) -> None:
        """As a host that hangs: connections stay open, and nobody answers."""
        await self._do("pause")

    async def unpause(self) -> None:
        """Goes on."""
        await self._do("unpause")

    async def stop(self) -> None:
        """An orderly end."""
        await self._do("stop")

    async def kill(self) -> None:
        """As `kill -9`."""
        await self._do("kill")

    async def start(self) -> None:
        """After `stop` or `kill`; it takes a while until it answers."""
        await self._do("start")

    async def answers(self) -> None:
        """Wait until it takes a write."""

        async def is_there() -> bool:
            async with mongo_documents(self.address()) as documents:
                try:
                    await documents.ping()
                except Unavailable:
                    return False
                return True

        await eventually(is_there, within_s=_START_S, every_s=0.2)

    async def _do(self, what: str) -> None:
        container: Any = self._container.get_wrapped_container()
        await asyncio.to_thread(getattr(container, what))


@asynccontextmanager
async def running_mongo() -> AsyncIterator[Mongo]:
    """Up when this yields."""
    [port] = free_ports(1)
    container = DockerContainer(IMAGE, name=f"zdm-test-mongo-{secrets.token_hex(4)}").with_bind_ports(27017, port)
    container.with_env("MONGO_INITDB_ROOT_USERNAME", USER).with_env("MONGO_INITDB_ROOT_PASSWORD", PASSWORD)
    try:
        await asyncio.to_thread(container.start)
        mongo = Mongo(container, port)
        await mongo.answers()
        yield mongo
    finally:
        await asyncio.to_thread(container.stop)
