"""A MongoDB of one's own, in a container."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from shared.documents.mongo import mongo_documents
from shared.errors import Unavailable
from tests.support.container import Contained
from tests.support.ports import free_ports
from tests.support.waiting import eventually

# Its helper that removes what a killed test run leaves would be one more image to fetch.
testcontainers_config.ryuk_disabled = True

IMAGE = "mongo:8.0"
USER, PASSWORD = "root", "p@ss/w:rd%41"
_START_S = 60


class Mongo(Contained):
    """One server; its address stays the same whatever happens to it."""

    def __init__(self, container: DockerContainer, port: int) -> None:
        super().__init__(container)
        self.port = port

    def address(self, database: str = "zdm", password: str = PASSWORD, **options: int) -> str:
        """For `ZDM_DOCUMENTS`."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        credentials = f"{USER}:{quote(password, safe='')}"
        return f"mongodb://{credentials}@127.0.0.1:{self.port}/{database}?authSource=admin{more}"

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
